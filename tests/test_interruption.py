"A run that is killed at any moment and started again gives the same student, and repeats nothing that was finished"
import os, random, signal, subprocess, time

import pytest, torch
from safetensors.torch import load_file

from conftest import BIN
from dda_nb.pipeline import read_results

SLOW = ['smoke', 'synth_batch=10', 'synth_steps=30', 'prior_steps=120', 'distill_steps=300', 'teacher_epochs=6']


def outputs(out):
    "Files of finished stages and parts, by name and time"
    names = ['student.safetensors', 'variations.safetensors', 'bank.safetensors', 'prior/training.json', *[f'bank.{i:04d}.safetensors' for i in range(6)]]
    return {n: (out/n).stat().st_mtime_ns for n in names if (out/n).exists()}


def start(out, cache, *more):
    return subprocess.Popen([BIN/'dda_run', *SLOW, '--out', out, *more], env=os.environ | {'XDG_CACHE_HOME': str(cache)},
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def kill_at_random(out, cache, n, seed, longest, *more):
    "Kill the command n times, each up to `longest` seconds after it began to compute; then let it finish"
    draw, kills = random.Random(seed), 0
    while kills < n:
        run = start(out, cache, *more)
        before = outputs(out)
        log = out/'log.jsonl'
        size = log.stat().st_size if log.exists() else 0
        while run.poll() is None and not (log.exists() and log.stat().st_size > size): time.sleep(.02)
        time.sleep(draw.uniform(0, longest))
        if run.poll() is not None: break
        run.send_signal(signal.SIGKILL); run.wait(); kills += 1
        kept = outputs(out)
        for name, when in before.items():   # what was finished before is still there, untouched, or has gone into the whole
            if not name.startswith('bank.0'): assert kept.get(name) == when or name == 'variations.safetensors'
            elif name in kept: assert kept[name] == when
            else: assert 'bank.safetensors' in kept
    last = start(out, cache, *more)
    assert last.wait(timeout=200) == 0, last.stderr.read()
    return kills


def student(out): return load_file(out/'student.safetensors')


@pytest.fixture(scope='module')
def unharmed(tmp_path_factory):
    "The folder of a run that nobody killed"
    folder = tmp_path_factory.mktemp('unharmed')
    assert start(folder/'run', folder/'cache', '--no-notebook').wait(timeout=200) == 0
    return folder/'run'


def check_same(a, b):
    a, b = student(a), student(b)
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_ten_kills(unharmed, tmp_path):
    row = read_results(unharmed)
    whole = sum(v for k, v in row.items() if k.startswith('seconds_'))
    assert kill_at_random(tmp_path/'run', tmp_path/'cache', 10, 0, whole / 8, '--no-notebook') == 10
    check_same(tmp_path/'run', unharmed)
    assert not list((tmp_path/'run').glob('*.ckpt')) and not list((tmp_path/'run').glob('bank.0*'))


def test_kills_of_the_notebook_command(unharmed, tmp_path):
    "The kernel outlives the command for a moment; the next command waits for it or finds it, and never races it"
    assert kill_at_random(tmp_path/'run', tmp_path/'cache', 2, 1, 2.) == 2
    check_same(tmp_path/'run', unharmed)
    assert (tmp_path/'run'/'dda.ipynb').exists()


def test_two_runs_are_identical(unharmed, tmp_path):
    assert start(tmp_path/'run', tmp_path/'cache', '--no-notebook').wait(timeout=200) == 0
    check_same(tmp_path/'run', unharmed)
