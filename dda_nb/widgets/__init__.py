from dda_nb import offers

__getattr__, __dir__ = offers(__name__)
