"""The array logic of CuPy's kernels, on NumPy arrays: shapes, strides, paddings, chunks. No GPU is asked for."""

import numpy as np
import pytest

from ref_bioplaus.backends import cupy_kernels
from ref_bioplaus.kernels import PORTABLE
from tests.test_numpy_native import WINDOWS, arrays, same


@pytest.mark.parametrize("columns", [1, 3000, 1 << 20])
@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("name", WINDOWS)
def test_convolution(name, n, columns):
    w, own = WINDOWS[name], cupy_kernels.CupyKernels(np, columns)
    W, x, u = arrays((*w.kernel, w.in_shape[2], 4), (n, *w.in_shape), (n, *w.out_size, 4))
    same(own.conv_apply(W, x, w), PORTABLE.conv_apply(W, x, w))
    same(own.conv_transport(W, u, w), PORTABLE.conv_transport(W, u, w))
    same(own.conv_correlate(x, u, w), PORTABLE.conv_correlate(x, u, w))


@pytest.mark.parametrize("eta", [0.01, np.asarray(0.01)])
def test_optimizers(eta):
    own = cupy_kernels.native(np)
    p, g, m = (arrays((5, 7), (3,), (1,), seed=s) for s in range(3))
    v, keep = [a * a for a in m], [1.0, 0.9, np.asarray(0.8)]
    for momentum, nesterov in ((0.0, False), (0.9, False), (0.9, True)):
        same(*(k.sgd(p, g, m, keep, eta, momentum, nesterov) for k in (own, PORTABLE)))
    for form in ("paper", "hat"):
        given = (p, g, m, v, keep, eta, (np.asarray(0.1), np.asarray(0.001)), 0.9, 0.999, 1e-3, form)
        same(*(k.adam(*given) for k in (own, PORTABLE)))
