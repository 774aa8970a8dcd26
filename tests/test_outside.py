"Pictures that are not of the teacher's data: where they come from, what a run says of them, what is refused"

import pyarrow as pa, pyarrow.parquet as pq, pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from dda_nb.bank import load_bank
from dda_nb.runs import dda_run, read_results

QUICK = 'smoke teacher_epochs=1 bank_images=20 synth_steps=4 prior_steps=4 distill_steps=6'.split()


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / 'photos'
    folder.mkdir()
    for k, photo in enumerate(load_sample_images().images):
        Image.fromarray(photo).save(folder / f'{k}.png')
    return folder


def run(out, *words):
    copies = [] if any(w.startswith('copies') for w in words) else ['copies=1']
    assert dda_run([*QUICK, *copies, *words, '--no-notebook', '--out', str(out)]) == 0
    return read_results(out)


@pytest.mark.parametrize(
    'words, arm',
    [
        (['vary_share=.3', 'reuse=2'], 'dda+outside'),
        (['method=fast', 'copies=0', 'synth_batch=4'], 'fast+outside'),
        (['outside_share=1', 'outside_choice=sure', 'copies=0', 'mix=cutmix'], 'outside'),
    ],
)
def test_a_run_with_pictures(photos, tmp_path, words, arm):
    row = run(tmp_path / 'run', f'outside=folder:{photos}', 'outside_images=30', *words)
    assert row['arm'] == arm and row['images_from_outside'] == 30 and row['outside'] == f'folder:{photos}'
    crops = load_bank(tmp_path / 'run' / 'outside.safetensors')
    assert crops.images.shape == (30, 1, 8, 8)
    if arm == 'outside':
        assert row['made_images'] == 0 and row['images_in_bank'] == 30
        assert not (tmp_path / 'run' / 'bank.safetensors').exists()


def test_the_card_says_so(photos, tmp_path, command):
    run(tmp_path / 'run', f'outside=picture:{photos / "0.png"}', 'outside_images=30')
    assert command('dda_export', tmp_path / 'run', '--out', tmp_path / 'card').returncode == 0
    card = (tmp_path / 'card' / 'README.md').read_text()
    assert 'crops of 0.png, pictures of anything' in card and 'data-free' not in card


@pytest.mark.parametrize(
    'words, line',
    [
        (['outside={}/none'], 'no such folder or file'),
        (['outside=folder:{}/none'], 'no data set at'),
        (['outside=folder:{}/empty'], 'there are no pictures in it'),
        (['outside=folder:{}/small'], 'not one of 1 pictures can be read and is 8×8 at least'),
        (['outside=folder:{}/damaged'], 'not one of 1 pictures can be read'),
        (['outside=folder:{}/small', 'outside_share=2'], 'outside_share must lie in [-1, 1]'),
        (['outside=folder:{}/small', 'outside_share=-.5'], 'a share must lie in [0, 1], or be -1'),
        (['outside=folder:{}/small', 'vary_share=.7'], 'are more than a batch'),
        (['outside=folder:{}/small', 'real=yes', 'copies=0'], 'real=yes says what the student learns from'),
        (['outside=folder:{}/small', 'lambda_self=1'], 'those from outside have none'),
        (['outside=parquet:{}/rows'], 'expected a column img or image'),
        (['mix=cutmix', 'reuse=4'], 'no answer could be used again'),
        (['mix=cutmix', 'lambda_ce=1'], 'makes one image of two, and cross_entropy takes the class of one'),
        (['mix=mixup', 'lambda_self=1'], 'makes one image of two'),
        (['reuse=4', 'method=dafl', 'copies=0'], 'a generator draws new images at each step'),
        (['reuse=4', 'distill_view=roll'], 'moves all images of a batch alike'),
        (['vary_share=.5', 'copies=0'], 'vary_share says how many of a batch are variations'),
    ],
)
def test_bad_input_is_one_line(refused, tmp_path, words, line):
    for name in ('empty', 'small', 'damaged', 'rows'):
        (tmp_path / name).mkdir()
    Image.new('RGB', (4, 90)).save(tmp_path / 'small' / 'a.png')
    (tmp_path / 'damaged' / 'a.jpg').write_bytes(b'no picture')
    pq.write_table(pa.table(dict(text=['a'])), tmp_path / 'rows' / 'train.parquet')
    refused(['smoke', *(w.format(tmp_path) for w in words)], line)


@pytest.mark.parametrize('share, inverted, varied', [('.5', 20, 20), ('1', 0, 30)])
def test_forecast(photos, tmp_path, capsys, share, inverted, varied):
    "What lies beside the inverted images is learned from and not varied; alone it is both"
    words = f'outside=folder:{photos}', 'outside_images=30', f'outside_share={share}', 'copies=2', 'reuse=4'
    assert dda_run([*QUICK, *words, '--dry-run', '--out', str(tmp_path / 'run')]) == 0
    said = {line.split()[0]: line.split()[1:3] for line in capsys.readouterr().out.splitlines() if line}
    learned = 3 * varied + (30 if inverted else 0)
    assert ('synthesize' in said) == bool(inverted)
    assert said['augment'][0] == str(2 * varied) and said['distill'][0] == str(learned)
    assert said['answers'] == [str(learned), str(4 * learned)]
