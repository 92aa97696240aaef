"""How algorithms are called: a mistake in what one is given gets a sentence where it is made, and help() tells all."""

import inspect
import sys
from collections.abc import Callable
from functools import wraps

from .network import Network
from .types import Algorithm, Batch, Loss, Optimizer, Step

KINDS = {  # by parameter: what it has to be, and how one gets it
    "network": (Network, "rb.chain(...)"),
    "loss": (Loss, "rb.losses.cross_entropy()"),
    "optimizer": (Optimizer, "rb.optimizers.sgd(0.1)"),
    "inverse_optimizer": (Optimizer, "rb.optimizers.sgd(0.1)"),
}


def checked(make: Callable[..., Algorithm]) -> Callable[..., Algorithm]:
    """A function of algorithms/ that raises ValueError for arguments of another kind, as its modes do for a batch.

    Its docstring is its file's, and then its own.
    """
    names = list(inspect.signature(make).parameters)

    @wraps(make)
    def called(*arguments, **named):
        for name, value in (*zip(names, arguments, strict=False), *named.items()):
            kind, example = KINDS.get(name, (object, ""))
            if not isinstance(value, kind):
                given = f"the function {value.__name__}" if inspect.isfunction(value) else repr(value)
                raise ValueError(f"{make.__name__}: {name} is {given}, expected what {example} gives")
        algorithm = make(*arguments, **named)
        return algorithm._replace(modes={name: of_batches(step) for name, step in algorithm.modes.items()})

    called.__doc__ = f"{sys.modules[make.__module__].__doc__}\n{make.__doc__}"
    return called


def checked_makers(names: dict) -> dict[str, Callable[..., Algorithm]]:
    """Of a module's names the functions that say `-> Algorithm`, each checked."""
    made = {name: thing for name, thing in names.items() if inspect.isfunction(thing)}
    return {name: checked(make) for name, make in made.items() if make.__annotations__.get("return") is Algorithm}


def of_batches(step: Step) -> Step:
    """A step that raises ValueError where what it is given is no Batch."""

    @wraps(step)
    def checked_step(state, batch):
        if not isinstance(batch, Batch):
            raise ValueError(f"the batch is a {type(batch).__name__}, expected a Batch: backend.batch(x, y)")
        return step(state, batch)

    return checked_step
