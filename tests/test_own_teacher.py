"Networks and data of the user's own, from files on a disk to a student that ships"

import os, subprocess, sys

import pytest, torch
from safetensors.torch import save_file

from dda_nb.bank import new_bank
from dda_nb.data import digits, load_data
from dda_nb.distillation import load_student
from dda_nb.models import make_net, new_classifier, predict, save_classifier
from dda_nb.pipeline import check_run, make_config, read_results
from dda_nb.runs import dda_run

NORMAL = ['teacher_mean=.5', 'teacher_std=.5']


@pytest.fixture(scope='module')
def theirs(tmp_path_factory):
    "Digits in colour as an image folder, and a trained torchvision network as DataParallel saves it"
    folder = tmp_path_factory.mktemp('theirs')
    some, names = digits(), 'zero one two three four five six seven eight nine'.split()
    for split in ('train', 'test'):
        x, y = getattr(some, split)
        new_bank(
            x[:300].expand(-1, 3, -1, -1).contiguous(),
            y[:300],
            classes=[f'{i} {n}' for i, n in enumerate(names)],
        ).to_folder(folder / 'images' / split)
    torch.manual_seed(0)
    net = make_net('torchvision:shufflenet_v2_x0_5', 3, 10)
    opt, (x, y) = torch.optim.AdamW(net.parameters(), 3e-3), some.train
    for i in torch.randperm(1400, generator=torch.Generator().manual_seed(0)).repeat(5).split(50):
        loss = torch.nn.functional.cross_entropy(
            net.train()((x[i].expand(-1, 3, -1, -1) / 255 - 0.5) / 0.5), y[i]
        )
        opt.zero_grad()
        loss.backward()
        opt.step()
    torch.save(
        {'epoch': 5, 'state_dict': {f'module.{k}': v for k, v in net.state_dict().items()}},
        folder / 'checkpoint.pth',
    )
    return folder


def run_theirs(theirs, out, *more, net='torchvision:shufflenet_v2_x0_5'):
    return [
        'smoke',
        f'teacher={net}',
        f'teacher_weights={theirs / "checkpoint.pth"}',
        *NORMAL,
        'student=resnet8',
        '--out',
        out,
        *more,
    ]


def test_a_third_partys_network_ships_a_student(command, theirs, tmp_path):
    "Through papermill, judged on their image folder, and exported"
    done = command('dda_run', *run_theirs(theirs, tmp_path / 'run', f'data=folder:{theirs / "images"}'))
    assert done.returncode == 0 and 'warning' not in done.stderr, done.stderr
    row = read_results(tmp_path / 'run')
    assert (
        row['teacher_acc'] > 0.4
        and row['data_name'] == 'images'
        and min(row['teacher_macs'], row['student_macs'], row['student_cpu_ms']) > 0
    )
    done = command('dda_export', tmp_path / 'run', '--out', tmp_path / 'ship')
    assert done.returncode == 0 and 'student.onnx' in done.stdout, done.stderr
    student = load_student(tmp_path / 'ship')
    x = load_data(f'folder:{theirs / "images"}').test.images[:50]
    import onnxruntime

    logits = onnxruntime.InferenceSession(str(tmp_path / 'ship' / 'student.onnx')).run(
        None, {'images': (x / 255).numpy()}
    )[0]
    assert torch.allclose(torch.from_numpy(logits), predict(student, x), atol=1e-4)
    assert student.classes[1] == '1 one' and student.notes['student_acc'] == row['student_acc']
    assert f'{row["student_acc"]:.4f}'.rstrip('0') in (tmp_path / 'ship' / 'README.md').read_text()


@pytest.mark.slow
def test_no_real_image_at_all(command, theirs, tmp_path):
    done = command('dda_run', *run_theirs(theirs, tmp_path / 'run', 'data=none', 'side=8', '--no-notebook'))
    assert done.returncode == 0, done.stderr
    row = read_results(tmp_path / 'run')
    assert row['student_acc'] is None and 0 <= row['bank_agreement'] <= 1 and row['teacher_params'] > 10**5
    assert 0 <= row['held_out_agreement'] <= 1  # the one figure for who has no test images
    assert load_student(tmp_path / 'run').shape == (3, 8, 8)
    assert command('dda_export', tmp_path / 'run').returncode == 0


def test_timm_network_with_its_own_file(capsys, tmp_path):
    "A file that this package wrote brings classes, shape and normalisation"
    data = digits()
    save_classifier(tmp_path / 't.safetensors', new_classifier('timm:resnet10t', data, ([0.3], [0.4]), 1))
    check_run(
        make_config(
            'smoke', teacher='timm:resnet10t', teacher_weights=str(tmp_path / 't.safetensors'), data='none'
        )
    )
    with pytest.warns(UserWarning, match='no more than guessing'):
        check_run(
            make_config('smoke', teacher='timm:resnet10t', teacher_weights=str(tmp_path / 't.safetensors'))
        )
    assert (
        dda_run(
            [
                'smoke',
                'teacher=timm:resnet10t',
                f'teacher_weights={tmp_path / "t.safetensors"}',
                '--dry-run',
                '--out',
                str(tmp_path / 'run'),
            ]
        )
        == 0
    )
    assert not (tmp_path / 'run').exists() and 'synthesize' in capsys.readouterr().out


def test_warning_of_a_teacher_at_chance_is_one_line(command, tmp_path):
    save_file(make_net('resnet14').state_dict(), tmp_path / 't.safetensors')
    done = command(
        'dda_run',
        'smoke',
        f'teacher_weights={tmp_path / "t.safetensors"}',
        *NORMAL,
        'synth_steps=2',
        'prior_steps=2',
        'copies=1',
        'distill_steps=2',
        '--no-notebook',
        '--out',
        tmp_path / 'run',
    )
    assert done.returncode == 0, done.stderr
    assert [
        line
        for line in done.stderr.splitlines()
        if 'dda_run: warning: the teacher recognises' in line and 'before spending hours' in line
    ]


@pytest.mark.parametrize(
    'words, line',
    [
        (['data=parquet:nowhere'], 'no data set at nowhere'),
        (['data=parquet'], "unknown data set 'parquet'"),
        (['data=hub:owner/name'], 'owner/name: its files are not on this disk, and HF_HUB_OFFLINE is set'),
        (['data=cifar10', 'corrupt=keep'], "unknown value of corrupt 'keep'"),
        (['data=none'], 'data=none goes with weights of your own'),
        (['side=32'], 'the digits are 8 pixels wide'),
        (['real=yes'], 'set copies=0'),
        (['teacher_mean=.5'], 'teacher_mean has 1 values, teacher_std 0'),
        (['teacher_mean=.5', 'teacher_std=.5'], 'go with weights of your own'),
        (['teacher_smoothing=1'], 'teacher_smoothing must lie in [0, 1)'),
        (['teacher=torchvision:resnet18'], 'takes images of 3 channels, not 1'),
        (['teacher=timm:resnet19'], "unknown network of timm 'resnet19'; did you mean"),
        (['student=vgg8m'], 'vgg8m does not take images [1, 8, 8]'),
        (['streams=0'], 'streams must be at least 1'),
    ],
)
def test_one_line_and_status_2(refused, words, line):
    refused(['smoke', *words], line)


def test_weights_for_other_data_are_refused_by_layer(capsys, theirs, tmp_path):
    for words, line in (
        (run_theirs(theirs, tmp_path / 'run'), 'takes images of 3 channels, not 1'),
        (
            run_theirs(theirs, tmp_path / 'run', f'data=folder:{theirs / "images"}', net='resnet14'),
            'does not fit resnet14',
        ),
        (run_theirs(theirs, tmp_path / 'run', 'data=none'), 'Set side to their pixels'),
    ):
        assert dda_run([str(w) for w in words]) == 2
        said = capsys.readouterr().err
        assert line in said and said.count('\n') == 1, said


def test_second_load_decodes_nothing(theirs, monkeypatch):
    first = load_data(f'folder:{theirs / "images"}')
    monkeypatch.setattr('dda_nb.data.decoding.decode', None)
    again = load_data(f'folder:{theirs / "images"}')
    assert (
        torch.equal(first.train.images, again.train.images)
        and again.classes == first.classes
        and again.moments() == first.moments()
    )


def test_a_disk_that_fills_up(theirs, tmp_path):
    "Whatever is written, the line says where and why; nothing half-written stays"
    script = '''import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
from dda_nb.data import load_data
load_data(sys.argv[1])'''
    done = subprocess.run(
        [sys.executable, '-c', script, f'folder:{theirs / "images"}'],
        capture_output=True,
        text=True,
        env=os.environ | {'XDG_CACHE_HOME': str(tmp_path)},
    )
    assert 'BadInput: cannot write' in done.stderr and 'File too large' in done.stderr, done.stderr
    assert not [f for f in tmp_path.rglob('*') if f.is_file() and f.suffix != '.lock']


def test_cifar10_as_jpeg():
    "50,000 images, a second time in under a second"
    import time

    try:
        first = load_data('parquet:cifar10-jpeg')
    except FileNotFoundError:
        pytest.skip('no data set cifar10-jpeg in the folder that DDA_DATA names')
    began = time.perf_counter()
    data = load_data('parquet:cifar10-jpeg')
    assert time.perf_counter() - began < 1
    assert (len(data.train.labels), len(data.test.labels), data.shape, data.classes[0]) == (
        50000,
        5000,
        (3, 32, 32),
        'airplane',
    ) and data.mark == first.mark
