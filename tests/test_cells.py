"The experiment, cell by cell in one kernel, as in JupyterLab: out of order, interrupted, held by another"

import json, os, time

import nbformat, pytest
from jupyter_client.manager import start_new_kernel
from test_students import mark

from conftest import ROOT, until
from dda_nb.runs import dda_run, make_config, run_all

SMALL = dict(
    preset='smoke', teacher_epochs=1, bank_images=20, synth_steps=8, prior_steps=8, distill_steps=8, copies=2
)


class Cells:
    "A kernel in the notebook's folder, and the notebook's cells by their headings"

    def __init__(self, folder):
        env = os.environ | dict(PYTHONPATH=str(ROOT), TQDM_DISABLE='1', DDA_RUNS=str(folder))
        self.manager, self.client = start_new_kernel(kernel_name='python3', env=env, cwd=str(folder))
        nb = nbformat.read(ROOT / 'nbs' / 'experiments' / 'dda.ipynb', 4)
        self.sources, heading = {}, ''
        for cell in nb.cells:
            if cell.cell_type == 'markdown':
                heading = next((line for line in cell.source.splitlines() if line.startswith('#')), heading)
            else:
                self.sources.setdefault(heading.lstrip('# '), []).append(cell.source)

    def run(self, source, wait=True):
        "Run code; the messages that came of it"
        said = []
        if not wait:
            return self.client.execute(source)
        reply = self.client.execute_interactive(source, output_hook=said.append, timeout=240)
        return reply['content'], [m['content'] for m in said]

    def section(self, heading):
        for source in self.sources[heading]:
            reply, _ = self.run(source)
            assert reply['status'] == 'ok', reply

    def parameters(self, **values):
        "The cell of parameters, then these in its place, then the cell that makes the run"
        cell, config = self.sources['Parameters']
        lines = '\n'.join(f'{k} = {v!r}' for k, v in values.items())
        reply, _ = self.run(f'{cell}\n{lines}')
        assert reply['status'] == 'ok', reply
        return self.run(config)[0]

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def cells(tmp_path):
    cells = Cells(tmp_path)
    cells.section('The DDA experiment')  # imports
    yield cells
    cells.close()


def test_cells_out_of_order_never_save_anothers_result(cells, tmp_path):
    "All with seed 5, then parameters of seed 6 and the last cells alone: the row is the command's of seed 6"
    assert cells.parameters(**SMALL, seed=5, out='five')['status'] == 'ok'
    for heading in ('The teacher', 'Synthesis', 'Variations', 'The filter', 'Distillation', 'The result'):
        cells.section(heading)
    assert cells.parameters(**SMALL, seed=6, out='six')['status'] == 'ok'
    cells.section('The result')
    run_all(make_config(**SMALL, seed=6), tmp_path / 'fresh')
    assert json.loads((tmp_path / 'six' / 'results.json').read_text())['seed'] == 6
    assert mark(tmp_path / 'six') == mark(tmp_path / 'fresh') != mark(tmp_path / 'five')


def test_an_interrupt_ends_in_a_line_and_is_gone_on_with(cells, tmp_path):
    "Inside a batch of synthesis: a line, and what was done is kept"
    long = SMALL | dict(synth_steps=400, copies=0)
    assert cells.parameters(**long, out='run')['status'] == 'ok'
    cells.section('The teacher')
    asked = cells.run(cells.sources['Synthesis'][0], wait=False)
    state = tmp_path / 'run' / 'bank.ckpt'
    until(state.exists)
    time.sleep(0.5)
    cells.manager.interrupt_kernel()
    error = None
    while error is None:
        message = cells.client.get_iopub_msg(timeout=60)
        if message['msg_type'] == 'error' and message['parent_header']['msg_id'] == asked:
            error = message['content']
    assert error['ename'] == 'Stopped' and len(error['traceback']) == 1, error
    assert 'synthesize: stopped at step' in error['traceback'][0] and 'of 400' in error['traceback'][0]
    assert state.exists()
    time.sleep(1)  # a kernel drops what is asked of it right after an error
    cells.section('Synthesis')
    run_all(make_config(**long), tmp_path / 'fresh')
    whole, again = ((tmp_path / k / 'bank.safetensors') for k in ('fresh', 'run'))
    from dda_nb.bank import load_bank

    assert (load_bank(whole).images == load_bank(again).images).all() and not state.exists()


def test_an_idle_kernel_is_said_to_hold_its_folder(cells, tmp_path, capsys):
    assert cells.parameters(**SMALL, out='run')['status'] == 'ok'
    words = [f'{k}={v}' for k, v in SMALL.items() if k != 'preset']
    assert dda_run(['smoke', *words, '--no-notebook', '--out', str(tmp_path / 'run')]) == 2
    assert "a notebook's kernel" in capsys.readouterr().err


def test_a_missing_preset_ends_in_a_line(cells):
    reply = cells.parameters(preset='smok')
    assert (reply['ename'], len(reply['traceback'])) == ('BadInput', 1) and 'did you mean smoke' in reply[
        'evalue'
    ]
