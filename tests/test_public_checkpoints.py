"Weights of the field's codes, in their own layouts, load by the network's name and give the same logits"

import warnings

from types import SimpleNamespace

import pytest, torch
from safetensors.torch import save_file

from layouts import LAYOUTS, BlockVGG, ResNet, WideResNet, parallel, trained

from dda_nb.core import load_tree, save_tree
from dda_nb.models import Classifier, make_net, multiply_adds, n_params, new_classifier, save_classifier
from dda_nb.pipeline import make_config
from dda_nb.runs import data_of, dda_run, read_teacher

CIFAR = dict(teacher_mean='.4914,.4822,.4465', teacher_std='.2023,.1994,.2010', data='none', side=32)


def loaded(name, file, **values):
    "The teacher that a run would take, and what was said meanwhile"
    c = make_config('smoke', teacher=name, teacher_weights=str(file), **CIFAR | values)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        return read_teacher(c, data_of(c)), [str(w.message) for w in said]


@pytest.mark.parametrize('layout', LAYOUTS)
def test_same_logits_as_the_module_they_came_from(layout, tmp_path):
    name, make, wrap, foreign = LAYOUTS[layout]
    theirs = trained(make)
    torch.save(wrap(theirs.state_dict()), tmp_path / 'theirs.pth')
    teacher, said = loaded(name, tmp_path / 'theirs.pth')
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        mine, expected = teacher(x), theirs((x - teacher.mean) / teacher.std)
    assert torch.allclose(mine, expected, atol=1e-5 * expected.abs().max())
    assert sum('tensors were put in by order' in line for line in said) == foreign


@pytest.mark.parametrize(
    'name, file, line',
    [
        (
            'wrn40_2',
            lambda: WideResNet(40, 1),
            'ours is 1.path.0.weight [32, 16, 3, 3], theirs block1.layer.0',
        ),
        (
            'wrn40_2',
            lambda: WideResNet(16, 2),
            'ours is 3.path.0.weight [32, 32, 3, 3], theirs block2.layer.0.conv1',
        ),
        ('vgg11', lambda: BlockVGG(13), 'theirs block0.3.weight [64, 64, 3, 3]'),
        (
            'resnet20',
            lambda: ResNet((16, 32, 64), (5, 5, 5), 'zeros', 'linear'),
            'theirs layer1.3.conv1.weight',
        ),
        (
            'resnet20a',
            lambda: ResNet((16, 32, 64), (3, 3, 3), 'downsample'),
            'theirs layer2.0.downsample.0.weight',
        ),
        (
            'resnet18',
            lambda: make_net('torchvision:resnet18', 3),
            'conv1.weight [64, 3, 3, 3], theirs conv1.weight',
        ),
        ('resnet20', lambda: make_net('vgg8', 3), 'does not fit resnet20: ours is 0.weight'),
    ],
)
def test_wrong_weights_are_refused_by_layer(name, file, line, capsys, tmp_path):
    torch.save(parallel(trained(file).state_dict()), tmp_path / 'theirs.pth')
    words = [f'{k}={v}' for k, v in CIFAR.items()]
    given = f'teacher={name}', f'teacher_weights={tmp_path / "theirs.pth"}'
    assert dda_run(['smoke', *given, *words, '--no-notebook', '--out', str(tmp_path / 'run')]) == 2
    said = capsys.readouterr().err
    assert line in said and said.count('\n') == 1, said


def test_what_weights_do_not_show_is_said(tmp_path):
    "Strides, pooling, the side on which zeros are: the same names and shapes may be another network"
    for name, of in (('mobilenetv2', 'mobilenetv2'), ('resnet18', 'resnet18'), ('resnet20', 'resnet20a')):
        torch.save(make_net(of, 3).state_dict(), tmp_path / 'theirs.pth')
        _, said = loaded(name, tmp_path / 'theirs.pth')
        assert any(f'taken for {of}, which has' in line for line in said), said


def test_number_of_classes_is_told_in_any_layout(capsys, tmp_path):
    save = trained(lambda: ResNet((64, 128, 256, 512), (2, 2, 2, 2), 'shortcut', 'linear', 100)).state_dict()
    torch.save(save, tmp_path / 'theirs.pth')
    (tmp_path / 'ten').write_text('\n'.join('abcdefghij'))
    words = [f'{k}={v}' for k, v in CIFAR.items()] + [f'class_names={tmp_path / "ten"}']
    given = 'teacher=resnet18', f'teacher_weights={tmp_path / "theirs.pth"}'
    assert dda_run(['smoke', *given, *words, '--out', str(tmp_path / 'run')]) == 2
    assert '10 class names for 100 classes' in capsys.readouterr().err


def test_safetensors_of_a_library_without_data(tmp_path):
    "Their tensors come in the order of names, and the first is not the first convolution"
    net = make_net('timm:mobilenetv3_small_050', 3, 7)
    save_file(net.state_dict(), tmp_path / 'theirs.safetensors')
    teacher, _ = loaded('timm:mobilenetv3_small_050', tmp_path / 'theirs.safetensors')
    assert (teacher.shape, len(teacher.classes)) == ((3, 32, 32), 7)


def test_a_vgg_of_before_is_refused(capsys, tmp_path):
    like = SimpleNamespace(classes=range(10), shape=(3, 32, 32))
    save_classifier(tmp_path / 'new.safetensors', new_classifier('vgg8', like, ([0.5], [0.5])))
    old = load_tree(tmp_path / 'new.safetensors')
    old['classifier'].pop('version')
    save_tree(tmp_path / 'old.safetensors', old)
    words = 'teacher=vgg8', 'data=none', '--dry-run', '--out', str(tmp_path / 'run')
    for file, line in (('old', 'pooled once more than the field'), ('new', '')):
        status = dda_run(['smoke', f'teacher_weights={tmp_path / file}.safetensors', *words])
        assert status == (2 if line else 0) and line in capsys.readouterr().err


def test_a_file_that_says_nothing_of_normalisation_asks(capsys, tmp_path):
    torch.save(trained(lambda: WideResNet(16, 1)).state_dict(), tmp_path / 'theirs.pth')
    given = 'teacher=wrn16_1', f'teacher_weights={tmp_path / "theirs.pth"}', 'data=none', 'side=32'
    assert dda_run(['smoke', *given, '--out', str(tmp_path / 'run')]) == 2
    said = capsys.readouterr().err.splitlines()[-1]  # after the line on names
    assert 'CIFAR-10 0.4914,0.4822,0.4465 and 0.2023,0.1994,0.201;' in said, said


def test_what_a_library_normalises_with_is_said(tmp_path):
    torch.save(make_net('torchvision:resnet18', 3).state_dict(), tmp_path / 'theirs.pth')
    theirs = dict(teacher='torchvision:resnet18', teacher_weights=str(tmp_path / 'theirs.pth'))
    c = make_config('smoke', data='none', side=32, **theirs)
    with pytest.warns(UserWarning, match='0.485, 0.456, 0.406.*if not, set teacher_mean'):
        read_teacher(c, data_of(c))


@pytest.mark.parametrize('side', [32, 64])
@pytest.mark.parametrize('depth', [8, 11, 13, 16])
def test_vgg_computes_what_is_written_out(depth, side):
    "Parameter counts are the same wherever it pools"
    theirs, mine = trained(lambda: BlockVGG(depth)), make_net(f'vgg{depth}', 3).eval()
    mine.load_state_dict(dict(zip(mine.state_dict(), theirs.state_dict().values())))
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(mine(x), theirs(x), atol=1e-5)


SIZES = {  # parameters, and multiply-adds in millions, of colour images of 32 pixels and 10 classes
    'resnet8': (78_042, 12.5),
    'resnet8x0.5': (19_954, 3.2),
    'resnet14': (175_258, 26.7),
    'resnet20': (272_474, 40.8),
    'resnet20a': (269_722, 40.6),
    'resnet32': (466_906, 69.1),
    'resnet32a': (464_154, 68.9),
    'resnet44a': (658_586, 97.2),
    'resnet56': (855_770, 125.7),
    'resnet110': (1_730_714, 253.1),
    'resnet110a': (1_727_962, 252.9),
    'resnet8x4': (1_210_410, 177.0),
    'resnet32x4': (7_410_730, 1083.0),
    'resnet18': (11_173_962, 555.4),
    'resnet34': (21_282_122, 1159.4),
    'resnet50': (23_520_842, 1297.8),
    'wrn16_1': (175_066, 26.7),
    'wrn16_2': (691_674, 101.1),
    'wrn40_1': (563_930, 83.3),
    'wrn40_2': (2_243_546, 327.6),
    'wrn28_10': (36_479_194, 5243.3),
    'vgg8': (3_918_858, 96.1),
    'vgg11': (9_231_114, 209.4),
    'vgg11m': (9_231_114, 152.8),
    'vgg13m': (9_416_010, 228.3),
    'vgg13': (9_416_010, 284.9),
    'vgg16': (14_728_266, 398.1),
    'vgg19': (20_040_522, 511.4),
    'mobile_half': (697_546, 6.4),
    'mobilenetv2': (2_236_682, 88.0),
}


@pytest.mark.parametrize('name', SIZES)
def test_networks_have_the_fields_sizes(name):
    net = Classifier(make_net(name, 3), range(10), (3, 32, 32), [0.5], [0.5], name)
    assert (n_params(net), round(multiply_adds(net) / 1e6, 1)) == SIZES[name]
