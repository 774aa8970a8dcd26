"Rows as their papers have them, presets that leave them alone, and what a row of a comparison may claim"

import pytest

from dda_nb.core import BadInput
from dda_nb.models import n_params
from dda_nb.runs import Comparison, check_run, dda_run, make_config, presets, rounds_of, run_all
from dda_nb.sweeps import read_sweep
from dda_nb.synthesis import METHODS, decoder, like_of, recipe_fields

from conftest import ROOT

# As public scripts and papers have them: parametrisation, steps a batch, learning rates of synthesis and of
# the student, temperature, and the weights of all terms of synthesis
PAPERS = {
    'deepinversion': ('pixels', 2000, 0.1, 0.1, 20, dict(oh=1, bn=10, tv=1e-3)),
    'dafl': ('shared_generator', 1, 1e-3, 0.1, 1, dict(oh=1, act=1e-3, balance=20)),
    'zskt': ('shared_generator', 1, 1e-3, 0.1, 1, dict(adv=1)),
    'dfq': ('shared_generator', 1, 1e-3, 0.1, 1, dict(oh=1, bn=1, balance=20, adv=1)),
    'cmi': ('generator', 200, 1e-3, 0.1, 20, dict(oh=1, bn=1, cr=0.8, dad=0.5)),
    'csd': ('generator', 200, 1e-3, 0.1, 20, dict(oh=1, bn=1, csd=10)),
    'fast': ('meta_generator', 10, 2e-3, 0.2, 20, dict(oh=0.5, bn=10, dad=1.33)),
    'nayer': ('noisy_generator', 30, 4e-3, 0.2, 20, dict(oh=0.5, bn=10, dad=1.33)),
    'dda': ('generator', 200, 1e-3, 0.1, 20, dict(oh=1, bn=1, cr=0.8, csd=10)),
}
MORE = {  # method → what else its scripts say
    'dafl': dict(code_size=512, round_steps=5, warmup=0, synth_view='none', distill_view='none'),
    'zskt': dict(code_size=256, round_steps=10, warmup=0, synth_view='none', distill_view='none', replay=1),
    'dfq': dict(code_size=256, round_steps=10, warmup=0, synth_view='none', distill_view='none', replay=1),
    'cmi': dict(
        cr_features='batchnorm', cr_temperature=0.1, cr_memory=4096, gen_init='normal', round_steps=400
    ),
    'csd': dict(
        aux_head='apart',
        lambda_ce=1,
        lambda_csd=1,
        lambda_feat=30,
        warmup_steps=500,
        round_steps=2000,
        warmup=0.8,
    ),
    'fast': dict(bn_momentum=0.9, code_lr=0.01, gen_life=(0, 120), synth_view='crop', round_steps=400),
    'nayer': dict(
        bn_momentum=0.9, code_size=1000, gen_life=(100, 20), synth_view='crop', round_steps=200, warmup=1 / 3
    ),
    'dda': dict(aux_head='apart', lambda_ce=1, lambda_feat=30, warmup_steps=500, round_steps=2000),
    'deepinversion': dict(synth_view='roll', warmup=1),
}
PAIR = 'fast-cifar10-resnet34-resnet18'


@pytest.mark.parametrize('method', PAPERS)
def test_published_row_is_the_papers(method):
    make, steps, synth_lr, lr, temperature, weights = PAPERS[method]
    c = make_config(PAIR, method=method)
    assert (c.parametrisation, c.batch_steps, c.synth_lr) == (make, steps, synth_lr)
    student = c.distill_lr, c.temperature, c.weight_decay, c.distill_schedule, c.nesterov
    assert student == (lr, temperature, 1e-4, 'cosine', False)
    asked = {k.removeprefix('alpha_'): c[k] for k in c.keys() if k.startswith('alpha_') and c[k]}
    assert asked == weights
    assert {k: c[k] for k in MORE[method]} == MORE[method]
    if make != 'pixels':
        sizes = {'dafl': 8.8, 'zskt': 4.6, 'dfq': 4.6, 'nayer': 8.4}
        millions = n_params(decoder((3, 32, 32), like_of(c))) / 1e6
        assert c.gen_width == 64 and round(millions, 1) == sizes.get(method, 2.3)


def test_what_depends_on_the_teacher_or_the_data():
    def weights(teacher):
        c = make_config(PAIR, method='fast', teacher=teacher)
        return c.alpha_dad, c.alpha_oh

    assert [weights(t) for t in ('resnet34', 'vgg11', 'wrn40_2')] == [(1.33, 0.5), (1.0, 0.5), (1.1, 0.4)]
    places = 'cifar10', 'cifar100', 'parquet:cifar100-jpeg', 'hub:someone/cifar100', 'folder:tiny-imagenet'
    steps = [make_config(PAIR, method='nayer', data=d).batch_steps for d in places]
    assert steps == [30, 40, 40, 40, 60]
    assert make_config(PAIR, method='fast', alpha_oh=3).alpha_oh == 3  # what is typed outranks all


def test_schedules_of_the_field():
    fast = make_config(PAIR)
    assert fast.method == 'fast' and make_config(PAIR, method='nayer').method == 'nayer'
    assert (rounds_of(fast), fast.distill_steps, fast.synth_batch, fast.distill_batch) == (
        200,
        80_000,
        256,
        256,
    )
    dda = make_config('dda-cifar10-wrn40_2-wrn16_1')
    assert (rounds_of(dda), dda.distill_steps, dda.synth_batch, dda.distill_batch) == (200, 400_000, 200, 128)


@pytest.mark.parametrize(
    'schedule, images, steps', [('fast', 51200 + 5120, 80_000), ('dda', 120_000, 400_000)]
)
def test_a_schedule_is_forecast(schedule, images, steps, capsys, tmp_path):
    words = f'{schedule}-cifar10-wrn40_2-wrn16_1 data=digits teacher=resnet8 student=resnet8 --dry-run'
    assert dda_run([*words.split(), '--out', str(tmp_path / 'run')]) == 0
    said = {line.split()[0]: line.split()[1:3] for line in capsys.readouterr().out.splitlines() if line}
    batch = 256 if schedule == 'fast' else 128
    assert said['synthesize'][0] == str(images) and said['distill'] == [str(images), str(steps * batch)]
    assert 'about' in said and not (tmp_path / 'run').exists()


def test_no_preset_overrides_a_recipe():
    assert {name: set(v) & recipe_fields() for name, v in presets().items() if set(v) & recipe_fields()} == {}


@pytest.mark.parametrize('data', ['cifar10', 'cifar100'])
def test_sweeps_of_the_papers_tables(data):
    sweep = read_sweep(ROOT / 'sweeps' / f'paper-{data}.yaml')
    configs = [make_config(**s) for s in sweep.settings]
    assert len(configs) == 5 * len(METHODS) and sweep.seeds == [0, 1, 2]
    assert {(c.teacher, c.student) for c in configs} == {
        ('resnet34', 'resnet18'),
        ('vgg11', 'resnet18'),
        ('wrn40_2', 'wrn16_1'),
        ('wrn40_2', 'wrn40_1'),
        ('wrn40_2', 'wrn16_2'),
    }
    assert {c.recipe for c in configs} == {'published'} and {c.data for c in configs} == {data}


TINY = dict(batch_steps=2, synth_steps=2, bank_images=6, gen_width=8, distill_steps=20)


@pytest.mark.parametrize('method', METHODS)
def test_published_rows_run(method, tmp_path):
    rounds = METHODS[method].under('published').get('round_steps') and 5
    warm = METHODS[method].under('published').get('warmup_steps') and 2
    more = dict(round_steps=rounds or 0, warmup_steps=warm or 0)
    row = run_all(make_config('smoke', method=method, recipe='published', **TINY | more), tmp_path / 'run')
    assert row['recipe'] == 'published' and row['arm'] == method and 0 <= row['held_out_agreement'] <= 1
    assert row['rounds'] >= 3 or not rounds


def test_a_student_aware_method_sees_a_student():
    "Otherwise its row would be another method's"
    for method in ('cmi', 'csd', 'fast', 'nayer'):
        c = make_config('smoke', method=method, synth_batch=1000)
        with pytest.raises(BadInput, match='all images would be made before it learns, in batches: 1'):
            check_run(c)


def test_comparison_takes_any_recipe():
    papers = Comparison('smoke', dict(recipe='published'))
    assert papers.config('fast').round_steps == 400 and papers.config('fast', round_steps=3).round_steps == 3
