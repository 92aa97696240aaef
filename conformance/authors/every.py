"""What is asked of every rule, whatever its paper says. Every question is asked on one network at a time."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ref_bioplaus.conformance.authors.table import IN_FULL, Table
from ref_bioplaus.conformance.authors.trials import ALIKE, departure, says, silent
from ref_bioplaus.conformance.checks.prepared import changed, copies
from ref_bioplaus.conformance.checks.truths import unmannerly
from ref_bioplaus.conformance.judging.decisions import HostTransfer, InPlace, recordable, recorded
from ref_bioplaus.conformance.judging.rounding import Rounded
from ref_bioplaus.tree import named_leaves, tree_map

ORDER = np.array([3, 0, 5, 1, 4, 2])
LIBRARIES = ("ref_bioplaus", "numpy", "torch", "jax", "array_api_compat", "array_api_strict")  # nobody's own file
STEPS = 4  # of a run that is resumed in its middle


class Check(NamedTuple):
    """One question on one network."""

    name: str
    ask: Callable[[Table], str]  # a sentence on what is wrong, "" for nothing; raises NotJudged
    plain: bool = False  # whether it can be asked of a rule that no compiler takes


def never(mistake: type[Exception], other: type[Exception], what: str) -> Callable[[Table], str]:
    """What no step does, on arrays that refuse it: their values may be on a device, or not be there yet."""

    def ask(table: Table) -> str:
        backend = table.numpy.backend
        for mode in table.single.modes:
            step = recorded(table.single.build(recordable(backend.kernels)).modes[mode])
            state, x, y = table.plain()
            try:
                step(tree_map(backend.asarray, state), backend.batch(x, y))
            except mistake as error:
                return f"mode {mode} {what} ({error}){line_of(error)}"
            except other:
                continue
        return ""

    return ask


def line_of(error: BaseException) -> str:
    """Where in the author's own file an error arose, as " in line 12 of my_rule.py"; "" where it arose elsewhere."""
    place, trace = "", error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        package = trace.tb_frame.f_globals.get("__name__", "").partition(".")[0]
        if package not in LIBRARIES:
            place = f" in line {trace.tb_lineno} of {code.co_filename.rpartition('/')[2]}"
        trace = trace.tb_next
    return place


def pure(table: Table) -> str:
    """A step changes nothing that it is given, and hangs on nothing else."""
    backend = table.numpy.backend
    for mode in table.single.modes:
        prepared, given = table.prepared(backend, mode, "eager"), table.plain()
        problem = unmannerly(prepared, "eager", given[0], given[1:], table.single.batch(0, 2))
        if problem:
            return f"mode {mode}: {problem}"
        table.kept.pop(("prepared", id(backend), mode, "eager"))
        mine, anew = prepared.on_host(*given), table.prepared(backend, mode, "eager").on_host(*given)
        for name, array in mine.items():
            if not np.array_equal(array, anew[name], equal_nan=True):
                return (
                    f"mode {mode}: made anew, the rule gives another {name} from one state: it keeps something outside"
                )
    return ""


def form(table: Table) -> str:
    """The state's tree, shapes and dtypes stay; t counts the steps; what Info holds has one entry per sample."""
    backend = table.numpy.backend
    for mode in table.single.modes:
        for n in (6, 1):
            start, x, y = table.plain(n)
            state, batch = table.prepared(backend, mode, "eager").inputs(start, x, y)
            new, info = table.prepared(backend, mode, "eager").run(state, batch)
            before, after = ({name: (a.shape, str(a.dtype)) for name, a in named_leaves(s)} for s in (state, new))
            for name in [*before, *after]:
                if before.get(name) != after.get(name):
                    was, now = (shown(found.get(name)) for found in (before, after))
                    return f"mode {mode}, {n} samples: the state's {name} was {was} and is {now}"
            if int(new.t) != int(state.t) + 1 or changed([state.key], [new.key], np.asarray):
                return f"mode {mode}: t went from {int(state.t)} to {int(new.t)}, expected one more, and the same key"
            if info.loss is not None and tuple(info.loss.shape) != (n,):
                return f"mode {mode}: info.loss has shape {tuple(info.loss.shape)}, expected ({n},), one of each sample"
            grads, params = (dict(named_leaves(tree)) for tree in (info.grads, new.forward.params))
            wrong = [p for p, g in grads.items() if p not in params or params[p].shape != g.shape]
            if wrong:
                return f"mode {mode}: info.grads/{wrong[0]} does not have the shape of that parameter"
    return ""


def shown(found: tuple | None) -> str:
    """Shape and dtype in words."""
    return "not there" if found is None else f"{found[1]} {found[0]}"


def everywhere(table: Table) -> str:
    """Every library computes what the rule says, every tensor by name."""
    for name, library in table.libraries.items():
        for mode in table.single.modes:
            problem = table.judged(library.backend, mode, "compiled")
            if problem:
                return f"on {name}, mode {mode}: {problem}"
    return ""


def compiled(table: Table) -> str:
    """Compiled steps and eager ones, native kernels and portable ones, compute the same."""
    for name, library in table.libraries.items():
        if library.backend.compiles and table.trial.name not in IN_FULL:
            continue
        backend, how = (library.backend, "eager") if library.backend.compiles else (library.fast, "compiled")
        for mode in table.single.modes:
            problem = table.judged(backend, mode, how)
            if problem:
                return f"on {name}, {how}, {backend.kernels.name} kernels, mode {mode}: {problem}"
    return ""


def donated(table: Table) -> str:
    """A state that is given away is consumed, and nothing else changes."""
    for name, library in table.libraries.items():
        backend = library.fast
        if backend.compiles and table.trial.name not in IN_FULL:
            continue
        for mode in table.single.modes:
            prepared, given = table.prepared(backend, mode, "donating"), table.given(mode)
            problem = unmannerly(prepared, "donating", given[0], given[1:], table.single.batch(0, 2))
            state, batch = prepared.inputs(*given)
            state, info = prepared.run(state, batch)
            held = copies(info, backend.to_numpy)
            prepared.run(state, batch)
            if not problem and changed(held, info, backend.to_numpy):
                problem = "the next step wrote over what the last one returned"
            problem = problem or table.judged(backend, mode, "donating")
            if problem:
                return f"on {name}, mode {mode}: {problem}"
    return ""


def resumed(table: Table) -> str:
    """Steps from a state that went to NumPy and back, by a rule made anew, are those of a run that never stopped."""
    libraries = table.libraries if table.trial.name == "dense" else {"numpy": table.numpy}
    for name, library in libraries.items():
        backend = library.backend

        def run(stop):
            algorithm, state = table.single.build(backend.kernels), tree_map(backend.asarray, table.single.start(0))
            steps = {mode: backend.compile(step) for mode, step in algorithm.modes.items()}
            for i in range(STEPS):
                if i == stop:
                    held = tree_map(lambda a: np.array(backend.to_numpy(a)), state)
                    algorithm, state = table.single.build(backend.kernels), tree_map(backend.asarray, held)
                    steps = {mode: backend.compile(step) for mode, step in algorithm.modes.items()}
                for mode in algorithm.schedule(i, i):
                    state, _ = steps[mode](state, backend.batch(*table.single.batch(i)))
            return dict(named_leaves(tree_map(backend.to_numpy, state)))

        whole, halves = run(None), run(STEPS // 2)
        for place, array in whole.items():
            if not np.array_equal(array, halves[place], equal_nan=True):
                worst = float(np.max(np.abs(array.astype(np.float64) - halves[place])))
                return f"on {name}: after {STEPS} steps, resumed after {STEPS // 2}, {place} differs by {worst:.3g}"
    return ""


def sized(n: int, first: int = 0) -> Callable[[Table], str]:
    """A batch of n, by a step that has met one of `first` before."""

    def ask(table: Table) -> str:
        for name, library in table.libraries.items():
            if library.backend.compiles and table.trial.name not in IN_FULL:
                continue
            for mode in table.single.modes:
                if first:
                    table.prepared(library.backend, mode, "compiled")(*table.given(mode, first))
                problem = table.judged(library.backend, mode, "compiled", n)
                if problem:
                    return f"on {name}, mode {mode}, {n} samples: {problem}"
        return ""

    return ask


def same_for(change: Callable[[np.ndarray], np.ndarray], what: str) -> Callable[[Table], str]:
    """The same moves where samples come otherwise; noise and dropout are the same for all of them."""

    def ask(table: Table) -> str:
        for mode in table.laws.modes:
            state, x, y = given = table.laws.decidable(mode)
            one, other = (table.laws.moved(mode, g, ALIKE) for g in (given, (state, change(x), change(y))))
            first = departure(other.moves, one.moves)
            if first is not None:
                return f"mode {mode}, {what}: {says(first)}"
        return ""

    return ask


def still(table: Table) -> str:
    """An error of exactly 0 moves no forward weights; where the rule declares that it does, it must."""
    declared = "moves without an error" in table.trial.rule.declares
    quiet = table.trial.laws(silent())
    for mode in table.laws.teaching:
        moves = {n: m for n, m in quiet.moved(mode).moves.items() if n[0] != "B" and "feedback" not in n}
        first = departure(moves, {n: Rounded(m.space, np.zeros(m.shape)) for n, m in moves.items()})
        if first is not None and not declared:
            return f"mode {mode}, an error of 0 at every output: {says(first)}"
        if first is None and declared:
            return f'mode {mode}: it declares "moves without an error", and does not move'
    return ""


CHECKS = (
    Check("no host transfer inside a step", never(HostTransfer, InPlace, "brings an array to the host")),
    Check("nothing is written in place", never(InPlace, HostTransfer, "writes")),
    Check("steps are pure", pure, plain=True),
    Check("the state keeps its form", form, plain=True),
    Check("k steps resumed are k steps", resumed),
    Check("permuted samples give the same update", same_for(lambda a: a[ORDER], "samples permuted")),
    Check("doubled samples give the same update", same_for(lambda a: np.concatenate([a, a]), "every sample twice")),
    Check("no error, no update", still),
    Check("all libraries agree", everywhere),
    Check("compiled equals eager", compiled),
    Check("donation is safe", donated),
    Check("a batch of one", sized(1)),
    Check("a last partial batch", sized(4, first=6)),
)
