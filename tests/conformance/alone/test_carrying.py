"""Initial weights, and parameters that go to PyTorch and back: each fault is found by the check of its own."""

import array_api_compat.numpy as compat
import numpy as np
import pytest

from ref_bioplaus import initializers, layouts, random
from ref_bioplaus.backends.base import Backend
from ref_bioplaus.backends.numpy_.backend import NumpyBackend
from ref_bioplaus.conformance.checks import runner
from ref_bioplaus.conformance.checks.alone import initial
from ref_bioplaus.conformance.checks.backend import carrying
from ref_bioplaus.conformance.checks.outcomes import MODES, Subject
from ref_bioplaus.conformance.proofs.faults import ignoring, replaced
from ref_bioplaus.linear import Dense
from ref_bioplaus.tree import tree_map
from tests.conftest import get
from tests.helpers import some_slow

CHECKS = {check.id.removeprefix("0/"): check for check in (*initial.checks(), *carrying.checks())}
RIGHT = [("numpy", "float32"), ("numpy", "float64"), ("torch", "float32"), ("torch", "bfloat16"), ("jax", "float32")]
EXPORT = "backend/export/{}"


def asked(subject, *names):
    """The checks of some, or of all, that do not pass, and why."""
    report = runner.run(subject, [CHECKS[name] for name in names or CHECKS], MODES)
    return {o.id.removeprefix("0/"): o.reason for o in report.outcomes if o.state not in ("pass", "unsupported")}


def library(old, new):
    """A NumPy with a fault in the library's own code."""
    return Subject(get("numpy", "float32"), under=lambda: replaced(old, new))


def wrong(**methods):
    """A NumPy with other methods."""
    return Subject(type("Wrong", (NumpyBackend,), methods)(compat, "cpu", "float32", "ieee", "portable"))


@pytest.mark.parametrize(("name", "dtype"), some_slow(RIGHT, lambda name, dtype: name == "jax" or dtype == "bfloat16"))
def test_right_ones_pass(name, dtype):
    assert asked(Subject(get(name, dtype))) == {}


# Initial weights


def scaled(factor):
    """An initializer's weights, times a number."""
    return lambda right: lambda linear, *where: right(linear, *where) * np.float32(factor)


def generated_from_the_start(u, initializer, linear, address, dtype, kernels):
    """Every tile as the first."""
    width, right = initializers.TILE // linear.n_out, initializers.generated_columns
    starts = range(0, linear.n_in, width)
    parts = [(0, min(width, linear.n_in - start)) for start in starts]
    tiles = [right(initializer, linear, address, dtype, kernels, *part) for part in parts]
    return kernels.dense_transport(np.concatenate(tiles, axis=1), u)


def generated_without_a_rest(u, initializer, linear, address, dtype, kernels):
    """Nothing comes from behind the last whole tile."""
    B = initializer(linear, address, dtype, kernels)
    width = initializers.TILE // linear.n_out
    return kernels.dense_transport(np.where(np.arange(linear.n_in) < linear.n_in // width * width, B, 0 * B), u)


def generated_at_no_time(u, initializer, linear, address, dtype, kernels):
    """Weights that do not hang on the time in their address."""
    there = tuple(tag for tag in address if getattr(tag, "shape", None) != ())
    return kernels.dense_transport(initializer(linear, there, dtype, kernels), u)


def columns_of_less(initializer, linear, address, dtype, kernels, start, width):
    """Columns of a matrix that has as many as are asked for: other numbers, and another fan."""
    part = Dense(width, linear.n_out)
    return initializer(part, address, dtype, kernels)


def columns_by_their_fans(initializer, linear, address, dtype, kernels, start, width):
    """The right numbers, scaled by the fans of the part."""
    right = COLUMNS(initializer, linear, address, dtype, kernels, start, width)
    return right * np.float32((linear.fan_in + linear.fan_out) / (width + linear.fan_out)) ** 0.5


def aliasing(network, key, initializer=initializers.fan_in):
    """Given weights, taken as they are."""
    found = FORWARD(network, key, initializer)
    return (initializer.params, initializer.stats) if isinstance(initializer, initializers.Given) else found


def columns_first(address, shape, dtype, kernels, start=0):
    """Numbers along the first axis first."""
    return NORMAL(address, shape[::-1], dtype, kernels, start).T.reshape(shape)


COLUMNS, FORWARD, NORMAL = initializers.generated_columns, initializers.forward_params, random.normal
INITIAL = {
    "fan-out for fan-in": (initializers.fan_in, initializers.fan_out, "initializers/fan_in"),
    "fan-in for fan-out": (initializers.fan_out, initializers.fan_in, "initializers/fan_out"),
    "He for LeCun": (initializers.fan_in, initializers.he_fan_in, "initializers/fan_in"),
    "1 % more": (initializers.glorot_normal, scaled(1.01)(initializers.glorot_normal), "initializers/glorot_normal"),
    "a hundred-thousandth more": (
        initializers.fan_sum, scaled(1.00001)(initializers.fan_sum), "initializers/fan_sum"),
    "normal for uniform": (initializers.glorot_uniform, initializers.glorot_normal, "initializers/glorot_uniform"),
    "uniform from 0 on": (
        initializers.glorot_uniform, lambda *where: np.abs(UNIFORM(*where)), "initializers/glorot_uniform"),
    "a small number for 0": (initializers.zero, scaled(1e-12)(initializers.fan_in), "initializers/zero"),
    "0.1, whatever is asked": (initializers.naive, ignoring(initializers.naive, "std", 0.1), "initializers/naive, 0.3"),
    "orthogonal along one axis": (
        initializers.orthogonal,
        lambda linear, *where: (lambda g: g / np.sqrt((g * g).sum(axis=-1, keepdims=True)))(
            initializers.naive(1.0)(linear, *where)), "initializers/orthogonal"),
    "another orthogonal matrix": (
        initializers.orthogonal, lambda linear, *where: ORTHOGONAL(linear, *where) * np.float32(-1),
        "initializers/orthogonal"),
    "numbers along the other axis": (random.normal, columns_first, "initializers/he_fan_out"),
    "weights that read padding": (
        initializers.draw, lambda made, *where: made(*where), "initializers/fan_in"),
    "every tile as the first": (
        initializers.generated_transport, generated_from_the_start, "initializers/generated transport"),
    "no rest": (initializers.generated_transport, generated_without_a_rest, "initializers/generated transport"),
    "no time": (initializers.generated_transport, generated_at_no_time, "initializers/generated transport"),
    "columns of a smaller matrix": (COLUMNS, columns_of_less, "initializers/generated columns/fan_out"),
    "columns scaled by their own fans": (
        COLUMNS, columns_by_their_fans, "initializers/generated columns/glorot_uniform"),
    "given weights that are not copied": (FORWARD, aliasing, "initializers/given"),
    "given weights that are drawn": (
        FORWARD, lambda network, key, given: FORWARD(network, key), "initializers/given"),
}  # fmt: skip
UNIFORM, ORTHOGONAL = initializers.glorot_uniform, initializers.orthogonal


@pytest.mark.parametrize("fault", INITIAL)
def test_wrong_initial_weights_are_found(fault):
    old, new, check = INITIAL[fault]
    assert check in asked(library(old, new), check)


def test_a_loop_that_reuses_its_first_turn_is_found():
    subject = Subject(get("numpy", "float32"))
    subject.backend.kernels = subject.backend.kernels._replace(
        each=lambda function, starts, *arrays: [function(starts[0], *arrays)] * len(starts)
    )
    assert "initializers/generated transport" in asked(subject, "initializers/generated transport")


# Export and import


def export(change):
    """export_params whose arrays are changed: change(arrays, backend, network, params, stats)."""

    def export_params(self, network, params, stats=None, inverse=initializers):
        return change(dict(Backend.export_params(self, network, params, stats)), params, stats)

    return {"export_params": export_params}


def only(name, change):
    """One array changed."""
    return export(lambda arrays, params, stats: {n: change(a) if n == name else a for n, a in arrays.items()})


def views(self, network, params, stats=None, inverse=None):
    """Arrays that are the state's own where they can be."""
    right = Backend.export_params(self, network, params, stats)
    return right | {"5.0.weight": params[5].W}


def importing(change):
    """import_params whose results are changed: change(found, what stood in its place, arrays)."""

    def import_params(self, network, params, arrays, stats=None, inverse=None):
        return change(Backend.import_params(self, network, params, arrays, stats), (params, stats), arrays)

    return {"import_params": import_params}


def in_given_order(self, network, params, arrays, stats=None, inverse=None):
    """By the order of the arrays, not by their names."""
    names = list(Backend.export_params(self, network, params, stats))
    shapes = {n: a.shape for n, a in Backend.export_params(self, network, params, stats).items()}
    rest = list(arrays.values())
    taken = {n: rest.pop(next(i for i, a in enumerate(rest) if a.shape == shapes[n])) for n in names}
    return Backend.import_params(self, network, params, taken, stats)


def without_asking(self, network, params, arrays, stats=None, inverse=None):
    """What lacks is left as it was, and what is too much is passed over."""
    own = Backend.export_params(self, network, params, stats)
    return Backend.import_params(self, network, params, own | {n: a for n, a in arrays.items() if n in own}, stats)


conv, LC, residual = (EXPORT.format(f"kolen-pollack/{a}, forward") for a in ("conv", "LC", "ResNet, BN after ReLU"))
CARRIED = {
    "filters as they are": (only("3.0.weight", lambda a: a.transpose(2, 3, 1, 0)), conv),
    "filters turned": (only("1.0.weight", lambda a: np.ascontiguousarray(a[:, :, ::-1, ::-1])), conv),
    "filters' axes swapped": (only("2.0.weight", lambda a: np.ascontiguousarray(a.swapaxes(0, 1))), residual),
    "a flattened image in our order": (
        only("4.0.weight", lambda a: np.ascontiguousarray(
            a.reshape(7, 5, 3, 3).transpose(0, 2, 3, 1)).reshape(7, 45)), conv),
    "height and width swapped": (
        only("3.0.weight", lambda a: np.ascontiguousarray(a.swapaxes(2, 3)).reshape(a.shape)), residual),
    "statistics swapped": (
        export(lambda arrays, p, s: arrays | {"3.1.running_mean": arrays["3.1.running_var"]}), conv),
    "gamma and beta swapped": (
        export(lambda arrays, p, s: arrays | {f"3.1.{a}": arrays[f"3.1.{b}"]
                                              for a, b in (("weight", "bias"), ("bias", "weight"))}), conv),
    "statistics forgotten": (
        export(lambda arrays, p, s: {n: a for n, a in arrays.items() if "running" not in n}), conv),
    "the batches counted": (only("3.1.num_batches_tracked", lambda a: a + 5), conv),
    "a deviation for a variance": (only("3.1.running_var", np.sqrt), conv),
    "a bias per unit in our order": (only("1.0.bias", lambda a: np.moveaxis(a, 0, -1)), LC),
    "local weights, pixels last": (only("2.0.weight", lambda a: a.reshape(4, 2, 5, 4, 3, 3).swapaxes(-1, -2)), LC),
    "in float64": (only("5.0.weight", lambda a: a.astype("f8")), conv),
    "a view": ({"export_params": views}, conv),
    "B of another layer": (
        only("2.B", lambda a: np.roll(a, 1, axis=0)), EXPORT.format("dfa/LC, feedback")),
    "D in our order": (
        only("1.D.3", lambda a: np.ascontiguousarray(np.moveaxis(a, 1, -1)).reshape(a.shape)),
        EXPORT.format("dense-fa/LC, feedback")),
    "c forgotten": (
        export(lambda arrays, p, s: {n: a for n, a in arrays.items() if n != "2.0.bias"}),
        EXPORT.format("dtp/conv, feedback")),
    "nothing is taken": (importing(lambda found, before, arrays: before), conv),
    "weights alone are taken": (
        importing(lambda found, before, arrays: (tuple(
            p._replace(W=f.W) for p, f in zip(before[0], found[0], strict=True)), found[1])), conv),
    "the statistics stay": (importing(lambda found, before, arrays: (found[0], before[1])), conv),
    "statistics that come alone": (importing(lambda found, before, arrays: found[0]), conv),
    "in float16": (importing(lambda found, before, arrays: tree_map(lambda a: a.astype("f2").astype(a.dtype), found)),
                   conv),
    "by order": ({"import_params": in_given_order}, residual),
    "nothing is asked": ({"import_params": without_asking}, conv),
    "what stood there is written over": (
        importing(lambda found, before, arrays: (np.copyto(before[0][5].W, 0), found)[1]), conv),
}  # fmt: skip


@pytest.mark.parametrize("fault", CARRIED)
def test_parameters_that_are_carried_wrongly_are_found(fault):
    methods, check = CARRIED[fault]
    assert check in asked(wrong(**methods), check)


def test_wrong_axes_of_the_library_are_found():
    def unmoved(self, array, source, target):
        return np.reshape(array, self.shape("NHWC" if target == self.ours else "NCHW"))

    class Unmoved(layouts.Axes):
        """Axes whose arrays are only reshaped."""

        moved = unmoved

    found = asked(library(layouts.Axes, Unmoved), conv, LC, EXPORT.format("dtp/LC, feedback"))
    assert len(found) == 3
