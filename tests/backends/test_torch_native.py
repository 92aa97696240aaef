"""torch's native kernels and captured steps: the same numbers as the portable form, and nothing written too early."""

import numpy as np
import pytest

from ref_bioplaus import algorithms, backends, local, losses, random
from ref_bioplaus.backends import BackendError
from ref_bioplaus.conformance.cases.cases import step_cases
from ref_bioplaus.conformance.cases.networks import GRADIENT, batch
from ref_bioplaus.conformance.checks.alone import draws, primitives
from ref_bioplaus.conformance.checks.outcomes import Subject
from ref_bioplaus.conformance.checks.runner import run
from ref_bioplaus.kernels import PORTABLE, threefry
from ref_bioplaus.linear import conv, dense, locally_connected
from ref_bioplaus.optimizers import adam, piecewise, sgd
from ref_bioplaus.registry import ROWS
from ref_bioplaus.tree import leaves, tree_map
from ref_bioplaus.types import LayerParams
from tests.helpers import slow

torch = pytest.importorskip("torch")

from ref_bioplaus.backends.torch_ import backend as torch_backend  # noqa: E402
from ref_bioplaus.backends.torch_ import capture, optimizers, passes, products, trees  # noqa: E402
from ref_bioplaus.backends.torch_ import kernels as torch_kernels  # noqa: E402
from ref_bioplaus.backends.torch_ import memory as torch_memory  # noqa: E402

STEPS = [c for c in step_cases() if c.id == f"{c.row}/{c.architecture}"]
CASES = {c.row: c for c in reversed(STEPS)}  # the first architecture of every row
CASES |= {f"{c.row}/{c.architecture}": c for c in STEPS if c.row in ("kolen-pollack", "dtp")}
PARTS = [
    dense(4), conv(4, 3), conv(4, (2, 3), stride=2), conv(2, 3, stride=(1, 3)), conv(4, (4, 2), stride=(3, 1)),
    conv(4, (3, 2), padding="valid"), conv(4, 3, stride=2, padding=(2, 1)), conv(4, 1, stride=2), conv(2, 1),
    conv(1, (2, 3), padding=(3, 4)), locally_connected(4, 3), locally_connected(4, (2, 3), stride=(2, 1)),
    locally_connected(2, 3, 2, 1),
]  # fmt: skip


@pytest.fixture(scope="module")
def native():
    """Native backends, made once per dtype."""
    made = {}

    def get(dtype="float64", precision="ieee"):
        if (dtype, precision) not in made:
            made[dtype, precision] = backends.get("torch", "cpu", dtype, precision, "native")
        return made[dtype, precision]

    return get


def host(backend, tree):
    return [np.array(backend.to_numpy(leaf)) for leaf in leaves(tree)]


def draw(*shapes, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(shape) for shape in shapes]


def close(backend, found, expected):
    """Equal but for roundings of the dtype, as far as sums of a few hundred products go."""
    unit = {"float32": 2e-6, "float64": 4e-15}[backend.dtype]
    found = backend.to_numpy(found)
    assert found.shape == expected.shape
    assert np.max(np.abs(found - expected), initial=0.0) <= 8 * unit * max(np.max(np.abs(expected), initial=0.0), 1.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [3, 1])
@pytest.mark.parametrize("part", PARTS, ids=[p.name for p in PARTS])
def test_synapses_have_the_portable_faces(native, part, n, dtype):
    backend = native(dtype)
    linear = part.build((6,) if part.name.startswith("dense") else (7, 5, 3))
    W, x, u = draw(linear.weight_shape, (n, *linear.in_shape), (n, *linear.out_shape))
    x.flat[0] = u.flat[0] = 0.0
    kind = {"Dense": "dense", "Convolution": "conv", "LocalConnection": "local"}[type(linear).__name__]
    geometry = () if kind == "dense" else (linear.window,)
    for face, operands in (("apply", (W, x)), ("transport", (W, u)), ("correlate", (x, u))):
        function = getattr(backend.kernels, f"{kind}_{face}")
        assert function is not getattr(PORTABLE, f"{kind}_{face}")
        close(
            backend,
            function(*map(backend.asarray, operands), *geometry),
            getattr(PORTABLE, f"{kind}_{face}")(*operands, *geometry),
        )


def test_strided_1x1_filters_learn_from_the_pixels_they_read_and_no_others(native):
    """oneDNN, given the stride, writes beyond its memory on AVX2 processors; it must be given the pixels alone."""
    backend, linear = native("float32"), conv(6, 1, stride=(3, 2), padding="valid").build((7, 5, 5))
    x, u = draw((4, *linear.in_shape), (4, *linear.out_shape))
    asked = []

    class Watching(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten.convolution_backward.default:
                asked.append((tuple(args[1].shape), tuple(args[4])))
            return function(*args, **(kwargs or {}))

    with Watching():
        found = backend.kernels.conv_correlate(backend.asarray(x), backend.asarray(u), linear.window)
    assert asked == [((4, 5, 3, 3), (1, 1))]
    close(backend, found, PORTABLE.conv_correlate(x, u, linear.window))


def test_a_large_dense_layer_takes_the_other_product(native):
    backend = native("float32")
    W, x, u = draw((530, 520), (5, 520), (5, 530))
    close(backend, backend.kernels.dense_apply(backend.asarray(W), backend.asarray(x)), x @ W.T)
    close(backend, backend.kernels.dense_transport(backend.asarray(W), backend.asarray(u)), u @ W)
    close(backend, backend.kernels.dense_correlate(backend.asarray(x), backend.asarray(u)), u.T @ x)


@pytest.mark.parametrize(
    "part",
    [local.max_pool(2), local.max_pool((3, 2), (2, 1), (1, 0)), local.max_pool(3, 2, "same"), local.max_pool(2, 3),
     local.max_pool(2, 1, 2)],
    ids=lambda part: part.name,
)  # fmt: skip
def test_of_equal_maxima_the_first_takes_the_error(native, part):
    backend, op = native(), part.build((7, 5, 3))
    x, dy = draw((2, 7, 5, 3), (2, *op.out_shape))
    for image in (x, np.where(np.abs(x) < 0.7, 0.0, np.rint(x)), np.zeros_like(x), np.full_like(x, -np.inf)):
        y, cache = backend.kernels.max_pool(backend.asarray(image), op.window)
        expected, first = PORTABLE.max_pool(image, op.window)
        assert np.array_equal(backend.to_numpy(y), expected)
        if np.all(np.isfinite(image)):
            dx = backend.kernels.max_pool_backward(cache, backend.asarray(dy), op.window)
            close(backend, dx, PORTABLE.max_pool_backward(first, dy, op.window))


@pytest.mark.parametrize("shape", [(4, 7, 5, 3), (6, 3), (1, 3)])
def test_batch_norm_is_the_portable_one(native, shape):
    backend = native()
    x, dy, gamma, beta = draw(shape, shape, (3,), (3,))
    x = x + 100.0
    *expected, cache = PORTABLE.batch_norm(x, gamma, beta, 1e-5)
    *found, native_cache = backend.kernels.batch_norm(*map(backend.asarray, (x, gamma, beta)), 1e-5)
    expected += PORTABLE.batch_norm_backward(cache, gamma, dy)
    found += backend.kernels.batch_norm_backward(native_cache, backend.asarray(gamma), backend.asarray(dy))
    for a, b in zip(found, expected, strict=True):  # sums of numbers around 100
        assert np.allclose(backend.to_numpy(a), b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("start", "n"), [(0, 1), (3, 57), (0, 20_001), ((1 << 32) - 40, 40), ((5 << 32) + 9, 33)])
def test_random_words_are_the_portable_ones(native, start, n):
    kernels, key = native().kernels, np.array([-7, 123456], np.int32)
    assert kernels.random_words is not PORTABLE.random_words
    found = kernels.random_words(torch.tensor(key), start, n)
    for a, b in zip(found, PORTABLE.random_words(key, start, n), strict=True):
        assert a.dtype == torch.int32
        assert np.array_equal(a.numpy(), b)
    with pytest.raises(ValueError, match="cross a multiple"):
        kernels.random_words(torch.tensor(key), (1 << 32) - 3, 4)


def test_keys_are_the_portable_ones(native):
    backend = native()
    for seed in (0, 1, (1 << 63) - 1, 0xFFFFFFFF):
        root = backend.key(seed)
        time = torch.tensor(-5, dtype=torch.int32)
        for address in ((root, "step", 3), (root,), (root, "dropout", time, 2)):
            assert torch.equal(random.key_at(address, backend.kernels), random.key_at(address))
    counters = torch.arange(-3, 4, dtype=torch.int32)
    for a, b in zip(
        backend.kernels.threefry(root, counters, -counters), threefry(root, counters, -counters), strict=True
    ):
        assert torch.equal(a, b)


def test_nonlinearities_and_one_of_ones_own(native):
    backend = native()
    x, dy = draw((5, 11), (5, 11))
    x[0, 0] = 0.0
    own = local.nonlinearity("tanh", lambda x: x * x * x, lambda y: 3.0 + y)  # its name is not what it is
    for part in (local.tanh, local.relu, local.sigmoid, local.rectified_tanh, own):
        op = part.build((11,))
        y = backend.kernels.activation(op, backend.asarray(x))
        expected = op.function(x)
        close(backend, y, expected)
        dx = backend.kernels.activation_backward(op, y, backend.asarray(dy))
        close(backend, dx, dy * op.derivative(expected))


OPTIMIZERS = {
    "plain": sgd(0.1), "momentum": sgd(0.1, 0.9, decay=0.01), "nesterov": sgd(0.1, 0.9, nesterov=True),
    "schedule": sgd(piecewise((0.1, 0.05), (2,)), 0.9, decay=0.01, form="decoupled"),
    "adam": adam(0.01), "adam, schedule, decay": adam(piecewise((0.1, 0.05), (2,)), decay=0.01, form="decoupled"),
    "adam, decay": adam(0.01, epsilon=0.1, decay=0.01), "adam, decay of all": adam(0.01, decay=0.1, on="all"),
    "adam, hat": adam(0.01, epsilon=0.1, epsilon_form="hat", decay=0.01),
    "adam, slow mean": adam(0.01, b1=0.99, b2=0.9, epsilon=0.1, decay=0.01, form="coupled", on="all"),
    "adam, no mean": adam(0.01, b1=0.0, b2=0.99), "adam, no memory": adam(0.01, b1=0.0, b2=0.0, epsilon=0.1),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_take_the_portable_steps(native, name, dtype):
    backend, optimizer = native(dtype), OPTIMIZERS[name]
    W, b = draw((3, 5), (3,))
    b[0] = 0.0
    expected = (LayerParams(W, ({"b": b},)),)
    found = tree_map(backend.asarray, expected)
    key = np.zeros(2, np.int32)
    memory = optimizer.init(expected, (key,), PORTABLE)
    native_memory = optimizer.init(found, (backend.asarray(key),), backend.kernels)
    for i in range(4):
        g = (LayerParams(draw((5, 3), seed=i)[0].T, ({"b": draw((3,), seed=i)[0]},)),)  # W's gradient is a transpose
        given = (LayerParams(backend.asarray(g[0].W.T).mT, ({"b": backend.asarray(g[0].local[0]["b"])},)),)
        before = host(backend, (found, native_memory, given))
        moved, new_memory = optimizer.update(given, native_memory, found, backend.kernels)
        assert all(map(np.array_equal, before, host(backend, (found, native_memory, given))))
        found, native_memory = moved, new_memory
        expected, memory = optimizer.update(g, memory, expected, PORTABLE)
        for a, b in zip(leaves((found, native_memory)), leaves((expected, memory)), strict=True):
            close(backend, a, np.asarray(b))


def test_adams_count_is_found_again_from_its_corrections():
    """Early, where it matters, exactly; late, where the corrections are 1, whatever it is."""
    for b1, b2, dtype in ((0.9, 0.999, torch.float32), (0.99, 0.9, torch.float32), (0.9, 0.999, torch.float64)):
        for t in (1, 2, 10, 100, 1000, 30_000, 1_000_000):
            time = torch.tensor(float(t), dtype=dtype)
            correction = tuple(-torch.expm1(time * np.log(b)) for b in (b1, b2))
            found = float(optimizers.updates_done(correction, b1, b2))
            for b in (b1, b2):
                assert abs(b**found - b**t) < (3e-7 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize(
    ("precision", "dtype", "modes"),
    [
        ("ieee", "float32", ("eager",)),
        slow("ieee", "float32", ("compiled",)),
        *(slow(precision, "float32", ("compiled",)) for precision in ("bf16", "tf32")),
        slow("ieee", "bfloat16", ("compiled",)),
    ],
)
def test_the_judge_accepts_the_primitives(native, precision, dtype, modes):
    backend = native(dtype, precision)
    assert dtype != "float32" or backend.probe() == precision
    report = run(Subject(backend), (*primitives.checks(), *draws.checks()), modes)
    assert [(o.id, o.reason) for o in report.outcomes if o.state not in ("pass", "unsupported")] == []


def test_tf32_rounds_to_nearest_even_and_keeps_what_is_not_finite():
    x = torch.tensor([1.0 + 2.0**-11, 1.0 + 3 * 2.0**-11, 1.0 + 2.0**-11 + 2.0**-20, -1.0 - 2.0**-12, 0.0])
    wanted = torch.tensor([1.0, 1.0 + 2.0**-9, 1.0 + 2.0**-10, -1.0, 0.0])
    assert torch.equal(products.rounded_to_tf32(x), wanted)
    odd = torch.tensor([0x7FFFFFFF, 0x7F800001, 0x7F800000, -0x800000], dtype=torch.int32).view(torch.float32)
    rounded = products.rounded_to_tf32(odd)
    assert rounded.isnan().tolist() == [True, True, False, False]
    assert rounded[2:].tolist() == [np.inf, -np.inf]


FLAGS = (
    torch.backends.cuda.matmul,
    torch.backends.cudnn.conv,
    torch.backends.mkldnn.matmul,
    torch.backends.mkldnn.conv,
)


@pytest.mark.parametrize(
    ("device", "precision", "kernels", "asked"),
    [
        ("cuda", "ieee", "native", ("ieee", "ieee")), ("cuda", "tf32", "native", ("tf32", "tf32")),
        ("cuda", "bf16", "native", ("tf32", "tf32")), ("cuda", "ieee", "portable", ("ieee", "ieee")),
        ("cuda", "tf32", "portable", ("tf32", "tf32")), ("cpu", "bf16", "native", ("ieee", "ieee")),
        ("cpu", "bf16", "portable", ("bf16", "bf16")),
    ],
)  # fmt: skip
def test_torch_is_asked_for_the_precision_while_a_step_runs(device, precision, kernels, asked):
    """On a stand-in for a GPU: its name alone."""
    before = [flag.fp32_precision for flag in FLAGS]
    backend = torch_backend.backend("cpu", "float32", precision, kernels)
    backend.device = torch.device(device)
    inside = backend.eager(lambda: [flag.fp32_precision for flag in FLAGS])()
    assert tuple(inside[:2] if device == "cuda" else inside[2:]) == asked
    assert (inside[2:] if device == "cuda" else inside[:2]) == (before[2:] if device == "cuda" else before[:2])
    with pytest.raises(ZeroDivisionError):
        backend.eager(lambda: 1 / 0)()
    assert [flag.fp32_precision for flag in FLAGS] == before


@pytest.mark.parametrize("part", [conv(4, (2, 3), stride=2), conv(4, 3), locally_connected(4, 3)], ids=lambda p: p.name)
def test_bfloat16_products_on_a_gpu_add_up_and_end_in_float32(part):
    """The kernels for a GPU, on the CPU: operands that bfloat16 and TF32 hold, products and sums of float32."""
    kernels = torch_kernels.native_kernels(torch.device("cuda"), "float32", "bf16")
    exact = torch_kernels.native_kernels(torch.device("cpu"), "float64", "ieee")
    linear = part.build((7, 5, 3))
    W, x, u = (torch.tensor(t) for t in draw(linear.weight_shape, (2, *linear.in_shape), (2, *linear.out_shape)))
    kind = "conv" if part.name.startswith("conv") else "local"
    for face, a, b in (("apply", W, x), ("transport", W, u), ("correlate", x, u)):
        found = getattr(kernels, f"{kind}_{face}")(a.float(), b.float(), linear.window)
        narrow = (t.bfloat16().double() for t in (a, b))
        wanted = getattr(exact, f"{kind}_{face}")(*narrow, linear.window)
        assert found.dtype == torch.float32
        assert float((found - wanted).abs().max()) < 1e-5  # a result rounded to bfloat16 would be off by 1e-2
        assert float((found - getattr(exact, f"{kind}_{face}")(a, b, linear.window)).abs().max()) > 1e-3
    for t in (W, x):
        narrow = products.rounded_to_bfloat16(t.float())
        assert torch.equal(products.rounded_to_tf32(narrow), narrow)


def built(backend, case):
    """A case's algorithm, its start and three batches on the backend; the last is of one sample."""
    network = case.network()
    algorithm = case.build(backend.kernels)
    given = [backend.batch(*batch(network, n, seed)) for seed, n in enumerate((6, 6, 1))]
    return algorithm, algorithm.init(backend.key(3)), given


VARIANTS = [r.name for r in ROWS if r.asked.variant]


@pytest.mark.parametrize("name", [slow(name) if "ResNet" in name or name in VARIANTS else name for name in CASES])
def test_captured_donating_and_eager_steps_are_equal_bit_by_bit(native, name):
    backend, case = native(), CASES[name]
    algorithm, start, given = built(backend, case)
    modes = [mode for i in range(4) for mode in algorithm.schedule(i, 0)]
    eager = {m: backend.eager(step) for m, step in algorithm.modes.items()}
    plain = {m: backend.compile(step) for m, step in algorithm.modes.items()}
    donating = {m: backend.compile(step, donate=True, keep=("loss",)) for m, step in algorithm.modes.items()}
    states = [start, start, tree_map(torch.clone, start)]
    for b in (*given, given[0]):
        for mode in dict.fromkeys(modes):
            untouched = host(backend, (start, states[1], b))
            (s0, i0), (s1, i1), (s2, i2) = (
                r[mode](s, b) for r, s in zip((eager, plain, donating), states, strict=True)
            )
            assert all(map(np.array_equal, untouched, host(backend, (start, states[1], b))))
            states = [s0, s1, s2]
            reference = host(backend, s0)
            for other in (s1, s2):
                assert all(map(np.array_equal, reference, host(backend, other)))
            assert all(map(np.array_equal, host(backend, i0), host(backend, i1)))
            assert all(map(np.array_equal, host(backend, i0.loss), host(backend, i2.loss)))
            assert not any(leaf.requires_grad for leaf in leaves((s1, i1, s2)))


def test_a_step_is_captured_once_per_shape(native):
    backend = native("float32")
    network = GRADIENT["FC"]().with_kernels(backend.kernels).with_dtype("float32")
    algorithm = algorithms.kolen_pollack(network, losses.cross_entropy(), adam(0.01))
    step, state = backend.compile(algorithm.modes["learn"], donate=True), algorithm.init(backend.key(0))
    for n in (6, 6, 2, 6, 2):
        state, _ = step(state, backend.batch(*batch(network, n)))
    assert step.traces == 2
    other, _ = step(algorithm.init(backend.key(1)), backend.batch(*batch(network, 6, 5)))
    assert step.traces == 2
    expected, _ = backend.eager(algorithm.modes["learn"])(
        algorithm.init(backend.key(1)), backend.batch(*batch(network, 6, 5))
    )
    assert all(map(np.array_equal, host(backend, other), host(backend, expected)))


def test_what_is_not_returned_is_not_computed():
    captured = capture.Captured(lambda a, b: (a + 1.0, (a @ b, torch.tanh(b))[:0]), nothing, False)
    captured(torch.ones(2, 2), torch.ones(2, 2))
    (line,) = captured.lines
    assert [n.target for n in line.module.graph.nodes if n.op == "call_function"] == [torch.ops.aten.add.Tensor]


class nothing:
    """A context that does nothing."""

    def __enter__(self):
        pass

    def __exit__(self, *error):
        pass


def donated(step, *tensors):
    """What a captured step leaves in its arguments, the first of which it may write to."""
    given = [t.clone() for t in tensors]
    expected = step(*[t.clone() for t in tensors])
    found = capture.Captured(step, nothing, True)(*given)
    assert all(torch.equal(a, b) for a, b in zip(leaves(expected), leaves(found), strict=True))
    return given, found


def moved(p, g):
    """p - 0.5 g as an optimizer computes it: on a copy."""
    copy = p.clone()
    torch._fused_sgd_(
        [copy], [g], [], weight_decay=0.0, momentum=0.0, lr=0.5, dampening=0.0, nesterov=False, maximize=False,
        is_first_step=False,
    )  # fmt: skip
    return copy


def test_short_ranges_are_constants_of_a_captured_step():
    """But for those that are written to; a long one would be held for as long as the step."""

    def step(x):
        written = torch.arange(3, dtype=x.dtype)
        written.add_(x)
        return x * (2 * torch.arange(3) + 1), written, torch.arange(passes.SHORT)

    captured = capture.Captured(step, nothing, False)
    for x in (torch.ones(3), torch.full((3,), 2.0)):
        assert all(map(torch.equal, captured(x), step(x)))
    (line,) = captured.lines
    ranges = [node.args for node in line.module.graph.nodes if "arange" in str(node.target)]
    assert ranges == [(3,), (passes.SHORT,)]


def test_a_donated_tensor_is_updated_in_place_only_where_nothing_reads_it_later():
    p, g = torch.arange(6.0).reshape(2, 3), torch.ones(2, 3)
    (a, b), found = donated(moved, p, g)
    assert found is a
    assert torch.equal(b, g)
    for reads_later in (
        lambda p, g: (moved(p, g), moved(p, g) + p),  # itself
        lambda p, g: (lambda view: (moved(p, g) * view.sum(), view))(p[1:]),  # a view of it
        lambda p, g: (moved(p, g), p),  # as a result
        lambda p, g: (moved(p.mT, g.mT), p.reshape(-1)),
    ):
        (a, b), found = donated(reads_later, p, g)
        assert torch.equal(a, p)
        assert torch.equal(b, g)


def test_what_reads_the_old_parameters_goes_before_the_update():
    p, g = torch.arange(6.0).reshape(2, 3), torch.ones(2, 3)
    (a, _), found = donated(lambda p, g: (moved(p, g), (p * g).sum()), p, g)
    assert found[0] is a


def test_what_reads_a_copy_that_is_updated_later_goes_after_the_update():
    """p's copy moves to the end, and q's with it, although q is not donated."""

    def step(p, q):
        a, b = p.clone(), q.clone()
        torch._foreach_add_([a, b], 1.0)
        return a, b * 2.0

    donated(step, torch.arange(6.0), torch.arange(6.0))


def test_what_writes_over_something_that_the_update_reads_goes_after_it():
    """The copy of p moves to the end, and the sum with it: t must not be written to before that."""

    def step(p, x):
        t = x * 2.0
        new = p.clone()
        s = new + t
        t.add_(1.0)
        return new, s, t

    donated(step, torch.arange(6.0), torch.ones(6))


def test_the_result_of_a_folded_product_is_a_view_although_its_schema_does_not_say_so():
    """Both products are one after folding; tanh must not write over what the first of them shows."""

    def step(W, x):
        images = x @ W
        return torch.tanh(x.reshape(6, 4) @ W), images * 2.0

    donated(step, torch.ones(4, 5) / 7.0, torch.arange(24.0).reshape(2, 3, 4))


def test_what_was_written_in_place_lies_where_it_was_alone():
    """The mask and the value of a filled copy are not in its memory: the product may be written over it."""

    def step(p, x):
        signs = torch.sign(x)
        signs[torch.isnan(x)] = 7.0
        return signs * p.sum()

    x = torch.tensor([[-2.0, 0.0, torch.nan], [torch.inf, -0.0, 3.0]])
    captured = capture.Captured(step, nothing, True)
    found = captured(torch.ones(2), x)
    assert torch.equal(found, torch.tensor([[-2.0, 0.0, 14.0], [2.0, 0.0, 2.0]]))
    calls = [n.target for n in captured.lines[0].module.graph.nodes if n.op == "call_function"]
    aten = torch.ops.aten
    assert calls[-1] is aten.mul_.Tensor
    assert aten.masked_fill_.Tensor in calls
    assert not {aten.index_put_.default, aten.lift_fresh_copy.default, aten.mul.Tensor} & set(calls)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_sign_needs_no_mask_to_be_nan_where_its_argument_is(dtype):
    """Every kind of number: the smallest subnormal, the smallest normal and the largest one, zeros, infinities."""
    info = torch.finfo(dtype)
    sizes = torch.tensor([0.0, info.smallest_normal * info.eps, info.tiny, 0.1, 1.0, info.max, torch.inf], dtype=dtype)
    x = torch.cat([sizes, -sizes, torch.tensor([torch.nan], dtype=dtype)]).reshape(3, 5)
    assert x[0, 1] > 0.0  # a subnormal, not flushed to 0
    captured = capture.Captured(lambda x: torch_backend.xp.sign(x) * 2.0, nothing, False)
    expected = torch.tensor([[0.0] + [2.0] * 4, [2.0, 2.0, 0.0, -2.0, -2.0], [-2.0] * 4 + [torch.nan]], dtype=dtype)
    for given in (x, x.t()):
        found = captured(given)
        assert torch.equal(torch.isnan(found), torch.isnan(given))
        assert torch.equal(torch.nan_to_num(found), torch.nan_to_num(expected if given is x else expected.t()))
    for line in captured.lines:
        calls = [n.target for n in line.module.graph.nodes if n.op == "call_function"]
        assert torch.ops.aten.clamp_.default in calls
        assert not {torch.ops.aten.sign.default, torch.ops.aten.isnan.default} & set(calls)


def test_a_sign_is_that_of_a_tensor_before_it_was_written():
    def step(x):
        y = x * 2.0
        signs = torch.sign(y)
        missing = torch.isnan(y)
        y.neg_()
        signs[missing] = torch.nan
        return signs, y

    signs, y = capture.Captured(step, nothing, False)(torch.tensor([1.0, -3.0, 0.0]))
    assert torch.equal(signs, torch.tensor([1.0, -1.0, 0.0]))
    assert torch.equal(y, torch.tensor([-2.0, 6.0, -0.0]))


def test_a_mask_with_another_value_or_of_another_tensor_stays():
    def step(x, y):
        signs = torch.sign(x)
        signs[torch.isnan(y)] = torch.nan
        return signs, x * 2.0

    x, y = torch.tensor([1.0, -2.0, torch.nan]), torch.tensor([torch.nan, 1.0, 1.0])
    found, _ = capture.Captured(step, nothing, False)(x, y)
    assert torch.equal(torch.nan_to_num(found, 7.0), torch.tensor([7.0, -1.0, 0.0]))


def test_views_share_memory_as_their_schemas_say():
    """The nodes of a whole step lie in the same memory, when run, exactly where the analysis says so."""
    backend = backends.get("torch", "cpu", "float64", kernels="native")
    algorithm, state, given = built(backend, CASES["kolen-pollack/conv"])
    state = tree_map(torch.clone, state)
    captured = capture.Captured(algorithm.modes["learn"], nothing, False)
    captured(state, given[0])
    (line,) = captured.lines
    graph, values = line.module.graph, {}

    class Keeping(torch.fx.Interpreter):
        def run_node(self, node):
            values[node] = super().run_node(node)
            return values[node]

    with torch.no_grad():
        Keeping(line.module, garbage_collect_values=False).run(*trees.flattened((state, given[0])))
    made = torch_memory.origins(graph)
    tensors = [n for n in graph.nodes if isinstance(values[n], torch.Tensor) and values[n].numel()]
    place = {n: values[n].untyped_storage().data_ptr() for n in tensors}
    for a in tensors:
        for b in tensors:
            if place[a] == place[b]:
                assert made[a] & made[b], (a, b)


def test_a_donated_state_cannot_be_read_by_a_step_again(native):
    backend = native()
    algorithm, state, given = built(backend, CASES["kolen-pollack"])
    step = backend.compile(algorithm.modes["learn"], donate=True)
    place = state.forward.params[1].W.data_ptr()
    new, _ = step(state, given[0])
    assert new.forward.params[1].W.data_ptr() == place
    with pytest.raises(BackendError, match="donated"):
        step(state, given[0])


def test_donation_leaves_the_hosts_arrays_alone(native):
    """What came from NumPy and what went there is a copy: a donated state is written to."""
    backend = native()
    algorithm, state, given = built(backend, CASES["kolen-pollack"])
    source = backend.to_numpy(state.forward.params[1].W).copy()
    W = backend.asarray(source)
    out = backend.to_numpy(W)
    before = source.copy()
    W.add_(1.0)
    assert np.array_equal(source, before)
    assert np.array_equal(out, before)


def test_numbers_are_no_arguments_of_a_captured_step():
    with pytest.raises(TypeError, match="given 3, expected trees of tensors only"):
        capture.Captured(lambda a, n: a * n, nothing, False)(torch.ones(2), 3)
