"Every method through the command and through the comparison; and rounds that are killed"

import json

import papermill, pytest

from conftest import ROOT
from dda_nb.pipeline import METHODS, read_results
from dda_nb.runs import dda_run
from test_interruption import check_same, finish, kill_at_random


@pytest.mark.parametrize('method', METHODS)
def test_method_runs_by_name(tmp_path, method):
    assert (
        dda_run(
            [
                'smoke',
                f'method={method}',
                'teacher_epochs=1',
                f'synth_batch={10 if method == "nayer" else 20}',
                *([] if method == 'fast' else ['--no-notebook']),
                '--out',
                str(tmp_path / 'run'),
            ]
        )
        == 0
    )
    row = read_results(tmp_path / 'run')
    assert row['arm'] == row['method'] == method and (row['kept_images'] > 0) == bool(
        METHODS[method].whole()['copies']
    )
    assert (
        0 <= row['coverage'] <= 1
        and 0 <= row['diversity'] <= 2
        and row['density'] >= 0
        and 0 < row['confidence'] <= 1
    )
    assert not list((tmp_path / 'run').glob('*.ckpt'))


SLOW = pytest.mark.slow  # the chapter on rounds stops all methods in its process; compare is run by itself


@SLOW
@pytest.mark.parametrize('method', ['cmi', 'csd', 'fast'])
def test_rounds_go_on_after_a_kill(tmp_path, method):
    "Heads, memory (cmi), auxiliary classifier (csd), meta generator, smoothed statistics (fast): all go on"
    more = f'method={method}', '--no-notebook'
    finish(tmp_path / 'whole', tmp_path / 'cache', *more)
    (tmp_path / 'killed').mkdir()
    (tmp_path / 'killed' / 'cache').symlink_to(
        tmp_path / 'cache'
    )  # the teacher is trained; what is killed are rounds
    folders, steps = kill_at_random(tmp_path / 'killed', 4, 3, 2.5, *more)
    for out in folders:
        check_same(out, tmp_path / 'whole')
    assert sum(s > 0 for s in steps) > 0  # at least one went on in the middle


def compare(out, monkeypatch, **values):
    monkeypatch.chdir(out)
    nb = papermill.execute_notebook(
        ROOT / 'nbs' / 'experiments' / 'compare.ipynb',
        out / 'compare.ipynb',
        dict(out=str(out), overrides='teacher_epochs=1', jobs=2, **values),
        progress_bar=False,
    )
    return nb, json.loads((out / 'compare.json').read_text())


@SLOW
def test_comparison_at_equal_seconds(tmp_path, monkeypatch):
    _, [row] = compare(tmp_path, monkeypatch, methods='nayer', budgets='seconds:9')
    assert row['method'] == 'nayer' and row['made_images'] == round(row['bank_images'] / 3)
    assert set(json.loads((tmp_path / 'rates.json').read_text())['rates']) == {
        'nayer'
    }  # what seconds were turned into images by


@SLOW
def test_comparison_at_equal_images_and_passes(tmp_path, monkeypatch):
    budgets = 'images:340,passes:6000,images:120'
    nb, rows = compare(tmp_path, monkeypatch, methods='fast,dda', budgets=budgets, seeds='0,1')
    by_images, by_passes = ([r for r in rows if r['budget'] == b] for b in ('images:340', 'passes:6000'))
    made = {(r['method'], r['seed']): r['made_images'] + r['bank_images'] * r['copies'] for r in by_images}
    assert made == {(m, s): 340 for m in ('fast', 'dda') for s in (0, 1)}
    spent = [
        r['bank_images'] * 10 * (2 if r['alpha_cr'] else 1) + 40 * 32 + r['bank_images'] * r['copies'] * 2
        for r in by_passes
    ]
    assert len(spent) == 4 and all(abs(s - 6000) < 60 for s in spent)
    said = '\n'.join(o.get('text', '') for c in nb.cells for o in c.get('outputs', []))
    assert 'dda is ' in said and 'standard deviation' in said
    [few] = {r['rounds'] for r in rows if r['method'] == 'fast' and r['budget'] == 'images:120'}
    [marked] = [line for line in said.splitlines() if '; ten take ' in line]  # dda asks no student
    assert 0 < few < 10 and marked.startswith(f'images:120 · fast: {few} rounds; ten take images:')
