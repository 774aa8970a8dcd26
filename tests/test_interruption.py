"A run that is killed at any moment and started again gives the same student, and repeats nothing finished"

import json, os, random, time

import pytest, torch
from safetensors.torch import load_file

from conftest import start, status_of, until

SLOW = [
    'smoke',
    'synth_batch=10',
    'synth_steps=30',
    'prior_steps=100',
    'distill_steps=250',
    'teacher_epochs=6',
]
# The second half of the images is made while the student learns
ROUNDS = ['method=csd', 'copies=0', 'distill_steps=200']
FINISHED = [
    'student.safetensors',
    'variations.safetensors',
    'bank.safetensors',
    'prior/training.json',
    *(f'bank.{i:04d}.safetensors' for i in range(6)),
]


def outputs(out):
    "Files of finished stages and parts, by name and time"
    return {name: (out / name).stat().st_mtime_ns for name in FINISHED if (out / name).exists()}


def begin(out, cache, *more):
    "A process of its own that makes the run"
    words = {word.split('=')[0]: word for word in (*SLOW, *more)}  # the last of a name counts
    said, env = f'{out}.said', os.environ | {'XDG_CACHE_HOME': str(cache)}
    return start(['dda_run', *words.values(), '--out', out], said, said, env)


def finish(out, cache, *more):
    assert status_of(begin(out, cache, *more), 250) == 0, open(f'{out}.said').read()[-2000:]


def kill_when_there(file, run):
    "Kill a run as soon as it has written this file"
    until(lambda: file.exists() or not run.is_alive())
    assert file.exists(), f'the run ended with {run.exitcode}, without {file.name}'
    kill(run)


def kill(run):
    run.kill()
    run.join()


def log_size(out):
    log = out / 'log.jsonl'
    return log.stat().st_size if log.exists() else 0


def log_line(out, place):
    "The line of the log that begins there"
    with open(out / 'log.jsonl') as f:
        f.seek(place)
        return json.loads(f.readline())


def check_untouched(before, after):
    "What was finished before a kill is as it was, or has gone into the whole"
    for name, when in before.items():
        if name == 'variations.safetensors':
            assert name in after  # the filter adds the similarities
        elif name.startswith('bank.0'):
            assert after.get(name, when) == when and (name in after or 'bank.safetensors' in after)
        else:
            assert after.get(name) == when


def kill_once(out, cache, wait, *more):
    """Start the command and kill it `wait` seconds after it began to compute

    The step that it began at, or None if it finished before."""
    before, size = outputs(out), log_size(out)
    run = begin(out, cache, *more)
    until(lambda: log_size(out) > size or not run.is_alive())
    time.sleep(wait)
    if not run.is_alive():
        return None
    kill(run)
    check_untouched(before, outputs(out))
    return log_line(out, size)['step']


def kill_at_random(folder, n, seed, longest, *more):
    """Kill a run n times, in a new folder whenever one finishes before

    The folders, all finished in the end, and the steps at which runs went on."""
    draw, folders, steps = random.Random(seed), [folder / '0'], []
    while len(steps) < n:
        step = kill_once(folders[-1], folder / 'cache', draw.uniform(0, longest), *more)
        if step is None:
            folders.append(folder / str(len(folders)))
        else:
            steps.append(step)
    finish(folders[-1], folder / 'cache', *more)
    return folders, steps


@pytest.fixture(scope='module')
def unharmed(tmp_path_factory):
    "The folder of a run that nobody killed"
    folder = tmp_path_factory.mktemp('unharmed')
    finish(folder / 'run', folder / 'cache', '--no-notebook')
    return folder / 'run'


def check_same(a, b, name='student'):
    "The same tensors in both folders"
    a, b = (load_file(out / f'{name}.safetensors') for out in (a, b))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k].nan_to_num(), b[k].nan_to_num()) for k in a)  # NaN is what was not measured


@pytest.mark.parametrize('kills, seed', [(4, 0), pytest.param(10, 1, marks=pytest.mark.slow)])
def test_kills_anywhere(unharmed, tmp_path, kills, seed):
    folders, steps = kill_at_random(tmp_path, kills, seed, 4.0, '--no-notebook')
    for out in folders:
        check_same(out, unharmed)
        assert not any(list(out.glob(left)) for left in ('*.ckpt', 'bank.0*', '*.part'))
    assert (
        sum(s > 0 for s in steps) > kills // 5
    )  # runs went on in the middle of a stage, not only between stages


def test_a_batch_of_synthesis_goes_on_where_it_stood(tmp_path):
    "All images are one batch here, of which only the state on the way is there when the run is killed"
    out, words = tmp_path / 'run', ('synth_batch=60', 'synth_steps=100000', '--no-notebook')
    run = begin(out, tmp_path / 'cache', *words)
    kill_when_there(out / 'bank.ckpt', run)
    assert not list(out.glob('bank.*safetensors'))
    size = log_size(out)
    run = begin(out, tmp_path / 'cache', *words)
    until(lambda: log_size(out) > size or not run.is_alive())
    kill(run)
    line = log_line(out, size)
    assert line['stage'] == 'synthesize' and 0 < line['step'] < line['total'] == 100000


def test_a_kill_in_rounds(tmp_path):
    "The images from before the student began stay, and those that are made with it go on with it"
    whole, out, cache = tmp_path / 'whole', tmp_path / 'run', tmp_path / 'cache'
    finish(whole, cache, *ROUNDS, '--no-notebook')
    run = begin(out, cache, *ROUNDS, '--no-notebook')
    kill_when_there(out / 'distill.ckpt', run)
    before, size = outputs(out), log_size(out)
    assert 'bank.safetensors' in before and 'student.safetensors' not in before
    assert not (out / 'pool.safetensors').exists()
    finish(out, cache, *ROUNDS, '--no-notebook')
    assert outputs(out)['bank.safetensors'] == before['bank.safetensors']
    line = log_line(out, size)
    assert line['stage'] == 'distill' and line['step'] > 0
    for name in ('student', 'bank', 'pool'):
        check_same(out, whole, name)


@pytest.mark.slow
def test_kills_of_the_notebook_command(unharmed, tmp_path):
    "The kernel outlives the command for a moment; the next one waits for it or finds it, and never races it"
    folders, _ = kill_at_random(tmp_path, 1, 1, 2.0)
    for out in folders:
        check_same(out, unharmed)
        assert (out / 'dda.ipynb').exists()


@pytest.mark.slow
def test_two_runs_are_identical(unharmed, tmp_path):
    finish(tmp_path / 'run', tmp_path / 'cache', '--no-notebook')
    check_same(tmp_path / 'run', unharmed)


@pytest.mark.slow
@pytest.mark.parametrize('rounds', [[], ROUNDS], ids=['bank', 'rounds'])
def test_kept_answers_go_on_after_kills(tmp_path, rounds):
    "Killed while the teacher is asked, while images are made, or while the student learns"
    words = *rounds, 'reuse=16', 'reuse_variations=4', '--no-notebook'
    finish(tmp_path / 'whole', tmp_path / 'cache', *words)
    (tmp_path / 'killed').mkdir()
    (tmp_path / 'killed' / 'cache').symlink_to(tmp_path / 'cache')
    folders, _ = kill_at_random(tmp_path / 'killed', 10, 5, 3.0, *words)
    for out in folders:
        check_same(out, tmp_path / 'whole')
