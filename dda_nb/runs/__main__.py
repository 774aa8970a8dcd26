"`python -m dda_nb.runs` is `dda_run`"
import sys

from dda_nb.runs.commands import dda_run

if __name__ == '__main__':
    sys.exit(dda_run())
