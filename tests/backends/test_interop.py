"""A torch Module read as a network computes what the Module does, learns by any rule, and goes back."""

import copy
import math
import re

import numpy as np
import pytest

import ref_bioplaus as rb
from ref_bioplaus import backends, embedded, registry
from ref_bioplaus.conformance.cases.networks import pyramid
from ref_bioplaus.linear import Convolution, Dense
from ref_bioplaus.network import forward
from ref_bioplaus.tree import leaves, named_leaves
from tests.conftest import get
from tests.helpers import ROOT, slow
from tests.helpers.small_models import DETECTORS
from tests.helpers.small_models import SMALL as SMALL_MODELS

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from tests.helpers.torch_modules import TorchNetwork, channels_first, torchvision_models  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
LARGE = "a network of tens of millions of weights; the small Modules beside it have the same parts"


class Chain(nn.Module):
    """Every kind of Module, on images that are not square, and strides, paddings and pools that overlap."""

    shape = (3, 17, 12)

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 6, (3, 5), stride=(2, 1), padding=(1, 2), bias=False),
            nn.BatchNorm2d(6, eps=1e-3, momentum=0.3), nn.ReLU(inplace=True),
            nn.MaxPool2d((3, 2), stride=(2, 1), padding=1), nn.Identity(),
        )  # fmt: skip
        self.body = nn.Sequential(
            nn.Conv2d(6, 4, (2, 4), padding="same"), nn.Tanh(),
            nn.AvgPool2d(2, stride=1, padding=1, count_include_pad=False),
            nn.Conv2d(4, 5, 3, stride=2), nn.Sigmoid(), nn.AdaptiveAvgPool2d((2, None)), nn.Dropout(0.0), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Linear(60, 9, bias=False), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 4))

    def forward(self, x):
        return self.head(self.body(self.stem(x)))


class Functions(nn.Module):
    """Every functional form and every sum; one ReLU for several places; weights handed to functions."""

    shape = (2, 9, 11)

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 5, 3, padding=1), nn.Conv2d(5, 5, 1), nn.Conv2d(5, 5, 3, padding=1)
        self.norm, self.d, self.e = nn.BatchNorm2d(5), nn.Linear(100, 7), nn.Linear(7, 3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.relu(self.a(x))
        y = F.conv2d(x, self.b.weight, self.b.bias, padding=0)
        y = F.batch_norm(
            y, self.norm.running_mean, self.norm.running_var, self.norm.weight, self.norm.bias, self.training
        )
        y += x
        z = self.relu(y)
        z = F.relu(torch.add(torch.tanh(self.c(z)), z) + x)
        z = torch.sigmoid(F.max_pool2d(z.contiguous(), 2, stride=2, padding=0))
        z = F.avg_pool2d(F.dropout(z, 0.0, self.training), (1, 1))
        z = F.adaptive_avg_pool2d(z, (4, 5))
        z = z.view(z.size(0), -1)
        z = F.linear(z, self.d.weight, bias=self.d.bias).relu()
        z = torch.reshape(z, (z.shape[0], 7)).tanh().sigmoid().add(F.tanh(z))
        return self.e(torch.flatten(z, 1))


class Means(nn.Module):
    """The mean of an image as a vector, in each of its forms, and as one pixel."""

    shape = (3, 6, 5)

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 1)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(6, 4)
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        y = torch.relu(self.a(x))
        pixel = self.b(self.pool(y))
        means = self.fc(torch.flatten(pixel, 1)) + torch.flatten(self.pool(y), 1) + y.mean((2, 3)) + y.mean([-1, -2])
        means = means + F.adaptive_avg_pool2d(y, (1, 1)).flatten(1) + y.mean((2, 3), keepdim=True).view(-1, 4)
        return self.last(means)


class Vectors(nn.Module):
    """A Module of vectors, whose first layer normalises its input, and a residual sum of vectors."""

    shape = (6,)

    def __init__(self):
        super().__init__()
        self.norm, self.fc = nn.BatchNorm1d(6), nn.Linear(6, 6)
        self.last = nn.Linear(6, 3)

    def forward(self, x):
        x = self.norm(x)
        return self.last(x + torch.tanh(self.fc(x)).view(x.shape))


class Joins(nn.Module):
    """Maps that are enlarged, and concatenations along every dimension of a sample, of vectors too."""

    shape = (2, 4, 6)

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 5, 3, stride=2, padding=1)
        self.c, self.d, self.up = nn.Conv2d(8, 3, 1), nn.Conv2d(5, 3, 1), nn.Upsample(scale_factor=2.0)
        self.e, self.f, self.last = nn.Linear(3 * 8 * 12, 4), nn.Linear(4, 2), nn.Linear(6, 3)

    def forward(self, x):
        below = torch.tanh(self.a(x))  # 3 channels, 4 x 6 pixels
        above = self.b(below)  # 5 channels, 2 x 3 pixels
        both = torch.tanh(self.c(torch.cat([below, self.up(above)], 1)))
        other = self.d(F.interpolate(above, size=both.shape[-2:], mode="nearest"))
        tall = torch.concat((both, other), dim=2)  # 8 x 6
        wide = torch.cat((torch.relu(tall), tall), dim=-1)  # 8 x 12
        units = torch.tanh(self.e(wide.flatten(1)))
        return self.last(torch.cat([units, self.f(units)], -1))


SMALL = [Chain, Functions, Means, Vectors, Joins]


def module_of(make, dtype=torch.float64):
    """A Module with other numbers than it begins with, BatchNorm's and biases among them."""
    torch.manual_seed(0)
    module = make().to(dtype)
    for tensor in module.state_dict().values():
        if tensor.ndim == 1:
            tensor.add_(torch.rand(tensor.shape) / 2)
    return module


def batch_of(module, shape, n=3):
    """A batch as a Module takes it, and as a network does with the classes of its samples."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((n, *(shape[1:] + shape[:1] if len(shape) == 3 else shape)))
    theirs = channels_first(x).to(next(module.parameters()).dtype)
    module.eval()
    with torch.no_grad():
        classes = module(theirs).shape[1]
    module.train()
    return theirs, x, np.eye(classes)[rng.integers(0, classes, n)]


def near(a, b):
    """Whether two arrays are the same to a hundred roundings of their size, which is not 0."""
    size = np.max(np.abs(b))
    return a.shape == b.shape and size > 0 and np.max(np.abs(a - b)) < 100 * np.finfo(b.dtype).eps * size


def check_whole(module, shape, backend, n=3):
    """Logits in test mode; in train mode loss, gradients and running statistics: torch's autograd is the oracle."""
    theirs, x, y = batch_of(module, shape, n)
    network, params, stats = rb.interop.from_torch(module, theirs[:1])
    with torch.no_grad():
        wanted = module.eval()(theirs).numpy()
    module.train()
    loss, optimizer = rb.losses.cross_entropy(), rb.optimizers.sgd(0.0)
    algorithm = rb.algorithms.backprop(
        network.with_kernels(backend.kernels), loss, optimizer, initializer=rb.initializers.given(params, stats)
    )
    state = algorithm.init(backend.key(0))
    batch = backend.batch(x, y)
    test = backend.eager(lambda state, x: forward(network, state.forward.params, state.stats, x, train=False)[0].h[-1])
    assert near(backend.to_numpy(test(state, batch.x)), wanted)
    state, info = backend.eager(algorithm.modes["learn"])(state, batch)
    found = torch.nn.functional.cross_entropy(module(theirs), torch.as_tensor(y).argmax(1))
    assert math.isclose(float(np.mean(backend.to_numpy(info.loss))), float(found.detach()), rel_tol=1e-12)
    found.backward()
    grads = backend.export_params(network, info.grads)
    assert grads.keys() == dict(module.named_parameters()).keys()
    sizes: dict[str, float] = {}  # of a Module's gradients: a bias before BatchNorm has none of its own but rounding
    for name, parameter in module.named_parameters():
        place = name.rpartition(".")[0]
        sizes[place] = max(sizes.get(place, 0.0), float(parameter.grad.abs().max()))
    for name, parameter in module.named_parameters():
        difference = np.max(np.abs(grads[name] - parameter.grad.numpy()))
        assert difference < 1e-12 * sizes[name.rpartition(".")[0]], name
    after = rb.interop.state_dict(backend, network, state)
    for name, tensor in module.state_dict().items():
        if "running" in name:
            assert near(after[name].numpy(), tensor.numpy()), name
    return network


@pytest.mark.parametrize("make", SMALL)
def test_logits_gradients_and_statistics_are_torchs(make):
    check_whole(module_of(make), make.shape, get("numpy"))


@pytest.mark.parametrize("make", SMALL)
def test_in_float32_and_for_one_sample(make):
    module = module_of(make, torch.float32)
    theirs, x, _ = batch_of(module, make.shape, 1)
    network, params, stats = rb.interop.from_torch(module, theirs)
    assert network.dtype == "float32" and {leaf.dtype.name for leaf in leaves((params, stats))} == {"float32"}
    with torch.no_grad():
        wanted = module.eval()(theirs).numpy()
    assert near(forward(network, params, stats, x.astype(np.float32), train=False)[0].h[-1], wanted)


@pytest.mark.parametrize("make", SMALL)
def test_there_and_back_bit_for_bit_and_the_module_is_left_alone(make, numpy64):
    module = module_of(make)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module.eval()
    network, params, stats = rb.interop.from_torch(module, torch.zeros(2, *make.shape))
    assert not any(part.training for part in module.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    given = rb.initializers.given(params, stats)
    state = rb.algorithms.backprop(network, rb.losses.cross_entropy(), rb.optimizers.sgd(0.1), given).init(
        numpy64.key()
    )
    there = rb.interop.state_dict(numpy64, network, state)
    assert there.keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in there.items())
    other = make().double()
    other.load_state_dict(there, strict=True)
    for leaf in leaves((params, stats)):
        leaf += 1.0  # memory of their own
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert all(np.all(new == old - 1.0) for new, old in zip(leaves(state.forward.params), leaves(params), strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_into_float32_and_goes_back(dtype):
    module = module_of(Chain, dtype)
    network, params, stats = rb.interop.from_torch(module, torch.zeros(1, *Chain.shape))
    assert network.dtype == "float32" and {leaf.dtype.name for leaf in leaves((params, stats))} == {"float32"}
    arrays = get("numpy", "float32").export_params(network, params, stats)
    other = Chain().to(dtype)
    other.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()}, strict=True)
    assert all(torch.equal(tensor, module.state_dict()[name]) for name, tensor in other.state_dict().items())


@pytest.mark.parametrize("backend", ["numpy", "torch", slow("jax")])
def test_a_rule_teaches_a_module_on_every_library(backend):
    """The Module predicts what the network has learned, from weights that have moved."""
    backend, module = get(backend), module_of(Functions)
    theirs, x, y = batch_of(module, Functions.shape)
    network, params, stats = rb.interop.from_torch(module, theirs)
    loss, given = rb.losses.cross_entropy(), rb.initializers.given(params, stats)
    rule = rb.algorithms.kolen_pollack(
        network.with_kernels(backend.kernels), loss, rb.optimizers.sgd(0.1, momentum=0.9, decay=1e-3), initializer=given
    )
    state, learn = rule.init(backend.key(seed=3)), backend.eager(rule.modes["learn"])
    losses = []
    for _ in range(3):
        state, info = learn(state, backend.batch(x, y))
        losses.append(float(np.mean(backend.to_numpy(info.loss))))
    assert losses[2] < losses[0]
    module.load_state_dict(rb.interop.state_dict(backend, network, state))
    with torch.no_grad():
        found = module.eval()(theirs).softmax(1).numpy()
    predict = backend.eager(lambda state, x: rb.predict(network, loss, state, x))
    assert near(backend.to_numpy(predict(state, backend.batch(x, y).x)), found)


@pytest.mark.parametrize("row", registry.ROWS, ids=lambda row: row.name)
def test_every_rule_starts_from_given_weights(row, numpy64):
    """And draws its feedback weights as it would without; optimizers remember the weights that are given."""
    module = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 4)).double()
    network, params, stats = rb.interop.from_torch(module, torch.zeros(1, 5))
    loss = registry.task_loss(row, rb.losses.cross_entropy(), 4 - 2 * row.auxiliary)
    wrapped = rb.modifications.constant_norm(rb.optimizers.sgd(0.1, momentum=0.9))
    inverse = rb.optimizers.sgd(0.1) if row.inverses else None
    options = row.recipe().options
    drawn = row.build(network, loss, wrapped, inverse, **options).init(numpy64.key(1))
    given = rb.initializers.given(params, stats)
    state = row.build(network, loss, wrapped, inverse, **options, initializer=given).init(numpy64.key(1))
    assert all(np.array_equal(a, b) for a, b in zip(leaves(state.forward.params), leaves(params), strict=True))
    for (name, a), b in zip(named_leaves(state.feedback), leaves(drawn.feedback), strict=True):
        assert np.array_equal(a, b), name
    norms = [(n, leaf) for n, leaf in named_leaves(state.forward.memory) if re.search(r"norm/\d/W$", n)]
    assert len(norms) >= 3
    for name, found in norms:
        assert np.allclose(found, np.linalg.norm(params[int(name.split("/")[-2])].W), rtol=1e-12), name


def test_weights_that_do_not_fit_are_a_sentence(numpy64):
    network = rb.chain((5,), (rb.dense(4), rb.batch_norm), (rb.dense(3), rb.bias), dtype="float64")
    narrow = rb.chain((5,), (rb.dense(4), rb.batch_norm), (rb.dense(2), rb.bias), dtype="float64")
    params, stats = rb.initializers.forward_params(narrow, (numpy64.key(),))

    def begin(params, stats):
        rb.algorithms.backprop(
            network, rb.losses.cross_entropy(), rb.optimizers.sgd(0.1), rb.initializers.given(params, stats)
        ).init(numpy64.key())

    with pytest.raises(
        ValueError, match=r"^given weights: params/2/W has shape \(2, 4\), expected \(3, 4\) as the net"
    ):
        begin(params, stats)
    with pytest.raises(ValueError, match=r"stats/1/0/mean has shape None, expected \(4,\)"):
        begin(rb.initializers.forward_params(network, (numpy64.key(),))[0], ())
    deeper = rb.chain((5,), (rb.dense(4), rb.batch_norm), (rb.dense(3), rb.bias), (rb.dense(3), rb.bias))
    with pytest.raises(ValueError, match=r"params/3/W has shape \(3, 3\), expected None"):
        begin(*rb.initializers.forward_params(deeper, (numpy64.key(),)))


def test_layers_are_grouped_as_the_papers_networks_are():
    """Synapses with what follows them; a pool, a sum and what two read begin a layer; dropout at 0 is none."""
    module = nn.Sequential(
        nn.Conv2d(1, 4, 5, padding=2), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25), nn.Flatten(),
        nn.Dropout(0.0), nn.Linear(4 * 4 * 3, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 2),
    )  # fmt: skip
    network, _, _ = rb.interop.from_torch(module, torch.zeros(1, 1, 8, 6))
    wanted = rb.chain(
        (8, 6, 1), (rb.conv(4, 5, padding=2), rb.bias, rb.batch_norm, rb.relu),
        (rb.max_pool((2, 2), (2, 2)), rb.dropout(0.25), rb.flatten), (rb.dense(6), rb.bias, rb.relu, rb.dropout(0.5)),
        (rb.dense(2), rb.bias),
    )  # fmt: skip
    assert repr(network) == repr(wanted)
    assert [layer.modules for layer in network.layers] == [
        (),
        ("0", "1", "2"),
        ("3", "4", "5"),
        ("7", "8", "9"),
        ("10",),
    ]
    network, _, _ = rb.interop.from_torch(module_of(Means), torch.zeros(1, 3, 6, 5))
    assert [type(layer.linear) for layer in network.layers if layer.linear] == [Convolution, Convolution, Dense, Dense]
    assert any(layer.local == (rb.global_average_pool.build((4, 3, 4)),) for layer in network.layers)


class OneLine(nn.Module):
    """A Module of one Linear, one Conv2d and one line."""

    def __init__(self, line):
        super().__init__()
        self.fc, self.conv, self.own = nn.Linear(4, 4), nn.Conv2d(2, 4, 1), nn.Parameter(torch.ones(4))
        self.line = line

    def forward(self, x):
        return self.line(self, x)


class Unused(OneLine):
    """Whose parameter `own` nothing uses."""

    def __init__(self):
        super().__init__(lambda self, x: self.fc(self.conv(x).mean((2, 3))))


class Two(OneLine):
    """Of two inputs, and a third that has a default."""

    def __init__(self):
        super().__init__(lambda self, x: self.fc(x))

    def forward(self, x, y, more=None):
        return self.line(self, x)


def doubled(self, x):
    """y + 2 y, which torch adds up to 4 y, as z is y."""
    y = self.fc(x)
    z = y.contiguous()
    z += y
    return z + y


def tied():
    """Two layers of one matrix."""
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    module[1].weight = module[0].weight
    return module


def hooked():
    """A Module whose output a hook changes."""
    module = nn.Sequential(nn.Linear(4, 4))
    module[0].register_forward_hook(lambda module, args, output: 2 * output)
    return module


IMAGES, UNITS = torch.zeros(1, 2, 5, 3), torch.zeros(1, 4)
REFUSED = [
    (nn.Sequential(nn.ConvTranspose2d(2, 3, 3)), IMAGES, 'read module "0", of kind ConvTranspose2d: expected Li'),
    (nn.Sequential(nn.Conv2d(2, 4, 1, groups=2)), IMAGES, 'module "0", of kind Conv2d: its groups is 2, expected 1$'),
    (nn.Sequential(nn.Conv2d(2, 4, 1, dilation=2)), IMAGES, r"its dilation is \(2, 2\), expected 1$"),
    (nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect")), IMAGES, "padding_mode is 'reflect'"),
    (nn.Sequential(nn.Conv2d(2, 4, 9)), IMAGES, "a kernel of 9x9 does not fit its input of 5x3"),
    (nn.Sequential(nn.BatchNorm2d(2, momentum=None)), IMAGES, "its momentum is None"),
    (nn.Sequential(nn.BatchNorm2d(2, affine=False)), IMAGES, "its affine is False, expected True"),
    (nn.Sequential(nn.MaxPool2d(2, ceil_mode=True)), IMAGES, "ceil_mode adds windows"),
    (nn.Sequential(nn.AvgPool2d(2, padding=1)), IMAGES, "expected count_include_pad=False"),
    (nn.Sequential(nn.AdaptiveAvgPool2d((6, 3))), IMAGES, "it makes 6x3 pixels of 5x3, expected 1x1 or what arrives"),
    (nn.Sequential(nn.Linear(3, 4)), IMAGES, "is an image of 5x3 pixels, expected a vector: flatten it before"),
    (nn.Sequential(nn.MaxPool2d(2)), UNITS, "is a vector of 4 units, expected an image"),
    (nn.Sequential(nn.Linear(4, 4), nn.Softmax(1)), UNITS, 'module "1", of kind Softmax: leave it out, as the loss'),
    (OneLine(lambda self, x: F.log_softmax(self.fc(x), 1)), UNITS, "a call of log_softmax: leave it out, as the loss"),
    (OneLine(lambda self, x: self.fc(x) * self.own), UNITS, 'node "mul", a call of mul: expected Linear'),
    (OneLine(lambda self, x: self.fc(x) + self.own), UNITS, "expected the sum of two tensors that layers have made"),
    (OneLine(lambda self, x: torch.add(self.fc(x), x, alpha=2)), UNITS, "expected the sum of two tensors"),
    (OneLine(lambda self, x: torch.cat([self.fc(x), self.own], 1)), UNITS, "expected a list of tensors that layers"),
    (OneLine(lambda self, x: torch.cat([x, self.fc(x)])), UNITS, "its dim is 0, which is the batch"),
    (OneLine(lambda self, x: torch.cat([self.conv(x), x], -1)), IMAGES, r"only along dim -1, got \(4, 5, 3\)"),
    (nn.Sequential(nn.Upsample(scale_factor=1.5)), IMAGES, "it makes 7.5x4.5 pixels of 5x3, expected as many times as"),
    (nn.Sequential(nn.Upsample((10, 9))), IMAGES, "it makes 10x9 pixels of 5x3"),
    (nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear")), IMAGES, "its mode is 'bilinear', expected 'nearest'"),
    (OneLine(lambda self, x: self.fc(self.fc(x))), UNITS, '"fc", of kind Linear: it is called twice'),
    (OneLine(lambda self, x: F.linear(x, self.fc.weight, self.own)), UNITS, '"fc.weight", "own", expected names as'),
    (OneLine(lambda self, x: self.conv(x) + x.mean((2, 3), keepdim=True)), IMAGES, r"got \(4, 5, 3\) and \(2, 1, 1\)"),
    (OneLine(lambda self, x: self.conv(x).view(4, -1)), IMAGES, "expected each sample as a vector, .* of 60 numbers"),
    (OneLine(lambda self, x: self.conv(x).mean(1)), IMAGES, r"its dim is 1, expected \(2, 3\)"),
    (OneLine(lambda self, x: self.fc(x) if x.sum() > 0 else x), UNITS, "torch.fx cannot trace the OneLine"),
    (OneLine(lambda self, x: (self.fc(x), x)), UNITS, "output \"output\": it is a tuple, expected one tensor"),
    (OneLine(doubled), UNITS, 'node "iadd", a call of iadd: it writes over what is read again later'),
    (OneLine(lambda self, x: F.relu(y := self.fc(x), inplace=True) + y), UNITS, "writes over what is read again later"),
    (OneLine(lambda self, x: self.fc(x if self.training else x.tanh())), UNITS, "has other calls in training than in"),
    (OneLine(lambda self, x: F.batch_norm(self.fc(x), None, None, training=True)), UNITS, "its affine is False"),
    (Two(), UNITS, 'the Module\'s input "y": expected one input, and a default for every other'),
    (Unused(), IMAGES, 'from_torch: "own" is not used by the Module'),
    (tied(), UNITS, '"0.weight" and "1.weight" are one parameter'),
    (hooked(), UNITS, 'module "0" has hooks'),
    (nn.Sequential(nn.Linear(4, 4)), [4], r"given a Sequential and \[4\], expected a Module and a batch"),
    (nn.Sequential(nn.ReLU(), nn.Flatten()), UNITS, "a network needs at least one layer with synapses"),
]  # fmt: skip


@pytest.mark.parametrize(("module", "example", "sentence"), REFUSED, ids=[words for *_, words in REFUSED])
def test_what_it_cannot_read_is_named_in_one_sentence(module, example, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        rb.interop.from_torch(module, example)
    assert str(caught.value).startswith(("from_torch", "a network")) and "\n" not in str(caught.value)


def test_in_place_where_nobody_reads_it_again_is_read():
    def line(self, x):
        y = self.conv(x)
        z = F.relu(y.flatten(1), inplace=True).view(x.size(0), -1)
        return z

    module = OneLine(line)
    del module.own, module.fc
    network, params, stats = rb.interop.from_torch(module, IMAGES)
    x = np.random.default_rng(0).standard_normal((2, 5, 3, 2)).astype(np.float32)
    h = forward(network, params, stats, x)[0].h[-1]
    with torch.no_grad():
        wanted = module(channels_first(x)).reshape(2, 4, 5, 3).permute(0, 2, 3, 1).reshape(2, -1)
    assert near(h, wanted.numpy()) and np.min(h) == 0


def test_a_module_in_evaluation_is_read_as_it_trains():
    """Dropout is there where torch.fx would see none."""
    module = OneLine(lambda self, x: self.fc(F.dropout(x, 0.5, self.training)))
    del module.own, module.conv
    network, _, _ = rb.interop.from_torch(module.eval(), UNITS)
    assert [op.probability for op in network[1].local] == [0.5]


@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [
        slow("resnet18", (3, 66, 50), {}, reason=LARGE),
        slow("resnet50", (3, 66, 50), {}, reason=LARGE),
        slow("alexnet", (3, 224, 240), {"dropout": 0.0}, reason=LARGE),
        slow("vgg11_bn", (3, 224, 250), {"dropout": 0.0}, reason=LARGE),
    ],
)
def test_torchvisions_models(name, shape, options):
    """At full width, with the 1000 classes."""
    module = module_of(lambda: getattr(torchvision_models(), name)(weights=None, **options))
    backend = backends.get("torch", dtype="float64", kernels="native")
    network = check_whole(module, shape, backend, n=2)
    assert network.parameter_count == sum(parameter.numel() for parameter in module.parameters())


WITHOUT = {"bartunov2018/mnist-lc", "bartunov2018/cifar-lc", "bartunov2018/imagenet-lc", "he2016/resnet20", *DETECTORS}


@pytest.mark.parametrize("name", [slow(n, reason=LARGE) if "resnet50" in n else n for n in SMALL_MODELS])
def test_a_papers_network_as_a_module(name, numpy64):
    """It takes the network's weights strictly and computes the same; read again it is the same network."""
    network = SMALL_MODELS[name]().with_dtype("float64")
    if name in WITHOUT:
        with pytest.raises(
            ValueError, match=r"^to_torch: layer \d+ \(.*\): torch has no Module of a (Local|Padded|Rows)"
        ):
            rb.interop.to_torch(network)
        return
    params, stats = rb.initializers.forward_params(network, (numpy64.key(2),))
    for layer in stats:
        for held in layer:
            held.update({n: a + 0.3 * np.random.default_rng(0).random(a.shape) for n, a in held.items()})
    module = rb.interop.to_torch(network)
    assert list(module.state_dict()) == list(TorchNetwork(network).state_dict())
    arrays = numpy64.export_params(network, params, stats)
    module.load_state_dict({n: torch.from_numpy(array) for n, array in arrays.items()}, strict=True)
    x = np.random.default_rng(1).standard_normal((2, *network[0].out_shape))
    with torch.no_grad():
        found = module.eval()(channels_first(x)).numpy()
    h = forward(network, params, stats, x, train=False)[0].h[-1]
    assert near(found, h)
    if all(before == after for part in windows(network) for before, after in part.window.padding):
        again, *tree = rb.interop.from_torch(module, channels_first(x))
        assert near(forward(again, *tree, x, train=False)[0].h[-1], h)


def test_enlarged_and_concatenated_images_as_a_module(numpy64):
    net = rb.Builder((4, 6, 3))
    a = net.add(rb.conv(5, 3, padding=1), rb.bias, rb.relu)
    b = net.add(rb.upsample(2), inputs=(net.add(rb.max_pool(2), inputs=(a,)),))
    rows = net.add(rb.tanh, inputs=(net.add(inputs=(a, b), concat=2), net.add(inputs=(b, a), concat=2)))
    x = net.add(inputs=(rows, net.add(rb.max_pool((1, 2), (1, 2)), inputs=(rows,))), concat=1)
    x = net.add(rb.flatten, inputs=(x, net.add(rb.max_pool((2, 1), (2, 1)), inputs=(x,))), concat=0)
    net.add(rb.dense(4), rb.bias)
    network = net.build("float64")
    params, stats = rb.initializers.forward_params(network, (numpy64.key(2),))
    module, x = rb.interop.to_torch(network), np.random.default_rng(1).standard_normal((2, 4, 6, 3))
    arrays = numpy64.export_params(network, params, stats)
    module.load_state_dict({n: torch.from_numpy(array) for n, array in arrays.items()}, strict=True)
    with torch.no_grad():
        found = module.eval()(channels_first(x)).numpy()
    assert near(found, forward(network, params, stats, x, train=False)[0].h[-1])
    with pytest.raises(ValueError, match=r"^to_torch: layer 5 \(rows\): torch has no Module of a Rows"):
        rb.interop.to_torch(pyramid())


def windows(network):
    """Its synapses and pools that have windows."""
    parts = [part for layer in network.layers for part in (layer.linear, *layer.local)]
    return [part for part in parts if hasattr(part, "window")]


def test_a_module_that_was_read_is_made_again(numpy64):
    module = module_of(Functions)
    theirs, x, _ = batch_of(module, Functions.shape)
    network, params, stats = rb.interop.from_torch(module, theirs)
    again = rb.interop.to_torch(network)
    assert again.state_dict().keys() == module.state_dict().keys()
    again.load_state_dict(module.state_dict(), strict=True)
    with torch.no_grad():
        assert near(again.eval()(theirs).numpy(), module.eval()(theirs).numpy())


def test_a_networks_names_are_those_of_its_module():
    """So that what a run of it exports loads into the Module."""
    module = module_of(Chain)
    network, params, stats = rb.interop.from_torch(copy.deepcopy(module), torch.zeros(1, *Chain.shape))
    arrays = get("numpy").export_params(network, params, stats)
    assert list(arrays) == list(module.state_dict())


@pytest.mark.parametrize("name", ["numpy", slow("jax")])
def test_the_lines_of_the_readme(name):
    get(name)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    (code,) = [text for text in blocks if "from_torch" in text]
    images = embedded.fashion_mnist_small()
    scope = {"rb": rb, "embedded": embedded, "images": images}
    exec(code.replace('get("jax")', f'get("{name}")'), scope)
    with torch.no_grad():
        found = scope["module"].eval()(channels_first(images.test_x[:100].astype(np.float32))).argmax(1).numpy()
    assert np.mean(found == images.test_y[:100].argmax(1)) > 0.3
