"""What a run did not judge, in words: a green report says no more than it has shown."""

from collections.abc import Collection, Iterator, Sequence

from ref_bioplaus.conformance.checks.outcomes import MODES
from ref_bioplaus.conformance.checks.starts import GIVEN_BY_THE_REFERENCE, NOT_ASKED

LEVELS = {
    0: "primitives: every function alone, its sizes and values",
    1: "one step of every rule",
    2: "trajectories",
    3: "truths that need no reference, and what a step owes its caller",
    4: "convergence over seeds",
}
PAPERS = (
    "whether a rule is what its paper says, as each was compared with itself on other arrays; `ref-bioplaus check` "
    "asks that"
)


def not_judged(levels: Collection[int], modes: Sequence[str], case: str = "*", own_rows: bool = False) -> Iterator[str]:
    """What the choice of levels, modes and checks left out, a sentence each."""
    left = [f"{text} (level {level})" for level, text in LEVELS.items() if level not in levels]
    if left:
        yield f"Not judged: {'; '.join(left)}."
    others = [mode for mode in MODES if mode not in modes]
    if others:
        yield f"Not judged: steps that are run {' or '.join(others)} (--mode)."
    if case != "*":
        yield f"Not judged: checks whose id does not match {case}."
    if own_rows:
        yield "Not judged: the backend alone (level 0), as only the rules that --algorithm names were asked for."
    if not own_rows and {0, 1} & set(levels):
        yield f"Drawn by the reference, not by the subject: {'; '.join(GIVEN_BY_THE_REFERENCE)}."
        yield f"Not judged at any level: {'; '.join(NOT_ASKED)}."
    yield f"Not judged: {PAPERS}."
