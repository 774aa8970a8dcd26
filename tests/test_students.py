"""Students are what they were, to the last bit

students.json holds a checksum of each student's weights, with commit and environment of its recording.
Sums of floating point numbers differ between releases of PyTorch and kinds of CPU: elsewhere these tests are
skipped. A change that changes students on purpose records them anew, once, and says so:
python tests/test_students.py
"""

import hashlib, json, platform, subprocess, tempfile
from pathlib import Path

import pytest, torch
from safetensors.torch import load_file

from dda_nb.runs import dda_run

RECORD = Path(__file__).with_name('students.json')
LONG = 'digits', 'digits-scarce'  # minutes each: run by name, `pytest -m slow`


def environment():
    "What the last bits depend on"
    lines = Path('/proc/cpuinfo').read_text().splitlines() if Path('/proc/cpuinfo').exists() else []
    names = [line.split(':')[1].strip() for line in lines if line.startswith('model name')]
    cpu = names[0] if names else platform.processor()
    return dict(
        torch=torch.__version__, threads=1, cpu=cpu, capability=torch.backends.cpu.get_cpu_capability()
    )


def mark(folder):
    "A checksum of the student's weights: names, types, shapes, contents"
    h = hashlib.blake2b(digest_size=16)
    for name, t in sorted(load_file(folder / 'student.safetensors').items()):
        h.update(f'{name} {t.dtype} {tuple(t.shape)}'.encode())
        h.update(t.contiguous().reshape(-1).view(torch.uint8).numpy())
    return h.hexdigest()


def student(words, folder):
    "The mark of the student that a command gives, on one thread"
    torch.set_num_threads(1)
    assert dda_run([*words.split(), '--no-notebook', '--out', str(folder)]) == 0
    return mark(folder)


def cases():
    for words in json.loads(RECORD.read_text())['students']:
        yield pytest.param(words, marks=pytest.mark.slow if words in LONG else (), id=words)


@pytest.mark.parametrize('words', cases())
def test_student_is_what_it_was(words, tmp_path):
    record = json.loads(RECORD.read_text())
    if record['environment'] != environment():
        pytest.skip(f'recorded with {record["environment"]}')
    assert student(words, tmp_path / 'run') == record['students'][words]


if __name__ == '__main__':
    words = json.loads(RECORD.read_text())['students']
    with tempfile.TemporaryDirectory() as tmp:
        students = {w: student(w, Path(tmp) / str(i)) for i, w in enumerate(words)}
    commit = subprocess.run(
        ['git', 'rev-parse', '--short', 'HEAD'], capture_output=True, text=True
    ).stdout.strip()
    record = dict(recorded_at=commit, environment=environment(), students=students)
    RECORD.write_text(json.dumps(record, indent=1) + '\n')
