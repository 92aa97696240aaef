"""What a name stands for: ours, what an installed package has enrolled by an entry point, or code of one's own.

One table of kinds in place of a look-up for each. Code comes through `naming`, the one gate, and is looked at here: a
rule that takes no network, or a loss that is none, gets a sentence before anything is built of it.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .. import losses, metrics, naming, optimizers
from ..models import MODELS
from ..naming import Given, NamingError
from ..showing.words import nearest, unknown
from ..types import Loss, Optimizer
from . import rows
from .rows import MODIFICATIONS, ROWS, Row

LOSSES: dict[str, Callable[..., Loss]] = {
    "cross-entropy": losses.cross_entropy,
    "cross-entropy-of-logits": losses.cross_entropy_of_logits,
    "sigmoid-cross-entropy": losses.sigmoid_cross_entropy,
    "squared-error": losses.squared_error,
    "focal": losses.focal,
    "smooth-l1": losses.smooth_l1,
    "l1": losses.l1,
    "detection": losses.detection,  # of so many classes
}
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": optimizers.sgd,
    "adam": optimizers.adam,
    "rmsprop": optimizers.rmsprop,
}
METRICS = (metrics.matrix_angles, metrics.delta_angles, metrics.gradient_ratios, metrics.sign_changes)
Parameters = Mapping[str, inspect.Parameter]


class Kind(NamedTuple):
    """A kind of thing that has a name."""

    what: str  # for sentences
    known: Mapping[str, Any]  # ours, by name
    expected: str  # what one's own has to be, in words
    takes: Callable[[Parameters], bool]  # whether a function of those parameters can be called as ours are
    constant: Callable[[Any], bool] = lambda found: False  # whether a thing stands for a function that returns it

    @property
    def group(self) -> str:
        """Of entry points."""
        return f"ref_bioplaus.{self.what}{'es' if self.what.endswith('s') else 's'}"


def positions(count: int) -> Callable[[Parameters], bool]:
    """Whether a function takes so many things by position; the others are options."""
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

    def takes(names):
        kinds = [p.kind for p in names.values()]
        return sum(kind in by_place for kind in kinds) >= count or inspect.Parameter.VAR_POSITIONAL in kinds

    return takes


def nothing(names: Parameters) -> bool:
    """Whether a function can be called without anything."""
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(p.default is not p.empty or p.kind in several for p in names.values())


def named(name: str) -> Callable[[Parameters], bool]:
    """Whether a function takes something by that name."""
    return lambda names: name in names or any(p.kind == p.VAR_KEYWORD for p in names.values())


ALGORITHM = Kind(
    "algorithm",
    {row.name: row for row in ROWS},
    "a function (network, loss, optimizer, ...) or a registry.Row",
    positions(3),
)
MODEL = Kind("model", MODELS, "a function (in_shape, classes)", named("in_shape"))
LOSS = Kind("loss", LOSSES, "a function without arguments, or a Loss", nothing, lambda found: isinstance(found, Loss))
OPTIMIZER = Kind(
    "optimizer", OPTIMIZERS, "a function (eta, ...) or an Optimizer", lambda names: True,
    lambda found: isinstance(found, Optimizer),
)  # fmt: skip
MODIFICATION = Kind("modification", MODIFICATIONS, "a function (optimizer, ...)", positions(1))
READS = {
    "network", "loss", "state", "batch",  # what learns, and the batch that all metrics are measured on
    "forward", "feedback", "before", "after",  # parameters: both paths', and W and b before the first step and now
    "info", "reference",  # a step's, and that of backpropagation from the same state
}  # fmt: skip
METRIC = Kind(
    "metric",
    {function.__name__: function for function in METRICS},
    f"a function of some of {', '.join(sorted(READS))}",
    lambda names: bool(names) and set(names) <= READS,
)
AUGMENTATION = Kind("augmentation", {}, "a function (image, words)", positions(2))
DATASET = Kind(
    "dataset",
    {},
    "a function without arguments that gives data, or data",
    nothing,
    lambda found: not callable(found) and not inspect.ismodule(found),
)
KINDS = {kind.what: kind for kind in (ALGORITHM, MODEL, LOSS, OPTIMIZER, MODIFICATION, METRIC, AUGMENTATION, DATASET)}


def bound(kind: Kind, name: str) -> Given:
    """A name that is not one of ours, with what it stands for: looked at, and of a rule of one's own a row.

    Raises KeyError for a name that is unknown, and NamingError for code that a file names, that cannot be had or that
    is something else; each a sentence.
    """
    table = {} if naming.is_code(name) else naming.enrolled(kind.group)
    if name not in table and not naming.is_code(name):
        raise KeyError(unknown(kind.what, name, [*kind.known, *table]))
    try:
        found = naming.loaded(name, table, kind.what)
    except ImportError as error:
        module, _ = naming.parts(table.get(name, name))
        raise NamingError(
            f'{kind.what} "{name}" cannot be imported ({error}), install what provides {module}, or name another one'
        ) from error
    whole = naming.at_hand(str(name), None, found.module, found.lasting)
    whole.origin = naming.made_of(found)
    whole.thing = looked_at(kind, whole, found.thing)
    return whole


def thing(kind: Kind, name: str) -> Any:
    """What a name stands for: of an algorithm a row, else a function. Raises what `bound` does."""
    return kind.known[name] if name in kind.known else bound(kind, name).thing


def looked_at(kind: Kind, name: str, found: Any) -> Any:
    """What a name of one's own stands for, as ours are: a row, or a function. Raises NamingError."""
    if kind is ALGORITHM and isinstance(found, Row):
        return found._replace(name=name)
    if kind.constant(found):
        return lambda: found
    if not callable(found):
        what = f"the module {found.__name__}" if inspect.ismodule(found) else f"a {type(found).__name__}"
        raise NamingError(f'{kind.what} "{name}" is {what}, expected {kind.expected}')
    names = parameters(found)
    if not kind.takes(names):
        raise NamingError(f'{kind.what} "{name}" takes ({", ".join(names)}), expected {kind.expected}')
    if kind is not ALGORITHM:
        return found
    title = naming.short(name)
    module = naming.parts(title)[0].removesuffix(".py")
    return Row(name, title, module, "", "", found, inverses="inverse_optimizer" in names)


def fits(kind: str, found: Any) -> bool:
    """Whether a thing can be one of a kind, as far as its arguments tell."""
    try:
        return kind not in KINDS or looked_at(KINDS[kind], kind, found) is not None
    except NamingError:
        return False


def name_of(kind: str, found: Any) -> str:
    """The name of a thing that a call has handed over: of one of ours its own, of others what `naming.given` says."""
    known = KINDS[kind].known if kind in KINDS else {}
    for name, ours in known.items():
        plain = isinstance(ours, Row) and ours.make is found and not ours.options and not ours.wrappers
        if ours is found or plain:
            return name
    return naming.given(found)


def parameters(function: Callable) -> Parameters:
    """A function's parameters, their annotations as types where they can be; {} of what does not tell."""
    for as_types in (True, False):
        try:
            return inspect.signature(function, eval_str=as_types).parameters
        except (NameError, SyntaxError, TypeError, ValueError, AttributeError):
            continue
    return {}


def row(rule: Any) -> Row:
    """The row of a name: the registry's, or that of a rule of one's own, which may be given itself. Raises KeyError for
    an unknown name, with the nearest ones, and NamingError."""
    name = name_of(ALGORITHM.what, rule)
    try:
        return thing(ALGORITHM, name)
    except KeyError as error:
        close = nearest(name, [*naming.enrolled(ALGORITHM.group)])
        if close:
            raise KeyError(f'algorithm "{name}" is unknown: did you mean {", ".join(close)}?') from error
        return rows.row(name)
