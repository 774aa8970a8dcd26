"The commands, as a person uses them"

import json, os, shutil, subprocess, sys

import nbformat, pytest, torch
from safetensors.torch import load_file

from conftest import ROOT
from dda_nb.core.fields import FIELDS
from dda_nb.pipeline import METHODS, data_of, make_config, presets, read_results, teacher_file
from dda_nb.runs import dda_run, table


def weights(out):
    return {k: v for k, v in load_file(out / 'student.safetensors').items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_help_lists_presets_methods_and_every_field(command):
    text = command('dda_run', '--help').stdout
    assert all(word in text for word in [*presets(), *METHODS])
    for name, field in FIELDS.items():
        line = next(x for x in text.split('fields (')[1].splitlines() if x.startswith(f'  {name} '))
        assert field.kind.__name__ in line or field.kind is tuple
        assert len(line.split()) > 3


def test_run_prints_row_and_paths_and_shows_every_stage(smoke):
    out, done = smoke
    head, values, notebook, student = done.stdout.splitlines()
    assert head.split()[:3] == ['arm', 'seed', 'teacher_acc'] and values.split()[0] == 'dda'
    assert notebook.split()[0] == 'notebook' and student.split()[0] == 'student'
    assert (
        str(out / 'dda.ipynb') in notebook
        and (out / 'dda.ipynb').exists()
        and (out / 'student.safetensors').exists()
    )
    for stage in 'teacher', 'synthesize', 'prior', 'augment', 'filter', 'distill':
        assert f'{stage:<12}:' in done.stderr
    other = [
        line
        for line in done.stderr.replace('\r', '\n').splitlines()
        if line.strip()
        and not any(unit in line for unit in ('it/s', 's/it', '?it', ' images/s', 's/ images'))
    ]
    assert not other, other


def test_row_has_what_tables_need(smoke):
    row = read_results(smoke[0])
    wanted = '''
    teacher_acc student_acc agreement teacher_params student_params bank_images kept_images
    seconds_teacher seconds_synthesize seconds_prior seconds_augment seconds_filter seconds_distill
    images_per_s_synthesize images_per_s_augment images_per_s_distill peak_memory_mb seed teacher_seed
    copies omega method arm commit command threads device_name version_torch version_dda_nb
    version_python
    '''.split()
    assert not set(wanted) - row.keys()
    assert not [k for k, v in row.items() if isinstance(v, (list, dict))]
    assert FIELDS.keys() <= row.keys()
    assert row['teacher_params'] >= 8 * row['student_params']
    assert row['bank_images'] == row['images_in_bank'] == 60 and 0 < row['kept_images'] <= 60 * row['copies']


def test_executed_notebook_shows_pictures_and_no_error(smoke):
    nb = nbformat.read(smoke[0] / 'dda.ipynb', 4)
    outputs = [o for c in nb.cells for o in c.get('outputs', [])]
    assert not [o for o in outputs if o.output_type == 'error' or 'widget-view' in str(o)]
    assert sum('image/png' in o.get('data', {}) for o in outputs) >= 4
    assert {p.name for p in (smoke[0] / 'figures').iterdir()} == {
        'bank.png',
        'variations.png',
        'similarity.png',
        'kept.png',
        'distillation.png',
        'confusion.png',
    }


def test_second_call_shows_the_finished_run_and_computes_nothing(smoke, command):
    out, first = smoke
    before = {p: p.stat().st_mtime_ns for p in out.rglob('*.safetensors')}
    done = command('dda_run', 'smoke', '--out', out)
    assert done.returncode == 0 and not done.stderr
    assert done.stdout.splitlines()[:2] == first.stdout.splitlines()[:2]
    assert 'finished before' in done.stdout and '--from' in done.stdout
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob('*.safetensors')}


def test_same_seed_same_student_with_and_without_notebook_and_from(smoke, command, tmp_path):
    out = smoke[0]
    assert command('dda_run', 'smoke', '--no-notebook', '--out', tmp_path / 'plain').returncode == 0
    assert same(weights(out), weights(tmp_path / 'plain'))
    assert not (tmp_path / 'plain' / 'dda.ipynb').exists()
    again = command('dda_run', '--from', out, '--no-notebook', env=os.environ | {'DDA_RUNS': str(tmp_path)})
    assert again.returncode == 0, again.stderr
    copy = next(tmp_path.glob('smoke-*'))
    assert same(weights(out), weights(copy))
    for name, value in dict(method='deepinversion', seed='5').items():
        words = ['--from', str(out), f'{name}={value}', '--no-notebook', '--out', str(tmp_path / name)]
        assert dda_run(words) == 0 and str(read_results(tmp_path / name)[name]) == value
    row = read_results(tmp_path / 'method')
    assert row['parametrisation'] == 'pixels' and row['copies'] == 0
    assert not same(weights(out), weights(tmp_path / 'seed'))


def test_runs_module_is_the_same_command():
    text = subprocess.run(
        [sys.executable, '-m', 'dda_nb.runs', '--help'], capture_output=True, text=True
    ).stdout
    assert 'digits-scarce' in text


@pytest.mark.parametrize(
    'values, check',
    [
        (['copies=0'], lambda r: r['arm'] == 'no_aug' and r['kept_images'] == 0 and r['seconds_prior'] == 0),
        (['omega=-1'], lambda r: r['arm'] == 'no_filter' and r['kept_images'] == 60 * r['copies']),
        (
            ['omega=best:0.5', 'strength=.9'],
            lambda r: r['kept_images'] == 30 * r['copies'] and r['strength'] == '0.9',
        ),
        (
            ['method=deepinversion'],
            lambda r: (
                r['arm'] == 'deepinversion' and r['parametrisation'] == 'pixels' and r['kept_images'] == 0
            ),
        ),
        (
            ['lambda_self=.5', 'lambda_feat=.1', 'lambda_ce=.1'],
            lambda r: {'kl', 'selfsupervised', 'featurematch', 'cross_entropy'} <= r['logged'],
        ),
        (
            ['lambda_kl=0', 'lambda_ce=1'],
            lambda r: 'kl' not in r['logged'] and 'cross_entropy' in r['logged'],
        ),
        (
            ['alpha_cr=0', 'alpha_tv=.01'],
            lambda r: 'contrastive' not in r['logged'] and 'total_variation' in r['logged'],
        ),
    ],
)
def test_fields_do_what_they_say(tmp_path, values, check):
    assert dda_run(['smoke', *values, '--no-notebook', '--out', str(tmp_path / 'run')]) == 0
    logged = {
        k
        for line in open(tmp_path / 'run' / 'log.jsonl')
        for k in json.loads(line)
        if json.loads(line)['stage'] != 'teacher'
    }
    assert check(read_results(tmp_path / 'run') | {'logged': logged})


def test_users_own_teacher_weights(smoke, command, monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(smoke[0].parent / 'cache'))
    config = make_config('smoke')
    cached = teacher_file(config, data_of(config), 'cpu')
    weights_file = tmp_path / 'teacher.pt'
    torch.save({'state_dict': {f'module.{k}': v for k, v in load_file(cached).items()}}, weights_file)
    moments = [f'teacher_{k}={v[0]}' for k, v in zip(('mean', 'std'), data_of(config).moments())]
    given = f'teacher_weights={weights_file.name}', *moments
    done = command('dda_run', 'smoke', *given, '--out', 'run', cwd=tmp_path)  # relative, through papermill
    assert done.returncode == 0, done.stderr
    assert same(weights(tmp_path / 'run'), weights(smoke[0]))


def test_distillation_never_sees_the_data(smoke, monkeypatch, tmp_path):
    "With a cached teacher, spoiling every real training image and label changes nothing of the student"
    import dda_nb.data as data
    from dda_nb.pipeline import run_all

    monkeypatch.setenv('XDG_CACHE_HOME', str(smoke[0].parent / 'cache'))
    torch.set_num_threads(1)
    honest = data.digits()
    spoilt = data.Data(
        'digits',
        data.Split(torch.zeros_like(honest.train.images), honest.train.labels.flip(0)),
        honest.test,
        honest.classes,
    )
    monkeypatch.setattr('dda_nb.data.loading._plain_digits', lambda *_: spoilt)
    row = run_all(make_config('smoke'), tmp_path / 'run')
    assert same(weights(tmp_path / 'run'), weights(smoke[0]))
    assert row['student_acc'] == read_results(smoke[0])['student_acc']


def test_table_of_runs(smoke, command, tmp_path):
    assert dda_run(['smoke', 'seed=1', '--no-notebook', '--out', str(tmp_path / '1')]) == 0
    frame = table([smoke[0], tmp_path / '1'])
    assert frame['runs'].tolist() == [2] and frame['student_acc_std'][0] > 0
    text = command('dda_table', smoke[0], tmp_path / '1').stdout
    assert text.startswith('| arm') and '±' in text


def test_wheel_runs_outside_any_checkout(tmp_path):
    "The wheel, installed into a folder of its own and run elsewhere, does what a checkout does"
    build = [sys.executable, '-m', 'build', '--wheel', '--no-isolation', '--outdir', tmp_path, ROOT]
    source = tmp_path / 'source'
    shutil.copytree(
        ROOT,
        source,
        symlinks=True,
        ignore=shutil.ignore_patterns('.venv', '.git', 'build', '*.egg-info'),
    )
    subprocess.run([*build[:-1], source], check=True, capture_output=True)
    wheel = next(tmp_path.glob('*.whl'))
    subprocess.run(
        [
            sys.executable,
            '-m',
            'pip',
            'install',
            '--quiet',
            '--no-deps',
            '--target',
            tmp_path / 'site',
            wheel,
        ],
        check=True,
        capture_output=True,
    )
    env = os.environ | {'PYTHONPATH': str(tmp_path / 'site'), 'DDA_RUNS': str(tmp_path / 'runs')}
    where = subprocess.run(
        [sys.executable, '-c', 'import dda_nb; print(dda_nb.__file__)'],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    ).stdout
    assert where.startswith(str(tmp_path / 'site'))
    done = subprocess.run(
        [sys.executable, '-m', 'dda_nb.runs', 'smoke'], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / 'runs').glob('smoke-*/dda.ipynb'))
