"A run that is killed at any moment and started again gives the same student, and repeats nothing that was finished"

import json, os, random, signal, subprocess, time

import pytest, torch
from safetensors.torch import load_file

from conftest import BIN

SLOW = [
    'smoke',
    'synth_batch=10',
    'synth_steps=40',
    'prior_steps=200',
    'distill_steps=600',
    'teacher_epochs=6',
]


def outputs(out):
    "Files of finished stages and parts, by name and time"
    names = [
        'student.safetensors',
        'variations.safetensors',
        'bank.safetensors',
        'prior/training.json',
        *[f'bank.{i:04d}.safetensors' for i in range(6)],
    ]
    return {n: (out / n).stat().st_mtime_ns for n in names if (out / n).exists()}


def start(out, cache, *more):
    said = open(f'{out}.said', 'a')
    return subprocess.Popen(
        [BIN / 'dda_run', *SLOW, '--out', out, *more],
        env=os.environ | {'XDG_CACHE_HOME': str(cache)},
        stdout=said,
        stderr=said,
    )


def finish(out, cache, *more):
    assert start(out, cache, *more).wait(timeout=250) == 0, open(f'{out}.said').read()[-2000:]


def kill_once(out, cache, wait, *more):
    "Start the command and kill it `wait` seconds after it began to compute; the step it began at, or None if it finished before"
    log, before = out / 'log.jsonl', outputs(out)
    size = log.stat().st_size if log.exists() else 0
    run = start(out, cache, *more)
    while run.poll() is None and not (log.exists() and log.stat().st_size > size):
        time.sleep(0.02)
    time.sleep(wait)
    if run.poll() is not None:
        return None
    run.send_signal(signal.SIGKILL)
    run.wait()
    kept = outputs(out)
    for name, when in before.items():  # what was finished before is untouched, or has gone into the whole
        if name == 'variations.safetensors':
            assert name in kept  # the filter adds the similarities
        elif name.startswith('bank.0'):
            assert kept.get(name, when) == when and (name in kept or 'bank.safetensors' in kept)
        else:
            assert kept.get(name) == when
    with open(log) as f:
        f.seek(size)
        return json.loads(f.readline())['step']


def kill_at_random(folder, n, seed, longest, *more):
    "Kill a run n times, in a new folder whenever one finishes before; the folders, all finished, and the steps at which runs went on"
    draw, folders, steps = random.Random(seed), [folder / '0'], []
    while len(steps) < n:
        step = kill_once(folders[-1], folder / 'cache', draw.uniform(0, longest), *more)
        if step is None:
            folders.append(folder / str(len(folders)))
        else:
            steps.append(step)
    finish(folders[-1], folder / 'cache', *more)
    return folders, steps


def student(out):
    return load_file(out / 'student.safetensors')


@pytest.fixture(scope='module')
def unharmed(tmp_path_factory):
    "The folder of a run that nobody killed"
    folder = tmp_path_factory.mktemp('unharmed')
    finish(folder / 'run', folder / 'cache', '--no-notebook')
    return folder / 'run'


def check_same(a, b):
    a, b = student(a), student(b)
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_ten_kills(unharmed, tmp_path):
    folders, steps = kill_at_random(tmp_path, 10, 0, 4.0, '--no-notebook')
    for out in folders:
        check_same(out, unharmed)
        assert not list(out.glob('*.ckpt')) and not list(out.glob('bank.0*')) and not list(out.glob('*.part'))
    assert (
        len(steps) == 10 and sum(s > 0 for s in steps) > 1
    )  # runs went on in the middle of a stage, not only between stages


def test_kills_of_the_notebook_command(unharmed, tmp_path):
    "The kernel outlives the command for a moment; the next command waits for it or finds it, and never races it"
    folders, _ = kill_at_random(tmp_path, 2, 1, 2.0)
    for out in folders:
        check_same(out, unharmed)
        assert (out / 'dda.ipynb').exists()


def test_two_runs_are_identical(unharmed, tmp_path):
    finish(tmp_path / 'run', tmp_path / 'cache', '--no-notebook')
    check_same(tmp_path / 'run', unharmed)
