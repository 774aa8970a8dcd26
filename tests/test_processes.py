"Several processes give what one gives, and one of them writes"

import subprocess, sys

import torch

from dda_nb.bank import ImageBank
from dda_nb.distillation import KL, distill, load_student
from dda_nb.models import new_classifier
from dda_nb.pipeline import Run, read_config, read_results

WORDS = ['-m', 'dda_nb.runs', 'smoke', 'streams=2', 'teacher_seed=5', '--no-notebook', '--out']


def launch(n, out, *more):
    return subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node', str(n), *WORDS, out, *more],
        capture_output=True,
        text=True,
        timeout=300,
    )


def distance(a, b):
    return max(
        (x.double() - y.double()).abs().max().item()
        for x, y in zip(a.state_dict().values(), b.state_dict().values())
    )


def rounding(folder):
    "How far apart two students end whose first weights differ in the last bit, all else as in this run"
    c = read_config(folder)
    run = Run(c, folder)
    teacher = run.teacher()
    images = run.images()
    run.lock.release()

    def student(nudge):
        net = new_classifier(c.student, teacher, teacher.moments(), c.seed)
        with torch.no_grad():
            for p in net.parameters():
                p *= 1 + nudge
        return distill(
            net,
            teacher,
            images,
            [(1.0, KL(c.temperature))],
            c.distill_steps,
            batch=c.distill_batch,
            lr=c.distill_lr,
            shift=c.shift,
            flip=c.flip,
            seed=c.seed,
        ).student

    return distance(student(0.0), student(2**-23))


def test_two_processes_give_what_one_gives(tmp_path):
    one = subprocess.run(
        [sys.executable, *WORDS, tmp_path / 'one'], capture_output=True, text=True, timeout=300
    )
    two = launch(2, tmp_path / 'two')
    assert one.returncode == two.returncode == 0, two.stderr
    assert two.stdout.count('teacher_acc') == 1  # one reports
    assert (read_results(tmp_path / 'one')['processes'], read_results(tmp_path / 'two')['processes']) == (
        1,
        2,
    )
    for name in ('bank', 'variations'):
        a, b = (ImageBank.load(tmp_path / k / f'{name}.safetensors') for k in ('one', 'two'))
        assert all(
            torch.equal(x.nan_to_num(), y.nan_to_num())
            for x, y in zip(a.columns().values(), b.columns().values())
        ), name
    gap, tolerance = (
        distance(*(load_student(tmp_path / k) for k in ('one', 'two'))),
        10 * rounding(tmp_path / 'one'),
    )
    assert 0 < gap <= tolerance
    print(f'students of one and two processes differ by {gap:.1e}, tolerance {tolerance:.1e}')
    assert sorted(f.name for f in (tmp_path / 'one').iterdir() if f.is_file()) == sorted(
        f.name for f in (tmp_path / 'two').iterdir() if f.is_file()
    )
    again = launch(2, tmp_path / 'two')
    assert again.returncode == 0 and 'finished before' in again.stdout


def test_what_several_processes_cannot_do(tmp_path):
    for words, line in (
        (['method=fast'], 'fast works in rounds, which one process does'),
        (['distill_batch=34'], 'distill_batch must be a multiple of 4 for 2 processes'),
    ):
        done = launch(2, tmp_path / 'run', *words)
        assert done.returncode != 0 and line in done.stderr and not (tmp_path / 'run').exists(), done.stderr
