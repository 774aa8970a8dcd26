"What cannot work is refused in one line, before anything is computed, and nothing already written is lost"

import os, shutil

import pytest, torch, torch.nn as nn
from safetensors.torch import save_file

from dda_nb.bank import ImageBank
from dda_nb.models import Classifier, make_net
from dda_nb.pipeline import check_run, lock_folder, make_config, open_folder
from dda_nb.runs import dda_run
from dda_nb.synthesis import synthesize


@pytest.mark.parametrize(
    'words, line',
    [
        (['digit'], "unknown preset 'digit'; did you mean digits"),
        (['smoke', 'copeis=4'], "unknown field 'copeis'; did you mean copies"),
        (['smoke', 'seed=three'], "seed must be int, found 'three'"),
        (['smoke', 'strength=.3,x'], 'strength must be a list of numbers'),
        (['smoke', 'flip=maybe'], 'flip must be bool'),
        (['smoke', 'synth_lr=nan'], 'synth_lr must be float'),
        (['smoke', 'omega=1.5'], 'omega must lie in [-1, 1], found 1.5'),
        (
            ['smoke', 'omega=nearby'],
            'omega must be a number in [-1, 1], best:FRACTION, views:FRACTION or auto',
        ),
        (['smoke', 'strength=1.2'], 'strength must lie in (0, 1], found 1.2'),
        (['smoke', 'method=deepinvert'], "unknown method 'deepinvert'; did you mean deepinversion"),
        (['smoke', 'teacher=vgg'], "unknown network 'vgg'"),
        (['smoke', 'student=resnet9'], 'resnet9: depth must be'),
        (['smoke', 'data=digit'], "unknown data set 'digit'; did you mean digits"),
        (['smoke', 'prior=/nowhere'], '/nowhere: no diffusion model here'),
        (['smoke', 'bank_images=-3'], 'bank_images must be at least 1, found -3'),
        (['smoke', 'seed'], "expected name=value, found 'seed'"),
        (['smoke', 'seed=inf'], "seed must be int, found 'inf'"),
        (['smoke', 'preset=digits'], 'a preset comes first'),
        (['smoke', 'student=resnet8x1.2.3'], "unknown network 'resnet8x1.2.3'"),
        (['smoke', 'seed=1', 'seed=2'], 'seed is set twice'),
        (
            ['smoke', 'method=cmi', 'copies=0', 'streams=2', 'synth_batch=5'],
            'streams share a bank that is filled once',
        ),
        (['smoke', 'distill_lr=-1'], 'distill_lr must be above 0, found -1'),
        (['smoke', 'synth_lr=0'], 'synth_lr must be above 0'),
        (['smoke', 'prior_width=12'], 'prior_width must be a multiple of 8'),
        (['smoke', 'lambda_kl=0', 'lambda_self=0'], 'distillation has no term'),
        (['smoke', 'alpha_oh=0', 'alpha_bn=0', 'alpha_cr=0'], 'synthesis has no term'),
        (['smoke', 'teacher_weights=/nowhere.pt'], '/nowhere.pt: no such file'),
        (
            ['smoke', 'alpha_adv=1'],
            'set warmup below 1 and copies=0, or use one of: deepinversion, dafl, dda',
        ),
        (['smoke', 'method=zskt', 'warmup=.5'], 'every term asks for it; set warmup=0'),
        (['smoke', 'method=zskt', 'distill_steps=3'], 'are more than the 3 steps of the student'),
        (['smoke', 'distill_batch=2', 'lambda_self=.5'], 'distill_batch must be at least 4'),
        (['smoke', 'bn_momentum=1'], 'bn_momentum must lie in [0, 1)'),
        (['smoke', 'method=cmi', 'copies=2'], 'set warmup=1 or copies=0'),
        (
            ['smoke', 'method=nayer', 'synth_batch=10', 'class_vectors=clip:ViT-B-32'],
            'class_vectors must be seeded or clip:MODEL@WEIGHTS',
        ),
        (
            ['smoke', 'method=nayer', 'synth_batch=10', 'class_vectors=clip:ViT-B-33@/nowhere.pt'],
            "unknown OpenCLIP model 'ViT-B-33'; did you mean",
        ),
        (
            ['smoke', 'method=nayer', 'synth_batch=10', 'class_vectors=clip:ViT-B-32@/nowhere.pt'],
            'no OpenCLIP weights could be read there',
        ),
        (['smoke', 'precision=fp8'], "unknown value of precision 'fp8'"),
        (['smoke', 'warmup=1.5'], 'warmup must lie in [0, 1], found 1.5'),
        (['--from', '/nowhere'], '/nowhere: no run here'),
        ([], 'which preset?'),
    ],
)
def test_one_line_and_status_2(refused, words, line):
    refused(words, line)


def test_same_sentence_in_python(command):
    with pytest.raises(ValueError, match='did you mean copies') as e:
        make_config('smoke', copeis=4)
    assert str(e.value) in command('dda_run', 'smoke', 'copeis=4').stderr
    with pytest.raises(FileNotFoundError, match='no such file'):
        check_run(make_config('smoke', teacher_weights='/nowhere.pt'))


def test_unwritable_folder(command, tmp_path):
    (tmp_path / 'file').write_text('')
    done = command('dda_run', 'smoke', '--out', tmp_path / 'file' / 'run')
    assert done.returncode == 2 and 'cannot write to folder' in done.stderr and done.stderr.count('\n') == 1


@pytest.mark.parametrize(
    'name, line', [('config.yaml', 'not a configuration'), ('results.json', 'not a row of results')]
)
def test_damaged_text_files(command, smoke, tmp_path, name, line):
    shutil.copytree(smoke[0], tmp_path / 'run')
    file = tmp_path / 'run' / name
    file.write_bytes(b'{' + file.read_bytes())
    done = command('dda_run', 'smoke', '--out', tmp_path / 'run')
    assert done.returncode == 2 and line in done.stderr and done.stderr.count('\n') == 1, done.stderr


def test_folder_of_another_configuration(command, smoke):
    before = {p: p.read_bytes() for p in smoke[0].rglob('*') if p.is_file()}
    done = command('dda_run', 'smoke', 'seed=9', '--out', smoke[0])
    assert done.returncode == 2 and 'another configuration: seed is 0, not 9' in done.stderr
    assert before == {p: p.read_bytes() for p in smoke[0].rglob('*') if p.is_file()}


@pytest.mark.parametrize(
    'harm, line',
    [
        (lambda b: b[:-100], 'cut short'),
        (lambda b: b[:-7] + bytes([b[-7] ^ 1]) + b[-6:], 'checksum does not match'),
        (lambda b: b'', 'cut short'),
    ],
)
def test_truncated_or_altered_bank(command, smoke, tmp_path, harm, line):
    shutil.copytree(smoke[0], tmp_path / 'run')
    for name in 'results.json', 'student.safetensors':
        (tmp_path / 'run' / name).unlink()
    bank = tmp_path / 'run' / 'bank.safetensors'
    bank.write_bytes(harm(bank.read_bytes()))
    with pytest.raises(ValueError, match=line):
        ImageBank.load(bank)
    for how in [], ['--no-notebook']:
        done = command('dda_run', 'smoke', '--out', tmp_path / 'run', *how)
        assert (
            done.returncode == 2 and line in done.stderr.splitlines()[-1] and 'Traceback' not in done.stderr
        )
    assert (tmp_path / 'run' / 'variations.safetensors').read_bytes() == (
        smoke[0] / 'variations.safetensors'
    ).read_bytes()


class Evil:
    def __reduce__(self):
        return os.system, ('touch /tmp/dda_nb_was_here',)


def test_checkpoint_that_holds_code_or_numbers(capsys, tmp_path):
    state = make_net('resnet14').state_dict()
    cases = dict(
        code=Evil(),
        module=make_net('resnet14'),
        number=state | {'epoch': 3},
        text='weights',
        keys={3: torch.ones(1)},
    )
    for name, content in cases.items():
        torch.save(content, tmp_path / name)
        assert dda_run(['smoke', f'teacher_weights={tmp_path / name}', '--out', str(tmp_path / 'run')]) == 2
        said = capsys.readouterr().err
        assert 'expected a state dict of tensors' in said and said.count('\n') == 1
    assert not os.path.exists('/tmp/dda_nb_was_here')


def test_weights_that_do_not_fit(capsys, tmp_path):
    save_file(make_net('resnet14', classes=7).state_dict(), tmp_path / 'seven.safetensors')
    save_file(make_net('resnet8').state_dict(), tmp_path / 'eight.safetensors')
    for name, line in dict(
        seven='weights for 7 classes, but there are 10', eight='does not fit resnet14'
    ).items():
        assert (
            dda_run(
                ['smoke', f'teacher_weights={tmp_path / name}.safetensors', '--out', str(tmp_path / 'run')]
            )
            == 2
        )
        said = capsys.readouterr().err
        assert line in said and said.count('\n') == 1


def test_teacher_without_batchnorm():
    plain = Classifier(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), list(range(10)), (1, 8, 8), [0.0], [1.0], 'plain'
    )
    with pytest.raises(
        ValueError, match='BatchNorm statistics, which teacher plain lacks; methods that would work: dafl'
    ):
        synthesize(plain, 10)


def test_one_writer(smoke, command, tmp_path):
    "A second process finds the folder taken, says by whom, and leaves it alone"
    out = open_folder(make_config('smoke', seed=8), tmp_path / 'run')
    lock = lock_folder(out)
    try:
        done = command('dda_run', 'smoke', 'seed=8', '--out', out)
    finally:
        lock.release()
    assert done.returncode == 2 and f'process {os.getpid()} is at work in this folder' in done.stderr
