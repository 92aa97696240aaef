"""Random bits on CPUs: the same words as the portable form's, as two operations of torch's that a captured step calls.

The words come from NumPy, which works on torch's memory; a single block, as a key needs, is encrypted by Python's
integers in a twentieth of the time of a hundred operations on arrays of one number.
"""

import numpy as np
import torch

from ref_bioplaus.backends.numpy_.memory import Workspace
from ref_bioplaus.backends.numpy_.optimizers import Optimizers
from ref_bioplaus.kernels import PARITY, ROTATIONS, signed
from ref_bioplaus.kernels import threefry as portable_threefry

LIBRARY = torch.library.Library("ref_bioplaus", "DEF")
LIBRARY.define("threefry(Tensor key, Tensor x0, Tensor x1) -> (Tensor, Tensor)")
LIBRARY.define("random_words(Tensor key, int start, int n) -> (Tensor, Tensor)")
numpy_words = Optimizers(Workspace(arena=False)).random_words  # words of initial weights would stay for ever
ALL = 0xFFFFFFFF


def block(k0: int, k1: int, x0: int, x1: int) -> tuple[int, int]:
    """Threefry-2x32-20 of one counter, in numbers from 0 to 2^32 - 1."""
    keys = (k0, k1, k0 ^ k1 ^ PARITY)
    x0, x1 = (x0 + k0) & ALL, (x1 + k1) & ALL
    for i in range(5):
        for r in ROTATIONS[i % 2]:
            x0 = (x0 + x1) & ALL
            x1 = ((x1 << r) & ALL | x1 >> (32 - r)) ^ x0
        x0, x1 = (x0 + keys[(i + 1) % 3]) & ALL, (x1 + keys[(i + 2) % 3] + i + 1) & ALL
    return x0, x1


def encrypted(key: torch.Tensor, x0: torch.Tensor, x1: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """kernels.threefry on the CPU."""
    if x0.shape == (1,) == x1.shape:
        words = block(*(word & ALL for t in (key, x0, x1) for word in t.tolist()))
        high, low = (torch.tensor([signed(word)], dtype=torch.int32) for word in words)
        return high, low
    high, low = (torch.from_numpy(word) for word in portable_threefry(key.numpy(), x0.numpy(), x1.numpy()))
    return high, low


def words(key: torch.Tensor, start: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """kernels.random_words on the CPU."""
    high, low = (torch.from_numpy(np.ascontiguousarray(word)) for word in numpy_words(key.numpy(), start, n))
    return high, low


LIBRARY.impl("threefry", encrypted, "CPU")
LIBRARY.impl("random_words", words, "CPU")
threefry = torch.ops.ref_bioplaus.threefry.default
random_words = torch.ops.ref_bioplaus.random_words.default
