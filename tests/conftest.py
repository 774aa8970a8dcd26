"What the tests share: the commands as a user calls them, and one finished smoke run"

import functools, multiprocessing, os, shutil, subprocess, sys, time
from importlib.metadata import entry_points
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
    "The tests of a file go to one process, which has their fixtures; each notebook to one that is free"

    def _split_scope(self, nodeid):
        file = super()._split_scope(nodeid)
        if file.endswith(('test_bad_input.py', 'test_commands.py')):
            return 'smoke'  # the finished run that both look at
        return nodeid if file.endswith('test_notebooks.py') else file


def pytest_xdist_make_scheduler(config, log):
    "In the place of `--dist loadfile`"
    return Scheduling(config, log)


LIBRARIES = (
    'nbdev.test torch torch._dynamo torchvision matplotlib.pyplot sklearn.datasets pandas papermill'
    ' ipywidgets diffusers.models.unets.unet_2d diffusers.schedulers'
).split()


@functools.cache
def forks():
    """Processes that are forks of one which has imported the libraries, and nothing of this package

    A new process takes six to ten seconds for that.
    """
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(LIBRARIES)
    return context


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


def become(words, env, cwd, *outputs):
    "Turn this process into that of a command of the package"
    for number, file in enumerate(outputs, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout, sys.stderr = (os.fdopen(n, 'w', buffering=1) for n in (1, 2))
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = words
    (script,) = entry_points(group='console_scripts', name=words[0])
    sys.exit(script.load()())


def start(words, out, err, env=None, cwd='.'):
    """A fork that is a command of the package and writes to these files; see `forks`

    What libraries read of `env` while they are imported, such as the number of threads, it has from here."""
    words, env = [str(word) for word in words], dict(os.environ if env is None else env)
    process = forks().Process(target=become, args=(words, env, os.path.abspath(cwd), out, err))
    process.start()
    return process


def status_of(process, seconds):
    "Its exit status when it ends, or of being killed if that takes longer"
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode


@pytest.fixture(scope='session')
def command(tmp_path_factory):
    "Call one of the package's commands; the finished process with its output"

    def call(*words, **kw):
        said = tmp_path_factory.mktemp('said')
        files = said / 'out', said / 'err'
        status = status_of(start(words, *files, **kw), 300)
        return subprocess.CompletedProcess(words, status, *(f.read_text() for f in files))

    return call


@pytest.fixture(scope='session')
def smoke(tmp_path_factory):
    "The folder of a finished smoke run, made through papermill, and what the installed command printed"
    out = tmp_path_factory.mktemp('smoke') / 'run'
    env = os.environ | {'XDG_CACHE_HOME': str(out.parent / 'cache')}
    words = BIN / 'dda_run', 'smoke', '--out', out
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=300)
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
