"""Parsers of options: (what the option is called, a value as TOML has it) -> what the library takes.

Each raises ExperimentError, one sentence, for a value that is none of its kind.
"""

import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ... import initializers, inverses
from ...registry.names import parameters
from ...showing.words import nearest, shown, unknown
from .experiment import ExperimentError, Table, check_type

Parser = Callable[[str, Any], Any]

LARGEST = 3.4e38  # about float32's largest number: torch makes no array of more
INT32 = 2**31 - 1  # the largest number of updates that is counted


def parsed(what: str, names: Iterable[str], options: Table, parsers: Mapping[str, Parser]) -> dict[str, Any]:
    """The options of `what`, which has those names, each through its parser. Raises ExperimentError."""
    known = list(names)
    for name in options:
        if name not in known:
            raise ExperimentError(unknown(f"option of {what}", name, known))
    return {name: parsers[name](f"{name} of {what}", value) for name, value in options.items()}


def number(
    expected: str = "a finite number of at least 0", fits: Callable[[Any], bool] = lambda value: value >= 0
) -> Parser:
    """A number that fits, as a float, and no larger than float32 holds."""

    def parse(path, value):
        check_type(path, value, (float,))
        if not fits(value):
            raise ExperimentError(f"{path} is {shown(value)}, expected {expected}.")
        if not abs(value) <= LARGEST:
            raise ExperimentError(f"{path} is {shown(value)}, expected a finite number of at most {LARGEST}.")
        return float(value)

    return parse


finite = number("a finite number", lambda value: value == value)
positive = number()
above_0 = number("a finite number above 0", lambda value: value > 0)
share = number("a number of at least 0 and below 1", lambda value: 0 <= value < 1)


def whole(least: int = 0, most: int = INT32) -> Parser:
    """A whole number from `least` to `most`."""

    def parse(path, value):
        check_type(path, value, (int,))
        if not least <= value <= most:
            wanted = f"at least {least}" if value < least else f"at most {most}"
            raise ExperimentError(f"{path} is {shown(value)}, expected {wanted}.")
        return value

    return parse


def flag(path: str, value: Any) -> bool:
    """True or false."""
    check_type(path, value, (bool,))
    return value


def word(words: Mapping[str, Any]) -> Parser:
    """One of some words, as what it stands for; "-" is "_" where the words have that."""

    def parse(path, value):
        name = value.replace("-", "_") if isinstance(value, str) and value not in words else value
        if not isinstance(name, str) or name not in words:
            close = nearest(value, list(words)) if value and isinstance(value, str) else []
            hint = f": did you mean {', '.join(close)}?" if close else "."
            raise ExperimentError(f"{path} is {shown(value)}, expected one of {', '.join(words)}{hint}")
        return words[name]

    return parse


def in_python_only(path: str, value: Any) -> Any:
    """What is a function, and has no name in a file."""
    raise ExperimentError(f"{path} is {shown(value)}, expected a function, which a file cannot hold: leave it out.")


def by_layer(parse: Parser) -> Parser:
    """A value, or a table of values by the number of a layer."""

    def parse_all(path, value):
        if not isinstance(value, dict):
            return parse(path, value)
        name, _, what = path.partition(" of ")
        return {layer_number(path, layer): parse(f"{name}.{layer} of {what}", one) for layer, one in value.items()}

    return parse_all


def layer_number(path: str, text: Any, words: str = "") -> int:
    """The number of a layer from a key; words: what else the key might be, for the sentence."""
    if not (str(text).isascii() and str(text).isdigit() and len(str(text)) < 10):
        raise ExperimentError(f'{path} names "{text}", expected the number of a layer{words}.')
    return int(text)


def text(path: str, value: Any) -> str:
    """A text."""
    check_type(path, value, (str,))
    return value


def list_of(parse: Parser) -> Parser:
    """A list of values."""

    def parse_all(path, value):
        check_type(path, value, (list,))
        return [parse(f"an entry of {path}", one) for one in value]

    return parse_all


def form_of_inverse(words: Mapping[str, Any]) -> Parser:
    """One of the words, {wider = k}: a kernel's size, a number or [height, width]; or either, with other neurons.

    These are {form = WORD or {wider = k}, nonlinearity = one of inverses.NONLINEARITIES, bias = true or false}, of
    which all may be left out.
    """
    neurons = {"nonlinearity": word({name: name for name in inverses.NONLINEARITIES}), "bias": flag}

    def parse(path, value):
        if isinstance(value, dict) and value and set(value) <= {"form", *neurons}:
            form = parse(f"form of {path}", value.get("form", "mirrored"))
            of_neurons = {name: given for name, given in value.items() if name != "form"}
            return inverses.with_neurons(form, **parsed(path, neurons, of_neurons, neurons))
        if not (isinstance(value, dict) and set(value) == {"wider"}):
            return word(words)(path, value)
        sides = value["wider"] if isinstance(value["wider"], list) else [value["wider"]] * 2
        if len(sides) != 2 or not all(type(side) is int and 0 < side <= INT32 for side in sides):
            wider = shown(value["wider"])
            raise ExperimentError(f"wider of {path} is {wider}, expected a whole number or [height, width].")
        return inverses.wider_inverse(tuple(sides))

    return parse


def drawing(words: Mapping[str, Any]) -> Parser:
    """One of the words, {normal = its deviation}, or {uniform = its bound}."""
    scales: dict[str, Callable[[float], Any]] = {"normal": initializers.naive, "uniform": initializers.within}

    def parse(path, value):
        if isinstance(value, dict) and len(value) == 1 and set(value) <= set(scales):
            ((name, scale),) = value.items()
            return scales[name](positive(f"{name} of {path}", scale))
        return word(words)(path, value)

    return parse


# Of functions that are not ours


def own(function: Callable) -> bool:
    """Whether a function is not of this package, so that its signature alone says what it takes."""
    return not (getattr(function, "__module__", None) or "").startswith("ref_bioplaus.")


def by_signature(
    what: str, function: Callable, options: Table, known: Mapping[str, Parser], given: Iterable[str] = (),
    has: Iterable[str] = (), first: Mapping[str, Parser] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The options of a function of one's own, each as its annotation says or else its default, or as ours of that name.

    given: parameters that are no options; has: options that have a value; first: parsers that come before annotations.
    Raises ExperimentError, also where an option without a default is missing.
    """
    every = {name: p for name, p in parameters(function).items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    names = {name: p for name, p in every.items() if name not in set(given)}
    found = parsed(
        what, names, options, {name: of_parameter(p, known) for name, p in names.items()} | dict(first or {})
    )
    for name, parameter in names.items():
        if parameter.default is parameter.empty and name not in (*found, *has):
            raise ExperimentError(f"The {what} needs the option {name}, which has no default: give it.")
    return found


def of_parameter(parameter: inspect.Parameter, known: Mapping[str, Parser]) -> Parser:
    """What an option of one's own may be."""
    written = parameter.annotation
    if typing.get_origin(written) in (typing.Union, types.UnionType):  # None is what is left out
        several = [one for one in typing.get_args(written) if one is not types.NoneType]
        written = several[0] if len(several) == 1 else written
    if typing.get_origin(written) is typing.Literal:
        return word({str(one): one for one in typing.get_args(written)})
    if written in BY_TYPE:
        return BY_TYPE[written]
    if written is parameter.empty and type(parameter.default) in BY_TYPE:
        return BY_TYPE[type(parameter.default)]
    if parameter.name in known:
        return known[parameter.name]
    return untyped(parameter.name)


def untyped(name: str) -> Parser:
    """An option that a file cannot hold, or of which nobody says what it may be."""

    def parse(path, value):
        raise ExperimentError(
            f"{path} is {shown(value)}, but its function does not say which of float, int, bool and str it is: "
            f"annotate it there, as {name}: float."
        )

    return parse


BY_TYPE: dict[Any, Parser] = {float: finite, int: whole(-INT32), bool: flag, str: text}
