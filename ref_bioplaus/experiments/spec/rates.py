"""The rates that each algorithm learns with where nobody says otherwise: the demo's.

Every number was chosen by trying a few on the embedded images; a row that is not named here learns with DEFAULT.
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
FULLY_CONNECTED = {
    "backprop-noise-delta": Recipe(0.02),
    "usf": Recipe(0.01),
    "brsf": Recipe(0.02),
    "sn": Recipe(0.02),
    "usf-batch-manhattan": Recipe(1e-3, momentum=0.5),
    "kolen-pollack": Recipe(0.05, decay=5e-3),
    "weight-mirror": Recipe(0.05, options=MIRROR),
    "weight-mirror-turns": Recipe(0.05, options=MIRROR),
    "tp": Recipe(4e-3, adam=True, inverse_eta=2e-3),
}
LOCALLY_CONNECTED = {
    "backprop": DEFAULT,
    "feedback-alignment": DEFAULT,
    "sn": DEFAULT,
    "kolen-pollack": Recipe(0.2, decay=1e-2),
    "weight-mirror": Recipe(0.05, options=MIRROR),
    "dtp": Recipe(4e-3, adam=True, inverse_eta=4e-3),
}
