from importlib.metadata import version

__version__ = version('dda_nb')
