"What a run takes from finished runs beside it, and what it does not"

import pytest

from dda_nb.bank import load_bank
from dda_nb.runs import dda_run, read_results, record

QUICK = 'smoke teacher_epochs=1 bank_images=20 synth_steps=4 prior_steps=4 distill_steps=4'.split()

DARK = '''
from dda_nb.synthesis import term

print('mine.py is run')


@term('alpha_dark', 'images are dark')
def dark(seen):
    return {sign}seen.images.mean()
'''


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    "A checkout that was changed borrows nothing"
    monkeypatch.setattr(record, 'commit', lambda: 'clean')


def run(out, *words):
    copies = [] if any(w.startswith('copies') for w in words) else ['copies=1']
    return dda_run([*QUICK, *copies, *words, '--no-notebook', '--out', str(out)])


def test_a_plugin_beside_it_is_not_run(tmp_path, capsys, forget):
    (tmp_path / 'mine.py').write_text(DARK.format(sign=''))
    assert run(tmp_path / 'theirs', f'plugins={tmp_path / "mine.py"}', 'alpha_dark=9') == 0
    forget()
    capsys.readouterr()
    assert run(tmp_path / 'ours', 'omega=.4') == 0
    assert 'mine.py is run' not in capsys.readouterr().out
    assert read_results(tmp_path / 'ours')['borrowed'] == ''


def test_an_edited_plugin_gives_other_images(tmp_path, forget):
    (tmp_path / 'mine.py').write_text(DARK.format(sign=''))
    words = f'plugins={tmp_path / "mine.py"}', 'alpha_dark=99'
    a, b, c = (tmp_path / k for k in 'abc')
    assert run(a, *words) == run(b, *words, 'omega=.4') == 0
    assert read_results(b)['borrowed'] == 'a'
    forget()
    (tmp_path / 'mine.py').write_text(DARK.format(sign='-'))
    assert run(c, *words, 'omega=.3') == 0
    row = read_results(c)
    assert row['borrowed'] == '' and row['plugins_checksum'] != read_results(a)['plugins_checksum']
    assert (load_bank(a / 'bank.safetensors').images != load_bank(c / 'bank.safetensors').images).any()


def test_a_bank_of_another_run_is_varied_once(tmp_path, capsys):
    "Also in rounds as they were asked for; what would be made is told with the images that are there"
    assert run(tmp_path / 'source', 'copies=0') == 0
    words = f'bank={tmp_path / "source"}', 'method=cmi', 'copies=2'
    a, b = tmp_path / 'a', tmp_path / 'b'
    assert run(a, *words, 'omega=.1') == run(b, *words, 'omega=.2') == 0
    row = read_results(b)
    assert (row['borrowed'], row['rounds'], row['made_images'], row['images_in_bank']) == ('a', 0, 0, 20)
    assert load_bank(a / 'variations.safetensors').id.tolist() == [*range(20, 60)]
    capsys.readouterr()
    assert run(tmp_path / 'dry', *words, '--dry-run') == 0
    augment = next(
        line for line in capsys.readouterr().out.splitlines() if line.lstrip().startswith('augment')
    )
    assert augment.split()[:3] == ['augment', '40', '40']


def test_a_damaged_neighbour_is_passed_over(tmp_path):
    a, b = tmp_path / 'a', tmp_path / 'b'
    assert run(a) == 0
    whole = (a / 'bank.safetensors').read_bytes()
    (a / 'bank.safetensors').write_bytes(whole[: len(whole) // 2])
    assert run(b, 'omega=.4') == 0
    assert load_bank(b / 'bank.safetensors').id.tolist() == [*range(20)]
    assert not [f for f in b.iterdir() if f.name.endswith('.part')]


def test_each_stage_may_come_from_another_run(tmp_path):
    a, b, c = tmp_path / 'a', tmp_path / 'b', tmp_path / 'c'
    assert run(a, 'copies=0') == run(b, 'copies=2') == run(c, 'copies=2', 'omega=.4') == 0
    assert [read_results(r)['borrowed'] for r in (a, b, c)] == ['', 'a', 'a, b']
