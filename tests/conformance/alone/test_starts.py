"""Where learning starts is judged, from the subject's own key on: faults of initial states and of first steps."""

import zlib

import array_api_compat.numpy as compat
import numpy as np
import pytest

from ref_bioplaus import initializers, local
from ref_bioplaus.backends.numpy_.backend import NumpyBackend
from ref_bioplaus.conformance.cases.cases import Case
from ref_bioplaus.conformance.checks import looking, runner, starts
from ref_bioplaus.conformance.checks.outcomes import Subject
from ref_bioplaus.conformance.checks.steps import one_step
from ref_bioplaus.conformance.proofs.faults import replaced
from ref_bioplaus.tree import tree_map
from ref_bioplaus.types import Batch, Pathway
from tests.conftest import get
from tests.helpers import slow

CHECKS = {check.id.removeprefix("1/"): check for check in starts.checks()}
RIGHT = [("numpy", "float32"), ("numpy", "float64"), slow("torch", "bfloat16", reason="the same once more")]
INIT, STEPS = "{}/init", "{}/first steps"


def asked(subject, *names, modes=("eager", "compiled", "donating")):
    """The checks of some that do not pass, and why."""
    report = runner.run(subject, [CHECKS[name] for name in names], modes)
    return {(o.id.removeprefix("1/"), o.mode): o.reason for o in report.outcomes if o.state != "pass"}


def library(old, new):
    """A NumPy with a fault in the library's own code."""
    return Subject(get("numpy", "float32"), under=lambda: replaced(old, new))


def builds(change):
    """A NumPy whose first states are changed: change(state, key, algorithm's own init)."""

    def build(case, kernels):
        algorithm = Case.build(case, kernels)
        return algorithm._replace(init=lambda key: change(algorithm.init(key), key, algorithm.init))

    return Subject(get("numpy", "float32"), build)


def wrong(**methods):
    """A NumPy with other methods."""
    return Subject(type("Wrong", (NumpyBackend,), methods)(compat, "cpu", "float32", "ieee", "portable"))


@pytest.mark.parametrize(("name", "dtype"), RIGHT)
def test_right_starts_pass(name, dtype):
    names = [n for n in CHECKS if n.startswith(("kolen-pollack/", "dtp/", "dense-fa/", "usf-constant-norm-ei/"))]
    assert asked(Subject(get(name, dtype)), *names) == {}
    assert len(names) > 20


# The library's own code


def drawn_as(std):
    """`draw` by another function."""

    def draw(initializer, linear, address, dtype, kernels):
        return linear.existing(std(initializer, linear, address, dtype, kernels))

    return draw


def of_one_layer(initializer, linear, address, dtype, kernels):
    """The same numbers for every layer."""
    return initializer(linear, (*address[:-1], 1), dtype, kernels)


def of_fan_in(initializer, linear, address, dtype, kernels):
    """Always by fan-in."""
    return initializers.fan_in(linear, address, dtype, kernels)


def of_no_key(initializer, linear, address, dtype, kernels):
    """Numbers that hang on the names, not on the key."""
    return initializer(linear, (np.zeros(2, np.int32), *address[1:]), dtype, kernels)


def of_one_path(initializer, linear, address, dtype, kernels):
    """B is W."""
    return initializers.fan_in(linear, (address[0], "forward", *address[2:]), dtype, kernels)


def other_numbers(initializer, linear, address, dtype, kernels):
    """Of the right distribution, from another generator."""
    found = (
        np.random.default_rng([zlib.crc32(repr(address).encode())]).standard_normal(linear.weight_shape)
        * linear.fan_in**-0.5
    )
    return found.astype(dtype)


def turned(initializer, linear, address, dtype, kernels):
    """The same numbers along the other axis first."""
    shape = linear.weight_shape
    return np.swapaxes(initializer(linear, address, dtype, kernels).reshape(*shape[:-2], shape[-1], shape[-2]), -1, -2)


def with_padding(initializer, linear, address, dtype, kernels):
    """Weights that could only ever read padding, too."""
    return initializer(linear, address, dtype, kernels)


def one_percent(initializer, linear, address, dtype, kernels):
    """A deviation 1 % too large."""
    return initializer(linear, address, dtype, kernels) * dtype(1.01)


def a_few_bits(initializer, linear, address, dtype, kernels):
    """Off by 4e-7 of itself."""
    return initializer(linear, address, dtype, kernels) * dtype(1.0 + 2.0**-21)


class OneBias(local.Bias):
    """A bias that starts at 1."""

    def init(self, key, dtype):
        """b = 1"""
        params, stats = super().init(key, dtype)
        return tree_map(lambda b: b + 1, params), stats


class NoVariance(local.BatchNorm):
    """Running variances that start at 0, or gammas that do."""

    changed = "var"

    def init(self, key, dtype):
        """var = 0"""
        params, stats = super().init(key, dtype)
        both = {"params": params, "stats": stats}
        return tuple({k: v * 0 if k == self.changed else v for k, v in both[part].items()} for part in both)


class NoGamma(NoVariance):
    """Gammas that start at 0."""

    changed = "gamma"


def started(path):
    """new_state with a fault."""
    right = initializers.new_state

    def new_state(network, key, optimizer, initializer=initializers.fan_in, feedback=None):
        return path(right(network, key, optimizer, initializer, feedback))

    return right, new_state


DRAWN = {
    "the same numbers in every layer": (of_one_layer, "backprop/FC"),
    "the same numbers in equal layers": (of_one_layer, "backprop/square"),
    "B by fan-in": (of_fan_in, "feedback-alignment/conv"),
    "V by fan-in": (of_fan_in, "dtp/LC"),
    "no key": (of_no_key, "backprop/conv"),
    "B as W": (of_one_path, "kolen-pollack/ResNet, BN after ReLU"),
    "numbers of another generator": (other_numbers, "backprop/FC"),
    "the other axis first": (turned, "backprop/LC"),
    "1 % too large": (one_percent, "backprop/FC"),
    "1 % too large in B": (one_percent, "kolen-pollack/LC"),
    "a few bits": (a_few_bits, "backprop/FC"),
}


@pytest.mark.parametrize("fault", DRAWN)
def test_weights_that_are_drawn_wrongly_are_found(fault):
    draw, place = DRAWN[fault]
    found = asked(library(initializers.draw, drawn_as(draw)), INIT.format(place))
    assert (INIT.format(place), "eager") in found


MADE = {
    "weights that read padding alone": (initializers.draw, with_padding, "backprop/LC", "params/1/W["),
    "biases of 1": (local.Bias, OneBias, "backprop/FC", "local/0/b"),
    "running variances of 0": (local.BatchNorm, NoVariance, "backprop/conv", "stats/3/0/var"),
    "gammas of 0": (local.BatchNorm, NoGamma, "backprop/ResNet, BN after ReLU", "gamma"),
    "time 1": (*started(lambda s: s._replace(t=s.t + 1)), "backprop/FC", "t "),
    "a wide time": (*started(lambda s: s._replace(t=s.t.astype(np.int64))), "backprop/FC", "t has dtype int64"),
    "the key's words swapped": (*started(lambda s: s._replace(key=s.key[::-1])), "backprop/FC", "key"),
    "memories of 1": (*started(lambda s: s._replace(forward=s.forward._replace(
        memory=tree_map(lambda a: a + 1, s.forward.memory)))), "kolen-pollack/FC", "forward/memory"),
    "memories in float64": (*started(lambda s: s._replace(forward=s.forward._replace(
        memory=tree_map(lambda a: a.astype("f8") if a.dtype.kind == "f" else a, s.forward.memory)))),
        "kolen-pollack/FC", "has dtype float64"),
    "no feedback": (*started(lambda s: s._replace(feedback=Pathway(()))), "feedback-alignment/FC", "feedback"),
    "feedback that nobody asked for": (*started(lambda s: s._replace(feedback=s.forward)), "backprop/FC", "feedback"),
}  # fmt: skip


@pytest.mark.parametrize("fault", MADE)
def test_states_that_are_made_wrongly_are_found(fault):
    old, new, place, words = MADE[fault]
    found = asked(library(old, new), INIT.format(place))
    assert words in found[INIT.format(place), "eager"]


# Backends and rules


def test_a_start_from_another_key_is_found():
    place = INIT.format("backprop/FC")
    upper = wrong(key=lambda self, seed=0: self.asarray(np.array([0, seed & 0x7FFFFFFF], np.int32)))
    assert "departs first" in asked(upper, place)[place, "eager"]
    fixed = builds(lambda state, key, init: init(np.array([0, 7], np.int32))._replace(key=key))
    assert "params" in asked(fixed, place)[place, "eager"]


def test_a_start_that_wrap_computes_otherwise_is_found_there_alone():
    def wrap(self, step):
        return self.eager(lambda *a: tree_map(lambda x: x * x.dtype.type(1), step(*a)))

    def off(self, step):
        return self.eager(lambda *a: tree_map(lambda x: x + 1e-3 if x.dtype.kind == "f" else x, step(*a)))

    place = INIT.format("kolen-pollack/FC")
    assert asked(wrong(wrap=wrap), place) == {}
    assert {mode for _, mode in asked(wrong(wrap=off), place)} == {"compiled"}


def compiled(change):
    """A backend whose compiled steps are changed: change(run, state, batch, a list of their own)."""

    def compile(self, step, donate=False, keep=None):
        run, own = NumpyBackend.compile(self, step, donate, keep), []
        return lambda state, batch: change(run, state, batch, own)

    return wrong(compile=compile)


def of_the_first_size(run, state, batch, own):
    """Divided by the size of the first batch."""
    own.append(len(batch.x))
    new, info = run(state, batch)
    factor = np.float32(len(batch.x) / own[0])
    params = tuple(p if p.W is None else p._replace(W=o.W + factor * (p.W - o.W))
                   for p, o in zip(new.forward.params, state.forward.params, strict=True))  # fmt: skip
    return new._replace(forward=new.forward._replace(params=params)), info


def cut_to_the_first_size(run, state, batch, own):
    """No more samples than the first batch had, and as many."""
    own.append(len(batch.x))
    return run(state, Batch(*(np.resize(a, (own[0], *a.shape[1:])) for a in batch)))


def of_the_first_state(run, state, batch, own):
    """The momentum of the first state, always."""
    own.append(state.forward.memory)
    return run(state._replace(forward=state.forward._replace(memory=own[0])), batch)


def into_one_memory(run, state, batch, own):
    """Every loss of one size in the same memory."""
    new, info = run(state, batch)
    places = own[0] if own else (own.append({}) or own[0])
    place = places.setdefault(info.loss.shape, np.empty_like(info.loss))
    np.copyto(place, info.loss)
    return new, info._replace(loss=place)


def wrong_when_it_comes_again(run, state, batch, own):
    """Another learning rate at every size that was there before."""
    again = len(batch.x) in own
    own.append(len(batch.x))
    new, info = run(state, batch)
    return (new._replace(t=new.t + 1), info) if again else (new, info)


SEQUENCES = (of_the_first_size, cut_to_the_first_size, of_the_first_state, into_one_memory, wrong_when_it_comes_again)


@pytest.mark.parametrize("fault", SEQUENCES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("place", ["kolen-pollack/FC", "kolen-pollack/conv"])
def test_first_steps_that_go_wrong_later_are_found(fault, place):
    found = asked(compiled(fault), STEPS.format(place))
    assert {mode for _, mode in found} == {"compiled", "donating"}


def test_a_donated_state_whose_memory_is_handed_out_is_found():
    def into_the_old(run, state, batch, own):
        held = np.array(state.forward.params[1].W)
        new, info = run(state, batch)
        state.forward.params[1].W[...] = held + 1
        return new, info

    def keeping_h(run, state, batch, own):
        new, info = run(state, batch)
        own.append(info.h[1])
        if len(own) > 1:
            own[-2][...] = 0
        return new, info

    assert asked(compiled(into_the_old), STEPS.format("kolen-pollack/FC")) == {}  # a donated state is the step's own
    found = asked(compiled(keeping_h), STEPS.format("kolen-pollack/FC"))
    assert all("a later step changed what batch 0 of 6 samples" in reason for reason in found.values())
    assert len(found) == 2


class Forgetting(local.BatchNorm):
    """Running statistics that are those of the first step at every step."""

    def forward(self, params, stats, x, key, train):
        """As if they had been 0 and 1 before."""
        fresh = {"mean": 0 * stats["mean"], "var": 0 * stats["var"] + 1} if train else stats
        return super().forward(params, fresh, x, key, train)


class Untouched(local.BatchNorm):
    """Test mode with the statistics of the first state."""

    def forward(self, params, stats, x, key, train):
        """As if nothing had been learned."""
        fresh = stats if train else {"mean": 0 * stats["mean"], "var": 0 * stats["var"] + 1}
        y, moved, cache = super().forward(params, fresh, x, key, train)
        return y, moved if train else stats, cache


def test_statistics_of_a_stored_state_count():
    case = Case("backprop/conv", "backprop", "conv", "adam")
    checks = [one_step(case, "learn", 6), *(c for c in looking.checks() if c.id == "1/predict/backprop/conv/6")]
    for fault, wrongs in ((Forgetting, [0]), (Untouched, [1]), (local.BatchNorm, [])):
        report = runner.run(library(local.BatchNorm, fault), checks, ("compiled",))
        assert [i for i, o in enumerate(report.outcomes) if o.state != "pass"] == wrongs, fault


def test_steps_run_under_the_subjects_own_key():
    def halved(self, seed=0):
        return self.asarray(np.array([0, seed], np.uint32).view(np.int32)) // 2

    case = Case("backprop/conv", "backprop", "conv", "adam")
    found = runner.run(wrong(key=halved), [one_step(case, "learn", 6)], ("compiled",))
    assert found.count("fail") == 1
