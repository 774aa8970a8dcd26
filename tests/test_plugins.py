"Terms and methods of a user's own, from outside the package"

import json

import pytest

from dda_nb.runs import dda_run, read_results
from dda_nb.sweeps import dda_sweep

MINE = '''
from dda_nb.synthesis import add_method, term


@term('alpha_dark', 'images are dark')
def dark(seen):
    return seen.images.mean()


add_method('night', 'as dda, but dark', like='dda', alpha_dark=2.0)
'''
QUICK = 'smoke teacher_epochs=1 bank_images=20 synth_steps=4 prior_steps=4 distill_steps=4 copies=1'.split()


@pytest.fixture
def mine(tmp_path):
    file = tmp_path / 'mine.py'
    file.write_text(MINE)
    return file


pytestmark = pytest.mark.usefixtures('forget')


def test_a_file_of_plugins_gives_method_field_and_checksum(tmp_path, mine, capsys):
    words = [*QUICK, f'plugins={mine}', 'method=night', 'alpha_dark=3', '--out', str(tmp_path / 'run')]
    assert dda_run(words) == 0  # through papermill, in a kernel that knows nothing of it
    row = read_results(tmp_path / 'run')
    assert (row['arm'], row['alpha_dark'], len(row['plugins_checksum'])) == ('night', 3.0, 16)
    assert f'plugins={mine}' in row['command']

    mine.write_text(
        MINE.replace('2.0', '2.5')
    )  # another content: the run is finished, and a new stage refuses it
    (tmp_path / 'run' / 'results.json').unlink()
    capsys.readouterr()
    assert dda_run([*words, '--no-notebook']) == 2
    assert 'begun with another plugins' in capsys.readouterr().err


@pytest.mark.slow
def test_a_sweep_takes_them_too(tmp_path, mine, capsys):
    fixed = dict(w.split('=') for w in QUICK[1:]) | dict(plugins=str(mine), method='night')
    sweep = dict(preset='smoke', fixed=fixed, grid=dict(alpha_dark=[0, 1]))
    (tmp_path / 'sweep.yaml').write_text(json.dumps(sweep))
    assert dda_sweep([str(tmp_path / 'sweep.yaml'), '--out', str(tmp_path / 'out'), '--cpus', '1']) == 0
    rows = [read_results(f.parent) for f in (tmp_path / 'out').glob('*/results.json')]
    assert sorted(r['alpha_dark'] for r in rows) == [0.0, 1.0]


def test_without_the_file_its_names_are_unknown(capsys):
    for words, line in ((['method=night'], 'unknown method'), (['alpha_dark=1'], 'unknown field')):
        assert dda_run(['smoke', *words]) == 2
        assert line in capsys.readouterr().err
