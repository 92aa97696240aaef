"""Rates to learn with where nobody says otherwise: the demo's. Rows of the registry name their own.

Every number was chosen by trying a few on the embedded images; a row that names none learns with DEFAULT.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Recipe(NamedTuple):
    """One row's optimizers and options."""

    eta: float
    momentum: float = 0.9  # of gradient descent; Adam does not take it
    decay: float = 0.0  # in the "paper" form
    adam: bool = False
    inverse_eta: float = 1e-3  # of the inverses, always by Adam
    options: Mapping[str, Any] = {}  # of the algorithm

    def __str__(self) -> str:
        method = f"Adam, η {self.eta:g}" if self.adam else f"SGD, η {self.eta:g}, momentum {self.momentum:g}"
        decay = f", λ {self.decay:g}" if self.decay else ""
        return method + decay + "".join(f", {name} {value}" for name, value in self.options.items())


DEFAULT = Recipe(0.05)
DEFAULT_INVERSE = Recipe(1e-3, adam=True)
MIRROR = {"eta_B": 0.2, "lambda_B": 0.05, "sigma": 0.5}  # eta_B sigma^2 phi' / lambda_B is about 0.9
