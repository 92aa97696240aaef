"""The suite against generated mutants: at which level each is caught, and which survive.

A mutant meets the levels in their order, and at each the checks of all groups in turns, up to the first that fails.
"""

import json
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, wraps
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ref_bioplaus.conformance.checks import levels as suite
from ref_bioplaus.conformance.checks.outcomes import Check
from ref_bioplaus.conformance.checks.runner import outcome_of
from ref_bioplaus.conformance.files.reading import shown
from ref_bioplaus.conformance.judging import judge
from ref_bioplaus.conformance.proofs import equivalence
from ref_bioplaus.conformance.proofs.faults import caches, replaced
from ref_bioplaus.conformance.proofs.generated import Mutant, mutant
from ref_bioplaus.machine import files
from ref_bioplaus.machine.side_by_side import side_by_side
from ref_bioplaus.tree import leaves

CAUGHT, SURVIVED, EQUIVALENT, HUNG, LOST = "caught", "survived", "equivalent", "hung", "lost"
LIMIT = 600.0  # seconds for a mutant
Line = dict[str, Any]


class Plan(NamedTuple):
    """Which mutants, against which levels: what a file of results must have begun with to be gone on with."""

    seed: int
    many: int
    levels: tuple[int, ...]

    def header(self) -> Line:
        """The first line."""
        return {"seed": self.seed, "count": self.many, "levels": list(self.levels)}


class ResumeError(ValueError):
    """A file of results that is not of this plan."""


# One mutant


def tried(seed: int, index: int, levels: Sequence[int], tell: Callable[[int], None] = lambda level: None) -> Line:
    """What comes of one mutant. tell: given every level before it begins."""
    made = mutant(seed, index)
    line = {"id": made.id, "function": str(made.target), "kind": made.kind.name, "mutant": str(made)}
    with warnings.catch_warnings(), remembering():
        warnings.simplefilter("ignore")
        for level in levels:
            tell(level)
            found = first_failure(made, level)
            if found is not None:
                return line | {"state": CAUGHT, "level": level} | found
    inputs, differing = equivalence.compared(made)
    equal = inputs >= equivalence.EQUIVALENT and not differing
    return line | {"state": EQUIVALENT if equal else SURVIVED, "inputs": inputs, "differing": differing}


def first_failure(made: Mutant, level: int) -> Line | None:
    """The first check of a level that a mutant fails, and why; None where it passes all."""
    subject = made.subject()
    for check in in_turns(level):
        for mode in modes_of(made, check):
            outcome = outcome_of(subject, check, mode)
            if outcome.state in ("fail", "error"):
                return {"check": outcome.id, "mode": mode, "reason": outcome.reason[:300]}
    return None


def modes_of(made: Mutant, check: Check) -> tuple[str, ...]:
    """The modes in which a check is asked: all, where the mutant may tell them apart; one otherwise."""
    if made.kind.tells_modes or made.target.name in ("eager", "wrap", "wrap_donating"):
        return check.modes
    return ("compiled",) if "compiled" in check.modes else check.modes[:1]


@cache
def in_turns(level: int) -> tuple[Check, ...]:
    """The checks of a level, one of each group, then the next of each."""
    groups: dict[str, list[Check]] = {}
    for check in suite.checks((level,)):
        groups.setdefault(check.group, []).append(check)
    return tuple(check for turn in zip_longest(*groups.values()) for check in turn if check is not None)


@cache
def memories() -> tuple[tuple[Callable, Callable], ...]:
    """What computes nothing but references, and the same with a memory for all of them: no mutant is in it."""
    right, known = judge.expect, dict[tuple, judge.Expected]()

    @wraps(right)
    def expect(case, mode, start, x, y, precision="ieee", decisions=None, *more, **options):
        if any(a is not None for a in (*more, *options.values())):
            return right(case, mode, start, x, y, precision, decisions, *more, **options)
        content = tuple((a.shape, a.dtype, a.tobytes()) for a in map(np.asarray, (*leaves(start), x, y)))
        taken = None if decisions is None else tuple(d.tobytes() for d in decisions)
        by = (case, mode, precision, content, taken)
        if by not in known:
            known[by] = right(case, mode, start, x, y, precision, decisions)
        return known[by]

    short = {function for function in caches() if function.cache_parameters()["maxsize"] is not None}
    return ((right, expect), *((function, cache(function.__wrapped__)) for function in short))


@contextmanager
def remembering() -> Iterator[None]:
    """References are computed once for all mutants of a process, where a run of the suite forgets them."""
    with ExitStack() as stack:
        for old, new in memories():
            stack.enter_context(replaced(old, new, ".conformance"))
        yield


# Many


def trials(plan: Plan, file: Path | None = None, jobs: int = 1, limit: float = LIMIT, resume: bool = False):
    """A line for every mutant of a plan, as they come, those in the file first; each is added to the file.

    Raises ResumeError where the file is of another plan, or is there and `resume` is not said; OSError.
    """
    before = begun(plan, file, resume) if file is not None else []
    yield from before
    done = {line["id"] for line in before}
    tasks = [(plan.seed, i, plan.levels) for i in range(plan.many) if f"{plan.seed}/{i}" not in done]
    for task, line, seconds in side_by_side(tried, tasks, jobs, limit):
        if not isinstance(line, dict):  # the level that it came to
            line = unfinished(mutant(*task[:2]), line, HUNG if seconds >= limit else LOST)
        line["seconds"] = round(seconds, 1)
        if file is not None and line["state"] != LOST:
            with files.to_write(file, append=True) as out:
                out.write((json.dumps(line) + "\n").encode())
        yield line


def unfinished(made: Mutant, level: int | None, state: str) -> Line:
    """The line of a mutant that hangs, which no user would take for right; or whose process is gone, which says nothing
    of it: it may have been killed from outside, and is tried again by --resume."""
    line = {"id": made.id, "function": str(made.target), "kind": made.kind.name, "mutant": str(made)}
    return line | {"state": state, "level": level}


def begun(plan: Plan, file: Path, resume: bool) -> list[Line]:
    """What a file has already, a line that was cut short left out; a new one gets its first line."""
    try:
        content = files.content(file)
    except FileNotFoundError:
        content = b""
    if content and not resume:
        raise ResumeError(f"{file} is there already: go on with it by --resume, or name another")
    whole = [text for text in content.splitlines(keepends=True) if text.endswith(b"\n")]
    try:
        lines = [json.loads(text) for text in whole]
        header, rest = (lines[0], lines[1:]) if lines else (plan.header(), [])
        ids = [line["id"] for line in rest]
    except (ValueError, KeyError, TypeError) as error:
        raise ResumeError(f"{file} holds no results of mutants: name another file") from error
    if header != plan.header():
        raise ResumeError(
            f"{file} was begun with {shown(json.dumps(header))}, expected {json.dumps(plan.header())}: "
            "the same seed, count and levels go on with it"
        )
    if len(set(ids)) < len(ids):
        raise ResumeError(f"{file} holds a mutant twice: name another file")
    files.write_whole(file, b"".join([(json.dumps(plan.header()) + "\n").encode(), *whole[1:]]))
    return rest


# What comes of them


def counted(lines: Iterable[Line], levels: Sequence[int]) -> dict[str, int]:
    """How many were caught at each level, hung, survived, are equivalent, and were lost with their process."""
    found = list(lines)
    counts = {f"level {l}": sum(o["state"] == CAUGHT and o["level"] == l for o in found) for l in levels}
    return counts | {state: sum(o["state"] == state for o in found) for state in (HUNG, SURVIVED, EQUIVALENT, LOST)}


def share(lines: Iterable[Line], levels: Sequence[int]) -> tuple[int, int]:
    """(how many were caught at these levels or hung, of how many that are wrong)."""
    found = [line for line in lines if line["state"] not in (EQUIVALENT, LOST)]
    caught = sum(o["state"] == HUNG or (o["state"] == CAUGHT and o["level"] in levels) for o in found)
    return caught, len(found)


def wilson(k: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % interval of a share of k in n (Wilson 1927)."""
    if not n:
        return 0.0, 1.0
    p, spread = k / n, z * z / n
    middle = (p + spread / 2) / (1 + spread)
    half = z * math.sqrt(p * (1 - p) / n + spread / (4 * n)) / (1 + spread)
    return max(middle - half, 0.0), min(middle + half, 1.0)
