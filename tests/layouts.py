"""Networks as public codes build and name them, written out from their papers' definitions

Each is made independently of `dda_nb.models.zoo`: layers under the names that the code's checkpoints have,
and a forward pass step by step. `LAYOUTS` says under which name each is loaded, and how its file is wrapped.
"""

import torch, torch.nn as nn, torch.nn.functional as F


def conv3(c_in, c_out, stride=1):
    return nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)


def projection(c_in, c_out, stride):
    return nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))


class Basic(nn.Module):
    "conv1, bn1, conv2, bn2 and a shortcut, which is called `downsample` or `shortcut`, or has no parameters"

    def __init__(self, c_in, c_out, stride, shortcut):
        super().__init__()
        self.conv1, self.bn1 = conv3(c_in, c_out, stride), nn.BatchNorm2d(c_out)
        self.conv2, self.bn2 = conv3(c_out, c_out), nn.BatchNorm2d(c_out)
        self.name, self.changes, self.c_out = shortcut, c_in != c_out or stride > 1, c_out
        if self.changes and shortcut != 'zeros':
            setattr(self, shortcut, projection(c_in, c_out, stride))

    def forward(self, x):
        h = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.changes and self.name == 'zeros':
            x, old = x[:, :, ::2, ::2], x
            half = torch.zeros_like(x[:, : (self.c_out - old.shape[1]) // 2])
            x = torch.cat([half, x, half], 1)
        elif self.changes:
            x = getattr(self, self.name)(x)
        return F.relu(h + x)


class Residual(nn.Module):
    "The same with its layers in one list"

    def __init__(self, c_in, c_out, stride, shortcut):
        super().__init__()
        first = conv3(c_in, c_out, stride), nn.BatchNorm2d(c_out), nn.ReLU()
        self.residual_function = nn.Sequential(*first, conv3(c_out, c_out), nn.BatchNorm2d(c_out))
        changes = c_in != c_out or stride > 1
        self.shortcut = projection(c_in, c_out, stride) if changes else nn.Sequential()

    def forward(self, x):
        return F.relu(self.residual_function(x) + self.shortcut(x))


def stage(block, n, c_in, c_out, stride, shortcut):
    first = block(c_in, c_out, stride, shortcut)
    return nn.Sequential(first, *(block(c_out, c_out, 1, shortcut) for _ in range(n - 1)))


class ResNet(nn.Module):
    "Small ones with three stages, large ones with four"

    def __init__(self, widths, blocks, shortcut, head='fc', classes=10):
        super().__init__()
        self.conv1, self.bn1 = conv3(3, widths[0]), nn.BatchNorm2d(widths[0])
        c, self.stages, self.head = widths[0], [f'layer{i + 1}' for i in range(len(blocks))], head
        for i, (name, width, n) in enumerate(zip(self.stages, widths, blocks)):
            setattr(self, name, stage(Basic, n, c, width, 2 if i else 1, shortcut))
            c = width
        setattr(self, head, nn.Linear(c, classes))

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        for name in self.stages:
            x = getattr(self, name)(x)
        return getattr(self, self.head)(x.mean((2, 3)))


class ResNetX(nn.Module):
    "Stages conv2_x to conv5_x"

    def __init__(self, blocks, classes=100):
        super().__init__()
        self.conv1 = nn.Sequential(conv3(3, 64), nn.BatchNorm2d(64), nn.ReLU())
        c = 64
        for i, (width, n) in enumerate(zip((64, 128, 256, 512), blocks)):
            setattr(self, f'conv{i + 2}_x', stage(Residual, n, c, width, 2 if i else 1, None))
            c = width
        self.fc = nn.Linear(512, classes)

    def forward(self, x):
        x = self.conv5_x(self.conv4_x(self.conv3_x(self.conv2_x(self.conv1(x)))))
        return self.fc(x.mean((2, 3)))


class Wide(nn.Module):
    def __init__(self, c_in, c_out, stride, _=None):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(c_in), conv3(c_in, c_out, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(c_out), conv3(c_out, c_out)
        self.same = c_in == c_out
        if not self.same:
            self.convShortcut = nn.Conv2d(c_in, c_out, 1, stride, bias=False)

    def forward(self, x):
        h = F.relu(self.bn1(x))
        out = self.conv2(F.relu(self.bn2(self.conv1(h))))
        return out + (x if self.same else self.convShortcut(h))


class WideResNet(nn.Module):
    def __init__(self, depth, width, classes=10):
        super().__init__()
        self.conv1, c = conv3(3, 16), 16
        for i, c_out in enumerate((16 * width, 32 * width, 64 * width)):
            block = nn.Module()
            block.layer = stage(Wide, (depth - 4) // 6, c, c_out, 2 if i else 1, None)
            setattr(self, f'block{i + 1}', block)
            c = c_out
        self.bn1, self.fc = nn.BatchNorm2d(c), nn.Linear(c, classes)

    def forward(self, x):
        x = self.conv1(x)
        for block in (self.block1, self.block2, self.block3):
            x = block.layer(x)
        return self.fc(F.relu(self.bn1(x)).mean((2, 3)))


CONVOLUTIONS = {8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3)}
WIDTHS = 64, 128, 256, 512, 512


class BlockVGG(nn.Module):
    "Blocks 0 to 4 without their last ReLU; pooled after the first three, and after the fourth at 64 pixels"

    def __init__(self, depth, classes=10):
        super().__init__()
        c = 3
        for i, (width, n) in enumerate(zip(WIDTHS, CONVOLUTIONS[depth])):
            layers = []
            for _ in range(n):
                layers += [nn.Conv2d(c, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                c = width
            setattr(self, f'block{i}', nn.Sequential(*layers[:-1]))
        self.classifier = nn.Linear(512, classes)

    def forward(self, x):
        large = x.shape[2] == 64
        for i in range(4):
            x = F.relu(getattr(self, f'block{i}')(x))
            x = F.max_pool2d(x, 2) if i < 3 or large else x
        return self.classifier(F.relu(self.block4(x)).mean((2, 3)))


class ListVGG(nn.Module):
    "All layers in one list, with pooling after every block"

    def __init__(self, depth, classes=10):
        super().__init__()
        layers, c = [], 3
        for width, n in zip(WIDTHS, CONVOLUTIONS[depth]):
            for _ in range(n):
                layers += [nn.Conv2d(c, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                c = width
            layers.append(nn.MaxPool2d(2))
        self.features, self.classifier = nn.Sequential(*layers), nn.Linear(512, classes)

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


def library(name, classes):
    from dda_nb.models import library_net

    return library_net(name, 3, classes)


def bare(state):
    return state


def parallel(state):
    return dict(state_dict={f'module.{k}': v for k, v in state.items()}, best_prec1=91.7)


def under_net(state):
    return dict(net={f'module.{k}': v for k, v in state.items()}, acc=95.0, epoch=199)


def under_state_dict(state):
    return dict(epoch=200, arch='wrn40_2', state_dict=state, best_acc1=94.9)


SMALL, LARGE = (16, 32, 64), (64, 128, 256, 512)
LAYOUTS = {  # whose → (name here, the module, how files wrap its weights, whether names differ from ours)
    'cmi-wrn40_2': ('wrn40_2', lambda: WideResNet(40, 2), under_state_dict, True),
    'cmi-wrn16_1': ('wrn16_1', lambda: WideResNet(16, 1, 100), under_state_dict, True),
    'cmi-resnet34': (
        'resnet34',
        lambda: ResNet(LARGE, (3, 4, 6, 3), 'shortcut', 'linear'),
        under_state_dict,
        True,
    ),
    'cmi-vgg11': ('vgg11', lambda: BlockVGG(11), under_state_dict, True),
    'cmi-vgg8': ('vgg8', lambda: BlockVGG(8, 100), under_state_dict, True),
    'akamaster-resnet20': ('resnet20', lambda: ResNet(SMALL, (3, 3, 3), 'zeros', 'linear'), parallel, True),
    'akamaster-resnet56': ('resnet56', lambda: ResNet(SMALL, (9, 9, 9), 'zeros', 'linear'), parallel, True),
    'chenyaofo-resnet20': (
        'resnet20',
        lambda: ResNet(SMALL, (3, 3, 3), 'downsample', classes=100),
        bare,
        True,
    ),
    'weiaicunzai-resnet18': ('resnet18', lambda: ResNetX((2, 2, 2, 2)), bare, True),
    'kuangliu-resnet18': (
        'resnet18',
        lambda: ResNet(LARGE, (2, 2, 2, 2), 'shortcut', 'linear'),
        under_net,
        True,
    ),
    'kuangliu-vgg16': ('vgg16', lambda: ListVGG(16), under_net, True),
    'torchvision-resnet18': (
        'torchvision:resnet18',
        lambda: library('torchvision:resnet18', 10),
        bare,
        False,
    ),
    'timm-resnet18': ('timm:resnet18', lambda: library('timm:resnet18', 10), bare, False),
}


def trained(make, seed=0):
    "The module with statistics and scales as training leaves them: no two channels alike"
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = make()
        for m in net.modules():
            if isinstance(m, nn.BatchNorm2d):
                nn.init.normal_(m.running_mean, 0, 0.3)
                nn.init.uniform_(m.running_var, 0.5, 2)
                nn.init.uniform_(m.weight, 0.5, 1.5)
                nn.init.normal_(m.bias, 0, 0.2)
    return net.eval()
