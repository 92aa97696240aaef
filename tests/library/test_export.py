"""Exported parameters: a plain torch Module computes with them what the network does, and they come back the same."""

import math
import re
from dataclasses import dataclass

import numpy as np
import pytest

import ref_bioplaus as rb
from ref_bioplaus import algorithms, inverses, losses
from ref_bioplaus.conformance.cases.networks import GRADIENT, batch, pyramid
from ref_bioplaus.initializers import forward_params, zero
from ref_bioplaus.linear import Part, Transpose
from ref_bioplaus.local import Flatten, LocalOperation, batch_norm_with
from ref_bioplaus.models import MODELS, akrout2019, lin2017, xiao2018
from ref_bioplaus.network import Builder, forward, layer_forward
from ref_bioplaus.optimizers import sgd
from ref_bioplaus.tree import leaves, named_leaves, tree_map, unflatten
from tests.conftest import get
from tests.helpers import ROOT
from tests.helpers.small_models import SMALL

torch = pytest.importorskip("torch")
from tests.helpers.torch_modules import TorchNetwork, channels_first, synapses, torchvision_models  # noqa: E402

BACKENDS = ["numpy", "torch", "jax", "array-api-strict"]


def odd():
    """What no paper has: parameters without synapses, units of an image, two of a kind in a layer, joins of vectors."""
    net = Builder((5, 4, 3))
    net.add(batch_norm_with(rate=0.3, epsilon=0.2), rb.unit_bias)
    x = net.add(rb.conv(4, (3, 2), stride=2), rb.unit_bias, rb.tanh, rb.batch_norm, rb.batch_norm)
    y = net.add(rb.conv(4, 1), rb.batch_norm, rb.bias, inputs=(x,))
    net.add(
        rb.bias, rb.average_pool((2, 1), stride=1, padding="same"), rb.flatten, rb.bias, rb.batch_norm, inputs=(x, y)
    )
    x = net.add(rb.relu, rb.dropout(0.5))
    y = net.add(rb.unit_bias, rb.sigmoid, inputs=(x,))
    net.add(rb.dense(24), rb.batch_norm, rb.bias, inputs=(x, y))
    net.add(rb.dense(4), rb.bias)
    return net.build(dtype="float64")


NETWORKS = SMALL | {"odd": odd, "pyramid": pyramid}


def filled(tree, seed=0):
    """The tree with random numbers, none of them negative, added to what neurons own: no ReLU at the end is silent."""
    rng = np.random.default_rng(seed)
    new = [leaf if path.endswith("W") else leaf + 0.3 * rng.random(leaf.shape) for path, leaf in named_leaves(tree)]
    return unflatten(tree, [np.asarray(a, leaf.dtype) for a, leaf in zip(new, leaves(tree), strict=True)])


def parameters(network, seed=0):
    """Forward parameters and statistics, as NumPy arrays."""
    return filled(forward_params(network, (get("numpy").key(seed),)), seed)


def images(network, n=3):
    """Inputs of a network, in its dtype."""
    shape = (n, *network[0].out_shape)
    return np.random.default_rng(5).standard_normal(shape).astype(network.dtype)


def logits(network, params, stats, x):
    """The last layer's output in test mode."""
    return forward(network, params, stats, x, train=False)[0].h[-1]


def theirs(module, x):
    """The same of a Module."""
    with torch.no_grad():
        y = module.eval()(channels_first(x))
    return (y.permute(0, 2, 3, 1) if y.ndim == 4 else y).numpy()


def agree(ours, module, x):
    """Whether a Module computes our output, which is not the same for every x, to a hundred roundings of its size."""
    found = theirs(module, x)
    assert found.shape == ours.shape and found.dtype == ours.dtype
    assert np.max(np.ptp(ours, axis=0)) > 1e-3 * np.max(np.abs(ours))
    return np.max(np.abs(ours - found)) < 100 * np.finfo(ours.dtype).eps * np.max(np.abs(ours))


def tensors(arrays):
    """A state_dict() of arrays."""
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", list(NETWORKS))
def test_a_torch_module_computes_what_the_network_does(name, dtype):
    """Both ways: with the export of our parameters, and ours with the import of a Module's own."""
    backend, network = get("numpy", dtype), NETWORKS[name]().with_dtype(dtype)
    params, stats = parameters(network)
    module, x = TorchNetwork(network, getattr(torch, dtype)), images(network)
    arrays = backend.export_params(network, params, stats)
    assert list(arrays) == list(module.state_dict())
    module.load_state_dict(tensors(arrays), strict=True)
    ours = logits(network, params, stats, x)
    assert agree(ours, module, x)
    torch.manual_seed(1)
    for entry, tensor in module.state_dict().items():
        if entry.endswith("num_batches_tracked"):
            tensor.fill_(7)
        elif tensor.ndim == 1 or entry.endswith("bias"):
            tensor.copy_(0.3 * torch.rand(tensor.shape) + entry.endswith(("var", "weight")))
        else:
            tensor.copy_(torch.randn(tensor.shape) / math.prod(tensor.shape[1:][-3:]) ** 0.5)
    params, stats = backend.import_params(network, params, module.state_dict(), stats)
    assert not agree(ours, module, x)
    assert agree(logits(network, params, stats, x), module, x)


def test_every_model_is_tried():
    assert SMALL.keys() == MODELS.keys()


def test_the_module_that_the_readme_names(numpy64):
    (module,) = re.findall(r"^`(nn\.Sequential.*)`,$", (ROOT / "README.md").read_text(), re.M)
    network = rb.chain(
        (28, 28, 1), rb.flatten, (rb.dense(64), rb.bias, rb.tanh), (rb.dense(10), rb.bias), dtype="float64"
    )
    module = eval(module, {"nn": torch.nn}).double()
    params, stats = parameters(network)
    module.load_state_dict(tensors(numpy64.export_params(network, params, stats)), strict=True)
    x = images(network)
    assert agree(logits(network, params, stats, x), module, x)


@pytest.mark.parametrize(
    ("model", "options", "name", "count"),
    [
        (xiao2018.resnet18, {}, "resnet18", 122),
        (akrout2019.resnet18, {"batch_norm_after_relu": False}, "resnet18", 122),
        (akrout2019.resnet50, {"batch_norm_after_relu": False}, "resnet50", 320),
    ],
    ids=["xiao2018/resnet18", "akrout2019/resnet18", "akrout2019/resnet50"],
)
def test_resnets_are_torchvisions(model, options, name, count):
    """At full width: its numbers in our network compute the same, and come back under its names, in its order."""
    make = getattr(torchvision_models(), name)
    network, backend = model(in_shape=(40, 33, 3), **options).with_dtype("float64"), get("numpy")
    torch.manual_seed(0)
    module = make(weights=None).double()
    for tensor in module.state_dict().values():
        if tensor.ndim == 1:
            tensor.add_(torch.rand(tensor.shape) / 2)
    state = module.state_dict()
    x = images(network, 2)
    params, stats = forward_params(network, (backend.key(),), zero)
    params, stats = backend.import_params(network, params, state, stats)
    ours = logits(network, params, stats, x)
    assert agree(ours, module, x)
    arrays = backend.export_params(network, params, stats)
    assert len(arrays) == count and list(arrays) == list(state)
    for entry, tensor in state.items():
        assert arrays[entry].dtype == tensor.numpy().dtype and np.array_equal(arrays[entry], tensor.numpy()), entry
    other = make(weights=None).double()
    other.load_state_dict(tensors(arrays), strict=True)
    assert agree(ours, other, x)


def test_retinanet_is_torchvisions(numpy64):
    """Its backbone, pyramid and heads, with its numbers, compute the same logits and offsets; back under its names."""
    torchvision_models()
    from torchvision.models import detection

    torch.manual_seed(0)
    module = detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=5).double().eval()
    for name, tensor in module.state_dict().items():
        if tensor.ndim == 1:
            tensor.add_(torch.rand(tensor.shape) / 2)
        elif name.startswith("head"):
            tensor.mul_(3.0)  # or the offsets would all be those of the bias
    network = lin2017.retinanet_resnet50(in_shape=(128, 256, 3), classes=5).with_dtype("float64")
    params, stats = forward_params(network, (numpy64.key(),), zero)
    params, stats = numpy64.import_params(network, params, module.state_dict(), stats)
    x = images(network, 1)
    with torch.no_grad():
        found = module.head(list(module.backbone(channels_first(x)).values()))
    wanted = torch.cat([found["cls_logits"], found["bbox_regression"]], dim=2).numpy()
    ours = logits(network, params, stats, x)
    assert ours.shape == wanted.shape == (1, 6138, 9) and np.ptp(wanted[..., 5:], axis=1).min() > 1e-3
    assert np.max(np.abs(ours - wanted)) < 1e-11 * np.max(np.abs(wanted))
    arrays, state = numpy64.export_params(network, params, stats), module.state_dict()
    assert arrays.keys() == state.keys() and len(arrays) == 354
    assert all(np.array_equal(arrays[name], tensor.numpy()) for name, tensor in state.items() if "batches" not in name)


def test_a_resnet_that_is_not_torchvisions_has_none_of_its_names():
    """BatchNorm behind every ReLU, and zeros for new channels, are other networks: their names are the regular ones."""
    backend = get("numpy")
    for name in ("akrout2019/resnet18", "akrout2019/resnet50", "he2016/resnet20"):
        network = SMALL[name]()
        names = backend.export_params(network, *parameters(network))
        assert all(entry.split(".")[0].isdigit() for entry in names)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("architecture", [*GRADIENT, "odd", "pyramid"])
def test_every_backend_gives_the_same_arrays_and_takes_them_back(architecture, dtype):
    network = (GRADIENT | {"odd": odd, "pyramid": pyramid})[architecture]().with_dtype(dtype)
    params, stats = parameters(network)
    wanted = get("numpy", dtype).export_params(network, params, stats)
    for name in BACKENDS:
        backend = get(name, dtype)
        there = tree_map(backend.asarray, (params, stats))
        arrays = backend.export_params(network, *there)
        assert list(arrays) == list(wanted)
        for entry, array in arrays.items():
            assert array.dtype == wanted[entry].dtype and np.array_equal(array, wanted[entry]), (name, entry)
            assert array.flags.c_contiguous and array.flags.writeable, (name, entry)
        back = backend.import_params(network, there[0], arrays, there[1])
        for (path, a), b in zip(named_leaves(there), leaves(back), strict=True):
            assert b.dtype == a.dtype and type(b) is type(a), (name, path)
            assert np.array_equal(backend.to_numpy(a), backend.to_numpy(b)), (name, path)
        alone = backend.export_params(network, there[0])
        assert list(alone) == [entry for entry in wanted if "running" not in entry and "batches" not in entry]
        back = backend.import_params(network, there[0], alone)
        assert all(np.array_equal(backend.to_numpy(a), b) for a, b in zip(leaves(back), leaves(params), strict=True))


# The feedback path


def flattening(synapses, b):
    """A chain of images whose dense layer behind the flattened one is square."""
    return rb.chain(
        (5, 4, 3),
        (synapses(4, (3, 2), stride=2), b, rb.tanh),
        (synapses(2, 3), b, rb.sigmoid, rb.flatten),
        (rb.dense(12), rb.bias, rb.tanh),
        (rb.dense(4), rb.bias),
        dtype="float64",
    )


CHAINS = {"conv": lambda: flattening(rb.conv, rb.bias), "LC": lambda: flattening(rb.locally_connected, rb.unit_bias)}


def exact_skips(*arguments):
    """Direct feedback alignment with a B for every consumer."""
    return algorithms.direct_feedback_alignment(*arguments, skips="exact")


def targets(*arguments, **options):
    """Target propagation with inverses of every layer."""
    return algorithms.sdtp(*arguments, sgd(0.1), **options)


FEEDBACK = {
    "FA": algorithms.feedback_alignment,
    "DFA": algorithms.direct_feedback_alignment,
    "DFA, exact skips": exact_skips,
    "DenseFA": algorithms.dense_feedback_alignment,
    "SDTP": targets,
}


def feedback(make, network, backend, **options):
    """What an algorithm keeps for feedback at the start, with random biases."""
    state = make(network, losses.cross_entropy(), sgd(0.1), **options).init(backend.key(3))
    return filled(tree_map(backend.to_numpy, state.feedback.params))


@pytest.mark.parametrize("architecture", [*GRADIENT, "odd", "LC", "pyramid"])
def test_feedback_weights_come_as_forward_weights_do(architecture, numpy64):
    """B = W gives the same arrays under the same names, for every layer that has a B."""
    network = (GRADIENT | CHAINS | {"odd": odd, "pyramid": pyramid})[architecture]()
    params, _ = parameters(network)
    B = feedback(algorithms.feedback_alignment, network, numpy64)
    B = tuple(b._replace(W=None if b.W is None else p.W) for b, p in zip(B, params, strict=True))
    arrays, wanted = numpy64.export_params(network, B), numpy64.export_params(network, params)
    assert len(arrays) == len(network.feedback_layers) > 0
    assert all(np.array_equal(array, wanted[name]) for name, array in arrays.items())


def in_their_order(network, l, h):
    """What layer l gives, as a Module has it: an image, a flattened one with its channels first, or a vector."""
    flat = [op for op in network[l].local if isinstance(op, Flatten)]
    h = channels_first(h.reshape(-1, *flat[0].in_shape) if flat else h)
    return h.flatten(1) if flat else h


def transposed(linear, V, h):
    """What a layer's synapses of weights V send back, by the derivative of what they send forward."""
    module = synapses(linear, False, torch.float64)
    module.load_state_dict({"weight": V})
    shape = linear.in_shape if len(linear.in_shape) == 1 else (linear.in_shape[2], *linear.in_shape[:2])
    x = torch.zeros((len(h), *shape), dtype=torch.float64)
    u, pull = torch.func.vjp(module, x)
    return pull(h.reshape(u.shape))[0].detach()


FORMS = {"mirrored": inverses.mirrored_inverse, "wider": inverses.wider_inverse(5), "dense": inverses.dense_inverse}


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("chain", list(CHAINS))
def test_inverses_rebuilt_in_torch(chain, form, numpy64):
    """V and c under the names of W and b: the layer below, rebuilt from the layer above."""
    network, inverse = CHAINS[chain](), FORMS[form]
    lam = feedback(targets, network, numpy64, inverse=inverse)
    arrays = tensors(numpy64.export_params(network, lam, inverse=inverse))
    assert list(arrays) == [f"{l}.0.{name}" for l in (2, 3, 4) for name in ("weight", "bias")]
    back = numpy64.import_params(network, lam, arrays, inverse=inverse)
    assert all(np.array_equal(a, b) for a, b in zip(leaves(lam), leaves(back), strict=True))
    for l in (2, 3, 4):
        layer = inverse(network, l)
        h = np.random.default_rng(l).standard_normal((3, *network[l].out_shape))
        ours, _, _ = layer_forward(layer, lam[l], ((),) * len(layer.local), h.reshape(3, *layer.in_shape))
        V, c, h = arrays[f"{l}.0.weight"], arrays[f"{l}.0.bias"], in_their_order(network, l, h)
        if isinstance(layer.linear, Transpose):
            u = transposed(layer.linear.linear, V, h)
        else:
            u = torch.nn.functional.linear(h.flatten(1), V)
        u = u + (c[:, None, None] if u.ndim == 4 and c.ndim == 1 else c)
        wanted = in_their_order(network, l - 1, ours.reshape(3, *network[l].in_shape))
        found = {2: torch.tanh, 3: torch.sigmoid, 4: torch.tanh}[l](u).reshape(wanted.shape)
        assert np.allclose(found.numpy(), wanted.numpy(), rtol=1e-13, atol=1e-14), l


@pytest.mark.parametrize("nonlinearity", inverses.NONLINEARITIES)
@pytest.mark.parametrize("form", list(FORMS))
def test_inverses_of_other_neurons_go_there_and_back(form, nonlinearity, numpy64):
    for with_bias in (True, False):
        inverse = inverses.with_neurons(FORMS[form], nonlinearity, with_bias)
        for network in (make() for make in CHAINS.values()):
            lam = feedback(targets, network, numpy64, inverse=inverse)
            arrays = numpy64.export_params(network, lam, inverse=inverse)
            assert list(arrays) == [f"{l}.0.{name}" for l in (2, 3, 4) for name in ("weight", "bias")[: 1 + with_bias]]
            plain = numpy64.export_params(network, feedback(targets, network, numpy64, inverse=FORMS[form]),
                                          inverse=FORMS[form])  # fmt: skip
            assert all(np.array_equal(arrays[name], plain[name]) for name in arrays)
            back = numpy64.import_params(network, lam, arrays, inverse=inverse)
            assert all(np.array_equal(a, b) for a, b in zip(leaves(lam), leaves(back), strict=True))


@pytest.mark.parametrize("chain", list(CHAINS))
def test_direct_feedback_in_their_order(chain, numpy64):
    """e B_k and delta_k D_lk arrive at the units of a Module; D says so at the units that it comes from, too."""
    network, rng = CHAINS[chain](), np.random.default_rng(0)
    e = rng.standard_normal((3, 4))
    for make, below in ((algorithms.direct_feedback_alignment, 0), (exact_skips, 1)):
        B = feedback(make, network, numpy64)
        arrays = numpy64.export_params(network, B)
        assert list(arrays) == [f"{l + below}.B" for l in (1, 2, 3)]
        for k in (1, 2, 3):
            arriving = np.tensordot(e, B[k + below].B, 1)
            theirs = torch.tensordot(torch.tensor(e), torch.tensor(arrays[f"{k + below}.B"]), 1)
            assert np.allclose(theirs, in_their_order(network, k, arriving), rtol=1e-13), k
    D = feedback(algorithms.dense_feedback_alignment, network, numpy64)
    arrays = numpy64.export_params(network, D)
    assert set(arrays) == {"2.0.weight", "3.0.weight", "4.0.weight", "1.D.3", "1.D.4", "2.D.4"}
    delta = rng.standard_normal((3, 12))
    arriving = np.tensordot(delta, D[1].D[3], 1)
    assert np.allclose(np.tensordot(delta, arrays["1.D.3"], 1), in_their_order(network, 1, arriving), rtol=1e-13)
    part = (rb.conv(4, (3, 2)), rb.bias, rb.tanh)
    network = rb.chain((5, 4, 3), part, part, (*part, rb.flatten), (rb.dense(4), rb.bias), dtype="float64")
    D = feedback(algorithms.dense_feedback_alignment, network, numpy64)
    image = rng.standard_normal((2, 5, 4, 4))
    arriving = np.tensordot(image, D[1].D[3], 3)
    there = numpy64.export_params(network, D)["1.D.3"]
    theirs = np.tensordot(channels_first(image).numpy(), there, 3)
    assert np.allclose(theirs, channels_first(arriving), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("kind", list(FEEDBACK))
def test_feedback_goes_out_and_comes_back(kind, name):
    backend = get(name)
    for make in CHAINS.values():
        network = make()
        numbers = feedback(FEEDBACK[kind], network, get("numpy"))
        arrays = backend.export_params(network, tree_map(backend.asarray, numbers))
        assert len(arrays) == len(leaves(numbers))
        back = backend.import_params(network, tree_map(backend.asarray, filled(numbers, 1)), arrays)
        for (path, a), b in zip(named_leaves(numbers), leaves(back), strict=True):
            assert np.array_equal(a, backend.to_numpy(b)), path
        assert all(type(a) is type(b) for a, b in zip(numbers, back, strict=True))


# What is kept, and what is refused


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_bfloat16_goes_out_as_float32_and_comes_back(name):
    backend = get(name, "bfloat16")
    network = GRADIENT["conv"]().with_dtype("bfloat16")
    params, stats = tree_map(backend.asarray, parameters(network.with_dtype("float32")))
    arrays = backend.export_params(network, params, stats)
    assert {array.dtype.name for array in arrays.values()} == {"float32", "int64"}
    back = backend.import_params(network, params, arrays, stats)
    for (path, a), b in zip(named_leaves((params, stats)), leaves(back), strict=True):
        assert a.dtype == b.dtype and np.array_equal(backend.to_numpy(a), backend.to_numpy(b)), path


def test_the_dtype_is_that_of_the_parameters_not_of_the_backend():
    backend, network = get("numpy", "float32"), SMALL["akrout2019/mlp"]()
    params, _ = parameters(network)
    back = backend.import_params(network, params, backend.export_params(network, params))
    assert all(b.dtype == "float64" and np.array_equal(a, b) for a, b in zip(leaves(params), leaves(back), strict=True))


@pytest.mark.parametrize("name", BACKENDS)
def test_nobody_elses_memory(name):
    """Neither a change of what was exported or imported reaches the parameters, nor a step that consumes them those."""
    native = name in ("numpy", "torch")  # whose steps write over what they consume
    backend = rb.backends.get(name, kernels="native") if native else get(name, "float32")
    network = rb.chain((6, 5, 2), (rb.conv(3, 3), rb.batch_norm, rb.relu), rb.flatten, (rb.dense(4), rb.bias))
    network = network.with_kernels(backend.kernels)
    algorithm = algorithms.backprop(network, losses.cross_entropy(), sgd(0.1))
    state = algorithm.init(backend.key(0))
    exported = backend.export_params(network, state.forward.params, state.stats)
    before = {entry: array.copy() for entry, array in exported.items()}
    numbers = tree_map(lambda a: backend.to_numpy(a).copy(), (state.forward.params, state.stats))
    for array in exported.values():
        array += 1
    imported = {entry: array.copy() for entry, array in before.items()}
    params, stats = backend.import_params(network, state.forward.params, imported, state.stats)
    for array in imported.values():
        array += 1
    for tree in ((state.forward.params, state.stats), (params, stats)):
        assert all(np.array_equal(a, backend.to_numpy(b)) for a, b in zip(leaves(numbers), leaves(tree), strict=True))
    if not native:
        return
    exported = backend.export_params(network, params, stats)
    imported = {entry: array.copy() for entry, array in before.items()}
    params, stats = backend.import_params(network, params, imported, stats)
    state = state._replace(forward=state.forward._replace(params=params), stats=stats)
    x, y = batch(network)
    learn = backend.compile(algorithm.modes["learn"], donate=True)
    for _ in range(2):
        state, _ = learn(state, backend.batch(x, y))
    for arrays in (exported, imported):
        assert all(np.array_equal(array, before[entry]) for entry, array in arrays.items())
    changed = backend.export_params(network, state.forward.params, state.stats)
    assert not any(np.array_equal(changed[entry], array) for entry, array in before.items() if array.ndim)


def test_one_sentence_for_what_does_not_fit(numpy64):
    network = rb.chain(
        (4, 3, 2), (rb.conv(3, 3), rb.batch_norm, rb.relu, rb.flatten), (rb.dense(5), rb.bias), dtype="float64"
    )
    params, stats = parameters(network)
    arrays = numpy64.export_params(network, params, stats)

    def take(changed, *more):
        return numpy64.import_params(network, params, changed, *more)

    def without(*names):
        return {name: array for name, array in arrays.items() if name not in names}

    with pytest.raises(KeyError, match='"1.0.weight", "1.1.weight", "1.1.bias" and 5 more are missing: expected'):
        take({}, stats)
    with pytest.raises(KeyError, match=r'"2.0.weight" is missing \(and "2.W" is unknown\): expected'):
        take(without("2.0.weight") | {"2.W": arrays["2.0.weight"]}, stats)
    with pytest.raises(KeyError, match='"1.1.running_var" is missing: expected'):
        take(without("1.1.running_var"), stats)
    with pytest.raises(ValueError, match='"3.0.weight" is unknown: expected'):
        take(arrays | {"3.0.weight": np.zeros((2, 2))}, stats)
    with pytest.raises(ValueError, match='"1.1.running_mean", .* are unknown: .* stats=state.stats'):
        take(arrays)
    with pytest.raises(ValueError, match=r"2.0.weight has shape \(36, 5\), expected \(5, 36\) \(O,C\*H\*W\)"):
        take(arrays | {"2.0.weight": arrays["2.0.weight"].T}, stats)
    with pytest.raises(ValueError, match=r"1.1.num_batches_tracked has shape \(1,\), expected \(\)"):
        take(arrays | {"1.1.num_batches_tracked": np.zeros(1)}, stats)
    for tensor in (torch.zeros(5, requires_grad=True), torch.zeros(5, dtype=torch.bfloat16)):
        with pytest.raises(ValueError, match="2.0.bias cannot be read by NumPy .*: detach it, on the CPU, in float32"):
            take(arrays | {"2.0.bias": tensor}, stats)
    others, _ = parameters(GRADIENT["conv"]())
    with pytest.raises(ValueError, match="params has 6 layers, expected 3"):
        numpy64.export_params(network, others)
    wider = rb.chain((4, 3, 2), (rb.conv(4, 3), rb.batch_norm, rb.relu), (rb.flatten, rb.bias), dtype="float64")
    with pytest.raises(ValueError, match=r"params/1/W of shape \(3, 3, 2, 4\) does not fit layer 1 \(conv\(3, 3x3\)"):
        numpy64.export_params(network, parameters(wider)[0])
    without_synapses = rb.chain((4, 3, 2), (rb.conv(3, 3), rb.bias), rb.flatten, dtype="float64")
    with pytest.raises(ValueError, match="params/2/W of shape .* does not fit layer 2"):
        numpy64.export_params(without_synapses, (*parameters(without_synapses)[0][:2], params[2]))
    chain = CHAINS["conv"]()
    lam = feedback(targets, chain, numpy64, inverse=inverses.dense_inverse)
    with pytest.raises(ValueError, match="does not fit layer 2 .* target propagation's inverse"):
        numpy64.export_params(chain, lam)


def test_a_sum_of_units_in_two_orders_is_refused(numpy64):
    net = Builder((4, 3, 2))
    x = net.add(rb.conv(2, 3), rb.flatten)
    y = net.add(rb.dense(24), rb.bias)
    net.add(rb.relu, inputs=(x, y))
    net.add(rb.dense(4), rb.bias)
    network = net.build(dtype="float64")
    with pytest.raises(ValueError, match=r"layer 3 .* different orders \(C\*H\*W of layer 1 \+ units of layer 2\)"):
        numpy64.export_params(network, parameters(network)[0])


def test_shared_filters_are_exported_once_and_as_filters(numpy64):
    network = pyramid()
    params, stats = parameters(network)
    arrays = numpy64.export_params(network, params, stats)
    assert {name: arrays[f"{name}.weight"].shape for name in ("7.0", "8.0", "9.0")} == {
        "7.0": (4, 5, 3, 2), "8.0": (6, 4, 3, 3), "9.0": (8, 4, 3, 1),
    }  # fmt: skip
    assert np.array_equal(arrays["7.0.weight"], params[7].W.transpose(3, 2, 0, 1)) and arrays["7.0.bias"].shape == (4,)
    assert sum(a.size for name, a in arrays.items() if "running" not in name and "batches" not in name) == 2426
    net = Builder((4, 3, 2))
    net.add(rb.flatten, inputs=(net.add(rb.conv(2, 3), rb.flatten), net.add(rb.flatten, inputs=(0,))), concat=0)
    net.add(rb.dense(4), rb.bias)
    network = net.build(dtype="float64")
    with pytest.raises(ValueError, match=r"layer 3 .* puts flattened images one behind the other"):
        numpy64.export_params(network, parameters(network)[0])


@dataclass(frozen=True)
class Slope(LocalOperation):
    """An operation of a user's own: a learned number, and one per channel."""

    parameter_shapes = property(lambda self: {"slope": (), "scale": self.in_shape[-1:]})

    def init(self, key, dtype):
        return {"slope": np.asarray(0.5, dtype), "scale": np.ones(self.in_shape[-1:], dtype)}, {}


def test_an_operation_of_ones_own_keeps_its_names(numpy64):
    network = rb.chain((4, 3, 2), (rb.conv(3, 3), rb.bias, Part("slope", Slope), rb.flatten), (rb.dense(2), rb.bias))
    params, _ = parameters(network.with_dtype("float64"))
    arrays = numpy64.export_params(network, params)
    assert {name: array.shape for name, array in arrays.items()} == {
        "1.0.weight": (3, 2, 3, 3), "1.0.bias": (3,), "1.1.scale": (3,), "1.1.slope": (),
        "2.0.weight": (2, 36), "2.0.bias": (2,),
    }  # fmt: skip
    back = numpy64.import_params(network, params, arrays)
    assert all(np.array_equal(a, b) for a, b in zip(leaves(params), leaves(back), strict=True))
