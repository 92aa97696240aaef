"""Biologically plausible learning, every algorithm written once against the Python array API."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import algorithms as algorithms
from . import initializers as initializers
from . import inverses as inverses
from . import losses as losses
from . import metrics as metrics
from . import models as models
from . import modifications as modifications
from . import optimizers as optimizers
from . import random as random
from .credit import backward as backward
from .linear import conv as conv
from .linear import dense as dense
from .linear import locally_connected as locally_connected
from .linear import shared_conv as shared_conv
from .local import average_pool as average_pool
from .local import batch_norm as batch_norm
from .local import bias as bias
from .local import dropout as dropout
from .local import flatten as flatten
from .local import global_average_pool as global_average_pool
from .local import max_pool as max_pool
from .local import rectified_tanh as rectified_tanh
from .local import relu as relu
from .local import rows as rows
from .local import sigmoid as sigmoid
from .local import tanh as tanh
from .local import unit_bias as unit_bias
from .local import upsample as upsample
from .network import Builder as Builder
from .network import Network as Network
from .network import chain as chain
from .network import forward as forward
from .network import predict as predict
from .types import Algorithm as Algorithm
from .types import Batch as Batch
from .types import Info as Info
from .types import Pathway as Pathway

__version__ = "0.1.0"

if os.path.isfile(os.path.join(__path__[0], "backends")):  # a link of the checkout that git wrote as a file: on Windows
    __path__.append(os.path.dirname(__path__[0]))

LATER = {  # by name, what is imported when it is first named
    "backends": "backends",
    "conformance": "conformance",
    "experiments": "experiments",
    "interop": "backends.torch_.interop",
    "testing": "conformance.authors",
}
if TYPE_CHECKING:  # the same for type checkers, to which a name that is not there is an error
    from . import backends as backends
    from . import conformance as conformance
    from . import experiments as experiments
    from .backends.torch_ import interop as interop
    from .conformance import authors

    testing = authors
else:

    def __getattr__(name: str) -> Any:
        """rb.backends and others of LATER, imported when they are first named."""
        if name in LATER:
            return import_module(f"{__name__}.{LATER[name]}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *LATER})
