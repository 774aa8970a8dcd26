"The experiment in JupyterLab, cell by cell: out of order, interrupted, held by another kernel"

import json, os, shutil

import nbformat, pytest
from lab import Lab, Notebook
from test_students import mark

from conftest import BROWSER, ROOT, until
from dda_nb.bank import load_bank
from dda_nb.runs import make_config, run_all

SMALL = dict(
    preset='smoke', teacher_epochs=1, bank_images=20, synth_steps=8, prior_steps=8, distill_steps=8, copies=2
)
STAGES = 'The teacher', 'Synthesis', 'Variations', 'The filter', 'Distillation', 'The result'
BROKEN = """() => [...document.querySelectorAll('.jp-OutputArea-output td, .jp-OutputArea-output th')]
    .filter(e => e.offsetHeight > 1.7 * parseFloat(getComputedStyle(e).lineHeight)).map(e => e.innerText)"""


class Experiment(Notebook):
    "The notebook of the experiment, whose cells are run one at a time"

    def __init__(self, lab, browser, name):
        file = lab.folder / 'nbs' / 'experiments' / f'{name}.ipynb'
        shutil.copyfile(ROOT / 'nbs' / 'experiments' / 'dda.ipynb', file)
        self.sections, heading = {}, ''
        for i, cell in enumerate(nbformat.read(file, 4).cells):
            if cell.cell_type == 'code':
                self.sections.setdefault(heading, []).append(i)
            elif cell.source.startswith('#'):
                heading = cell.source.splitlines()[0].lstrip('# ')
        super().__init__(lab, browser, file)
        self.run(*self.sections['The DDA experiment'])  # imports

    def cell(self, i):
        return self.page.locator('.jp-Notebook .jp-Cell').nth(i)

    def number(self, i):
        return self.cell(i).locator('.jp-InputPrompt').inner_text()

    def ask(self, i, more=''):
        "Click into a cell, type more lines at its end, and run it"
        before = self.number(i)
        self.cell(i).locator('.cm-content').click()
        self.page.keyboard.press('Control+End')
        self.page.keyboard.insert_text(more)
        self.page.keyboard.press('Control+Enter')
        return before

    def run(self, *cells, more=''):
        "Run cells one after the other; the last one's error, if it had one"
        for i in cells:
            before = self.ask(i, more)
            until(lambda: self.number(i) not in (before, '[*]:'), 240)
        errors = self.cell(cells[-1]).locator('[data-mime-type$="jupyter.stderr"]')
        return errors.inner_text().strip() if errors.count() else ''

    def parameters(self, **values):
        "Write values below the parameters, then run that cell and the one that makes the run"
        cell, config = self.sections['Parameters']
        self.run(cell, more=''.join(f'\n{k} = {v!r}' for k, v in values.items()))
        return self.run(config)

    def section(self, heading):
        return self.run(*self.sections[heading])


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "JupyterLab in a checkout, which has no runs yet"
    scratch = tmp_path_factory.mktemp('lab')
    checkout = scratch / 'checkout'
    (checkout / 'nbs' / 'experiments').mkdir(parents=True)
    shutil.copytree(ROOT / 'dda_nb', checkout / 'dda_nb')
    shutil.copy(ROOT / 'settings.ini', checkout)
    env = {k: v for k, v in os.environ.items() if k != 'DDA_RUNS'}
    lab = Lab(scratch, checkout, env | dict(PYTHONPATH=str(checkout)))
    yield lab
    lab.stop()


@pytest.fixture(scope='module')
def experiment(lab, browser):
    "One page for all: each test sets what it needs"
    experiment = Experiment(lab, browser, 'dda')
    yield experiment
    experiment.page.close()


@pytest.fixture
def runs(lab):
    return lab.folder / 'runs'  # beside the README, though the kernel starts elsewhere


@BROWSER
def test_cells_out_of_order_never_save_anothers_result(experiment, runs, tmp_path):
    "All with seed 5, then parameters of seed 6 and the last cells alone: the row is the command's of seed 6"
    assert experiment.parameters(**SMALL, seed=5) == ''
    for heading in STAGES:
        assert experiment.section(heading) == ''
    (five,) = runs.iterdir()
    assert experiment.parameters(seed=6) == '' and experiment.section('The result') == ''
    (six,) = set(runs.iterdir()) - {five}
    run_all(make_config(**SMALL, seed=6), tmp_path)
    assert json.loads((six / 'results.json').read_text())['seed'] == 6
    assert mark(six) == mark(tmp_path) != mark(five)
    assert experiment.page.evaluate(BROKEN) == [] and '[@' not in experiment.page.inner_text('.jp-Notebook')
    outputs = experiment.page.locator('.jp-Cell-outputArea').all_inner_texts()
    assert max(text.count('\n') for text in outputs) < 40  # no dict of a hundred lines
    assert any('40/40' in text for text in outputs)  # images, of which there are two variations each


@BROWSER
def test_stages_are_in_the_contents(experiment):
    experiment.menu('View', 'toc:show-panel')
    contents = experiment.page.locator('.jp-TableOfContents-content')
    until(lambda: all(stage in contents.inner_text() for stage in STAGES), 20)


@BROWSER
def test_an_interrupt_ends_in_a_line_and_is_gone_on_with(experiment, runs, tmp_path):
    "Inside a batch of synthesis: a line, and what was done is kept"
    long = SMALL | dict(synth_steps=400, copies=0, seed=0)
    assert experiment.parameters(**long, out=str(runs / 'stopped')) == ''
    experiment.section('The teacher')
    (synthesis,) = experiment.sections['Synthesis']
    before, state = experiment.ask(synthesis), runs / 'stopped' / 'bank.ckpt'
    until(state.exists)
    for key in ('Escape', 'i', 'i'):
        experiment.page.keyboard.press(key)
    until(lambda: experiment.number(synthesis) not in (before, '[*]:'))
    said = experiment.cell(synthesis).locator('[data-mime-type$="jupyter.stderr"]').inner_text().strip()
    assert said.count('\n') == 0 and 'synthesize: stopped at step' in said and 'of 400' in said
    assert state.exists()
    assert experiment.section('Synthesis') == ''
    run_all(make_config(**long), tmp_path)
    whole, again = (load_bank(folder / 'bank.safetensors') for folder in (tmp_path, runs / 'stopped'))
    assert (whole.images == again.images).all() and not state.exists()


@BROWSER
def test_an_idle_kernel_is_said_to_hold_its_folder(experiment, lab, browser, runs):
    assert experiment.parameters(**SMALL, out=str(runs / 'held')) == ''
    other = Experiment(lab, browser, 'other')
    said = other.parameters(**SMALL, out=str(runs / 'held'))
    assert "a notebook's kernel" in said and 'shut the kernel down' in said and said.count('\n') == 0
    other.page.close()


@BROWSER
def test_a_missing_preset_ends_in_a_line(experiment):
    said = experiment.parameters(preset='smok')
    assert 'did you mean smoke' in said and said.count('\n') == 0
