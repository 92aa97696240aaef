"""Windows that native kernels have to compute as the portable ones do, and how that is seen in NumPy."""

import numpy as np

from ref_bioplaus.tree import leaves
from ref_bioplaus.windows import Window, window

WINDOWS = {
    "same": window((7, 5, 3), 3),
    "stride 2, odd pixel after": window((7, 5, 3), (2, 3), stride=2),
    "wide stride": window((7, 5, 3), 3, stride=(1, 3)),
    "tall": window((7, 5, 3), (4, 2), stride=(3, 1)),
    "valid": window((7, 5, 3), (3, 2), padding="valid"),
    "much padding": window((7, 5, 3), 3, stride=2, padding=(2, 1)),
    "more before than after": Window((7, 5, 3), (3, 2), (2, 1), ((2, 0), (1, 0))),
    "lopsided": Window((6, 5, 2), (3, 3), (2, 1), ((2, 0), (0, 1))),
    "pixels never read": window((7, 6, 2), (2, 1), stride=3, padding="valid"),
    "1x1": window((7, 5, 3), 1, padding="valid"),
    "1x1 with padding": window((6, 5, 2), 1, padding=1),
    "one pixel": window((1, 1, 5), 3),
}
SHORTCUTS = {  # where NumPy's kernels know a shorter way
    "1x1 apart": window((7, 5, 3), 1, (2, 3)),
    "tiled": window((6, 4, 3), (3, 2), (3, 2), "valid"),
    "cropped": window((7, 5, 3), 2, 2, "valid"),
}


def arrays(*shapes, dtype="float64", seed=0):
    """Normal numbers that refuse to be written to."""
    rng = np.random.default_rng(seed)
    drawn = [rng.normal(size=shape).astype(dtype) for shape in shapes]
    for a in drawn:
        a.flags.writeable = False
    return drawn


def same(found, expected, dtype="float64"):
    for a, b in zip(leaves(found), leaves(expected), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        scale = np.max(np.abs(b[np.isfinite(b)]), initial=0.0) if b.dtype.kind == "f" else 0.0
        np.testing.assert_allclose(a, b, rtol=0.0, atol=scale * (1e-13 if dtype == "float64" else 1e-5))
