"Each notebook runs from top to bottom, in a process of its own that has the large libraries from the start"

import hashlib, importlib, io, multiprocessing, os, pickle, sys
from concurrent.futures import ProcessPoolExecutor

import pytest, torch
from nbdev.config import get_config
from nbdev.test import test_nb as run_notebook
from notebooks import read_notebooks

from conftest import ROOT, forks


PREPARED = {  # what many chapters prepare alike, by module
    'dda_nb.models.training': 'train_teacher',
    'dda_nb.synthesis.inversion': 'invert',
    'dda_nb.synthesis.filling': 'synthesize',
    'dda_nb.augmentation.pixel': 'train_prior',
    'dda_nb.augmentation.varying': 'augment',
}


def mark_of(asked):
    "A checksum of arguments and methods; none where they hold what a chapter itself defined, such as a term"
    from dda_nb.synthesis import METHODS

    try:
        torch.save((asked, METHODS), file := io.BytesIO())
    except (pickle.PicklingError, AttributeError, TypeError):
        return ''
    return '' if b'__main__' in file.getvalue() else hashlib.sha256(file.getvalue()).hexdigest()


def prepare_once(folder):
    "A teacher, a bank, a prior, variations are made for the first chapter that asks for just these"

    def remembered(make):
        def look_or_make(*args, **kw):
            if not (mark := mark_of((args, kw))):
                return make(*args, **kw)
            file = folder / f'{make.__name__}-{mark}.pt'
            if not file.exists():
                torch.save(make(*args, **kw), part := file.with_suffix(f'.{os.getpid()}'))
                part.rename(file)
            return torch.load(file, weights_only=False)

        return look_or_make

    for name, function in PREPARED.items():
        module = importlib.import_module(name)
        setattr(module, function, remembered(getattr(module, function)))


def run(path, skip_flags, prepared):
    "Run a notebook without the cells that have one of these flags; what it said if it failed"
    multiprocessing.set_start_method('fork', force=True)  # as in a kernel
    prepare_once(prepared)
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


@pytest.mark.parametrize('path, flags', [*notebooks()])
def test_notebook(path, flags, tmp_path_factory):
    base = tmp_path_factory.getbasetemp()
    prepared = (base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base) / 'prepared'  # of this call
    prepared.mkdir(exist_ok=True)
    with ProcessPoolExecutor(1, forks()) as executor:
        said = executor.submit(run, path, flags, prepared).result(timeout=600)
    assert not said, said
