from dda_nb import offers
from dda_nb.data import loading  # with this and what follows, all stages have declared their fields
from dda_nb.models import training
from dda_nb.augmentation import opening, varying
from dda_nb.filtering import threshold
from dda_nb.distillation import learning
from dda_nb.evaluation import held_out

__getattr__, __dir__ = offers(__name__, 'dda_nb.synthesis')
