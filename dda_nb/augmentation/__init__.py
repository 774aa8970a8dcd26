from dda_nb import offers

__getattr__, __dir__ = offers(__name__, 'dda_nb.toys')  # which this folder held before
