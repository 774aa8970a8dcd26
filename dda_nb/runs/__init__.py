from dda_nb import offers
from dda_nb.augmentation import opening, varying  # with these, all stages have declared their fields
from dda_nb.filtering import threshold
from dda_nb.distillation import learning

__getattr__, __dir__ = offers(__name__, 'dda_nb.synthesis')
