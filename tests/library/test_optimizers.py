"""Optimizers against torch.optim and against their formulas; schedules; the three forms of decay."""

import numpy as np
import pytest

from ref_bioplaus import modifications, optimizers
from ref_bioplaus.kernels import PORTABLE
from ref_bioplaus.optimizers import adam, by_layer, piecewise, rmsprop, sgd, staircase, warm_up
from ref_bioplaus.tree import leaves, named_leaves, tree_map
from ref_bioplaus.types import NO_PARAMS, LayerParams
from tests.conftest import get

RNG = np.random.default_rng(0)
PARAMS = (
    NO_PARAMS,
    LayerParams(RNG.standard_normal((3, 2)), ({"b": RNG.standard_normal(3)}, {})),
    LayerParams(None, ({"gamma": RNG.standard_normal(2), "beta": RNG.standard_normal(2)},)),
    LayerParams(RNG.standard_normal((2, 2, 1, 4)), ({},)),
)
ADDRESS = (np.array([0, 1], dtype=np.int32), "optimizer")


def gradients(t):
    rng = np.random.default_rng(100 + t)
    grads = [rng.standard_normal(p.shape) for p in leaves(PARAMS)]
    grads[0][0, 0] = 0.0  # an exact zero, every time
    from ref_bioplaus.tree import unflatten

    return unflatten(PARAMS, grads)


def run(optimizer, steps=5):
    memory, params = optimizer.init(PARAMS, ADDRESS, PORTABLE), PARAMS
    for t in range(steps):
        params, memory = optimizer.update(gradients(t), memory, params, PORTABLE)
    return params, memory


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        (sgd(0.1), "SGD", {"lr": 0.1}),
        (sgd(0.1, 0.9), "SGD", {"lr": 0.1, "momentum": 0.9}),
        (sgd(0.1, 0.9, nesterov=True), "SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        (
            sgd(0.1, 0.9, decay=0.05, form="coupled", on="all"),
            "SGD",
            {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05},
        ),
        (adam(0.1, 0.8, 0.95, 1e-3), "Adam", {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-3}),
        (adam(0.1, 0.0, 0.95, 1e-3), "Adam", {"lr": 0.1, "betas": (0.0, 0.95), "eps": 1e-3}),
        (adam(0.1, 0.8, 0.0, 1e-3), "Adam", {"lr": 0.1, "betas": (0.8, 0.0), "eps": 1e-3}),
        (adam(0.1, decay=0.05, form="coupled", on="all"), "Adam", {"lr": 0.1, "weight_decay": 0.05}),
        (adam(0.1, decay=0.05, form="decoupled", on="all"), "AdamW", {"lr": 0.1, "weight_decay": 0.05}),
    ],
)
def test_as_in_torch(ours, theirs, options):
    torch = pytest.importorskip("torch")
    tensors = [torch.tensor(p.copy(), requires_grad=True) for p in leaves(PARAMS)]
    optimizer = getattr(torch.optim, theirs)(tensors, **options)
    for t in range(5):
        for tensor, g in zip(tensors, leaves(gradients(t)), strict=True):
            tensor.grad = torch.tensor(g)
        optimizer.step()
    params, _ = run(ours)
    for p, tensor in zip(leaves(params), tensors, strict=True):
        assert np.allclose(p, tensor.detach().numpy(), rtol=1e-12, atol=1e-14)


def test_adam_with_the_hat_form_of_epsilon():
    """Kingma and Ba, end of section 2, written out; it is visibly not the other form at epsilon = 1e-3."""
    eta, b1, b2, epsilon = 0.1, 0.9, 0.99, 1e-3
    p = [a.copy() for a in leaves(PARAMS)]
    m, v = ([0.0 * a for a in p] for _ in range(2))
    for t in range(1, 6):
        for i, g in enumerate(leaves(gradients(t - 1))):
            m[i], v[i] = b1 * m[i] + (1 - b1) * g, b2 * v[i] + (1 - b2) * g**2
            eta_t = eta * np.sqrt(1 - b2**t) / (1 - b1**t)
            p[i] = p[i] - eta_t * m[i] / (np.sqrt(v[i]) + epsilon)
    hat, paper = (leaves(run(adam(eta, b1, b2, epsilon, epsilon_form=f))[0]) for f in ("hat", "paper"))
    assert all(np.allclose(a, b, rtol=1e-12, atol=1e-14) for a, b in zip(hat, p, strict=True))
    assert max(np.max(np.abs(a - b)) for a, b in zip(hat, paper, strict=True)) > 1e-4


def test_rmsprop_as_lee_used_it():
    eta, rho, momentum, epsilon = 0.1, 0.95, 0.9, 1e-3
    p = [a.copy() for a in leaves(PARAMS)]
    n, a, v = ([0.0 * x for x in p] for _ in range(3))
    for t in range(5):
        for i, g in enumerate(leaves(gradients(t))):
            n[i], a[i] = rho * n[i] + (1 - rho) * g**2, rho * a[i] + (1 - rho) * g
            v[i] = momentum * v[i] + eta * g / np.sqrt(n[i] - a[i] ** 2 + epsilon)
            p[i] = p[i] - v[i]
    assert all(np.allclose(x, y, rtol=1e-12, atol=1e-14) for x, y in zip(leaves(run(rmsprop(eta))[0]), p, strict=True))


def test_rmsprop_as_torchs_but_for_epsilon_outside_the_root():
    torch = pytest.importorskip("torch")
    tensors = [torch.tensor(p.copy(), requires_grad=True) for p in leaves(PARAMS)]
    theirs = torch.optim.RMSprop(tensors, lr=0.1, alpha=0.95, momentum=0.9, centered=True, eps=0.0)
    generous = tuple(1.0 + np.abs(g) for g in leaves(gradients(0)))  # away from 0 / 0
    memory, params, optimizer = None, PARAMS, rmsprop(0.1, epsilon=0.0)
    from ref_bioplaus.tree import unflatten

    memory = optimizer.init(PARAMS, ADDRESS, PORTABLE)
    for factor in (1.0, 2.0, -1.0):
        for tensor, g in zip(tensors, generous, strict=True):
            tensor.grad = torch.tensor(factor * g)
        theirs.step()
        params, memory = optimizer.update(unflatten(PARAMS, [factor * g for g in generous]), memory, params, PORTABLE)
    for p, tensor in zip(leaves(params), tensors, strict=True):
        assert np.allclose(p, tensor.detach().numpy(), rtol=1e-10)


@pytest.mark.parametrize("make", [sgd, adam, rmsprop])
@pytest.mark.parametrize("form", ["paper", "decoupled", "coupled"])
def test_decay_with_zero_gradients_acts_on_weights_only_unless_asked(make, form):
    from ref_bioplaus.tree import tree_map

    eta, decay = 0.1, 0.02
    zero = tree_map(np.zeros_like, PARAMS)
    for on in ("weights", "all"):
        optimizer = make(eta, decay=decay, form=form, on=on)
        params, _ = optimizer.update(zero, optimizer.init(PARAMS, ADDRESS, PORTABLE), PARAMS, PORTABLE)
        for (name, old), new in zip(named_leaves(PARAMS), leaves(params), strict=True):
            touched = on == "all" or name.endswith("W")
            assert np.array_equal(old, new) != touched, name
            if touched and form != "coupled":
                assert np.allclose(new, (1 - (decay if form == "paper" else eta * decay)) * old, rtol=1e-15)
            if touched and form == "coupled" and make is sgd:
                assert np.allclose(new, old - eta * decay * old, rtol=1e-14)


def test_a_schedule_changes_decoupled_decay_and_leaves_the_papers_alone():
    from ref_bioplaus.tree import tree_map

    zero, eta = tree_map(np.zeros_like, PARAMS), piecewise((0.1, 0.01), (1,))
    for form, second in (("paper", 1 - 0.02), ("decoupled", 1 - 0.01 * 0.02)):
        optimizer = sgd(eta, decay=0.02, form=form)
        once, memory = optimizer.update(zero, optimizer.init(PARAMS, ADDRESS, PORTABLE), PARAMS, PORTABLE)
        twice, _ = optimizer.update(zero, memory, once, PORTABLE)
        assert np.allclose(twice[1].W, second * once[1].W, rtol=1e-15)


@pytest.mark.parametrize("name", ["numpy", "torch", "jax", "array-api-strict"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_schedules(name, dtype):
    backend = get(name, dtype)
    dt, tolerance = getattr(backend.xp, dtype), 1e-6 if dtype == "float32" else 1e-14

    def values(schedule, counts):
        found = [schedule(backend.asarray(np.array(t, np.int32)), dt) for t in counts]
        assert all(v.dtype == dt and v.shape == () for v in found)
        return [float(v) for v in found]

    steps = piecewise((1e-4, 1e-5, 0.0), (20, 30))
    assert np.allclose(values(steps, (0, 19, 20, 29, 30)), [1e-4, 1e-4, 1e-5, 1e-5, 0.0], rtol=tolerance, atol=0)
    assert np.allclose(
        values(staircase(5e-4, 0.8, 30), (0, 29, 30, 90)), 5e-4 * 0.8 ** np.array([0, 0, 1, 3]), rtol=tolerance
    )
    assert np.allclose(values(warm_up(0.1, 4), range(6)), [0.025, 0.05, 0.075, 0.1, 0.1, 0.1], rtol=tolerance)
    assert np.allclose(
        values(warm_up(staircase(0.1, 0.5, 2), 4), range(5)), [0.025, 0.05, 0.0375, 0.05, 0.025], rtol=tolerance
    )


def test_each_layer_may_have_an_optimizer_of_its_own():
    special = sgd(0.5, 0.9)
    params, memory = run(by_layer(sgd(0.1), {3: special}))
    everywhere, alone = (run(o)[0] for o in (sgd(0.1), special))
    for l, wanted in ((1, everywhere), (2, everywhere), (3, alone)):
        assert all(np.array_equal(a, b) for a, b in zip(leaves(params[l]), leaves(wanted[l]), strict=True))
    assert {name.split("/")[0] for name, _ in named_leaves(memory)} == {"default", "3"}
    with pytest.raises(ValueError, match="expected 0 to 3"):
        run(by_layer(sgd(0.1), {4: special}))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: sgd(0.1, form="l2"), '"l2" is unknown, expected one of paper, decoupled, coupled'),
        (lambda: sgd(0.1, on="bias"), 'expected "weights" or "all"'),
        (lambda: adam(0.1, decay=-0.1), r"decay is -0.1, expected a number in \[0, 1\)"),
        (lambda: adam(0.1, epsilon_form="tf"), 'expected "paper" or "hat"'),
        (lambda: sgd(0.1, nesterov=True), "needs momentum above 0"),
        (lambda: sgd(-0.1), "sgd: the learning rate is -0.1, expected a finite number of at least 0"),
        (lambda: sgd("0.1"), "sgd: the learning rate is '0.1', expected a finite number"),
        (lambda: adam(float("nan")), "adam: the learning rate is nan, expected a finite number"),
        (lambda: rmsprop(float("inf")), "rmsprop: the learning rate is inf, expected a finite number"),
        (lambda: rmsprop(0.1, epsilon=-1.0), "rmsprop: epsilon is -1.0, expected a finite number of at least 0"),
        (lambda: piecewise((0.1, -0.1), (3,)), "piecewise: the learning rate is -0.1"),
        (lambda: staircase(0.1, 0.0, 3), "staircase: factor is 0.0, expected a finite number above 0"),
        (lambda: staircase(0.1, 0.5, 0), "staircase: every is 0, expected"),
        (lambda: warm_up(-1.0, 3), "warm_up: the learning rate is -1.0"),
        (lambda: warm_up(1.0, 0), "warm_up: updates is 0, expected"),
        (lambda: modifications.noisy_gradients(sgd(0.1), -1.0), "noisy_gradients: strength is -1.0, expected"),
        (lambda: modifications.align_to_random(sgd(0.1), float("nan")), "align_to_random: strength is nan"),
        (lambda: modifications.fixed_signs(sgd(0.1), -1), "fixed_signs: start is -1, expected"),
        (lambda: piecewise((0.1,), (3,)), "expected one more"),
        (lambda: piecewise((0.1, 0.2, 0.3), (3, 3)), "increasing"),
    ],
)
def test_mistakes_get_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_every_optimizer_counts_its_own_updates():
    for optimizer in (sgd(0.1), adam(0.1), rmsprop(0.1)):
        _, memory = run(optimizer, 3)
        assert memory["count"] == 3
        assert memory["count"].dtype == np.int32
    assert optimizers.DECAY_FORMS == ("paper", "decoupled", "coupled")


# In 16 bits


def in_bfloat16(backend, optimizer, steps, gradient):
    """A weight of 1 after so many updates in bfloat16, and the optimizer's memory."""

    def whole(value):
        return (NO_PARAMS, LayerParams(backend.asarray(np.full((2, 3), value))))

    params = whole(1.0)
    memory = optimizer.init(params, (backend.key(0), "optimizer"), PORTABLE)
    for t in range(steps):
        params, memory = optimizer.update(whole(gradient(t)), memory, params, PORTABLE)
    assert str(params[1].W.dtype).endswith("bfloat16")
    return float(backend.to_numpy(params[1].W)[0, 0]), memory


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_small_decay_and_moments_that_shrink_need_float32(name):
    """Decay below 2^-9 changes no weight of 8 bits, and a moving average with 0.999 stays where it is."""
    backend = get(name, "bfloat16")
    alone, mixed = sgd(0.1, decay=1e-3), optimizers.in_float32(sgd(0.1, decay=1e-3))
    assert in_bfloat16(backend, alone, 100, lambda t: 0.0)[0] == 1.0
    weight, memory = in_bfloat16(backend, mixed, 100, lambda t: 0.0)
    assert float(memory["float32"][1].W[0, 0]) == pytest.approx(0.999**100, rel=1e-5)
    assert weight == pytest.approx(0.999**100, rel=2.0**-9)

    def once(t):
        return 1.0 if t == 0 else 0.0

    _, stuck = in_bfloat16(backend, adam(0.0), 100, once)
    _, moving = in_bfloat16(backend, optimizers.in_float32(adam(0.0)), 100, once)
    first = float(backend.to_numpy(in_bfloat16(backend, adam(0.0), 1, once)[1]["v"][1].W)[0, 0])
    assert float(backend.to_numpy(stuck["v"][1].W)[0, 0]) == first
    assert float(moving["inner"]["v"][1].W[0, 0]) == pytest.approx(1e-3 * 0.999**99, rel=1e-5)


def test_in_float32_is_the_optimizer_itself_on_float32():
    """The same numbers, with a wrapper inside of it, which sees what learns."""
    params = tree_map(lambda a: a.astype(np.float32), PARAMS)
    plain = modifications.constant_norm(sgd(0.1, 0.9, decay=0.01))
    wrapped = optimizers.in_float32(plain)
    a, b = (o.init(params, ADDRESS, PORTABLE) for o in (plain, wrapped))
    one, other = params, params
    for t in range(3):
        grads = tree_map(lambda g: g.astype(np.float32), gradients(t))
        one, a = plain.update(grads, a, one, PORTABLE)
        other, b = wrapped.update(grads, b, other, PORTABLE)
    assert all(map(np.array_equal, leaves(one), leaves(other)))
    assert all(map(np.array_equal, leaves(a), leaves(b["inner"])))
