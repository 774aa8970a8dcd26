"What the tests share: the commands as a user calls them, and one finished smoke run"

import os, shutil, subprocess, sys, time
from pathlib import Path

import pytest
from xdist.scheduler import LoadFileScheduling

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
CHROME = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
BROWSER = pytest.mark.skipif(CHROME is None and not os.environ.get('CI'), reason='no Chromium here')


LONGEST = (
    'test_site test_sweeps test_interruption test_commands test_priors test_methods test_cells'
    ' test_processes test_plugins test_lab test_own_teacher test_notebooks'
).split()


def pytest_collection_modifyitems(items):
    "Files that take longest begin first, so that no process is left alone with one at the end"
    items.sort(key=lambda i: LONGEST.index(i.path.stem) if i.path.stem in LONGEST else len(LONGEST))


class Scheduling(LoadFileScheduling):
    "The tests of a file go to one process; of the notebooks, each goes to the next one that is free"

    def _split_scope(self, nodeid):
        file = super()._split_scope(nodeid)
        return nodeid if file.endswith('test_notebooks.py') else file


def pytest_xdist_make_scheduler(config, log):
    "In the place of `--dist loadfile`"
    return Scheduling(config, log)


def until(check, seconds=90):
    began = time.monotonic()
    while not (found := check()):
        assert time.monotonic() - began < seconds, 'it never happened'
        time.sleep(0.1)
    return found


@pytest.fixture(scope='session', autouse=True)
def own_folders(tmp_path_factory):
    "Caches and runs of the tests lie apart from the user's, and nothing is downloaded"
    scratch = tmp_path_factory.mktemp('scratch')
    os.environ.update(
        XDG_CACHE_HOME=str(scratch / 'cache'),
        DDA_RUNS=str(scratch / 'runs'),
        HF_HUB_OFFLINE='1',
        OMP_NUM_THREADS='1',
    )


@pytest.fixture(scope='session')
def command():
    "Call one of the package's commands; the finished process with its output"

    def call(name, *args, **kw):
        return subprocess.run(
            [BIN / name, *map(str, args)], capture_output=True, text=True, timeout=300, **kw
        )

    return call


@pytest.fixture(scope='session')
def smoke(command, tmp_path_factory):
    "The folder of a finished smoke run, made through papermill, and what the command printed"
    out = tmp_path_factory.mktemp('smoke') / 'run'
    done = command(
        'dda_run', 'smoke', '--out', out, env=os.environ | {'XDG_CACHE_HOME': str(out.parent / 'cache')}
    )
    assert done.returncode == 0, done.stderr
    return out, done


@pytest.fixture
def refused(capsys, tmp_path):
    "Check that `dda_run` refuses these words with status 2 and one line, before it makes the run's folder"
    from dda_nb.runs import dda_run

    def check(words, line):
        assert dda_run([*words, '--out', str(tmp_path / 'run')]) == 2
        said = capsys.readouterr()
        assert not said.out and line in said.err and said.err.count('\n') == 1, said
        assert not (tmp_path / 'run').exists()

    return check


@pytest.fixture
def forget():
    "Called, what was declared since the test began is gone, as in another process; after the test, too"
    from dda_nb.core import FIELDS
    from dda_nb.runs import plugins
    from dda_nb.synthesis import METHODS, TERMS

    before = [(d, dict(d)) for d in (FIELDS, METHODS, TERMS, plugins._LOADED)]

    def as_before():
        for now, then in before:
            now.clear()
            now.update(then)

    yield as_before
    as_before()


@pytest.fixture(scope='module')
def browser():
    "Chromium without a window"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        browser = p.chromium.launch(
            executable_path=CHROME, args=['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage']
        )
        yield browser
        browser.close()
