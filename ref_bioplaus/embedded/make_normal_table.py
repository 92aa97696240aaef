"""Makes normal_table.npy: python -m ref_bioplaus.embedded.make_normal_table. A test compares what is stored."""

from pathlib import Path
from statistics import NormalDist

import numpy as np


def make(bits: int = 14, grid: float = 2.0**-20) -> np.ndarray:
    """Quantiles of N(0, 1) at the midpoints of 2^bits equal cells, scaled to variance 1/2, in units of `grid`."""
    n = 1 << bits
    half = np.array([NormalDist().inv_cdf((i + 0.5) / n) for i in range(n // 2, n)])
    quantiles = np.concatenate([-half[::-1], half])
    quantiles /= np.sqrt(2.0 * np.mean(quantiles**2))
    return np.rint(quantiles / grid).astype(np.int32)


if __name__ == "__main__":
    np.save(Path(__file__).parents[1] / "normal_table.npy", make())
