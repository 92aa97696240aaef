"""The optimizers' updates and random bits, block by block."""

import math

import numpy as np

from ref_bioplaus.backends.numpy_.memory import Workspace, blocks, flat
from ref_bioplaus.kernels import PARITY, ROTATIONS
from ref_bioplaus.types import Array, Key


class Optimizers:
    """Gradient descent and Adam: every block of a tensor passes through the caches once."""

    def __init__(self, space: Workspace) -> None:
        self.space = space

    def sgd(self, p: list, g: list, v: list, keep: list, eta: float | Array, momentum: float, nesterov: bool):
        """v <- momentum v + g;  p <- keep p - eta v, or keep p - eta (g + momentum v) with Nesterov's."""
        new_p = [self.space.like(p_) for p_ in p]
        new_v = [self.space.like(v_) for v_ in v] if momentum else g

        def work(tasks):
            for (P, G, V, to, U), k, b in tasks:
                number = P.dtype.type
                s = self.space.take("step", (b.stop - b.start,), P.dtype)
                if momentum:
                    np.multiply(V[b], momentum, out=U[b])
                    np.add(U[b], G[b], out=U[b])
                used = U[b]
                if nesterov:
                    np.multiply(used, momentum, out=s)
                    used = np.add(s, G[b], out=s)
                np.multiply(used, number(eta), out=s)
                np.subtract(kept_part(k, P[b], to[b]), s, out=to[b])

        self.space.share(work, tasks(keep, p, g, v, new_p, new_v))
        return new_p, new_v

    def adam(
        self, p: list, g: list, m: list, v: list, keep: list, eta: float | Array, correction: tuple, b1: float,
        b2: float, epsilon: float, form: str,
    ):  # fmt: skip
        """m, v <- moving averages of g, g^2;  p <- keep p - eta m_hat / (sqrt(v_hat) + epsilon), or the "hat" form.

        sqrt(v_hat) = sqrt(v) / root, so that with epsilon scaled by the root no pass over the numbers is spent on it.
        """
        c1, c2 = (float(c) for c in correction)
        root = math.sqrt(c2)
        size, small = float(eta) / c1 * root, epsilon * (1.0 if form == "hat" else root)
        new_p, new_m, new_v = ([self.space.like(p_) for p_ in p] for _ in range(3))

        def work(tasks):
            for (P, G, M, V, to, A, S), k, b in tasks:
                s = self.space.take("step", (b.stop - b.start,), P.dtype)
                mean, square, gradient = A[b], S[b], G[b]
                np.multiply(gradient, 1.0 - b1, out=s)
                np.multiply(M[b], b1, out=mean)
                np.add(mean, s, out=mean)
                np.multiply(gradient, gradient, out=s)
                np.multiply(s, 1.0 - b2, out=s)
                np.multiply(V[b], b2, out=square)
                np.add(square, s, out=square)
                np.sqrt(square, out=s)
                np.add(s, small, out=s)
                np.divide(mean, s, out=s)
                np.multiply(s, size, out=s)
                np.subtract(kept_part(k, P[b], to[b]), s, out=to[b])

        self.space.share(work, tasks(keep, p, g, m, v, new_p, new_m, new_v))
        return new_p, new_m, new_v

    def random_words(self, key: Key, start: Array, n: int):
        """Words `start` to `start + n` of the stream of a key: Threefry-2x32-20, block by block."""
        high, low = divmod(start, 1 << 32)
        if low + n > 1 << 32:
            raise ValueError(f"{n} random words from {start} on cross a multiple of 2^32: draw them in two tiles")
        k0, k1 = (int(k) for k in np.asarray(key).view(np.uint32))
        keys = (k0, k1, k0 ^ k1 ^ PARITY)
        words = self.space.empty((2, n), np.uint32)

        def work(parts):
            for b in parts:
                x0, x1 = words[0, b], words[1, b]
                s = self.space.take("words", x0.shape, np.uint32)
                x0.fill((high + k0) & 0xFFFFFFFF)
                np.add(np.arange(b.start, b.stop, dtype=np.uint32), np.uint32((low + k1) & 0xFFFFFFFF), out=x1)
                for i in range(5):
                    for r in ROTATIONS[i % 2]:
                        np.add(x0, x1, out=x0)
                        np.left_shift(x1, np.uint32(r), out=s)
                        np.right_shift(x1, np.uint32(32 - r), out=x1)
                        np.bitwise_or(x1, s, out=x1)
                        np.bitwise_xor(x1, x0, out=x1)
                    np.add(x0, np.uint32(keys[(i + 1) % 3]), out=x0)
                    np.add(x1, np.uint32((keys[(i + 2) % 3] + i + 1) & 0xFFFFFFFF), out=x1)

        self.space.share(work, blocks(n))
        words = words.view(np.int32)
        return words[0], words[1]


def tasks(keep: list, *tensors: list) -> list[tuple[list[np.ndarray], float, slice]]:
    """Every block of every tensor, with that tensor's arrays as vectors and the factor it keeps of itself."""
    return [
        (arrays, k, b)
        for k, arrays in ((k, flat(*arrays)) for k, *arrays in zip(keep, *tensors, strict=True))
        for b in blocks(arrays[0].size)
    ]


def kept_part(keep: Array, p: Array, out: Array):
    """keep * p in `out`, and p itself where keep is the number 1."""
    return p if isinstance(keep, float) and keep == 1.0 else np.multiply(p, p.dtype.type(keep), out=out)
