"Several processes give what one gives, and one of them writes"

import subprocess, sys

import torch

from dda_nb.bank import ImageBank
from dda_nb.distillation import KL, distill, load_student
from dda_nb.models import new_classifier
from dda_nb.runs import Run, how_to_distil, read_config, read_results

WORDS = ['smoke', 'streams=2', 'teacher_seed=5', '--no-notebook', '--out']


def call(*words):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=300)


def launch(n, out, *more):
    return call(
        '-m', 'torch.distributed.run', '--nproc_per_node', str(n), '-m', 'dda_nb.runs', *WORDS, out, *more
    )


def distance(a, b):
    "The largest difference of two numbers in two networks"
    pairs = zip(a.state_dict().values(), b.state_dict().values())
    return max((x.double() - y.double()).abs().max().item() for x, y in pairs)


def student_from(nudge, teacher, images, c):
    "A student of this run whose first weights are larger by this part"
    net = new_classifier(c.student, teacher, teacher.moments(), c.seed)
    with torch.no_grad():
        for p in net.parameters():
            p *= 1 + nudge
    terms = [(1.0, KL(c.temperature))]
    how = how_to_distil(c) | dict(seed=c.seed)
    return distill(net, teacher, images, terms, c.distill_steps, **how).student


def rounding(folder):
    "How far apart two students end whose first weights differ in the last bit, all else as in this run"
    c = read_config(folder)
    run = Run(c, folder)
    teacher, images = run.teacher(), run.images()
    run.lock.release()
    return distance(*(student_from(nudge, teacher, images, c) for nudge in (0.0, 2**-23)))


def file_names(folder):
    return sorted(f.name for f in folder.iterdir() if f.is_file())


def check_same_images(one, two):
    columns = zip(*(ImageBank.load(file).columns().items() for file in (one, two)))
    for (name, a), (_, b) in columns:
        assert torch.equal(a.nan_to_num(), b.nan_to_num()), name


def test_two_processes_give_what_one_gives(command, tmp_path):
    one, two = tmp_path / 'one', tmp_path / 'two'
    alone, both = command('dda_run', *WORDS, one), launch(2, two)
    assert alone.returncode == both.returncode == 0, alone.stderr + both.stderr
    assert both.stdout.count('teacher_acc') == 1  # one reports
    assert [read_results(folder)['processes'] for folder in (one, two)] == [1, 2]
    for name in ('bank.safetensors', 'variations.safetensors'):
        check_same_images(one / name, two / name)
    gap, tolerance = distance(load_student(one), load_student(two)), 10 * rounding(one)
    assert 0 < gap <= tolerance
    print(f'students of one and two processes differ by {gap:.1e}, tolerance {tolerance:.1e}')
    assert file_names(one) == file_names(two)
    again = launch(2, two)
    assert again.returncode == 0 and 'finished before' in again.stdout


def test_what_several_processes_cannot_do(tmp_path):
    refusals = {
        'fast works in rounds, which one process does': ['method=fast'],
        'distill_batch must be a multiple of 4 for 2 processes': ['distill_batch=34', 'streams=2'],
    }
    for line, words in refusals.items():
        command = '-m', 'dda_nb.runs', 'smoke', *words, '--out', tmp_path / 'run'
        done = call('-m', 'torch.distributed.run', '--nproc_per_node', '2', *command)
        assert done.returncode != 0 and line in done.stderr, done.stderr
        assert not (tmp_path / 'run').exists()
