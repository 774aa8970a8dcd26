"Each notebook runs from top to bottom, in a process of its own that has the large libraries from the start"

import io, multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor

import pytest
from nbdev.config import get_config
from nbdev.test import test_nb as run_notebook
from notebooks import read_notebooks

from conftest import ROOT

LIBRARIES = ['nbdev.test', 'torch', 'torchvision', 'matplotlib.pyplot', 'sklearn.datasets']


def run(path, skip_flags):
    "Run a notebook without the cells that have one of these flags; what it said if it failed"
    multiprocessing.set_start_method('fork', force=True)  # as in a kernel
    sys.__stderr__ = io.StringIO()  # nbdev writes the traceback there
    passed, _ = run_notebook(path, skip_flags=skip_flags, basepath=ROOT)
    return '' if passed else sys.__stderr__.getvalue()


@pytest.fixture(scope='module')
def processes():
    "Processes are forks of one that has imported the libraries, and nothing of this package"
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(LIBRARIES)
    return context


@pytest.mark.parametrize('notebook', read_notebooks(), ids=lambda n: str(n.path.relative_to(ROOT / 'nbs')))
def test_notebook(notebook, processes):
    with ProcessPoolExecutor(1, processes) as executor:
        said = executor.submit(run, notebook.path, get_config(ROOT).tst_flags.split()).result()
    assert not said, said
