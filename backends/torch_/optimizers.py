"""PyTorch's fused optimizers. They write to the copies made here, never to what they are given."""

import math
from typing import Any

import torch

from ref_bioplaus.types import Array


def dense(t: torch.Tensor) -> bool:
    """Whether a tensor's entries lie side by side in memory, in whatever order of its axes."""
    places = 1
    for step, n in sorted(zip(t.stride(), t.shape, strict=True)):
        if n > 1 and step != places:
            return False
        places *= n
    return True


def copies(tensors: list[torch.Tensor], g: list[torch.Tensor]) -> list[torch.Tensor]:
    """Copies whose entries lie in memory in the order of the gradients, as the fused updates need them."""
    return [
        t.clone() if t.stride() == g_.stride() else torch.empty_like(g_).copy_(t)
        for t, g_ in zip(tensors, g, strict=True)
    ]


def kept(p: list[torch.Tensor], g: list[torch.Tensor], keep: list) -> list[torch.Tensor]:
    """Copies of p, scaled by keep where it is not the number 1."""
    return [c if isinstance(k, float) and k == 1.0 else c.mul_(k) for c, k in zip(copies(p, g), keep, strict=True)]


def sgd(
    p: list, g: list, v: list, keep: list, eta: float | Array, momentum: float, nesterov: bool
) -> tuple[list, list]:
    """v <- momentum v + g;  p <- keep p - eta v, or keep p - eta (g + momentum v) with Nesterov's."""
    g = [t if dense(t) else t.contiguous() for t in g]
    p, velocity = kept(p, g, keep), copies(v, g) if momentum else []
    torch._fused_sgd_(
        p, g, velocity, weight_decay=0.0, momentum=momentum, lr=eta, dampening=0.0,
        nesterov=nesterov, maximize=False, is_first_step=False,
    )  # fmt: skip
    return p, velocity if momentum else g


def adam(
    p: list, g: list, m: list, v: list, keep: list, eta: float | Array, correction: tuple, b1: float, b2: float,
    epsilon: float, form: str,
) -> tuple[list, list, list]:  # fmt: skip
    """m, v <- moving averages of g, g^2;  p <- keep p - eta m_hat / (sqrt(v_hat) + epsilon).

    Where keep and eta are numbers, AdamW's decay keeps that much of p, without a pass of its own.
    """
    inside = form == "paper" and isinstance(eta, float) and eta > 0.0
    fused = [inside and isinstance(k, float) and k != 1.0 for k in keep]
    decay = [(1.0 - k) / eta if yes else 0.0 for k, yes in zip(keep, fused, strict=True)]
    if form == "hat":
        c1, c2 = correction
        eta, count = eta * torch.sqrt(c2) / c1, torch.full_like(c2, math.inf, dtype=torch.float32)
    else:
        count = updates_done(correction, b1, b2)
    g = [t if dense(t) else t.contiguous() for t in g]
    p = kept(p, g, [1.0 if yes else k for k, yes in zip(keep, fused, strict=True)])
    m, v = copies(m, g), copies(v, g)
    for strength in dict.fromkeys(decay):
        update: Any = torch._fused_adamw_ if strength else torch._fused_adam_
        mine = [[t for t, d in zip(tensors, decay, strict=True) if d == strength] for tensors in (p, g, m, v)]
        update(
            *mine, [], [count] * len(mine[0]), lr=eta, beta1=b1, beta2=b2, weight_decay=strength,
            eps=epsilon, amsgrad=False, maximize=False,
        )  # fmt: skip
    return p, m, v


def updates_done(correction: tuple, b1: float, b2: float) -> torch.Tensor:
    """t from the slower one of (1 - b1^t, 1 - b2^t), for an update that wants t: float32 ().

    Infinite where both have reached 1, as they have at once where b1 and b2 are 0.
    """
    b, c = (b1, correction[0]) if b1 > b2 else (b2, correction[1])
    return torch.round(torch.log1p(-c.to(torch.float64)) / math.log(b or 0.5)).to(torch.float32)
