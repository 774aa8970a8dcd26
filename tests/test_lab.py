"The widgets in JupyterLab, in a real browser, in the window of a small screen"

import json, re, subprocess, sys, time, urllib.error, urllib.request

import pytest
from lab import Lab, Notebook, write_notebook

from conftest import BIN, BROWSER, until

IMPORTS = '''
import time, torch
from types import SimpleNamespace
from dda_nb.bank import new_bank
from dda_nb.core import Loop
from dda_nb.data import digits
from dda_nb.models import new_classifier
from dda_nb.runs import Run, make_config
from dda_nb.widgets import explore, tune_filter, watch'''

BANKS = '''
images, labels = digits().train
names = 'aeroplane automobile bird cat deer dog frog horse ship lorry'.split()
bank = new_bank(images[:100], labels[:100], classes=names)
flipped = images[:100].flip(-1).repeat(5, 1, 1, 1)
kids = new_bank(flipped, labels[:100].repeat(5), start=1000, parent=bank.id.repeat(5), classes=names)
kids.similarity = torch.linspace(0, 1, 500)'''

CHOOSER = "chooser = tune_filter(kids, bank, omega='best:0.5')\nchooser"
PAGES = '''
like = SimpleNamespace(classes=names, shape=(1, 8, 8))
teacher = new_classifier('resnet8x0.5', like, ([0.5], [0.5]))
explore(bank + kids, teacher, teacher)'''
WATCH = "watch('run')"
BAR = 'for _ in Loop(40, "a loop"):\n    time.sleep(0.01)'
END = "print('all cells', 'have run')"
CELLS = IMPORTS, BANKS, CHOOSER, PAGES, WATCH, BAR, END

CUT = '''() => [...document.querySelectorAll('.jp-OutputArea-output *')]
    .filter(e => e.offsetParent && (e.children.length == 0 && e.innerText || e.matches('select, input')))
    .filter(e => e.scrollWidth > Math.max(e.clientWidth, e.offsetWidth) + 1
        || e.getBoundingClientRect().right > e.closest('.jp-OutputArea').getBoundingClientRect().right + 1)
    .map(e => e.innerText || e.value)'''  # texts that are cut, or reach beyond their cell


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    scratch = tmp_path_factory.mktemp('lab')
    (scratch / 'notebooks').mkdir()
    lab = Lab(scratch, scratch / 'notebooks')
    yield lab
    lab.stop()


@pytest.fixture(scope='module')
def widgets(lab, browser):
    "A notebook with all widgets, run"
    (lab.folder / 'run').mkdir()
    notebook = Notebook(lab, browser, write_notebook(lab.folder / 'widgets.ipynb', CELLS))
    notebook.run_all()
    yield notebook
    notebook.page.close()


def pictures(output):
    "The bytes of the pictures that it shows"
    read = 'fetch(i.src).then(r => r.blob()).then(b => b.text())'
    return output.locator('img').evaluate_all(f'all => Promise.all(all.map(i => {read}))')


@BROWSER
def test_its_token_is_asked_for(lab):
    with pytest.raises(urllib.error.HTTPError, match='403'):
        urllib.request.urlopen(f'{lab.address}/api/contents')


@BROWSER
def test_sliders_and_buttons_move_the_pictures(widgets):
    page, output = widgets.page, widgets.output('.noUi-handle')
    output.locator('img').nth(2).wait_for()
    before = pictures(output)
    assert len(before) == 3 and 'keeps 250 of 500, 50%' in output.inner_text()
    output.locator('.noUi-handle').focus()
    for _ in range(20):
        page.keyboard.press('ArrowRight')
    until(lambda: 'keeps 250 of 500' not in output.inner_text(), 30)
    until(lambda: all(a != b for a, b in zip(before, pictures(output))), 30)  # chart and galleries follow
    output.get_by_role('button', name='use this ω').click()
    until(lambda: 'ω = 0.501 is chosen' not in output.inner_text(), 30)
    chosen = re.search(r'ω = (0\.\d+) is chosen', output.inner_text())[1]
    assert 0.501 < float(chosen) <= 0.6
    assert output.locator('.widget-readout').inner_text() == chosen
    widgets.output('text=as made').locator('button').nth(3).click()
    widgets.wait('image 3, class cat')
    assert page.locator('.jp-RenderedText[data-mime-type="application/vnd.jupyter.stderr"]').count() == 0


@BROWSER
def test_the_readout_is_the_value_that_is_used(widgets):
    "Also where ω was no multiple of the slider's step, and where more decimals are typed"
    output = widgets.output('.noUi-handle')
    readout = output.locator('.widget-readout')
    readout.fill('0.73861')
    readout.press('Enter')
    until(lambda: readout.inner_text() == '0.739', 30)
    until(lambda: 'keeps 131 of 500, 26%' in output.inner_text(), 30)
    output.get_by_role('button', name='use this ω').click()
    until(lambda: 'ω = 0.739 is chosen' in output.inner_text(), 30)


@BROWSER
def test_texts_are_whole_in_a_small_window(widgets):
    shown = widgets.text()
    assert re.search(r'keeps \d+ of 500, \d+%', shown) and 'of 25, 600 images' in shown
    assert re.search(r'student\n(\d+\.\d% \w+\n?){5}', shown)
    assert widgets.page.evaluate(CUT) == []


@BROWSER
def test_watch_shows_what_another_process_writes(widgets):
    ages = []
    for step in (7, 8, 9):
        with open(widgets.lab.folder / 'run' / 'log.jsonl', 'a') as log:
            log.write(json.dumps(dict(stage='distil', step=step, total=10, seconds=1, kl=0.5)) + '\n')
        began = time.monotonic()
        widgets.page.wait_for_selector(f'.dda-live :text("distil {step}/10")')
        ages.append(time.monotonic() - began)
    assert sorted(ages)[1] < 2, ages


@BROWSER
def test_after_a_restart_stills_stand_where_boxes_lived(widgets):
    "In the page, when the kernel was restarted; and in the saved notebook, when it is opened again"
    wake = 'run this cell again for the live one'
    assert wake not in widgets.text() and widgets.page.locator('.dda-still:visible').count() == 0
    widgets.save()
    widgets.restart()
    for _ in range(2):
        until(lambda: widgets.text().count(wake) == 3, 30)
        assert widgets.page.locator('.dda-still:visible').count() == 3
        assert widgets.page.locator('.dda-still img:visible').count() >= 6
        assert 'Error displaying widget' not in widgets.text() and 'distil 9/10' in widgets.text()
        assert widgets.page.locator('.dda-live:visible').count() == 0
        widgets.open()
    widgets.run_all()
    assert wake not in widgets.text() and widgets.page.locator('.dda-live:visible').count() == 3


@BROWSER
def test_an_export_shows_bars_and_boxes_as_they_were(widgets, browser):
    widgets.save()
    convert = [BIN / 'jupyter', 'nbconvert', '--to', 'html', widgets.file]
    done = subprocess.run(convert, env=widgets.lab.env(), capture_output=True, text=True)
    assert done.returncode == 0 and 'not able to be represented' not in done.stderr, done.stderr
    page = browser.new_page()
    page.goto(widgets.file.with_suffix('.html').as_uri())
    assert page.locator('.dda-still:visible').count() == 3
    text = page.locator('body').inner_text()
    assert '40/40' in text and ' 0/40' not in text
    page.close()


FAILS = '''
for step in Loop(1000, 'distil', folder=mine.watcher.view.folder):
    time.sleep(0.1)
    if step == 20:
        raise ValueError('no more')'''

DIES = '''
import filelock, json, os, signal, sys, time
with filelock.FileLock('theirs/.lock'):
    for step in range(20):
        line = dict(stage='distil', step=step, total=100, seconds=step, kl=1 / (step + 1))
        with open('theirs/log.jsonl', 'a') as log:
            log.write(json.dumps(line) + chr(10))
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGKILL)'''


@BROWSER
def test_watch_ends_when_a_run_fails_or_its_process_dies(lab, browser):
    (lab.folder / 'theirs').mkdir()
    (lab.folder / 'dies.py').write_text(DIES)
    cells = [
        IMPORTS,
        "run = Run(make_config('smoke'), 'mine')\nmine = watch(run)\nmine",
        "theirs = watch('theirs')\ntheirs.watcher.patience = 3\ntheirs",
        FAILS,
        END,
        'import threading\nfor box in (mine, theirs):\n    box.watcher.thread.join(30)',
        "print('alive:', [box.watcher.thread.is_alive() for box in (mine, theirs)])",
    ]
    notebook = Notebook(lab, browser, write_notebook(lab.folder / 'ends.ipynb', cells))
    process = subprocess.Popen([sys.executable, 'dies.py'], cwd=lab.folder)
    notebook.run_all()
    assert process.wait(30) == -9
    notebook.wait('stopped by ValueError: no more; when the run goes on, run this cell again')
    notebook.wait('no process is at work here; when the run goes on, run this cell again')
    notebook.wait('alive: [False, False]')
    notebook.page.close()


def test_papermill_keeps_still_pictures(tmp_path):
    "Where no box can live, an executed notebook shows what it showed"
    import papermill

    (tmp_path / 'run').mkdir()
    write_notebook(tmp_path / 'in.ipynb', CELLS)
    files = tmp_path / 'in.ipynb', tmp_path / 'out.ipynb'
    nb = papermill.execute_notebook(*files, cwd=tmp_path, progress_bar=False)
    chooser, pages, watching = (
        ''.join(o['data'].get('text/html', '') for o in c.outputs) for c in nb.cells[2:5]
    )
    assert chooser.count('<img') == 3 and pages.count('<img') == 3
    assert 'run: nothing yet' in watching
