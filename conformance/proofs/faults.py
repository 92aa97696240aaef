"""Faults in the library's own code, that a subject has while it computes and the judge's reference has not."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from inspect import isclass, signature
from typing import Any
from unittest import mock

from ref_bioplaus.conformance.cases import options


@contextmanager
def replaced(old: Any, new: Any, where: str = "") -> Iterator[None]:
    """Another function or class in the place of one, under whatever name a module of the library knows it.

    where: ".conformance" for the suite's own modules, in place of the library's.

    Tables that hold it (the registry's rows, NamedTuples of functions) keep it: a fault there is a `Subject.build`.
    """
    with ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] == "ref_bioplaus" and (".conformance" in name) == bool(where):
                for word, value in list(vars(module).items()):
                    if value is old:
                        stack.enter_context(mock.patch.object(module, word, new))
        yield


def caches() -> set[Any]:
    """The suite's functions that remember what references give."""
    checks = [vars(module) for name, module in list(sys.modules.items()) if ".conformance.checks" in name]
    return {function for names in checks for function in names.values() if hasattr(function, "cache_parameters")}


def ignoring(function: Callable, option: str, value: Any) -> Callable:
    """A function that computes with one value of an option, whatever it is given."""
    parameters = signature(function)

    def run(*arguments: Any, **options: Any) -> Any:
        given = parameters.bind(*arguments, **options)
        given.arguments[option] = value
        return function(*given.args, **given.kwargs)

    return run


def option_ignored(name: str) -> Callable[[], AbstractContextManager]:
    """What holds while a subject computes that ignores an option (its full name in cases/options.py), as `under`."""
    function, option = options.options()[name], name.rpartition(".")[2]
    wrong = ignoring(function, option, options.IGNORED[name].value)
    owner, attribute = options.OTHERS.get(name.rpartition(".")[0], (None, ""))
    if isclass(owner):
        return lambda: mock.patch.object(owner, attribute, wrong)
    return lambda: replaced(function, wrong)
