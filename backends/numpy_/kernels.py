"""NumPy's own forms of the kernels: few passes over memory, and products by BLAS.

Where a result is large, an operation works through it in blocks that stay in the caches. Large results lie in memory
that is used again as soon as nobody holds it (see memory.Arena): fresh pages cost as much as the arithmetic on
them. Where BLAS's threads sleep between products, threads share the blocks (see memory.threads).
"""

from typing import Any

from ref_bioplaus.backends.numpy_.local import LocalOperations
from ref_bioplaus.backends.numpy_.memory import Workspace
from ref_bioplaus.backends.numpy_.optimizers import Optimizers
from ref_bioplaus.backends.numpy_.products import Products
from ref_bioplaus.kernels import PORTABLE, Kernels


def native() -> Kernels:
    """NumPy's kernels, with memory of their own."""
    space = Workspace()
    own: dict[str, Any] = {}
    for part in (Products(space), LocalOperations(space), Optimizers(space)):
        own |= {name: getattr(part, name) for name in Kernels._fields if name != "name" and hasattr(part, name)}
    return PORTABLE._replace(name="native", **own)
