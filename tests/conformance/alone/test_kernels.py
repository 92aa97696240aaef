"""Level 0 finds wrong kernels of every kind, and none among those that compute the same in another way."""

from dataclasses import replace
from fnmatch import fnmatch
from unittest import mock

import array_api_compat.numpy as compat
import numpy as np
import pytest

from ref_bioplaus.backends.numpy_.backend import NumpyBackend
from ref_bioplaus.conformance.checks import runner
from ref_bioplaus.conformance.checks.alone import primitives
from ref_bioplaus.conformance.checks.outcomes import Subject
from ref_bioplaus.kernels import PORTABLE
from ref_bioplaus.windows import overlap_add, patches
from tests.helpers import slow

CHECKS = primitives.checks()


def verdicts(checks, kernels=None, namespace=None):
    """{id: reason} of what a NumPy with other kernels fails."""
    backend = NumpyBackend(compat, "cpu", "float32", "ieee", "portable")
    backend.kernels = backend.kernels._replace(**(kernels or {}))
    asked = [check for check in CHECKS if fnmatch(check.id, checks)]
    assert asked, checks
    with mock.patch.multiple(compat, **namespace) if namespace else mock.patch.dict({}):
        report = runner.run(Subject(backend), asked, ("compiled", "eager"))
    return {o.id: o.reason for o in report.outcomes if o.state in ("fail", "error")}


def where(condition, name, change=lambda result: result * 1.01):
    """A kernel that is wrong where a function of its arguments says so."""
    right = getattr(PORTABLE, name)

    def wrong(*arguments, **options):
        result = right(*arguments, **options)
        if not condition(*arguments, **options):
            return result
        return (change(result[0]), *result[1:]) if isinstance(result, tuple) else change(result)

    return {name: wrong}


def last_lost(a):
    """The last row forgotten."""
    return np.concatenate([a[:-1], 0 * a[-1:]])


def second_is_first():
    """A product whose first result is kept for good, by shape."""
    kept = {}

    def dense_apply(W, x):
        return kept.setdefault((W.shape, x.shape), PORTABLE.dense_apply(W, x))

    return {"dense_apply": dense_apply}


def first_batch_kept():
    """A pool that serves later batches of other sizes from the first."""
    kept = []

    def max_pool(x, window):
        y, first = PORTABLE.max_pool(x, window)
        kept.append(y)
        return (np.resize(kept[0], y.shape) if kept[0].shape[1:] == y.shape[1:] and len(kept[0]) < len(y) else y), first

    return {"max_pool": max_pool}


def shared_memory():
    """A sum whose results of one shape lie in one memory."""
    memory = {}

    def add(a, b):
        out = memory.setdefault((a.shape, a.dtype), np.empty_like(a))
        return np.add(a, b, out=out)

    return {"add": add}


def written(name):
    """A kernel that writes over its first array."""
    right = getattr(PORTABLE, name)

    def wrong(*arguments):
        result = right(*arguments)
        target = next(a for a in (arguments[0], *arguments[1:]) if isinstance(a, np.ndarray))
        target[...] = 0.0
        return result

    return {name: wrong}


def written_gradient(p, g, v, keep, eta, momentum, nesterov):
    """Gradient descent that scales the gradients where they lie."""
    result = PORTABLE.sgd(p, [g_ * 1.0 for g_ in g], v, keep, eta, momentum, nesterov)
    for g_ in g:
        g_ *= 0.5
    return result


def one_pass(x, gamma, beta, epsilon):
    """BatchNorm whose variance is a mean of squares less a squared mean."""
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axis=axes)
    var = np.maximum((x * x).mean(axis=axes) - mean * mean, 0)
    inv_std = 1 / np.sqrt(var + epsilon)
    z = (x - mean) * inv_std
    return gamma * z + beta, mean, var, (z, inv_std)


def stale_cache():
    """BatchNorm's backward pass that remembers the first error of a cache."""
    kept = {}

    def batch_norm_backward(cache, gamma, dy):
        kept[id(cache[0])] = cache, kept.get(id(cache[0]), (None, dy))[1]
        return PORTABLE.batch_norm_backward(cache, gamma, kept[id(cache[0])][1])

    return {"batch_norm_backward": batch_norm_backward}


def finite_padding(value):
    """Max-pooling with a number around the images."""

    def max_pool(x, window):
        p = patches(x, window, fill=value)
        return p.max(axis=3), np.arange(p.shape[3]).reshape(1, 1, 1, -1, 1) == np.argmax(p, axis=3, keepdims=True)

    return {"max_pool": max_pool}


def by_name(nonlinearity, x):
    """An activation that goes by the name of what it is given."""
    return np.tanh(x) if nonlinearity.name == "tanh" else nonlinearity.function(x)


def relu_otherwise(nonlinearity, x):
    """ReLU for whatever has no known name."""
    known = ("tanh", "sigmoid", "rectified_tanh")
    return nonlinearity.function(x) if nonlinearity.name in known else np.maximum(x, 0 * x)


def slope_at_zero(nonlinearity, y, dy):
    """A slope of 1 where the output is 0."""
    return np.where(
        (y == 0) & (nonlinearity.name == "rectified_tanh"), dy, PORTABLE.activation_backward(nonlinearity, y, dy)
    )


def ignoring_keep(p, g, v, keep, eta, momentum, nesterov):
    """Gradient descent without decay where it is a number."""
    return PORTABLE.sgd(p, g, v, [1.0 if isinstance(k, float) else k for k in keep], eta, momentum, nesterov)


def ignoring_nesterov(p, g, v, keep, eta, momentum, nesterov):
    """Gradient descent with common momentum."""
    return PORTABLE.sgd(p, g, v, keep, eta, momentum, False)


def as_it_lies(W, x):
    """A product that reads its input as it lies in memory, whatever its strides are."""
    return PORTABLE.dense_apply(W, x.ravel(order="K").reshape(x.shape))


def repeated_tile(function, starts, *arrays):
    """The first tile for all."""
    return [function(starts[0], *arrays)] * len(starts)


def multiples(function, starts, *arrays):
    """Tiles that begin at multiples of 3."""
    return [function(s // 3 * 3, *arrays) for s in starts]


def adam_of_one_form(p, g, m, v, keep, eta, correction, b1, b2, epsilon, form):
    """Adam in the paper's form."""
    return PORTABLE.adam(p, g, m, v, keep, eta, correction, b1, b2, epsilon, "paper")


def adam_spreading(p, g, m, v, keep, eta, correction, b1, b2, epsilon, form):
    """Adam that stops where any gradient is not finite."""
    safe = float(np.all([np.all(np.isfinite(g_)) for g_ in g]))
    new = PORTABLE.adam(p, g, m, v, keep, eta, correction, b1, b2, epsilon, form)
    return new if safe else ([p_ * np.float32(np.nan) for p_ in p], *new[1:])


def in_double(W, x, window):
    """A convolution whose sums are in float64, and the result in that."""
    return PORTABLE.conv_apply(W.astype(np.float64), x.astype(np.float64), window)


def nan_skipped(W, x):
    """A product that takes NaN among the weights for 0."""
    return PORTABLE.dense_apply(np.nan_to_num(W), x)


def kernel_turned(W, x, window):
    """A local connection that takes a kernel's height for its width, where as many windows come out."""
    other = replace(window, kernel=window.kernel[::-1])
    return PORTABLE.local_apply(W, x, other if other.out_size == window.out_size else window)


def one_memory():
    """A constant array that lies where the one before it lay."""
    kept = {}

    def full_like(x, value):
        memory = kept.setdefault(x.shape, np.empty_like(x))
        memory[...] = value
        return memory

    return full_like


SIZED = {  # wrong where a function of the arguments says so
    "units beyond a tile": ("dense/outputs", "dense_apply", lambda W, x: len(W) > 64),
    "inputs that leave a rest": ("dense/inputs", "dense_apply", lambda W, x: x.shape[1] % 8 == 1 and x.shape[1] > 100),
    "samples beyond 512": ("dense/samples", "dense_correlate", lambda x, u: len(x) > 512),
    "two long sides at once": ("dense/several", "dense_transport", lambda B, u: min(B.shape) > 128),
    "channels beyond 16": ("locally_connected/stride*", "local_transport", lambda B, u, w: u.shape[3] > 16),
    "rows beyond 128": ("conv/stride*", "conv_correlate", lambda x, u, w: x.shape[1] > 128),
    "a batch of 5": ("conv/batches", "conv_apply", lambda W, x, w: len(x) == 5),
    "a batch of 62": ("conv/batches", "conv_apply", lambda W, x, w: len(x) == 62),
    "channels beyond 32": ("batch_norm/vectors", "batch_norm", lambda x, *_: x.shape[-1] > 32),
    "long vectors": ("pointwise/long", "activation", lambda n, x: x.size > 65536),
}
WRONG = {name: (where(wrong, kernel), f"0/sizes/{checks}") for name, (checks, kernel, wrong) in SIZED.items()} | {
    "the last partial chunk": (
        where(lambda W, x, w: len(x) > 9 and len(x) % 4, "conv_apply", last_lost),
        "0/sizes/conv/batches",
    ),
    "a large batch of images": (where(lambda x, w: x.size > 1 << 20, "max_pool", last_lost), "0/sizes/pools/chunks"),
    "long tensors": (
        where(lambda p, *_: p[0].size > 65534, "sgd", lambda new: [*new[:2], new[2] * 1.01, *new[3:]]),
        "0/sizes/sgd/large",
    ),
    "a result kept by shape": (second_is_first(), "0/synapses/dense*"),
    "a result of another batch": (first_batch_kept(), "0/sizes/pools/batches"),
    "results in one memory": (shared_memory(), "0/bias/*"),
    "an argument written over": (written("channel_sum"), "0/bias/*"),
    "an image written over": (written("max_pool"), "0/max_pool/2"),
    "gradients written over": ({"sgd": written_gradient}, "0/optimizers/sgd"),
    "a variance in one pass": ({"batch_norm": one_pass}, "0/batch_norm/vectors"),
    "a stale cache": (stale_cache(), "0/batch_norm/images"),
    "padding of -1000": (finite_padding(-1000.0), "0/max_pool/same"),
    "padding of -1e30": (finite_padding(-1e30), "0/max_pool/3x2*"),
    "a nonlinearity by its name": ({"activation": by_name}, "0/nonlinearity/another tanh"),
    "one nonlinearity for all strangers": ({"activation": relu_otherwise}, "0/nonlinearity/softsign"),
    "a slope of 1 at 0": ({"activation_backward": slope_at_zero}, "0/nonlinearity/rectified_tanh*"),
    "decay left out": ({"sgd": ignoring_keep}, "0/optimizers/sgd"),
    "Nesterov's momentum left out": ({"sgd": ignoring_nesterov}, "0/optimizers/sgd"),
    "one form of epsilon": ({"adam": adam_of_one_form}, "0/optimizers/adam"),
    "NaN in all tensors": ({"adam": adam_spreading}, "0/optimizers/adam"),
    "a tile repeated": ({"each": repeated_tile}, "0/each/*"),
    "tiles at multiples": ({"each": multiples}, "0/each/*"),
    "another dtype": ({"conv_apply": in_double}, "0/synapses/conv(2, 1x1)"),
    "NaN left out": ({"dense_apply": nan_skipped}, "0/synapses/dense(4)/not finite weight"),
    "an axis turned round": (where(lambda x, w: w.kernel == (2, 2), "max_pool", lambda y: y[:, ::-1]), "0/max_pool/2"),
    "strides beyond the kernel": (
        where(lambda W, x, w: w.stride[0] > w.kernel[0], "conv_apply"),
        "0/synapses/conv(2, 1x2, stride 3x4)",
    ),
    "a kernel the other way round": ({"local_apply": kernel_turned}, "0/synapses/locally*valid)"),
    "strides left out": ({"dense_apply": as_it_lies}, "0/synapses/dense(4)"),
    "uneven padding": (
        where(lambda W, x, w: w.padding[0][0] > w.padding[0][1], "local_apply"),
        "0/synapses/locally*uneven*",
    ),
}


LONG = ("a large batch of images", "rows beyond 128", "channels beyond 16", "long vectors", "channels beyond 32")


@pytest.mark.parametrize("name", [slow(n, reason="many sizes, or large ones") if n in LONG else n for n in WRONG])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_wrong_kernel_is_found(name):
    kernels, checks = WRONG[name]
    assert verdicts(checks, kernels)
    assert not verdicts(checks)


def at_least_zero(x, axis=None, keepdims=False):
    """A largest value that begins at 0."""
    return np.maximum(np.max(x, axis=axis, keepdims=keepdims), 0)


def cut_off(x):
    """A tanh that never reaches 1."""
    return np.where(np.abs(x) > 12, np.float32(0.99) * np.sign(x), np.tanh(x))


def last_of_equals(x, axis=None, keepdims=False):
    """The last of several equal ones."""
    return x.shape[axis] - 1 - np.argmax(np.flip(x, axis), axis, keepdims=keepdims)


def mean_without_a_column(x, axis=None, keepdims=False):
    """A mean over two axes that leaves out a column."""
    return np.mean(x[:, :, 1:] if axis == (1, 2) else x, axis=axis, keepdims=keepdims)


FUNCTIONS = {
    "max": (at_least_zero, "0/loss/cross_entropy"),
    "log1p": (lambda x: np.log(1 + x), "0/loss/sigmoid_cross_entropy/one unit"),
    "expm1": (lambda x: np.exp(x) - 1, "0/elementwise/expm1"),
    "mean": (mean_without_a_column, "0/average_pool/global"),
    "tanh": (cut_off, "0/nonlinearity/tanh"),
    "argmax": (last_of_equals, "0/products/largest"),
    "maximum": (np.fmax, "0/elementwise/choices/not finite"),
    "take": (lambda x, i, axis: np.take(x, i % 4, axis=axis), "0/moves/floats"),
    "stack": (lambda xs, axis=0: np.stack(xs[::-1], axis), "0/moves/floats"),
    "exp": (lambda x: np.exp(np.minimum(x, 80)), "0/elementwise/exp"),
    "full_like": (one_memory(), "0/moves/floats"),
    "atan2": (lambda y, x: np.arctan2(y, np.where(y.size == 1, 1.01 * x, x)).astype(x.dtype), "0/elementwise/atan2"),
    "sum": (lambda x, axis=None, keepdims=False: np.sum(x, axis=axis, keepdims=keepdims, dtype=np.float64),
            "0/products/sums"),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_wrong_function_of_the_namespace_is_found(name):
    wrong, checks = FUNCTIONS[name]
    assert verdicts(checks, namespace={name: wrong})


# What is right in another way


def summed_backwards(W, x):
    """A product in another order."""
    return PORTABLE.dense_apply(W[:, ::-1], x[:, ::-1])


def conv_in_double(W, x, window):
    """A convolution whose sums are in float64."""
    return in_double(W, x, window).astype(x.dtype)


def one_by_one(x, u, window):
    """A sum over samples in their order."""
    return sum(PORTABLE.conv_correlate(x[i : i + 1], u[i : i + 1], window) for i in reversed(range(len(x))))


def other_forms(nonlinearity, x):
    """A sigmoid by exponentials, and a tanh that is a unit in the last place off."""
    y = nonlinearity.function(x)
    if nonlinearity.name == "sigmoid":
        return 1 / (1 + np.exp(-x))
    off = np.isfinite(y) & (y != 0) & (nonlinearity.name == "tanh")
    return np.where(off, np.nextafter(y, np.float32(0), dtype=y.dtype), y)


def naive(x, gamma, beta, epsilon):
    """BatchNorm in two passes, summed in the order of the samples."""
    axes = tuple(range(x.ndim - 1))
    rows = x.reshape(-1, x.shape[-1])
    mean = np.cumsum(rows, axis=0, dtype=x.dtype)[-1] / len(rows)
    var = np.cumsum((rows - mean) ** 2, axis=0, dtype=x.dtype)[-1] / len(rows)
    scale = gamma / np.sqrt(var + epsilon)
    z = (x - mean) / np.sqrt(var + epsilon)
    return scale * (x - mean) + beta, mean, var, (z, 1 / np.sqrt(var + epsilon)) if axes else None


def marked(x, window):
    """Max-pooling that remembers a mask, not a tuple of it, in memory of another order."""
    y, first = PORTABLE.max_pool(x, window)
    return y, np.asfortranarray(first)


def gathered(first, dy, window):
    """Max-pooling's way back in another form."""
    return overlap_add(np.where(first, np.expand_dims(dy, 3), np.float32(0)), window)


def adam_with_one_division(p, g, m, v, keep, eta, correction, b1, b2, epsilon, form):
    """Adam whose corrections are joined before they meet the tensors."""
    c1, c2 = correction
    root = np.sqrt(c2)
    size, scale = (eta / c1, 1 / root) if form == "paper" else (eta * root / c1, 1)
    m = [m_ + (1 - b1) * (g_ - m_) for m_, g_ in zip(m, g, strict=True)]
    v = [b2 * v_ + (1 - b2) * (g_ * g_) for v_, g_ in zip(v, g, strict=True)]
    step = [size * m_ / (scale * np.sqrt(v_) + epsilon) for m_, v_ in zip(m, v, strict=True)]
    kept = [p_ if isinstance(k, float) and k == 1.0 else k * p_ for k, p_ in zip(keep, p, strict=True)]
    return [k - s for k, s in zip(kept, step, strict=True)], m, v


RIGHT = {
    "dense": ({"dense_apply": summed_backwards}, "0/*dense*"),
    "conv": ({"conv_apply": conv_in_double, "conv_correlate": one_by_one}, "0/synapses/conv*"),
    "activation": ({"activation": other_forms}, "0/nonlinearity/*"),
    "batch_norm": ({"batch_norm": naive}, "0/batch_norm/*"),
    "max_pool": ({"max_pool": marked, "max_pool_backward": gathered}, "0/max_pool/*"),
    "adam": ({"adam": adam_with_one_division}, "0/optimizers/adam"),
}


@pytest.mark.parametrize("name", [*RIGHT, slow("sizes", reason="every size of convolutions and BatchNorm")])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_right_kernel_passes(name):
    sizes = ({"conv_apply": conv_in_double, "conv_correlate": one_by_one, "batch_norm": naive}, "0/sizes/*")
    kernels, checks = RIGHT.get(name, sizes)
    assert verdicts(checks, kernels) == {}
