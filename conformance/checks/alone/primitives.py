"""Level 0: what algorithms are made of, judged by its rounding errors."""

import numpy as np
from array_api_compat import array_namespace

from ref_bioplaus.conformance.cases.cases import as_held
from ref_bioplaus.conformance.checks.alone import namespace, operations, sizes, synapses, updates
from ref_bioplaus.conformance.checks.outcomes import Check, Finding, Subject
from ref_bioplaus.conformance.judging.rounding import PRECISIONS, Rounding


def precision_check() -> Check:
    """Products have the precision that the backend claims, found by multiplying, not by asking."""

    def run(subject: Subject, mode: str) -> Finding:
        if subject.dtype != "float32":
            return Finding(unsupported=f"precision is a policy of float32 products, not of {subject.dtype}")
        found, claimed = subject.backend.probe(), subject.backend.precision
        return Finding(problem="" if found == claimed else f"products are in {found}, but the backend claims {claimed}")

    return Check("0/products/precision", 0, "products", run, ("compiled",))


def constant_check() -> Check:
    """A product of constants, whose roundings are not independent: within the rigorous error bound."""

    def compute(x, y):
        xp = array_namespace(x)
        return {"xy": xp.matmul(x, y), "sum": xp.sum(x, axis=1)}

    def run(subject: Subject, mode: str) -> Finding:
        backend = subject.backend
        x, y = (as_held(np.full(shape, value), subject.dtype) for shape, value in (((3, 700), 0.1), ((700, 2), 0.3)))
        space = Rounding(PRECISIONS[subject.dtype, backend.precision], subject.dtype)
        tensors = compute(space.exact(x), space.exact(y))
        got = subject.runs(compute, mode)(backend.asarray(x), backend.asarray(y))
        for name, tensor in tensors.items():
            excess = np.abs(backend.to_numpy(got[name]).astype(np.float64) - tensor.v) / tensor.b
            if not np.all(excess <= 1.0):
                return Finding(
                    problem=f"{name} of constants is {np.max(excess):.3g} times its rigorous error bound away"
                )
        return Finding()

    return Check("0/products/constants", 0, "products", run, ("eager", "compiled"))


def checks() -> tuple[Check, ...]:
    """Level 0."""
    families = (namespace, synapses, operations, updates, sizes)
    return precision_check(), constant_check(), *(q.check for family in families for q in family.questions())
