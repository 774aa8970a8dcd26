"What this module held before lies in `dda_nb.runs`"
from dda_nb import offers

__getattr__, __dir__ = offers('dda_nb.runs', 'dda_nb.synthesis')
