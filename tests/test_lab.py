"The widgets in JupyterLab, in a real browser"

import json, os, re, secrets, socket, subprocess, time, urllib.error, urllib.request

import nbformat, pytest

from conftest import BIN, BROWSER, until

CELLS = [
    '''
import torch
from dda_nb.bank import new_bank
from dda_nb.data import digits
from dda_nb.widgets import explore, tune_filter, watch
images, labels = digits().train
classes = list(range(10))
bank = new_bank(images[:100], labels[:100], classes=classes)
kids = new_bank(images[:100].flip(-1).repeat(5, 1, 1, 1), labels[:100].repeat(5), start=1000, parent=bank.id.repeat(5), classes=classes)
kids.similarity = torch.linspace(0, 1, 500)''',
    '''
chooser = tune_filter(kids, bank, omega=.5)
chooser''',
    'pages = explore(bank + kids)\npages',
    "watch('run')",
    "print('all cells', 'have run')",
]


def notebook():
    return nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(c.strip()) for c in CELLS],
        metadata=dict(kernelspec=dict(name='python3', display_name='python3', language='python')),
    )


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "The address of a JupyterLab of its own, its token, and its folder"
    folder, token = tmp_path_factory.mktemp('lab'), secrets.token_hex(16)
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    (folder / 'notebooks' / 'run').mkdir(parents=True)
    nbformat.write(notebook(), folder / 'notebooks' / 'widgets.ipynb')
    own = {f'JUPYTER_{k}': str(folder / k.lower()) for k in ('CONFIG_DIR', 'DATA_DIR', 'RUNTIME_DIR')} | dict(
        IPYTHONDIR=str(folder / 'ipython'), JUPYTERLAB_SETTINGS_DIR=str(folder / 'settings')
    )
    with open(folder / 'said', 'w') as said:
        server = subprocess.Popen(
            [
                BIN / 'jupyter',
                'lab',
                '--no-browser',
                '--allow-root',
                '--ip=127.0.0.1',
                f'--port={port}',
                '--ServerApp.port_retries=0',
                f'--IdentityProvider.token={token}',
                f'--ServerApp.root_dir={folder}/notebooks',
                '--LabApp.news_url=',
                '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate',
            ],
            env=os.environ | own,
            stdout=said,
            stderr=said,
        )
    address, began = f'http://127.0.0.1:{port}', time.monotonic()
    while True:
        try:
            urllib.request.urlopen(f'{address}/api?token={token}', timeout=5)
            break
        except OSError:
            pass
        assert server.poll() is None and time.monotonic() - began < 60, (folder / 'said').read_text()
        time.sleep(0.2)
    yield address, token, folder / 'notebooks'
    server.terminate()
    server.wait(30)


def kernel(address, token):
    "Whether a kernel has started and the page is connected to it"
    sessions = json.load(urllib.request.urlopen(f'{address}/api/sessions?token={token}'))
    return any(k['execution_state'] == 'idle' and k['connections'] for s in sessions if (k := s['kernel']))


@BROWSER
def test_sliders_and_buttons_move_the_pictures(lab, browser):
    address, token, folder = lab
    with pytest.raises(urllib.error.HTTPError, match='403'):
        urllib.request.urlopen(f'{address}/api/contents')  # its token is asked for
    page = browser.new_page(viewport=dict(width=1300, height=2400))
    page.set_default_timeout(60_000)
    page.goto(f'{address}/lab/tree/widgets.ipynb?token={token}')
    page.wait_for_selector('.jp-Notebook .jp-CodeCell')
    until(
        lambda: kernel(address, token)
    )  # JupyterLab draws the notebook first, and asks which kernel it should take of one who runs cells before there is one
    page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').wait_for()
    page.get_by_role('menuitem', name='Run', exact=True).click()
    page.locator('[data-command="runmenu:run-all"]').click()
    page.wait_for_selector('text=all cells have run', timeout=120_000)
    output = page.locator('.jp-OutputArea-output', has=page.locator('.noUi-handle'))
    pictures = lambda: output.locator('img').evaluate_all(
        'all => Promise.all(all.map(i => fetch(i.src).then(r => r.blob()).then(b => b.text())))'
    )
    output.locator('img').nth(2).wait_for()
    before = pictures()
    assert len(before) == 3 and 'keeps 250 of 500, 50%' in output.inner_text()
    output.locator('.noUi-handle').focus()
    for _ in range(20):
        page.keyboard.press('ArrowRight')
    page.wait_for_function("!document.body.innerText.includes('keeps 250 of 500')")
    until(
        lambda: all(a != b for a, b in zip(before, pictures())), 30
    )  # chart and galleries follow the slider
    output.get_by_role('button', name='use this ω').click()
    page.wait_for_function("!document.body.innerText.includes('ω = 0.500 is chosen')")
    chosen = float(re.search(r'ω = (0\.\d+) is chosen', output.inner_text())[1])
    assert 0.5 < chosen <= 0.6
    pages = page.locator('.jp-OutputArea-output', has=page.locator('text=as made'))
    pages.locator('button').nth(3).click()
    page.wait_for_selector('text=image 3, class')
    with open(folder / 'run' / 'log.jsonl', 'a') as log:
        log.write('{"stage": "distil", "step": 7, "total": 10, "seconds": 1, "kl": 0.5}\n')
    page.wait_for_selector('text=distil 7/10')  # another process writes, and the box follows
    assert page.locator('.jp-RenderedText[data-mime-type="application/vnd.jupyter.stderr"]').count() == 0
    page.close()


def test_papermill_keeps_still_pictures(tmp_path):
    "Where no box can live, an executed notebook shows what it showed"
    import papermill

    (tmp_path / 'run').mkdir()
    nbformat.write(notebook(), tmp_path / 'in.ipynb')
    nb = papermill.execute_notebook(
        tmp_path / 'in.ipynb', tmp_path / 'out.ipynb', cwd=tmp_path, progress_bar=False
    )
    stills = [
        ''.join(o['data'].get('text/html', '')) for c in nb.cells[1:4] for o in c.outputs if 'data' in o
    ]
    assert (
        len(stills) == 3
        and stills[0].count('<img') == 3
        and stills[1].count('<img') == 3
        and 'run: nothing yet' in stills[2]
    )
