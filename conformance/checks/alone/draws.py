"""Level 0: random numbers, which have to be exact, and dropout."""

from dataclasses import replace

import numpy as np

from ref_bioplaus import local, random
from ref_bioplaus.conformance.cases.cases import as_held, root
from ref_bioplaus.conformance.checks.outcomes import Check, Finding, Subject
from ref_bioplaus.conformance.judging.judge import Expected, Score, judge, named
from ref_bioplaus.conformance.judging.rounding import PRECISIONS, Rounding
from ref_bioplaus.kernels import PORTABLE
from ref_bioplaus.random import normal

IMAGE = (7, 5, 3)


def random_check(kind: str) -> Check:
    """Random numbers, which have to be exact: bits, uniforms, normals, masks; other addresses give other numbers."""

    def draw(key, t, dtype, kernels):
        address, shape = (key, "conformance", t, 3), (3, 5, 7)
        if kind == "words":
            return dict(zip(("high", "low"), random.words(address, shape, kernels), strict=True))
        if kind == "bernoulli":
            return {"kept": random.bernoulli(address, 0.3, shape, kernels)}
        function = {"uniform": random.uniform, "normal": random.normal}[kind]
        return {
            "whole": function(address, shape, dtype, kernels),
            "part": function(address, (2, 7), dtype, kernels, 35),
        }

    def run(subject: Subject, mode: str) -> Finding:
        backend = subject.backend
        dtype = getattr(backend.xp, subject.dtype)
        found = subject.runs(lambda key, t: draw(key, t, dtype, backend.kernels), mode)
        host = np.float64 if subject.dtype == "float64" else np.float32
        space = Rounding(PRECISIONS[subject.dtype, "ieee"], subject.dtype)
        scores: list[Score] = []
        seen = []
        for seed, t in ((0, 0), (1, 0), (0, 1), (2**31 - 1, 5)):
            time = np.array(t, np.int32)
            expected = draw(root(seed), time, host, PORTABLE).items()
            tensors = {name: space.exact(as_held(np.asarray(v), subject.dtype)) for name, v in expected}
            got = found(backend.asarray(root(seed)), backend.asarray(time))
            arrays = {name: backend.to_numpy(a) for name, a in got.items()}
            judged = judge(Expected(tensors, 0, space.precision.tiny), arrays)
            scores += named(judged, f"seed {seed}, t {t}")
            seen.append(next(iter(arrays.values())))
        if any(np.array_equal(a, b) for i, a in enumerate(seen) for b in seen[:i]):
            return Finding(tuple(scores), "two addresses gave the same random numbers: the stream repeats")
        return Finding(tuple(scores))

    return Check(f"0/random/{kind}", 0, "random", run, ("eager", "compiled"))


def dropout_check() -> Check:
    """Dropout: the mask of its address, and the rest scaled by 1 / (1 - p)."""

    def compute(kernels, key, x, dy):
        op = replace(local.dropout(0.4).build(IMAGE), kernels=kernels)
        y, _, cache = op.forward({}, {}, x, (key, "dropout"), True)
        test, _, _ = op.forward({}, {}, x, (key, "dropout"), False)
        return {"y": y, "dx": op.backward({}, cache, dy)[0], "y in test": test}

    def run(subject: Subject, mode: str) -> Finding:
        backend = subject.backend
        x, dy = (as_held(normal((root(0), "dropout", i), (4, *IMAGE), np.float64), subject.dtype) for i in (0, 1))
        space = Rounding(PRECISIONS[subject.dtype, backend.precision], subject.dtype)
        tensors = compute(PORTABLE, space.exact(root(7)), space.exact(x), space.exact(dy))
        found = subject.runs(lambda *a: compute(backend.kernels, *a), mode)
        got = found(*(backend.asarray(a) for a in (root(7), x, dy)))
        arrays = {name: backend.to_numpy(a) for name, a in got.items()}
        return Finding(tuple(judge(Expected(tensors, 0, space.precision.tiny), arrays)))

    return Check("0/dropout", 0, "dropout", run, ("eager", "compiled"))


def checks() -> tuple[Check, ...]:
    """Level 0's random numbers."""
    return (*map(random_check, ("words", "uniform", "normal", "bernoulli")), dropout_check())
