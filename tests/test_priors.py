"Pretrained priors and CLIP, through the commands a user calls, on small models in the libraries' own formats"

import os, subprocess, sys
from unittest.mock import patch

import pytest, torch
from safetensors.torch import load_file, save_file

from dda_nb.augmentation import augment, open_prior, prior_folder, train_prior
from dda_nb.bank import ImageBank, new_bank
from dda_nb.core import derive
from dda_nb.data import load_data
from dda_nb.runs import changing, dda_run, making, read_results, record
from dda_nb.toys import toy_clip, toy_pipeline

KINDS = 'stable-diffusion', 'image-variation', 'unclip'


@pytest.fixture(scope='module')
def toys(tmp_path_factory):
    "Folders: three latent pipelines, a pixel model with classes and one without, and a CLIP"
    folder, digits = tmp_path_factory.mktemp('toys'), load_data('digits')
    images, labels = digits.train.images[:64], digits.train.labels[:64]
    for kind in KINDS:
        toy_pipeline(kind, folder / kind)
    labelled = new_bank(images, labels, classes=digits.classes)
    train_prior(labelled, steps=5).save_pretrained(folder / 'pixel')
    train_prior(images, steps=5).save_pretrained(folder / 'unconditional')
    toy_clip(folder / 'clip')
    return folder


@pytest.fixture(scope='module')
def bank():
    images, labels = (column[:64] for column in load_data('digits').train)
    return new_bank(images, labels, classes=[*'0123456789'], mean=[0.3], std=[0.4])


def opened(toys, kind, bank, steps=3):
    return open_prior(toys / kind, bank.meta['classes'], (1, 8, 8), denoise_steps=steps)


def strength_of(prior):
    return 0.5 if prior.strengths else None


def run(out, *words):
    "A smoke run without a notebook, in this process; its status"
    return dda_run(['smoke', *words, '--no-notebook', '--out', str(out)])


PLAIN = 'prior StableDiffusionPrior, steps 2, guidance 7.5, scheduler DPMSolverMultistepScheduler, side 32'
FEW = 'denoise_steps=2', 'copies=2', 'bank_images=20', 'embedder=clip:clip'
USED = {
    'stable-diffusion': PLAIN,
    'image-variation': 'ImageVariationPrior, steps 2',
    'unclip': 'ImageVariationPrior, steps 2, guidance 10',
    'pixel': 'PixelPrior, steps 2',
    'unconditional': 'PixelPrior, steps 2',
}


def check_result(out, toys, prior, printed):
    "Row, files and images of a run, and that it printed nothing but bars"
    row = read_results(out)
    assert USED[prior] in row['prior_used'] and row['embedder'] == f'clip:{toys / "clip"}'
    assert row['seconds_prior'] == 0 and row['black_variations'] == 0
    assert row['strength_used'] == ('' if prior in ('image-variation', 'unclip') else '0.3,0.5,0.7')
    assert len(ImageBank.load(out / 'variations.safetensors')) == 40
    assert (out / 'embeddings.safetensors').exists()
    bars = 'it/s', 's/it', '?it', ' images/s', 's/ images'
    lines = [line for line in printed.replace('\r', '\n').splitlines() if line.strip()]
    assert not [line for line in lines if not any(unit in line for unit in bars)]


@pytest.mark.slow
@pytest.mark.parametrize('prior', ['stable-diffusion', 'pixel'])
def test_run_through_papermill(command, toys, tmp_path, prior):
    "End to end, by relative paths, with a model of latents and one of pixels"
    done = command('dda_run', 'smoke', f'prior={prior}', *FEW, '--out', tmp_path / 'run', cwd=toys)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'run' / 'dda.ipynb').exists()
    check_result(tmp_path / 'run', toys, prior, done.stderr)


@pytest.mark.parametrize('prior', [*KINDS, 'unconditional'])
def test_run_with_each_prior(capfd, monkeypatch, toys, tmp_path, prior):
    "The same without the notebook, which treats all priors alike"
    monkeypatch.chdir(toys)
    assert run(tmp_path / 'run', f'prior={prior}', *FEW) == 0
    check_result(tmp_path / 'run', toys, prior, capfd.readouterr().err)


def test_what_a_prior_is_asked_for_is_used_and_recorded(toys, tmp_path):
    words = (
        'guidance=3 prior_side=16 denoise_steps=1 copies=2 bank_images=10 strength=.4 vary_batch=7'.split()
    )
    words += ['scheduler=EulerDiscreteScheduler', 'omega=views:.1', 'omega_max=.999', 'keep_class=yes']
    prompts = ['negative_prompt=blurry', 'prompts=a photo of a {}|a sketch of a {}']
    assert run(tmp_path / 'run', f'prior={toys / "stable-diffusion"}', *words, *prompts) == 0
    row = read_results(tmp_path / 'run')
    assert row['strength_used'] == '0.4'
    used = 'guidance 3', 'negative_prompt blurry', 'a sketch of a {}', 'EulerDiscreteScheduler'
    for word in (*used, 'side 16', 'batch 7'):
        assert word in row['prior_used']
    assert run(tmp_path / 'un', f'prior={toys / "unclip"}', *words) == 0
    assert read_results(tmp_path / 'un')['strength_used'] == '0.4'


def variations_and_noise(prior, bank, seeds, size):
    "Variations drawn in batches of a size, and all the noise that was drawn for them, by shape"
    drawn, randn = {}, torch.randn

    def note(*args, **how):
        x = randn(*args, **how)
        drawn.setdefault(x.shape[1:], []).append(x)
        return x

    with patch('torch.randn', note):
        parts = zip(bank.images.split(size), bank.labels.split(size), torch.tensor(seeds).split(size))
        images = [prior.vary(x, y, strength_of(prior), s.tolist()) for x, y, s in parts]
    return torch.cat(images), {shape: torch.cat(noise) for shape, noise in drawn.items()}


@pytest.mark.parametrize('prior', [*KINDS, 'pixel', 'unconditional'])
def test_noise_is_bit_equal_and_images_alike_at_any_batch_size(toys, bank, prior):
    prior, few, seeds = opened(toys, prior, bank), bank[:32], [derive(0, 'test', i) for i in range(32)]
    images, noise = variations_and_noise(prior, few, seeds, 32)
    assert noise
    for size in 1, 7:
        others, same = variations_and_noise(prior, few, seeds, size)
        assert noise.keys() == same.keys() and all(torch.equal(noise[k], same[k]) for k in noise)
        off = (others.float() - images.float()).abs()
        assert off.max() <= 1 and (off > 0).float().mean() <= 0.001
    assert len(images.flatten(1).unique(dim=0)) > 16  # and different seeds draw different images


SHARE = """
import sys, torch
from pathlib import Path
from dda_nb.augmentation import augment, open_prior
from dda_nb.bank import ImageBank
torch.set_num_threads(1)
folder, number, *priors = sys.argv[1:]
bank = ImageBank.load(Path(folder) / 'bank.safetensors')
for path in map(Path, priors):
    prior = open_prior(path, bank.meta['classes'], (1, 8, 8), denoise_steps=3)
    file = Path(folder) / f'{path.name}-{number}.safetensors'
    augment(bank, prior, copies=3, batch=8, share=(int(number), 2), save=file)
"""


@pytest.mark.slow
def test_two_processes_make_the_same_as_one(toys, bank, tmp_path):
    "Both at once, each with its share of the variations by every kind of prior"
    kinds, few = [*KINDS, 'pixel'], bank[:24]
    few.save(tmp_path / 'bank.safetensors')
    call = [sys.executable, '-c', SHARE, tmp_path]
    paths = [toys / kind for kind in kinds]
    both = [subprocess.Popen([*call, number, *paths]) for number in '01']
    assert [process.wait(300) for process in both] == [0, 0]
    torch.set_num_threads(1)
    for kind in kinds:
        whole = augment(few, opened(toys, kind, bank), copies=3, batch=8)
        parts = [ImageBank.load(tmp_path / f'{kind}-{number}.safetensors') for number in '01']
        together = parts[0] + parts[1]
        together = together[together.id.argsort()]
        for column in 'id', 'images', 'parent':
            assert torch.equal(getattr(together, column), getattr(whole, column)), (kind, column)


@pytest.mark.parametrize('prior', KINDS)
def test_killed_and_resumed_variations_are_the_same(toys, bank, tmp_path, prior):
    "Cut off after every shard but the last, as a kill between two of them does"

    class Killed(BaseException):
        pass

    torch.set_num_threads(1)
    prior, few, save = opened(toys, prior, bank), bank[:24], tmp_path / 'kids.safetensors'
    whole = augment(few, prior, copies=3, batch=8)
    calls = 0

    def denoise(parents, strength, seeds, go=prior.denoise):
        nonlocal calls
        calls += 1
        if calls % 5 == 0:
            raise Killed
        return go(parents, strength, seeds)

    with patch.object(prior, 'denoise', denoise):
        for _ in range(50):
            try:
                again = augment(few, prior, copies=3, batch=8, save=save)
                break
            except Killed:
                assert not save.exists()
    assert calls > 10
    assert torch.equal(again.images, whole.images)
    assert torch.equal(ImageBank.load(save).images, whole.images)


MEMORY = '''
import resource, sys, torch
from dda_nb.augmentation import augment
from dda_nb.bank import new_bank
class Mirror:
    strengths = .5,
    def vary(self, images, labels, strength, seeds): return images.flip(3)
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
images = torch.randint(1, 256, (6250, 3, 32, 32), dtype=torch.uint8)
parents = new_bank(images, torch.arange(6250) % 10, classes=[*range(10)])
augment(parents[:64], Mirror(), copies=16, batch=512, save=sys.argv[1] + '/warm.safetensors')
before = peak()
kids = augment(parents, Mirror(), copies=16, batch=512, save=sys.argv[1] + '/kids.safetensors')
print(len(kids), peak() - before, sum(v.nbytes for v in kids.columns().values()))
'''


def test_a_hundred_thousand_variations_hold_the_bank_and_one_batch(tmp_path):
    call = [sys.executable, '-c', MEMORY, tmp_path]
    done = subprocess.run(call, check=True, capture_output=True, text=True)
    n, grown, size = map(int, done.stdout.split())
    print(f'{grown / 2**20:.0f} MB for a bank of {size / 2**20:.0f} MB')
    batch = 512 * 3 * 32 * 32
    assert n == 100_000 and grown <= size + 20 * batch  # 30 MB: the batch on its way, its seeds, some slack


@pytest.mark.parametrize(
    'words, line',
    [
        (['prior={toys}/image-variation', 'strength=.5'], 'image variations have no strength; leave it out'),
        (
            ['prior={toys}/image-variation', 'negative_prompt=x'],
            'ImageVariationPrior takes no negative_prompt',
        ),
        (['prior={toys}/unclip', 'prompts=a {}'], 'ImageVariationPrior takes no prompts'),
        (['prior={toys}/pixel', 'guidance=2'], 'PixelPrior takes no guidance'),
        (['guidance=2'], 'prior=bank: PixelPrior takes no guidance'),
        (['prior={toys}/clip'], 'no diffusion model here'),
        (
            ['prior=owner/model'],
            'owner/model: its files are not on this disk, and HF_HUB_OFFLINE is set; download them',
        ),
        (['prior=no-such-folder'], 'no-such-folder: no diffusion model here; expected a folder'),
        (['prior={toys}/stable-diffusion', 'scheduler=Eulr'], "unknown scheduler for PNDMScheduler 'Eulr'"),
        (['prior={toys}/stable-diffusion', 'prior_side=33'], 'multiples of 4, not 33'),
        (['prior={toys}/stable-diffusion', 'negative_prompt=x', 'guidance=1'], 'asks for guidance above 1'),
        (
            ['prior={toys}/pixel', 'scheduler=DDIMScheduler'],
            'DDIMScheduler does not solve from any time step',
        ),
        (['prior={toys}/pixel', 'prior_precision=fp16'], 'PixelPrior takes no prior_precision'),
        (['guidance=-.5'], 'guidance must be -1, for the default, or at least 0, found -0.5'),
        (['prior_precision=fp8'], "unknown value of prior_precision 'fp8'"),
        (['embedder=clip'], 'embedder must be teacher, clip:MODEL@WEIGHTS or clip:FOLDER'),
        (['embedder=clip:ViT-B-33@x'], "unknown OpenCLIP model 'ViT-B-33'; did you mean"),
        (['embedder=clip:ViT-B-32@/nowhere.pt'], 'no OpenCLIP weights could be read there'),
        (['embedder=clip:{toys}/pixel'], 'no OpenCLIP weights could be read there'),
        (['omega=views:2'], 'omega must lie in [0, 1], found 2'),
        (['omega_max=1.5'], 'omega_max must lie in [-1, 1], found 1.5'),
    ],
)
def test_refused_in_one_line(refused, toys, words, line):
    refused(['smoke', *(w.replace('{toys}', str(toys)) for w in words)], line)


def test_classes_and_files_that_do_not_fit(capsys, toys, tmp_path):
    few = new_bank(torch.zeros(8, 1, 8, 8, dtype=torch.uint8), torch.arange(8) % 4, classes=list('abcd'))
    train_prior(few, steps=2).save_pretrained(tmp_path / 'four')
    assert run(tmp_path / 'run', f'prior={tmp_path / "four"}') == 2
    line = 'a model of 4 classes, and these images have 10; use an unconditional model'
    assert line in capsys.readouterr().err
    toy_pipeline('stable-diffusion', tmp_path / 'cut')
    weights = tmp_path / 'cut' / 'unet' / 'diffusion_pytorch_model.safetensors'
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ValueError, match='no diffusion model can be read here') as e:
        open_prior(tmp_path / 'cut', list('abcd'), (1, 8, 8))
    assert '\n' not in str(e.value)


@pytest.mark.parametrize(
    'error, line',
    [
        ('GatedRepoError', 'gated; accept its terms'),
        ('RepositoryNotFoundError', 'no such model on the Hub'),
        ('RevisionNotFoundError', 'no such revision'),
    ],
)
def test_what_the_hub_says_becomes_one_line(error, line):
    import huggingface_hub.errors as errors, httpx

    response = httpx.Response(403, request=httpx.Request('GET', 'https://hub'))
    refusal = getattr(errors, error)('no\nentry', response=response)
    with patch('diffusers.DiffusionPipeline.download', side_effect=refusal):
        with pytest.raises(FileNotFoundError, match=line) as e:
            prior_folder('owner/model@v2')
    assert '\n' not in str(e.value)


def test_a_model_in_the_hubs_cache_is_used_offline(toys, tmp_path, monkeypatch):
    "The cache as huggingface_hub lays it out, with HF_HUB_OFFLINE=1"
    repo = tmp_path / 'hub' / 'models--owner--tiny'
    snapshot = repo / 'snapshots' / ('a' * 40)
    snapshot.parent.mkdir(parents=True)
    (repo / 'refs').mkdir()
    (repo / 'refs' / 'main').write_text('a' * 40)
    os.symlink(toys / 'stable-diffusion', snapshot)
    script = (
        'from dda_nb.augmentation import open_prior\n'
        'print(open_prior("owner/tiny", list("0123456789"), (1, 8, 8)))'
    )
    env = os.environ | {'HF_HUB_CACHE': str(tmp_path / 'hub'), 'HF_HUB_OFFLINE': '1'}
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, env=env)
    assert done.stdout.startswith('StableDiffusionPrior(steps=10'), done.stderr


def test_all_black_stays_an_error(toys, capsys, tmp_path):
    "An fp16 overflow, say: the second call must not take the first one's empty result for a finished one"
    toy_pipeline('stable-diffusion', tmp_path / 'broken')
    weights = tmp_path / 'broken' / 'unet' / 'diffusion_pytorch_model.safetensors'
    state = load_file(weights)
    state['conv_out.bias'][:] = float('nan')
    save_file(state, weights, {'format': 'pt'})
    words = f'prior={tmp_path / "broken"}', 'denoise_steps=1', 'copies=1', 'bank_images=10'
    for _ in range(2):
        assert run(tmp_path / 'run', *words) == 2
        assert 'all 10 variations came out black' in capsys.readouterr().err


def test_variations_of_another_model_or_bank_are_not_taken(tmp_path, monkeypatch):
    "The bank is taken from the other run, the variations are not"
    monkeypatch.setattr(record, 'commit', lambda: 'clean')
    images = load_data('digits').train.images[:64]
    words = f'prior={tmp_path / "model"}', 'copies=1', 'bank_images=20'
    train_prior(images, steps=2).save_pretrained(tmp_path / 'model')
    assert run(tmp_path / 'a', *words) == 0
    train_prior(images, steps=3).save_pretrained(tmp_path / 'model')
    assert run(tmp_path / 'b', *words, 'omega=-1') == 0
    a, b = (ImageBank.load(tmp_path / k / 'variations.safetensors') for k in 'ab')
    assert read_results(tmp_path / 'b')['borrowed'] == 'a'
    assert not torch.equal(a.images, b.images)


def test_moving_omega_computes_nothing_again(toys, tmp_path, monkeypatch):
    monkeypatch.setattr(record, 'commit', lambda: 'clean')
    words = [f'prior={toys / "stable-diffusion"}', f'embedder=clip:{toys / "clip"}', 'seed=3']
    words += 'denoise_steps=1', 'copies=2', 'bank_images=20'
    assert run(tmp_path / 'a', *words) == 0
    for module, name in ((making, 'fill'), (changing, 'augment'), (changing, 'measure')):
        monkeypatch.setattr(module, name, lambda *a, **k: pytest.fail('computed again'))
    assert run(tmp_path / 'b', *words, 'omega=best:0.5') == 0
    before, row = (read_results(tmp_path / k) for k in 'ab')
    assert row['borrowed'] == 'a' and row['kept_images'] == 20
    assert row['seconds_augment'] == before['seconds_augment']
