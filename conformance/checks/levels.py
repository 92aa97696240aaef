"""All checks, by level.

0 primitives · 1 one step from a stored state · 2 trajectories, shadowed and free · 3 truths that need no reference, and
what a step owes its caller · 4 convergence over seeds.
"""

from collections.abc import Iterable, Sequence

from ref_bioplaus.conformance.checks import convergence, lasting, looking, settings, starts, steps, truths
from ref_bioplaus.conformance.checks.alone import bits, draws, initial, primitives
from ref_bioplaus.conformance.checks.backend import bringing, carrying, promises, running
from ref_bioplaus.conformance.checks.outcomes import Check
from ref_bioplaus.registry import ROWS, Row

LEVELS = (0, 1, 2, 3, 4)


def checks(levels: Iterable[int] = LEVELS[:-1], rows: Sequence[Row] = ROWS) -> tuple[Check, ...]:
    """The checks of some levels; of other rows than the registry's those of rules alone. Raises ValueError for a level
    that does not exist."""
    wanted = set(levels)
    unknown = wanted - set(LEVELS)
    if unknown:
        raise ValueError(f"level {min(unknown)} does not exist, expected {LEVELS[0]} to {LEVELS[-1]}")
    found: list[Check] = []
    if 0 in wanted and rows is ROWS:
        alone = (primitives, bits, draws, initial, bringing, running, promises, carrying)
        found += [check for module in alone for check in module.checks()]
    found += looking.checks() if 1 in wanted and rows is ROWS else ()
    found += steps.checks(wanted, rows)
    found += starts.checks(rows) if 1 in wanted else ()
    found += settings.checks(wanted) if rows is ROWS else ()
    found += truths.checks(rows) if 3 in wanted else ()
    found += lasting.checks(rows) if 3 in wanted else ()
    found += convergence.checks(rows) if 4 in wanted else ()
    return tuple(found)
