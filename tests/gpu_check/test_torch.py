"""torch's backend on CUDA tensors without memory: nothing waits, nothing is copied, everything has its device."""

import numpy as np
import pytest

from ref_bioplaus import random
from tests.gpu_check import product
from tests.gpu_check.product import Combination

torch = pytest.importorskip("torch")

from tests.gpu_check import torch_faked  # noqa: E402

ADDMM = torch.ops.aten.addmm.default
CASES = list(product.covering())


@pytest.mark.parametrize("combination", CASES, ids=[case.id for case in CASES])
def test_steps(combination):
    assert torch_faked.findings(combination, thorough=False) == []


@pytest.mark.parametrize("case", ["weight-mirror/conv/portable", "sdtp-alternating/FC/native"])
def test_first_states_all_modes_and_predictions(case):
    assert torch_faked.findings(Combination(*case.split("/"), "float32", "ieee")) == []


def test_the_covering_part_covers():
    """What is asked of it, beside that every row, architecture, kernels and precision is in it."""
    rows = {case.row for case in product.whole()}
    assert {(c.row, (c.dtype, c.precision)) for c in CASES} == {(r, p) for r in rows for p in product.PRECISIONS}
    architectures = (*product.ARCHITECTURES, product.GENERATED[1])
    assert {(c.architecture, c.kernels) for c in CASES} == {(a, k) for a in architectures for k in product.KERNELS}
    assert {(c.kernels, (c.dtype, c.precision)) for c in CASES} == {
        (k, p) for k in product.KERNELS for p in product.PRECISIONS
    }
    assert {*CASES} <= {*product.whole()} | {c for c in CASES if c.optimizer != "sgd"}
    assert {c.kernels for c in CASES if c.steps} == {*product.KERNELS}
    everywhere = {(k, *p) for k in product.KERNELS for p in product.PRECISIONS}
    assert {(c.kernels, c.dtype, c.precision) for c in product.whole() if c.bits} == everywhere
    assert {(c.kernels, c.dtype, c.precision) for c in product.whole() if c.steps} == everywhere


def test_torch_is_left_as_it_was():
    with torch_faked.faked():
        assert torch.zeros(2, device="cuda")[:1].device.type == "cuda"
    assert torch.zeros(2)[:1].tolist() == [0.0]
    if not torch.cuda.is_available():
        with pytest.raises((RuntimeError, AssertionError)):
            torch.zeros(2, device="cuda")


def after(name, function):
    """Kernels whose one kernel passes what it returns through a function."""
    return lambda kernels: kernels._replace(**{name: lambda *given: function(getattr(kernels, name)(*given))})


def with_zeros(u):
    torch.zeros(u.shape[1])
    return u


def with_a_number(u):
    float(u.sum())
    return u


def turned(results):
    """Parameters whose axes lie in memory in another order at every step."""
    p, v = results
    return [t.mT.contiguous().mT if t.ndim == 2 and t.is_contiguous() else t.contiguous() for t in p], v


FAULTS = {  # what a dense product is passed through, and what is said: of a call, and of a captured line
    "zeros without a device": (with_zeros, "zeros.default gives a tensor on cpu", None),  # the line drops them
    "zeros without a device, added": (
        lambda u: u + torch.zeros(u.shape[1]), "add.Tensor takes a tensor on cpu", "two devices, cuda:0 and cpu",
    ),
    "a number as a tensor": (lambda u: u * torch.tensor(1.0), "mul.Tensor takes a tensor on cpu", "constant_3 on cpu"),
    "numbers as a tensor": (
        lambda u: u + torch.tensor([0.0], device=u.device), "_to_copy.default takes a tensor on cpu", "empty_strided",
    ),
    "a float": (with_a_number, "_local_scalar_dense", "_local_scalar_dense"),
    "a mask": (lambda u: u + u[u > 0].sum(), "nonzero", "nonzero"),
    "there and back": (lambda u: u.cpu().to(u.device), "_to_copy.default gives a tensor on cpu", "_to_copy"),
    "another dtype": (lambda u: u.to(torch.float64), "'float64'), NumPy's ((6, 4), 'float32')", "float64"),
}  # fmt: skip


@pytest.mark.parametrize("kernels", product.KERNELS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault, kernels):
    function, *sentences = FAULTS[fault]
    sentence = sentences[product.KERNELS.index(kernels)]
    found = torch_faked.findings(
        Combination("backprop", "FC", kernels, "float32", "ieee"), False, after("dense_apply", function)
    )
    assert any(sentence in one for one in found) if sentence else not found, found


@pytest.mark.parametrize(
    ("kernels", "sentence"), [("portable", "_to_copy.default takes a tensor on cpu"), ("native", "on cpu")]
)
def test_a_table_that_comes_from_the_host_at_every_step_is_found(kernels, sentence, monkeypatch):
    """As where the places of a tile's words were counted by NumPy."""
    right = random.multiples

    def counted_by_numpy(i, n):
        if not isinstance(i, torch.Tensor):  # the case's first state
            return right(i, n)
        begins = np.arange(len(i), dtype=np.int64)[:, None] * n
        return tuple(
            torch.asarray(word, dtype=torch.int32, device=i.device) for word in (begins >> 32, begins & 0xFFFFFFFF)
        )

    case = Combination(*product.GENERATED, kernels, "float32", "ieee")
    monkeypatch.setattr(random, "multiples", counted_by_numpy)
    found = torch_faked.findings(case, thorough=False)
    assert any(sentence in one for one in found), found


def test_stacks_are_captured_as_one_line():
    case = Combination("backprop", "FC", "native", "float32", "ieee", batches=product.AT_ONCE)
    with torch_faked.faked():
        backend = torch_faked.backend(case)
        algorithm = case.case().build(backend.kernels)
        step = backend.compile(algorithm.modes["learn"], steps=case.steps)
        _, info = step(algorithm.init(backend.key(1)), backend.batch(*case.given()))
        (line,) = step.run.lines
    assert info.loss.shape == (3, 6)
    products = [node for node in line.module.graph.nodes if node.target in (torch.ops.aten.mm.default, ADDMM)]
    assert len(products) == 3 * (3 + 2 + 3)


def test_layouts_that_change_are_found():
    found = torch_faked.findings(
        Combination("backprop", "FC", "portable", "float32", "ieee"), True, after("sgd", turned)
    )
    assert any("forward/params/1/W of strides" in one for one in found), found


def test_steps_that_are_captured_again_and_again_are_found():
    case = Combination("backprop", "FC", "native", "float32", "ieee")
    with torch_faked.faked():
        backend = torch_faked.backend(case)
        algorithm = case.case().build(backend.kernels)
        step, state = backend.compile(algorithm.modes["learn"]), algorithm.init(backend.key(1))
        for n in (6, 2, 1):
            step(state, backend.batch(*case.case().batch(0, n)))
        assert torch_faked.lines("learn", step) == ["learn is captured 3 times for one shape"]


def test_what_fused_updates_ask_for():
    def other_layout(p, g, *rest):
        p = [t.clone().mT.contiguous().mT if t.ndim == 2 else t.clone() for t in p]
        torch._fused_sgd_(p, g, [], **SGD)
        return p, g

    def count_on_the_host(p, g, m, v, *rest):
        p, m, v = ([t.clone() for t in of] for of in (p, m, v))
        torch._fused_adam_(p, g, m, v, [], [torch.zeros(())] * len(p), **ADAM)
        return p, m, v

    SGD = {"weight_decay": 0.0, "momentum": 0.0, "lr": 0.1, "dampening": 0.0, "nesterov": False}
    SGD |= {"maximize": False, "is_first_step": False}
    ADAM = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.0, "eps": 1e-8}
    ADAM |= {"amsgrad": False, "maximize": False}
    for name, function, optimizer, sentence in (
        ("sgd", other_layout, "sgd, scheduled", "takes tensors of different layouts"),
        ("adam", count_on_the_host, "adam", "takes odd counts of updates"),
    ):
        found = torch_faked.findings(
            Combination("backprop", "FC", "native", "float32", "ieee", optimizer), False,
            lambda kernels, name=name, function=function: kernels._replace(**{name: function}),
        )  # fmt: skip
        assert any(sentence in one for one in found), found
