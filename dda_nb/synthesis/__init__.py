from dda_nb import offers
from dda_nb.synthesis import losses, contrast, student_aware, parametrisations  # in this order their terms are added up
from dda_nb.synthesis import recipes  # the rows of METHODS

__getattr__, __dir__ = offers(__name__, 'dda_nb.models')  # which this folder held before
