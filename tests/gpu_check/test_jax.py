"""JAX's steps lowered for CUDA: precision, donation, nothing from the host."""

import numpy as np
import pytest

from tests.gpu_check import product
from tests.gpu_check.product import Combination

jax = pytest.importorskip("jax")

import jax.numpy as xp  # noqa: E402

from tests.gpu_check import jax_lowered  # noqa: E402

CASES = list(product.covering())
BIG = np.random.default_rng(0).standard_normal((700, 400)).astype(np.float32)


@pytest.mark.parametrize("combination", CASES, ids=[case.id for case in CASES])
def test_steps(combination):
    assert jax_lowered.findings(combination, thorough=False) == []


@pytest.mark.parametrize(
    "case", ["weight-mirror/conv/portable/float32/ieee", "sdtp-alternating/LC/native/float32/ieee",
             "sn/ResNet, BN before ReLU/native/float32/bf16"],
)  # fmt: skip
def test_first_states_and_all_modes(case):
    assert jax_lowered.findings(Combination(*case.split("/"))) == []


def text_of(case):
    """A first step as StableHLO."""
    library = jax_lowered.backend(case)
    algorithm = case.case().build(library.kernels)
    library.compile(algorithm.modes["learn"], donate=True, steps=case.steps)
    key = jax.ShapeDtypeStruct((2,), xp.int32)
    state, batch = jax.eval_shape(algorithm.init, key), library.batch(*case.given())
    return jax_lowered.lowered(library.jitted, state._replace(key=None), key, batch), state


def test_every_product_and_argument_is_read():
    """Three dense layers: as many products forward, one less backward, and a gradient each."""
    text, state = text_of(Combination("backprop", "FC", "native", "float32", "bf16"))
    calls = [call for line in text.splitlines() for _, call in jax_lowered.read(line)]
    assert sum(call.name == "dot_general" for call in calls) == 3 + 2 + 3 == text.count("stablehlo.dot_general")
    assert sum(call.name == "reduce_precision" for call in calls) >= 8
    assert list(jax_lowered.donated(text, len(jax.tree.leaves(state)) - 1)) == []
    (said,) = jax_lowered.donated(text, len(jax.tree.leaves(state)))
    assert said.endswith("are not donated")
    (said,) = jax_lowered.donated(text, 3)
    assert said.endswith("are donated and no part of the state")


def test_a_stack_is_one_loop_of_the_same_products():
    case = Combination("backprop", "FC", "native", "float32", "tf32")
    (one, state), (stack, _) = text_of(case), text_of(case._replace(batches=product.AT_ONCE))
    assert (one.count("stablehlo.while"), stack.count("stablehlo.while")) == (0, 1)
    assert one.count("stablehlo.dot_general") == stack.count("stablehlo.dot_general") == stack.count("[HIGH, HIGH]")
    assert list(jax_lowered.donated(stack, len(jax.tree.leaves(state)) - 1)) == []


def through(function):
    """Kernels whose dense product passes what it returns through a function."""
    return lambda kernels: kernels._replace(dense_apply=lambda W, x: function(kernels.dense_apply(W, x)))


def instead(function):
    """Kernels with another dense product."""
    return lambda kernels: kernels._replace(dense_apply=function)


def told(u):
    jax.debug.callback(lambda value: None, u)
    return u


NO_CALLBACK = "ValueError: the platform for the specified backend cpu is different from"  # JAX lowers none from a CPU
FAULTS = {
    "a callback": (through(told), NO_CALLBACK),
    "a callback for numbers": (
        through(lambda u: jax.pure_callback(lambda v: v, jax.ShapeDtypeStruct(u.shape, u.dtype), u)), NO_CALLBACK,
    ),
    "a library's routine": (through(lambda u: u + xp.linalg.svd(u)[1].sum()), "it calls cusolver"),
    "float64": (through(lambda u: (u.astype(xp.float64) * 2).astype(u.dtype)), "float64 in a run of float32"),
    "float64 that comes out": (through(lambda u: u.astype(xp.float64)), "NumPy's"),
    "a large constant": (through(lambda u: u + xp.asarray(BIG).sum()), "a constant of 1120000 bytes"),
    "no precision": (
        instead(lambda W, x: jax.lax.dot_general(x, W, (((1,), (1,)), ((), ())), precision="default")),
        "dot_general in DEFAULT/DEFAULT, not in HIGHEST",
    ),
    "one precision of two": (
        instead(lambda W, x: jax.lax.dot_general(x, W, (((1,), (1,)), ((), ())), precision=("highest", "high"))),
        "dot_general in HIGHEST/HIGH, not in HIGHEST",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault):
    change, sentence = FAULTS[fault]
    found = jax_lowered.findings(Combination("backprop", "FC", "native", "float32", "ieee"), False, change)
    assert any(sentence in one for one in found), found


@pytest.mark.parametrize("name", ["dense_apply", "conv_apply", "conv_correlate"])
def test_an_operand_that_is_not_rounded_is_found(name):
    case = Combination("backprop", "FC" if name == "dense_apply" else "conv", "native", "float32", "bf16")
    exact = jax_lowered.backend(case._replace(precision="ieee")).kernels
    found = jax_lowered.findings(case, False, lambda kernels: kernels._replace(**{name: getattr(exact, name)}))
    assert any("of an operand that was not rounded to bfloat16" in one for one in found), found


def test_arguments_that_are_not_given_away_are_found():
    (said,) = jax_lowered.findings(Combination("backprop", "FC", "native", "float32", "ieee"), False, donate=False)
    assert said.startswith("learn: arguments [0, 1, 2,")
    assert said.endswith("of the state's 14 are not donated")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("%1 = stablehlo.custom_call @xla_ffi_python_gpu_callback(%0)", "it calls xla_ffi_python_gpu_callback"),
        ('"stablehlo.outfeed"(%0, %1)', "it exchanges data with the host: outfeed"),
        ("%1 = stablehlo.convert %0 : (tensor<2xf32>) -> tensor<2xf64>", "float64 in a run of float32"),
    ],
)
def test_what_is_looked_for_in_the_text(line, sentence):
    text = f"module {{\n  func.func public @main(%arg0: tensor<2xf32>) {{\n{line}\n}}\n}}"
    assert list(jax_lowered.of_text(text, Combination("backprop", "FC", "native", "float32", "ieee"))) == [sentence]
