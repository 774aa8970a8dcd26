from dda_nb import offers
from dda_nb.bank import files, pictures  # with these a bank can be saved and draws itself

__getattr__, __dir__ = offers(__name__)
