"""What a failure probably is: the smallest check that fails, and what makes it pass."""

import copy
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ref_bioplaus.conformance.checks.outcomes import GONE, Check, Outcome, Subject
from ref_bioplaus.conformance.checks.runner import outcome_of
from ref_bioplaus.conformance.judging import judge
from ref_bioplaus.kernels import PORTABLE, Kernels

BROKEN = ("fail", "error")
ENOUGH = 6  # names in a sentence
GROUPS = 5  # of failures that are looked into
SECONDS = 60.0  # after which no other is begun


def diagnoses(subject: Subject, checks: Sequence[Check], outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A sentence on the smallest failure of every group (an algorithm, a family of primitives), lowest level first.

    It asks the subject again: the same once more, on other batch sizes, and with portable kernels in place of its own.
    """
    known = {check.id: check for check in checks}
    first: dict[str, Outcome] = {}
    for o in sorted(outcomes, key=lambda o: o.level):
        if o.state in BROKEN and o.id in known and o.reason != GONE:  # what ended a process would end this one
            first.setdefault(o.group, o)
    began = time.perf_counter()
    for o in list(first.values())[:GROUPS]:
        if time.perf_counter() - began > SECONDS:
            return
        modes = {other.mode: other.state for other in outcomes if other.id == o.id}
        asked = (subject, known[o.id], o.mode)
        found = [*in_modes(modes), *calls(*asked), *sizes(*asked), *culprits(*asked)]
        if found:
            yield f"{o.id} ({o.mode}): {'; '.join(found)}."


def in_modes(modes: Mapping[str, str]) -> Iterator[str]:
    """In which modes it fails, where it passes in others."""
    wrong, right = ([m for m, state in modes.items() if (state in BROKEN) == bad] for bad in (True, False))
    if right:
        yield f"it fails {' and '.join(wrong)} only"


def calls(subject: Subject, check: Check, mode: str) -> Iterator[str]:
    """Which of the calls that a check makes are answered wrong, where others are answered right."""
    try:
        scores = check.run(subject, mode).scores
    except Exception:  # whatever a stranger's backend raises was told
        return
    named = [(re.sub(r"^seed \d+(: )?", "", s.tensor.rpartition(": ")[0]), s) for s in scores]
    wrong = dict.fromkeys(name for name, s in named if judge.first_departure([s]))
    right = dict.fromkeys(name for name, _ in named if name not in wrong)
    if not wrong or not right or "" in wrong:
        return
    words = {name: set(re.split("[:,] ", name)) for name in (*wrong, *right)}
    common = set.intersection(*(words[name] for name in wrong))
    alike = [name for name in words if common <= words[name]]
    if len(wrong) > 1 and len(alike) < len(words):
        yield f"wrong for {len(wrong)} of {len(alike)} calls with {listed(sorted(common))}, right for all others"
    else:
        yield f"wrong for {listed(list(wrong))}; right for {listed(list(right))}"


def sizes(subject: Subject, check: Check, mode: str) -> Iterator[str]:
    """For which of the check's other sizes it fails."""
    states = {name: outcome_of(subject, other, mode).state for name, other in check.variants().items()}
    wrong, right = ([n for n, s in states.items() if s in wanted] for wanted in (BROKEN, ("pass",)))
    if wrong and right:
        yield f"it fails for {listed(wrong)} and passes for {listed(right)}"
    elif wrong:
        yield f"it fails for {wrong[0]} already"
    elif right:
        yield f"it passes for {listed(right)}"


def culprits(subject: Subject, check: Check, mode: str) -> Iterator[str]:
    """Kernels of the subject's own with whose portable form it passes."""
    own = [name for name in Kernels._fields if name != "name" and differs(subject.backend.kernels, name)]
    if own and not passes(with_portable(subject, own), check, mode):
        yield "with portable kernels it fails as well: they are not the reason"
        return
    guilty = [name for name in own if passes(with_portable(subject, [name]), check, mode)]
    if guilty:
        yield f"with the portable {' or '.join(guilty)} it passes"
    elif own:
        yield "with all kernels portable it passes, with one of them alone it does not"


def differs(kernels: Kernels, name: str) -> bool:
    """Whether a kernel is not the portable one."""
    return getattr(kernels, name) is not getattr(PORTABLE, name)


def with_portable(subject: Subject, names: Sequence[str]) -> Subject:
    """The subject with the portable form of some kernels."""
    backend = copy.copy(subject.backend)
    backend.kernels = backend.kernels._replace(**{name: getattr(PORTABLE, name) for name in names})
    return replace(subject, backend=backend)


def passes(subject: Subject, check: Check, mode: str) -> bool:
    """Whether a check passes."""
    return outcome_of(subject, check, mode).state == "pass"


def listed(names: Sequence[str]) -> str:
    """Names with bars between, the first few of many."""
    more = f" and {len(names) - ENOUGH} more" if len(names) > ENOUGH else ""
    return " | ".join(names[:ENOUGH]) + more
