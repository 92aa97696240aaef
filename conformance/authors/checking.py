"""check_algorithm: everything that is asked of a rule, in the manner of scikit-learn's check_estimator."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import numpy as np

from ref_bioplaus import backends, losses, optimizers
from ref_bioplaus.backends import Backend, BackendError, NoNativeKernels
from ref_bioplaus.conformance.authors import angles, every
from ref_bioplaus.conformance.authors.declared import TESTS
from ref_bioplaus.conformance.authors.every import Check, line_of
from ref_bioplaus.conformance.authors.oracle import Oracle, agrees
from ref_bioplaus.conformance.authors.table import Library, Table
from ref_bioplaus.conformance.authors.trials import NotJudged, Trial
from ref_bioplaus.conformance.cases.cases import root
from ref_bioplaus.conformance.cases.networks import (
    CLASSES,
    convolutional,
    convolutional_chain,
    equal,
    fully_connected,
    locally_connected_net,
    residual_before,
)
from ref_bioplaus.conformance.judging.rounding import NotOffered
from ref_bioplaus.network import Network
from ref_bioplaus.registry.rows import DECLARATIONS, Row
from ref_bioplaus.showing.words import one_line, unknown
from ref_bioplaus.types import Algorithm, Batch, Loss

NETWORKS: dict[str, tuple[Callable[..., Network], ...]] = {  # each: the first that a rule takes
    "dense": (fully_connected,),
    "equal": (equal,),
    "local": (locally_connected_net,),
    "conv": (convolutional, convolutional_chain),
    "residual": (residual_before,),
}
QUICK = ("dense", "equal")
IN_SHAPE = (9, 7, 1)  # given to a model of one's own
ANGLES = "degrees from backpropagation's update, by layer"
REPEATED = 200  # characters of an error's message


@dataclass(frozen=True)
class Outcome:
    """The answer to one check."""

    check: str
    state: str  # "pass", "fail", "not judged", "measured"
    sentence: str = ""  # what failed and where, why it is not judged, what was measured, or where alone it passes
    networks: tuple[str, ...] = ()  # on which it was judged

    def __str__(self) -> str:
        word = {"pass": "PASS", "fail": "FAIL", "measured": "    "}.get(self.state, "-")
        return f"{word:4}  {self.check}{f': {self.sentence}' if self.sentence else ''}"


@dataclass
class Result:
    """What came of all checks of a rule."""

    rule: str
    outcomes: list[Outcome] = field(default_factory=list)
    devices: set[str] = field(default_factory=set)  # on which libraries were asked
    left_out: list[str] = field(default_factory=list)  # what was not judged, a sentence each without its full stop

    @property
    def failures(self) -> list[Outcome]:
        """The checks that failed."""
        return [outcome for outcome in self.outcomes if outcome.state == "fail"]

    @property
    def passed(self) -> bool:
        """Whether none failed, and some passed."""
        return not self.failures and any(outcome.state == "pass" for outcome in self.outcomes)

    @property
    def verdict(self) -> str:
        """One line."""
        passes, fails, unjudged = (sum(o.state == s for o in self.outcomes) for s in ("pass", "fail", "not judged"))
        counts = f"{passes} check{'s' * (passes != 1)} pass{'es' * (passes == 1)}"
        counts += f", {unjudged} not judged" if unjudged else ""
        return f"{self.rule}: {'PASS' if self.passed else 'FAIL'}, {counts}" + (
            f", {fails} fail{'s' * (fails == 1)}" if fails else ""
        )

    @property
    def not_judged(self) -> str:
        """One line."""
        return f"Not judged: {'; '.join(self.left_out)}."

    def __str__(self) -> str:
        return "\n".join([*map(str, self.outcomes), self.verdict, self.not_judged])


class AlgorithmFails(AssertionError):
    """Some check failed; `result` has all of them."""

    def __init__(self, result: Result):
        super().__init__("\n".join([result.verdict, *map(str, result.failures)]))
        self.result = result


def check_algorithm(
    make: Callable[..., Algorithm] | Row,
    network: str | Network | Sequence[str | Network] | None = None,
    oracle: Oracle | None = None,
    *,
    declares: Sequence[str] = (),
    loss: Loss | None = None,
    backends: Sequence[str] | None = None,
    quick: bool = False,
    checks: str = "*",
    on_fail: str | None = "raise",
    callback: Callable[[Outcome], None] = lambda outcome: None,
) -> Result:
    """Whether an algorithm does what every rule has to, what is declared of it, and what its paper says.

    make: (network, loss, optimizer) -> Algorithm, with an inverse_optimizer behind where the function takes one, or a
    Row of the registry. network: names of NETWORKS, or networks of your own with a vector as output, one or several;
    None for all of NETWORKS. oracle: one step from the paper in plain NumPy (see Given and RETURNS in oracle.py), asked
    on "dense" and "equal" and on networks of your own. declares: words of DECLARATIONS, beside those of a Row. loss:
    cross_entropy() if left out. backends: names; all that are installed if left out. quick: dense networks on NumPy
    alone. checks: a pattern of the checks' names, as "declared*", where not all are wanted. callback: called with every
    outcome as it comes.

    Returns the Result; raises AlgorithmFails, an AssertionError, where a check failed, unless on_fail is None. Raises
    ValueError for names that are unknown, TypeError for what is no function, BackendError for a backend that is not
    there.
    """
    if on_fail not in ("raise", None):
        raise ValueError(f'on_fail is {on_fail!r}, expected "raise" or None')
    if oracle is not None and not callable(oracle):
        raise TypeError(f"oracle is {oracle!r}, expected a function of what is given, see oracle.py")
    rule = row_of(make, declares)
    chosen = networks_of(network, quick)
    result = Result(rule.name)
    questions_asked = questions(rule, oracle, checks)
    libraries = libraries_of(backends or (("numpy",) if quick else None), result)

    def say(outcome: Outcome) -> Outcome:
        result.outcomes.append(outcome)
        callback(outcome)
        return outcome

    result.devices |= {library.device for library in libraries.values()}
    tables, outcome = built(rule, chosen, loss or losses.cross_entropy(), libraries, result)
    if say(outcome).state == "pass":
        compilable = True
        for check in questions_asked:
            if compilable or check.plain:
                failed = say(asked(check, tables)).state == "fail"
                compilable = compilable and not (failed and check in every.CHECKS[:2])
        if not compilable:
            result.left_out.append("all else, which needs steps that a compiler can take")
        elif fnmatchcase(ANGLES, checks):
            say(measured(tables))
    result.left_out[:0] = list(unasked(rule, oracle, checks, result))
    if on_fail and not result.passed:
        raise AlgorithmFails(result)
    return result


def questions(rule: Row, oracle: Oracle | None, pattern: str) -> list[Check]:
    """The checks of a rule, in order. Raises ValueError where no name is of the pattern."""
    found = [*every.CHECKS, *(Check(f'declared: "{word}"', TESTS[word]) for word in rule.declares if word in TESTS)]
    found += [Check("the oracle's step", agrees(oracle))] if oracle is not None else []
    wanted = [check for check in found if fnmatchcase(check.name, pattern)]
    if not wanted and not fnmatchcase(ANGLES, pattern):
        raise ValueError(
            f'checks is "{pattern}", which is the name of none of {", ".join(check.name for check in found)}'
        )
    return wanted


def row_of(make: Any, declares: Sequence[str]) -> Row:
    """The rule as a row. Raises TypeError for what is no function, ValueError for an unknown declaration."""
    if not isinstance(make, Row):
        if not callable(make):
            raise TypeError(f"make is {make!r}, expected a function (network, loss, optimizer) -> Algorithm, or a Row")
        function = make.func if isinstance(make, partial) else make
        name = getattr(function, "__name__", type(function).__name__)
        takes = inspect.signature(make).parameters
        make = Row(name, name, getattr(function, "__module__", ""), "", "", make, inverses="inverse_optimizer" in takes)
    words = tuple(dict.fromkeys((*make.declares, *declares)))
    for word in words:
        if word not in DECLARATIONS:
            raise ValueError(unknown("declaration", word, DECLARATIONS))
    return make._replace(declares=words)


def networks_of(network: Any, quick: bool) -> dict[str, tuple[Callable[..., Network], ...]]:
    """The networks to ask on, {name: ways to build it}. Raises ValueError for an unknown name."""
    if network is None:
        return {name: NETWORKS[name] for name in (QUICK if quick else NETWORKS)}
    wanted = list(network) if isinstance(network, list | tuple | set) else [network]
    found: dict[str, tuple[Callable[..., Network], ...]] = {}
    for item in wanted:
        if isinstance(item, str):
            if item not in NETWORKS:
                raise ValueError(unknown("network", item, NETWORKS))
            found[item] = NETWORKS[item]
        elif isinstance(item, Network):
            own = f"network {sum(name not in NETWORKS for name in found) + 1}"
            found[own] = (lambda item=item: item,)
        elif callable(item):
            model = "in_shape" in inspect.signature(item).parameters  # as a field `model` takes it
            make = partial(item, in_shape=IN_SHAPE, classes=CLASSES) if model else item
            found[getattr(item, "__name__", "network")] = (make,)
        else:
            raise ValueError(f"network is {item!r}, expected a name ({', '.join(NETWORKS)}) or a Network")
    return found


def libraries_of(names: Sequence[str] | None, result: Result) -> dict[str, Library]:
    """The libraries, NumPy first, as it is always asked. Raises BackendError for a given name that is not there."""
    found: dict[str, Library] = {}
    for name in dict.fromkeys(("numpy", *(backends.installed() if names is None else names))):
        try:
            found[name] = Library(name, backends.get(name), native(name))
        except BackendError as error:
            if names is not None:
                raise
            result.left_out.append(f"{name} ({error})")
    return found


def native(name: str) -> Backend | None:
    """The library with kernels of its own, where it has some."""
    try:
        return backends.get(name, kernels="native")
    except NoNativeKernels:
        return None


def built(
    rule: Row, chosen: Mapping[str, tuple[Callable[..., Network], ...]], loss: Loss, libraries: Mapping[str, Library],
    result: Result,
) -> tuple[list[Table], Outcome]:  # fmt: skip
    """The rule on every network that it takes, and whether it can be built and stepped there."""
    tables: list[Table] = []
    for name, ways in chosen.items():
        why = ""
        for build in ways:
            try:
                trial = Trial(rule, name, sized(build, rule), loss, optimizers.sgd(0.05, momentum=0.9, decay=0.01))
                algorithm = trial.build()
                state = algorithm.init(root(0))
            except ValueError as error:
                why = why or f"network {name}, which the rule refuses ({one_line(str(error))[:REPEATED]})"
                continue
            except Exception as error:
                return [], Outcome("it is built and stepped", "fail", f"{name}: {raised(error)}")
            try:
                for mode in algorithm.modes:
                    algorithm.modes[mode](state, Batch(*trial.batch(0)))
            except Exception as error:
                return [], Outcome("it is built and stepped", "fail", f"{name}, mode {mode}: {raised(error)}")
            tables.append(Table(trial, libraries))
            break
        else:
            result.left_out.append(why)
    if not tables:
        return [], Outcome("it is built and stepped", "fail", f"it takes none of the networks: {result.left_out[-1]}")
    names = tuple(table.trial.name for table in tables)
    return tables, Outcome("it is built and stepped", "pass", f"on {', '.join(names)}", names)


def sized(build: Callable[..., Network], rule: Row) -> Network:
    """The network in float64, with auxiliary outputs where the rule needs them. Raises ValueError where it has none."""
    if not rule.auxiliary:
        return build().with_dtype("float64")
    if "outputs" not in inspect.signature(build).parameters:
        raise ValueError("it has no auxiliary outputs")
    return build(CLASSES + 3).with_dtype("float64")


def asked(check: Check, tables: Sequence[Table]) -> Outcome:
    """One check on all networks, up to the first on which it fails."""
    judged, reasons = [], []
    for table in tables:
        try:
            with np.errstate(all="ignore"):
                problem = check.ask(table)
        except (NotJudged, NotOffered) as error:
            reasons.append(f"{table.trial.name}: {error}")
            continue
        except Exception as error:
            problem = raised(error)
        judged.append(table.trial.name)
        if problem:
            return Outcome(check.name, "fail", f"{table.trial.name}, {problem}", tuple(judged))
    if not judged:
        return Outcome(check.name, "not judged", "; ".join(dict.fromkeys(reasons)))
    where = f"on {', '.join(judged)} alone" if reasons else ""
    return Outcome(check.name, "pass", where, tuple(judged))


def raised(error: Exception) -> str:
    """An exception in words."""
    return one_line(f"it raises {type(error).__name__}{line_of(error)}: {error}")[:REPEATED]


def measured(tables: Sequence[Table]) -> Outcome:
    """The angles to backpropagation's update."""
    found = []
    for table in tables:
        outcome = asked(Check(ANGLES, angles.measured), [table])
        if outcome.state == "fail":  # what is measured comes back as a problem does
            found.append(outcome.sentence.replace(", ", " ", 1))
    return Outcome(ANGLES, "measured", " | ".join(found), tuple(t.trial.name for t in tables))


def unasked(rule: Row, oracle: Oracle | None, pattern: str, result: Result) -> Iterator[str]:
    """What the checks leave open."""
    if oracle is None:
        yield "whether the rule is what its paper says, as no oracle was given"
    if not rule.declares:
        yield "what is true of this rule and not of every one, as it declares nothing"
    if pattern != "*":
        yield f'checks that are not of the name "{pattern}"'
    yield from (f"{o.check} ({o.sentence})" for o in result.outcomes if o.state == "not judged")
    alone = [f"{o.check} elsewhere" for o in result.outcomes if o.state == "pass" and o.sentence.endswith(" alone")]
    yield from alone
    yield f"other devices than {' and '.join(sorted(result.devices))}"
    yield "whether it learns well"
