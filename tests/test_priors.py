"Pretrained priors and CLIP, through the commands a user calls, on small models in the libraries' own formats"

import os, subprocess, sys
from unittest.mock import patch

import pytest, torch
from safetensors.torch import load_file, save_file

from dda_nb.augmentation import augment, open_prior, prior_folder, train_prior
from dda_nb.bank import ImageBank, new_bank
from dda_nb.core import derive
from dda_nb.data import load_data
from dda_nb.toys import toy_clip, toy_pipeline
from dda_nb.pipeline import read_results
from dda_nb.runs import dda_run

KINDS = 'stable-diffusion', 'image-variation', 'unclip'


@pytest.fixture(scope='module')
def toys(tmp_path_factory):
    "Folders: three latent pipelines, a pixel model with classes and one without, and a CLIP"
    folder, digits = tmp_path_factory.mktemp('toys'), load_data('digits')
    for kind in KINDS:
        toy_pipeline(kind, folder / kind)
    train_prior(
        new_bank(digits.train.images[:64], digits.train.labels[:64], classes=digits.classes), steps=5
    ).save_pretrained(folder / 'pixel')
    train_prior(digits.train.images[:64], steps=5).save_pretrained(folder / 'unconditional')
    toy_clip(folder / 'clip')
    return folder


@pytest.fixture(scope='module')
def bank():
    train = load_data('digits').train
    return new_bank(
        train.images[:64], train.labels[:64], classes=[str(i) for i in range(10)], mean=[0.3], std=[0.4]
    )


def opened(toys, kind, bank, steps=3):
    return open_prior(toys / kind, bank.meta['classes'], (1, 8, 8), denoise_steps=steps)


def strength_of(prior):
    return 0.5 if prior.strengths else None


@pytest.mark.parametrize(
    'prior, used',
    [
        (
            'stable-diffusion',
            'prior StableDiffusionPrior, steps 2, guidance 7.5, scheduler DPMSolverMultistepScheduler,'
            ' side 32',
        ),
        ('image-variation', 'ImageVariationPrior, steps 2'),
        ('unclip', 'ImageVariationPrior, steps 2, guidance 10'),
        ('pixel', 'PixelPrior, steps 2'),
        ('unconditional', 'PixelPrior, steps 2'),
    ],
)
def test_run_with_each_prior_and_clip(command, toys, tmp_path, prior, used):
    "End to end, by relative paths, through papermill"
    done = command(
        'dda_run',
        'smoke',
        f'prior={prior}',
        'embedder=clip:clip',
        'denoise_steps=2',
        'copies=2',
        'bank_images=20',
        '--out',
        tmp_path / 'run',
        cwd=toys,
    )
    assert done.returncode == 0, done.stderr
    row = read_results(tmp_path / 'run')
    assert (
        used in row['prior_used'] and row['embedder'] == f'clip:{toys / "clip"}' and row['seconds_prior'] == 0
    )
    assert (
        row['strength_used'] == ('' if prior in ('image-variation', 'unclip') else '0.3,0.5,0.7')
        and row['black_variations'] == 0
    )
    assert {'variations.safetensors', 'embeddings.safetensors', 'dda.ipynb'} <= {
        p.name for p in (tmp_path / 'run').iterdir()
    }
    assert len(ImageBank.load(tmp_path / 'run' / 'variations.safetensors')) == 40
    other = [
        line
        for line in done.stderr.replace('\r', '\n').splitlines()
        if line.strip()
        and not any(unit in line for unit in ('it/s', 's/it', '?it', ' images/s', 's/ images'))
    ]
    assert not other, other


def test_what_a_prior_is_asked_for_is_used_and_recorded(toys, tmp_path):
    words = [
        'smoke',
        f'prior={toys / "stable-diffusion"}',
        'guidance=3',
        'negative_prompt=blurry',
        'prompts=a photo of a {}|a sketch of a {}',
        'scheduler=EulerDiscreteScheduler',
        'prior_side=16',
        'denoise_steps=1',
        'copies=2',
        'bank_images=10',
        'strength=.4',
        'vary_batch=7',
        'omega=views:.1',
        'omega_max=.999',
        'keep_class=yes',
    ]
    assert dda_run([*words, '--no-notebook', '--out', str(tmp_path / 'run')]) == 0
    row = read_results(tmp_path / 'run')
    assert (
        all(
            w in row['prior_used']
            for w in (
                'guidance 3',
                'negative_prompt blurry',
                'a sketch of a {}',
                'EulerDiscreteScheduler',
                'side 16',
                'batch 7',
            )
        )
        and row['strength_used'] == '0.4'
    )
    assert (
        dda_run(
            [
                f'prior={toys / "unclip"}' if w.startswith('prior=') else w
                for w in words
                if not w.startswith(('neg', 'prompts'))
            ]
            + ['--no-notebook', '--out', str(tmp_path / 'un')]
        )
        == 0
    )
    assert read_results(tmp_path / 'un')['strength_used'] == '0.4'


@pytest.mark.parametrize('prior', [*KINDS, 'pixel', 'unconditional'])
def test_noise_is_bit_equal_and_images_alike_at_any_batch_size(toys, bank, prior):
    prior, seeds, drawn = opened(toys, prior, bank), [derive(0, 'test', i) for i in range(64)], []
    randn = torch.randn

    def vary(size):
        drawn.clear()
        with patch('torch.randn', lambda *a, **k: drawn.append(randn(*a, **k)) or drawn[-1]):
            images = torch.cat(
                [
                    prior.vary(
                        bank.images[i : i + size],
                        bank.labels[i : i + size],
                        strength_of(prior),
                        seeds[i : i + size],
                    )
                    for i in range(0, 64, size)
                ]
            )
        by_shape = {}
        for x in drawn:
            by_shape.setdefault(x.shape[1:], []).append(x)
        return images, {k: torch.cat(v) for k, v in by_shape.items()}

    images, noise = vary(64)
    assert noise
    for size in 1, 7:
        others, same = vary(size)
        assert noise.keys() == same.keys() and all(torch.equal(noise[k], same[k]) for k in noise)
        off = (others.float() - images.float()).abs()
        assert off.max() <= 1 and (off > 0).float().mean() <= 0.001
    assert (
        len({tuple(x.flatten().tolist()) for x in images}) > 32
    )  # and different seeds draw different images


SHARE = '''
import sys, torch
from dda_nb.augmentation import augment, open_prior
from dda_nb.bank import ImageBank
torch.set_num_threads(1)
bank = ImageBank.load(sys.argv[1])
prior = open_prior(sys.argv[2], bank.meta['classes'], (1, 8, 8), denoise_steps=3)
augment(bank, prior, copies=3, batch=16, share=(int(sys.argv[3]), 2), save=sys.argv[4])
'''


@pytest.mark.parametrize('prior', [*KINDS, 'pixel'])
def test_two_processes_make_the_same_as_one(toys, bank, tmp_path, prior):
    bank[:40].save(tmp_path / 'bank.safetensors')
    for i in 0, 1:
        subprocess.run(
            [
                sys.executable,
                '-c',
                SHARE,
                tmp_path / 'bank.safetensors',
                toys / prior,
                str(i),
                tmp_path / f'{i}.safetensors',
            ],
            check=True,
        )
    torch.set_num_threads(1)
    whole, both = (
        augment(bank[:40], opened(toys, prior, bank), copies=3, batch=16),
        ImageBank.load(tmp_path / '0.safetensors') + ImageBank.load(tmp_path / '1.safetensors'),
    )
    both = both[both.id.argsort()]
    assert (
        torch.equal(both.id, whole.id)
        and torch.equal(both.images, whole.images)
        and torch.equal(both.parent, whole.parent)
    )


@pytest.mark.parametrize('prior', KINDS)
def test_killed_and_resumed_variations_are_the_same(toys, bank, tmp_path, prior):
    "Cut off after every shard but the last, as a kill between two of them does"

    class Killed(BaseException):
        pass

    torch.set_num_threads(1)
    prior, few, save = opened(toys, prior, bank), bank[:30], tmp_path / 'kids.safetensors'
    whole = augment(few, prior, copies=3, batch=8)
    calls = 0

    def denoise(known, strength, seeds, go=prior.denoise):
        nonlocal calls
        calls += 1
        if calls % 5 == 0:
            raise Killed
        return go(known, strength, seeds)

    with patch.object(prior, 'denoise', denoise):
        for _ in range(50):
            try:
                again = augment(few, prior, copies=3, batch=8, save=save)
                break
            except Killed:
                assert not save.exists()
    assert (
        calls > 10
        and torch.equal(again.images, whole.images)
        and torch.equal(ImageBank.load(save).images, whole.images)
    )


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
    assert dda_run(['smoke', f'prior={tmp_path / "four"}', '--out', str(tmp_path / 'run')]) == 2
    assert (
        'a model of 4 classes, and these images have 10; use an unconditional model'
        in capsys.readouterr().err
    )
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

    asked = httpx.Response(403, request=httpx.Request('GET', 'https://hub'))
    with (
        patch(
            'diffusers.DiffusionPipeline.download',
            side_effect=getattr(errors, error)('no\nentry', response=asked),
        ),
        pytest.raises(FileNotFoundError, match=line) as e,
    ):
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
    script = '''from dda_nb.augmentation import open_prior
print(open_prior("owner/tiny", list("0123456789"), (1, 8, 8)))'''
    done = subprocess.run(
        [sys.executable, '-c', script],
        capture_output=True,
        text=True,
        env=os.environ | {'HF_HUB_CACHE': str(tmp_path / 'hub'), 'HF_HUB_OFFLINE': '1'},
    )
    assert done.stdout.startswith('StableDiffusionPrior(steps=10'), done.stderr


def test_all_black_stays_an_error(toys, capsys, tmp_path):
    "An fp16 overflow, say: the second call must not take the first one's empty result for a finished one"
    toy_pipeline('stable-diffusion', tmp_path / 'broken')
    weights = tmp_path / 'broken' / 'unet' / 'diffusion_pytorch_model.safetensors'
    state = load_file(weights)
    state['conv_out.bias'][:] = float('nan')
    save_file(state, weights, {'format': 'pt'})
    for _ in range(2):
        assert (
            dda_run(
                [
                    'smoke',
                    f'prior={tmp_path / "broken"}',
                    'denoise_steps=1',
                    'copies=1',
                    'bank_images=10',
                    '--no-notebook',
                    '--out',
                    str(tmp_path / 'run'),
                ]
            )
            == 2
        )
        assert 'all 10 variations came out black' in capsys.readouterr().err


def test_variations_of_another_model_or_bank_are_not_taken(toys, tmp_path, monkeypatch):
    import dda_nb.pipeline as pipeline

    monkeypatch.setattr(pipeline, 'commit', lambda: 'clean')
    digits, words = (
        load_data('digits').train.images,
        ['smoke', f'prior={tmp_path / "model"}', 'copies=1', 'bank_images=20', '--no-notebook'],
    )
    train_prior(digits[:64], steps=2).save_pretrained(tmp_path / 'model')
    assert dda_run([*words, '--out', str(tmp_path / 'a')]) == 0
    train_prior(digits[:64], steps=3).save_pretrained(tmp_path / 'model')
    assert dda_run([*words, 'omega=-1', '--out', str(tmp_path / 'b')]) == 0
    a, b = (ImageBank.load(tmp_path / k / 'variations.safetensors') for k in 'ab')
    assert read_results(tmp_path / 'b')['borrowed'] == 'a' and not torch.equal(
        a.images, b.images
    )  # the bank is, the variations are not


def test_moving_omega_computes_nothing_again(toys, tmp_path, monkeypatch):
    import dda_nb.pipeline as pipeline

    monkeypatch.setattr(pipeline, 'commit', lambda: 'clean')
    words = [
        'smoke',
        f'prior={toys / "stable-diffusion"}',
        f'embedder=clip:{toys / "clip"}',
        'denoise_steps=1',
        'copies=2',
        'bank_images=20',
        'seed=3',
        '--no-notebook',
    ]
    assert dda_run([*words, '--out', str(tmp_path / 'a')]) == 0
    for name in 'synthesize', 'augment', 'measure':
        monkeypatch.setattr(pipeline, name, lambda *a, **k: pytest.fail('computed again'))
    assert dda_run([*words, 'omega=best:0.5', '--out', str(tmp_path / 'b')]) == 0
    row = read_results(tmp_path / 'b')
    assert (
        row['borrowed'] == 'a'
        and row['kept_images'] == 20
        and row['seconds_augment'] == read_results(tmp_path / 'a')['seconds_augment']
    )
