"Each notebook runs from top to bottom, in a process of its own that has the large libraries from the start"

import hashlib, io, multiprocessing, os, sys
from concurrent.futures import ProcessPoolExecutor

import pytest, torch
from nbdev.config import get_config
from nbdev.test import test_nb as run_notebook
from notebooks import read_notebooks

from conftest import ROOT, forks


def train_once(folder):
    "Teachers that many chapters train alike are trained for the first of them"
    from dda_nb.models import training

    train = training.train_teacher

    def remembered(data, *args, **kw):
        asked = repr((data.name, data.mark, args, sorted(kw.items())))
        file = folder / f'{hashlib.sha256(asked.encode()).hexdigest()}.pt'
        if not file.exists():
            torch.save(train(data, *args, **kw), part := file.with_suffix(f'.{os.getpid()}'))
            part.rename(file)
        return torch.load(file, weights_only=False)

    training.train_teacher = remembered


def run(path, skip_flags, teachers):
    "Run a notebook without the cells that have one of these flags; what it said if it failed"
    multiprocessing.set_start_method('fork', force=True)  # as in a kernel
    train_once(teachers)
    sys.__stderr__ = io.StringIO()  # nbdev writes the traceback there
    passed, _ = run_notebook(path, skip_flags=skip_flags, basepath=ROOT)
    return '' if passed else sys.__stderr__.getvalue()


SLOW = (  # `make slow` runs them
    'tutorials/reading_a_run.ipynb tutorials/sweep.ipynb tutorials/stable_diffusion.ipynb'
    ' tutorials/new_method.ipynb tutorials/own_teacher.ipynb experiments/ablate.ipynb'
    ' experiments/compare.ipynb experiments/speed.ipynb experiments/tune.ipynb'
    ' sweeps/commands.ipynb sweeps/spreading.ipynb'
).split()


def notebooks():
    "Each without the cells that are flagged slow; those that have such cells once more, with them"
    flags = get_config(ROOT).tst_flags.split()
    for n in read_notebooks():
        name = str(n.path.relative_to(ROOT / 'nbs'))
        yield pytest.param(n.path, flags, id=name, marks=pytest.mark.slow if name in SLOW else ())
        if '#| slow' in n.path.read_text():
            more = [f for f in flags if f != 'slow']
            yield pytest.param(n.path, more, id=f'{name}-slow', marks=pytest.mark.slow)


@pytest.mark.parametrize('path, flags', notebooks())
def test_notebook(path, flags, tmp_path_factory):
    teachers = tmp_path_factory.getbasetemp().parent / 'teachers'  # of all processes of the tests
    teachers.mkdir(exist_ok=True)
    with ProcessPoolExecutor(1, forks()) as executor:
        said = executor.submit(run, path, flags, teachers).result()
    assert not said, said
