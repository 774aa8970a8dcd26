"""Each term has the value of its paper's formula, worked out independently in NumPy

The formulas are written out image by image and in double precision, from the papers' equations; nothing of
the package is used but the term itself and the weights of its heads.
"""

from types import SimpleNamespace

import numpy as np, pytest, torch, torch.nn as nn

import dda_nb.distillation.losses  # noqa: F401  its terms are declared with it
from dda_nb.data import View
from dda_nb.models import Classifier, Eye, make_net
from dda_nb.synthesis import TERMS, Hard, Inversion, Pixels, Rotations, SmoothedStatistics
from dda_nb.synthesis.terms import Setup

B, K, D, S = 6, 4, 5, 7  # images, classes, the teacher's and the student's features
RNG = np.random.default_rng(0)
T_LOGITS = RNG.normal(size=(B, K)) * 2
S_LOGITS = T_LOGITS + RNG.normal(size=(B, K)) * 1.5
T_FEATURES, S_FEATURES = RNG.normal(size=(B, D)), RNG.normal(size=(B, S))
LABELS, IMAGES = RNG.integers(K, size=B), RNG.uniform(size=(B, 3, 4, 4))
CHECKS = {}  # field of the weight → function that gives (our value, the formula's)


def tensor(a):
    return torch.tensor(a, dtype=torch.long if np.issubdtype(a.dtype, np.integer) else torch.float32)


def seen(**more):
    "The batch as terms see it"
    batch = dict(t_logits=T_LOGITS, s_logits=S_LOGITS, t_features=T_FEATURES, s_features=S_FEATURES)
    batch |= dict(images=IMAGES, made=IMAGES, labels=LABELS)
    generator = torch.Generator().manual_seed(0)
    return SimpleNamespace(**{k: tensor(v) for k, v in batch.items()}, g=generator, **more)


def built(weight, **recipe):
    "The term, for networks with these numbers of features"
    teacher = SimpleNamespace(n_features=D, classes=range(K), modules=lambda: [])
    student = SimpleNamespace(n_features=S, classes=range(K))
    torch.manual_seed(0)
    return TERMS[weight].build(Setup(recipe, teacher, student, Rotations(S, K, 4)))


def numbers(layer):
    return layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()


def through(layer, x):
    "A linear layer, by hand"
    weight, bias = numbers(layer)
    return x @ weight.T + bias


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kl(t, s):
    return sum(p * np.log(p / q) for p, q in zip(softmax(t), softmax(s)))


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def checks(weight):
    def note(f):
        CHECKS[weight] = f
        return f

    return note


@checks('alpha_oh')
def one_hot():
    return built('alpha_oh')(seen()), np.mean([-np.log(softmax(z)[y]) for z, y in zip(T_LOGITS, LABELS)])


def two_norms():
    "A network with two BatchNorm layers, and what enters them, by hand"
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(32, K)
    )
    for m in net[0], net[2]:
        nn.init.normal_(m.running_mean)
        nn.init.uniform_(m.running_var, 0.5, 2)
    a, b = ([m.running_mean.double().numpy(), m.running_var.double().numpy()] for m in (net[0], net[2]))
    normal = (IMAGES - a[0][:, None, None]) / np.sqrt(a[1] + 1e-5)[:, None, None]
    mixed = np.einsum('oi,bihw->bohw', net[1].weight.detach().double().numpy()[:, :, 0, 0], normal)
    mixed += net[1].bias.detach().double().numpy()[:, None, None]
    return Classifier(net, range(K), (3, 4, 4), [0.0], [1.0]).frozen(), [(IMAGES, *a), (mixed, *b)]


def moments(x):
    return x.mean((0, 2, 3)), x.var((0, 2, 3))


@checks('alpha_bn')
def bn_statistics():
    teacher, entered = two_norms()
    look = Eye(teacher).look(tensor(IMAGES))
    total = 0
    for x, running_mean, running_var in entered:
        mean, var = moments(x)
        total += np.linalg.norm(mean - running_mean) + np.linalg.norm(var - running_var)
    return built('alpha_bn')(seen(stats=look.statistics())), total


def test_smoothed_statistics():
    "Fang et al. 2022: a running average over batches, which begins with the first"
    teacher, entered = two_norms()
    term, first = SmoothedStatistics(teacher, 0.9), tensor(IMAGES)
    term.after_batch(SimpleNamespace(stats=Eye(teacher).look(first / 2).statistics()))
    ours, total = term(SimpleNamespace(stats=Eye(teacher).look(first).statistics())), 0
    with torch.no_grad():
        half = [r[:2] for r in Eye(teacher).look(first / 2).statistics()]
    for (x, running_mean, running_var), (m, v) in zip(entered, half):
        mean, var = moments(x)
        mean, var = 0.9 * m.double().numpy() + 0.1 * mean, 0.9 * v.double().numpy() + 0.1 * var
        total += np.linalg.norm(mean - running_mean) + np.linalg.norm(var - running_var)
    assert ours.item() == pytest.approx(total, rel=1e-5)


@checks('alpha_tv')
def total_variation():
    total = 0
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        squares = 0
        for y in range(4 - down):
            for x in range(max(0, -right), 4 - max(0, right)):
                squares += ((IMAGES[:, :, y + down, x + right] - IMAGES[:, :, y, x]) ** 2).sum()
        total += np.sqrt(squares)
    return built('alpha_tv')(seen()), total


@checks('alpha_act')
def activation():
    return built('alpha_act')(seen()), -np.abs(T_FEATURES).sum() / T_FEATURES.size


@checks('alpha_balance')
def class_balance():
    mean = softmax(T_LOGITS).mean(0)
    return built('alpha_balance')(seen()), sum(p * np.log(p) for p in mean)


@checks('alpha_cr')
def contrast():
    "Crops are whole images here, so that both views are known; earlier images are remembered"
    term = built('alpha_cr', cr_temperature=0.3)
    term.scale = (1.0, 1.0)
    crop_features, memory = RNG.normal(size=(B, D)), RNG.normal(size=(3, 2, D))
    term.memory = tensor(memory)
    looks = SimpleNamespace(features=lambda x: (None, tensor(crop_features)))

    def head(x):
        return unit(through(term.head[2], np.maximum(through(term.head[0], x), 0)))

    anchors = head(np.concatenate([crop_features, memory[:, 0]]))
    keys = head(np.concatenate([T_FEATURES, memory[:, 1]]))
    losses = [-np.log(softmax(keys @ a / 0.3)[i]) for i, a in enumerate(anchors)]
    return term(seen(teacher=looks)), np.mean(losses[:B]) + np.mean(losses[B:])


def test_contrast_of_all_that_enters_batchnorm_layers():
    "Of each image the means of all channels, as CMI compares them"
    teacher, entered = two_norms()
    look = Eye(teacher, means=True).look(tensor(IMAGES))
    means = np.concatenate([x.mean((2, 3)) for x, *_ in entered], 1)
    assert np.allclose(look.means().numpy(), means, atol=1e-5)
    term = TERMS['alpha_cr'].build(Setup(dict(cr_features='batchnorm'), teacher))
    term.scale, b = (1.0, 1.0), seen(teacher=Eye(teacher, means=True), means=look.means())

    def head(x):
        return unit(through(term.head[2], np.maximum(through(term.head[0], x), 0)))

    formula = np.mean([-np.log(softmax(head(means) @ a / 0.2)[i]) for i, a in enumerate(head(means))])
    assert term(b).item() == pytest.approx(formula, rel=1e-5)


@checks('alpha_adv')
def adversarial():
    return built('alpha_adv')(seen()), -np.mean([kl(t, s) for t, s in zip(T_LOGITS, S_LOGITS)])


@checks('alpha_dad')
def decision_adversarial():
    alike = T_LOGITS.argmax(1) == S_LOGITS.argmax(1)
    assert 0 < alike.sum() < B
    return built('alpha_dad')(seen()), -np.mean([a * kl(t, s) for a, t, s in zip(alike, T_LOGITS, S_LOGITS)])


def turned(task):
    "Cross entropy of class and turn over all four turns, by hand; a student's features are the first pixels"
    losses = []
    for image, y in zip(IMAGES, LABELS):
        for r in range(4):
            x = np.rot90(image, r, (1, 2)).reshape(-1)[:S]
            if task.apart:
                z = unit(through(task.head[2], np.maximum(through(task.head[0], x), 0)))
            else:
                z = through(task.head, x)
            losses.append(-np.log(softmax(z)[4 * y + r]))
    return np.mean(losses)


def first_pixels(x):
    return None, x.flatten(1)[:, :S]


PIXELS = SimpleNamespace(aside=first_pixels, at_rest=first_pixels)


@checks('alpha_csd')
def hard():
    term = built('alpha_csd')
    return term(seen(student=PIXELS)), -turned(term.task)


@checks('lambda_csd')
def rotations():
    task = built('lambda_csd')
    return task(seen(student=PIXELS)), turned(task)


def test_auxiliary_classifier_apart():
    "As the code of CSD's authors has it: two layers, outputs of unit length"
    task = Rotations(S, K, 4, apart=True)
    assert task(seen(student=PIXELS)).item() == pytest.approx(turned(task), rel=1e-5)
    assert Hard(task)(seen(student=PIXELS)).item() == pytest.approx(-turned(task), rel=1e-5)


@checks('lambda_kl')
def softened():
    soft = np.mean([kl(t / 20, s / 20) for t, s in zip(T_LOGITS, S_LOGITS)])
    return built('lambda_kl', temperature=20.0)(seen()), 20**2 * soft


@checks('lambda_ce')
def cross_entropy():
    return built('lambda_ce')(seen()), np.mean([-np.log(softmax(z)[y]) for z, y in zip(S_LOGITS, LABELS)])


@checks('lambda_feat')
def feature_match():
    term = built('lambda_feat')
    return term(seen()), ((through(term.h, S_FEATURES) - T_FEATURES) ** 2).mean()


@checks('lambda_self')
def self_supervised():
    "SimSiam (Chen & He 2021), the first half of the batch against the second"
    term = built('lambda_self')

    def layers(head, x):
        h = through(head[0], x)
        h = (h - h.mean(0)) / np.sqrt(h.var(0) + head[1].eps)
        return through(head[3], np.maximum(h, 0))

    p = layers(term.project, S_FEATURES)
    q = layers(term.predict, p[: B // 2]), layers(term.predict, p[B // 2 :])
    cosines = (unit(q[0]) * unit(p[B // 2 :])).sum(1).mean(), (unit(q[1]) * unit(p[: B // 2])).sum(1).mean()
    return term(seen()), 1 - sum(cosines) / 2


@pytest.mark.parametrize('weight', CHECKS)
def test_value_is_the_formulas(weight):
    ours, formula = CHECKS[weight]()
    assert ours.item() == pytest.approx(formula, rel=1e-5, abs=1e-5)


def test_every_term_has_one():
    assert set(CHECKS) == set(TERMS)


def test_total_variation_is_of_the_image_itself():
    "The black frame that a shift brings in is no part of it"
    teacher = Classifier(make_net('resnet8', channels=3), [*'0123456789'], (3, 8, 8), [0.5], [0.5])
    grey = torch.full((6, 3, 8, 8), 0.5)
    images = Pixels(teacher.shape, 10).start(torch.arange(6))
    seen = Inversion(teacher.frozen(), torch.arange(6), images, [], View(shift=3)).look(grey)
    assert seen.images.min() == 0 and built('alpha_tv')(seen) == 0
