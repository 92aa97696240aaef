"""What is asked of a device, in order of value: what has not been measured when the time is up comes last."""

from collections.abc import Iterator
from typing import NamedTuple

PARTS = ("conformance", "speed", "learning")
CUPY_TORCH = "ref_bioplaus.backends.cupy_.backend:with_torch"
LABELS = {CUPY_TORCH: "cupy with torch"}
ON_GPU, ON_CPU = ("torch", "jax", "cupy", CUPY_TORCH), ("numpy", "torch", "jax")  # the backends that are asked
ROUNDING = ("torch", "jax")  # those that have float32 products in TF32 and bfloat16 too


class Price(NamedTuple):
    """A way to the same bits every time, whose price is measured in a process of its own: its name among the items, the
    backends that have it, XLA's flag, its share of the time for speed, and its name for a reader."""

    kind: str
    backends: tuple[str, ...]
    flag: str
    share: float
    words: str


PRICES = (
    Price("deterministic", ROUNDING, "xla_gpu_deterministic_ops", 0.15, "Determinism"),
    Price("excluding", ("jax",), "xla_gpu_exclude_nondeterministic_ops", 0.08, "Leaving out what is not deterministic"),
)


class Question(NamedTuple):
    """A backend in one form, and the checks that it is asked; weight: its share of the time beside others."""

    backend: str
    dtype: str = "float32"
    precision: str = "ieee"
    kernels: str = "native"
    levels: tuple[int, ...] = (0, 1)
    modes: tuple[str, ...] = ("compiled",)
    weight: int = 1

    @property
    def form(self) -> str:
        """What is to be trusted or not: "torch tf32", "jax float64"."""
        return f"{label(self.backend)} {self.precision if self.dtype == 'float32' else self.dtype}"

    def __str__(self) -> str:
        levels = ", ".join(map(str, self.levels))
        return f"{self.form}, {self.kernels}, {' and '.join(self.modes)}, level {levels}"


def label(backend: str) -> str:
    """A backend's name, for a reader."""
    return LABELS.get(backend, backend)


def library(backend: str) -> str:
    """The module of its array library."""
    return "cupy" if backend == CUPY_TORCH else backend


def questions(on_gpu: bool) -> Iterator[Question]:
    """Every question, the first ones first."""
    names = ON_GPU if on_gpu else ON_CPU
    yield from (Question(name, weight=3 if on_gpu else 1) for name in names)
    if on_gpu:
        yield from (Question(name, precision=p, weight=2) for p in ("tf32", "bf16") for name in ROUNDING)
        yield from (Question(name, levels=(2,)) for name in names)
        yield from (Question(name, kernels="portable", modes=("eager",)) for name in names if name != CUPY_TORCH)
        yield from (Question(name, dtype="float64") for name in names)
        yield from (Question(name, modes=("donating",), levels=(0, 1, 3)) for name in ROUNDING)
        yield from (Question(name, dtype="bfloat16") for name in ROUNDING)


def forms(on_gpu: bool) -> tuple[str, ...]:
    """All that may be trusted or not, in order."""
    return tuple(dict.fromkeys(question.form for question in questions(on_gpu)))
