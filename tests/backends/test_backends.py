"""Backends: what they promise, and one sentence where they cannot."""

import os
import subprocess
import sys
import textwrap
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from ref_bioplaus import algorithms, backends, losses, naming
from ref_bioplaus.backends import BackendError
from ref_bioplaus.conformance.cases.networks import GRADIENT, batch, fully_connected
from ref_bioplaus.optimizers import adam
from ref_bioplaus.tree import leaves, named_leaves, tree_map
from ref_bioplaus.types import Info
from tests.conftest import get
from tests.helpers import COMPILING, slow

NAMES = ["numpy", "torch", "jax", "array-api-strict"]


def prepared(backend, network=None):
    network = (network or fully_connected()).with_kernels(backend.kernels).with_dtype(backend.dtype)
    algorithm = algorithms.kolen_pollack(network, losses.cross_entropy(), adam(1e-2, decay=1e-3))
    x, y = batch(network)
    return algorithm, algorithm.init(backend.key(5)), backend.batch(x, y)


def host(backend, tree):
    return [backend.to_numpy(leaf).copy() for leaf in leaves(tree)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_leaf_has_its_dtype_and_place(name, dtype, quick_compiler):
    backend = get(name, dtype)
    algorithm, state, b = prepared(backend)
    state, info = backend.compile(algorithm.modes["learn"])(state, b)
    for path, leaf in [*named_leaves(state), *named_leaves(info)]:
        expected = "int32" if path == "t" or path == "key" or path.endswith("count") else dtype
        assert backend.to_numpy(leaf).dtype == expected, path
        assert type(leaf) is type(b.x), path


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_bfloat16_runs(name, quick_compiler):
    backend = get(name, "bfloat16")
    for architecture in ("conv", "ResNet, BN after ReLU"):
        algorithm, state, b = prepared(backend, GRADIENT[architecture]())
        state, info = backend.compile(algorithm.modes["learn"])(state, b)
        assert {str(leaf.dtype).removeprefix("torch.") for leaf in leaves(info)} == {"bfloat16"}
        assert np.all(np.isfinite(backend.to_numpy(info.loss)))


@pytest.mark.parametrize("name", [slow(name) if name == "jax" else name for name in NAMES])
def test_a_step_mutates_nothing(name):
    backend = get(name)
    for make in GRADIENT.values():
        algorithm, state, b = prepared(backend, make())
        before = host(backend, (state, b))
        backend.compile(algorithm.modes["learn"])(state, b)
        assert all(np.array_equal(x, y) for x, y in zip(before, host(backend, (state, b)), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_donating_step_consumes_the_state_and_nothing_else(name):
    backend = get(name)
    algorithm, state, b = prepared(backend)
    plain, _ = backend.compile(algorithm.modes["learn"])(state, b)
    expected = host(backend, plain)
    key, batch_before = state.key, host(backend, b)
    step = backend.compile(algorithm.modes["learn"], donate=True)
    new, _ = step(state, b)
    assert all(np.allclose(x, y, rtol=1e-13) for x, y in zip(host(backend, new), expected, strict=True))
    plainly, again = (backend.compile(algorithm.modes["learn"], donate=donate) for donate in (False, True))
    for used in (step, plainly, again):
        with pytest.raises(BackendError, match="donated"):
            used(state, b)
    assert host(backend, key)[0].tolist() == [0, 5]
    assert all(np.array_equal(x, y) for x, y in zip(batch_before, host(backend, b), strict=True))
    step(new, b)  # what it returned can go on


def test_jax_really_reuses_a_donated_states_memory():
    backend = get("jax")
    algorithm, state, b = prepared(backend)
    backend.compile(algorithm.modes["learn"], donate=True)(state, b)
    assert state.forward.params[1].W.is_deleted()
    assert not state.key.is_deleted()
    assert not b.x.is_deleted()


@pytest.mark.parametrize("name", NAMES)
def test_only_what_is_kept_comes_back(name):
    backend = get(name)
    algorithm, state, b = prepared(backend)
    _, info = backend.compile(algorithm.modes["learn"], keep=("loss", "output"))(state, b)
    assert {field for field in Info._fields if getattr(info, field) is not None} == {"loss", "output"}
    with pytest.raises(BackendError, match='keep names "losses", expected fields of Info: loss, output'):
        backend.compile(algorithm.modes["learn"], keep=("losses",))


@pytest.mark.parametrize("name", NAMES)
def test_compiled_and_eager_agree_and_jax_traces_once_per_shape(name):
    backend = get(name)
    algorithm, state, b = prepared(backend)
    step = backend.compile(algorithm.modes["learn"])
    small = tree_map(lambda a: a[:2, ...], b)
    for one in (b, small, b, b, small):
        compiled, _ = step(state, one)
        with_gradients_off = backend.wrap(lambda s, o: algorithm.modes["learn"](s, o)) if name == "torch" else None
        eager, _ = (with_gradients_off or algorithm.modes["learn"])(state, one)
        for x, y in zip(host(backend, compiled), host(backend, eager), strict=True):
            assert np.allclose(x, y, rtol=1e-12, atol=1e-15)
    assert step.traces == (2 if name == "jax" else 5)


def test_torch_records_no_gradients_and_leaves_its_settings_alone():
    torch = pytest.importorskip("torch")
    backend = get("torch")
    algorithm, state, b = prepared(backend)
    state = tree_map(lambda a: a.requires_grad_() if a.is_floating_point() else a, state)
    new, _ = backend.compile(algorithm.modes["learn"])(state, b)
    assert not any(leaf.requires_grad for leaf in leaves(new))
    assert torch.is_grad_enabled()
    with torch.inference_mode():
        again, _ = backend.compile(algorithm.modes["learn"])(state, b)
    assert all(np.array_equal(x, y) for x, y in zip(host(backend, new), host(backend, again), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_the_probe_reads_the_precision(name, monkeypatch):
    backend = get(name, "float32")
    assert backend.probe() == "ieee"
    cut = {"tf32": np.uint32(0xFFFFE000), "bf16": np.uint32(0xFFFF0000)}
    for precision, mask in cut.items():  # a library that drops bits of its operands is found out

        def dense_transport(B, u, mask=mask):
            B, u = (
                backend.asarray((backend.to_numpy(v).copy().view(np.uint32) & mask).view(np.float32)) for v in (B, u)
            )
            return backend.xp.matmul(u, B)

        rounded = get(name, "float32")
        monkeypatch.setattr(rounded, "kernels", rounded.kernels._replace(dense_transport=dense_transport))
        monkeypatch.setattr(rounded, "wrap", lambda step: step)
        assert rounded.probe() == precision
        with pytest.raises(BackendError, match=f'in {precision}, not in ieee: choose precision="{precision}"'):
            rounded.check()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"name": "trch"}, 'backend "trch" is unknown: did you mean "torch"'),
        ({"name": "zzz"}, "known are numpy, torch, jax, cupy, array-api-strict"),
        ({"name": "numpy", "device": "cuda"}, 'device "cuda" is not there: choose "cpu"'),
        ({"name": "array-api-strict", "device": "cuda"}, 'choose "cpu"'),
        ({"name": "torch", "device": "cuda:99"}, 'device "cuda:99" is not there: choose one of cpu'),
        ({"name": "torch", "device": "abacus"}, 'device "abacus" is unknown: choose cpu'),
        ({"name": "jax", "device": "abacus"}, 'device "abacus" is not there: choose one of cpu'),
        ({"name": "jax", "device": "cpu:99"}, "choose cpu:0"),
        ({"name": "numpy", "dtype": "float16"}, 'dtype "float16" is unknown: choose one of float32, float64, bfloat16'),
        ({"name": "numpy", "device": "/bin/sh"}, 'device "/bin/sh" is no name of a device: choose one as cpu'),
        ({"name": "numpy", "device": "cpu\n"}, r'device "cpu\\n" is no name of a device'),
        ({"name": "numpy", "dtype": "bfloat16"}, 'no dtype "bfloat16": choose one of float32, float64'),
        ({"name": "numpy", "precision": "fp8"}, 'precision "fp8" is unknown: choose one of ieee, tf32, bf16'),
        ({"name": "numpy", "precision": "tf32"}, 'in ieee, not in tf32: choose precision="ieee"'),
        ({"name": "numpy", "kernels": "fast"}, 'kernels "fast" are unknown: choose one of portable, native'),
        ({"name": "array-api-strict", "kernels": "native"}, 'has no native kernels: choose kernels="portable"'),
        ({"name": "os:path"}, 'backend "os:path" is a module, expected a function that returns a Backend'),
        ({"name": "json:loads"}, r"cannot be made \(.*\): expected a function of \(device, dtype, precision, kernels"),
        ({"name": "builtins:print"}, "is a NoneType, expected a function that returns a Backend"),
        ({"name": ":backend"}, 'backend ":backend": "" is no name of a module'),
        ({"name": "no_such_module:backend"}, "cannot be imported .*: install what provides no_such_module"),
        ({"name": "ref_bioplaus.tree:backend"}, r'module ref_bioplaus.tree \(.*tree.py\) has no "backend"'),
    ],
)
def test_what_cannot_be_had_gets_a_sentence(arguments, sentence):
    name = arguments["name"]
    if name in backends.BUILT_IN and name not in backends.installed():
        pytest.skip(f"{name} is not installed")
    with pytest.raises(BackendError, match=sentence):
        backends.get(**arguments)


def test_a_library_that_is_not_installed_gets_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.delitem(sys.modules, "ref_bioplaus.backends.cupy_.backend", raising=False)
    with pytest.raises(
        BackendError, match=r'backend "cupy" cannot be imported .*: install it with pip install cupy-cuda13x '
    ):
        backends.get("cupy")


def test_a_seed_out_of_range_gets_a_sentence():
    backend = get("numpy")
    assert backend.key((1 << 63) - 1).tolist() == [(1 << 31) - 1, -1]
    with pytest.raises(BackendError, match="seed is -1"):
        backend.key(-1)


def test_a_backend_of_another_package(tmp_path, monkeypatch):
    """By "module:function", and by the entry point of an installed package."""
    (tmp_path / "their_package.py").write_text(
        textwrap.dedent("""
            from ref_bioplaus.backends.numpy_.backend import NumpyBackend
            import array_api_compat.numpy as xp
            def backend(device=None, dtype="float32", precision="ieee", kernels="portable"):
                made = NumpyBackend(xp, "cpu", dtype, precision, kernels)
                made.name = "theirs"
                return made
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert backends.get("their_package:backend").name == "theirs"
    entry = EntryPoint("theirs", "their_package:backend", "ref_bioplaus.backends")
    monkeypatch.setattr(naming, "entry_points", lambda group: [entry])
    assert backends.get("theirs").name == "theirs"
    assert "theirs" in backends.names()
    assert "theirs" in backends.installed()


def test_built_in_backends_are_entry_points_too():
    from importlib.metadata import entry_points

    registered = {entry.name: entry.value for entry in entry_points(group="ref_bioplaus.backends")}
    assert registered == {name: place for name, (_, place) in backends.BUILT_IN.items()}


def test_what_jax_compiles_is_found_by_another_process(tmp_path):
    pytest.importorskip("jax")
    script = textwrap.dedent("""
        import logging, sys
        logging.basicConfig(level=logging.DEBUG)
        import numpy as np
        from ref_bioplaus import backends
        backend = backends.get("jax")
        backend.wrap(lambda x: x + 1.0)(backend.asarray(np.ones(3, "float32")))  # before there is a folder
        backend.share_programs(sys.argv[1])
        print(backend.wrap(lambda x: x * x - 3.0)(backend.asarray(np.full(3, 5.0, "float32"))))
    """)
    command = [sys.executable, "-c", script, tmp_path / "shared"]
    there = {name: value for name, value in os.environ.items() if "JAX_" not in name}
    first, second = (subprocess.run(command, capture_output=True, text=True, check=True, env=there) for _ in range(2))
    assert first.stdout == second.stdout == "[22. 22. 22.]\n"
    assert any((tmp_path / "shared").iterdir())
    hit = "Persistent compilation cache hit"
    assert hit not in first.stderr and hit in second.stderr
    named = there | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "users")}  # that one stays
    subprocess.run([*command[:-1], tmp_path / "other"], check=True, capture_output=True, env=named)
    assert not (tmp_path / "other").exists()


@pytest.mark.slow(reason=COMPILING)
def test_float64_in_jax_leaves_float32_runs_alone(quick_compiler):
    """x64 is process-wide: a float32 run before and after it is the same, bit for bit."""
    pytest.importorskip("jax")
    script = textwrap.dedent("""
        import numpy as np
        from ref_bioplaus import backends, algorithms, losses
        from ref_bioplaus.optimizers import adam, piecewise
        from ref_bioplaus.tree import leaves
        from ref_bioplaus.conformance.cases.networks import batch, convolutional
        def run():
            backend = backends.get("jax", dtype="float32")
            network = convolutional().with_dtype("float32").with_kernels(backend.kernels)
            optimizer = adam(piecewise((0.01, 0.001), (2,)))
            algorithm = algorithms.weight_mirror(network, losses.cross_entropy(), optimizer)
            state = algorithm.init(backend.key(1))
            for i in range(3):
                for mode in algorithm.schedule(0, i):
                    state, _ = backend.compile(algorithm.modes[mode])(state, backend.batch(*batch(network)))
            return [backend.to_numpy(leaf) for leaf in leaves(state)]
        before = run()
        backends.get("jax", dtype="float64")
        after = run()
        assert [a.dtype for a in before] == [a.dtype for a in after]
        assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
        print("the same")
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "the same", done.stderr


def test_a_backend_that_says_nothing_of_its_device_is_the_hosts(numpy64):
    """Bytes, not kilobytes: what is taken and held shows in the peak."""
    assert numpy64.on_gpu is False
    free = numpy64.free_bytes()
    assert free is None or free > 2**20
    before, held = numpy64.peak_bytes(), np.ones(2**23)
    assert numpy64.peak_bytes() >= max(before, held.nbytes)
    assert numpy64.peak_bytes() < before + 4 * held.nbytes
    numpy64.forget_peak()
    numpy64.be_deterministic()
