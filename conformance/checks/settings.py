"""Levels 1 to 3 of the settings: one step from each of their moments, their first states, predictions and schedules."""

import numpy as np

import ref_bioplaus as rb
from ref_bioplaus import losses
from ref_bioplaus.conformance.cases.settings import CORNERS, N, Setting, settings
from ref_bioplaus.conformance.checks.outcomes import MODES, Check, Finding, Subject
from ref_bioplaus.conformance.checks.prepared import posed
from ref_bioplaus.conformance.checks.starts import first_state
from ref_bioplaus.conformance.checks.steps import one_step
from ref_bioplaus.conformance.judging import judge
from ref_bioplaus.conformance.judging.rounding import Rounding
from ref_bioplaus.tree import tree_map

ONE_MODE = ("compiled",)


def prediction(setting: Setting) -> Check:
    """The output in test mode: running statistics, no dropout."""

    def run(subject: Subject, mode: str) -> Finding:
        here = setting._replace(dtype=subject.dtype)
        backend, loss = subject.backend, losses.cross_entropy()
        start, (x, _) = posed(here, 1, N)
        space = Rounding(judge.PRECISIONS[here.dtype, backend.precision], here.dtype)
        expected = rb.predict(here.network(), loss, tree_map(space.exact, start), space.exact(x))
        own = subject.runs(lambda s, x: rb.predict(here.network(backend.kernels), loss, s, x), mode)
        got = own(tree_map(lambda a: backend.asarray(np.array(a)), start), backend.asarray(x, backend.dtype))
        wanted = judge.Expected({"output": expected}, space.undecidable, space.precision.tiny)
        scores = judge.named(judge.judge(wanted, {"output": backend.to_numpy(got)}), "in test mode")
        return Finding(tuple(scores), undecidable=space.undecidable)

    return Check(f"1/{setting.id}/predict", 1, setting.row, run, ONE_MODE)


def order_of_modes(setting: Setting) -> Check:
    """The names of the modes, and which of them run on which batch of which epoch."""

    def run(subject: Subject, mode: str) -> Finding:
        ours, theirs = setting.build(), subject.algorithm(setting._replace(dtype=subject.dtype))
        if sorted(ours.modes) != sorted(theirs.modes):
            return Finding(problem=f"modes {', '.join(theirs.modes)}, expected {', '.join(ours.modes)}")
        for place in ((epoch, iteration) for epoch in range(4) for iteration in range(9)):
            expected, got = ours.schedule(*place), subject.own(theirs.schedule)(*place)
            if expected != got:
                return Finding(problem=f"epoch {place[0]}, batch {place[1]}: modes {got}, expected {expected}")
        return Finding()

    return Check(f"3/modes/{setting.id}", 3, setting.row, run, ONE_MODE)


def checks(levels: set[int]) -> tuple[Check, ...]:
    """The settings', of the levels asked for."""
    found: list[Check] = []
    others = {"init": lambda setting: first_state(setting, MODES[:1]), "predict": prediction}
    for setting in settings():
        if 1 in levels:
            modes = MODES[1:] if setting.moments is CORNERS else ONE_MODE  # of steps that hang on the time
            found += [others[a](setting) if a in others else one_step(setting, a, N, modes) for a in setting.asks]
        if 3 in levels and len(setting.build().modes) > 1:
            found.append(order_of_modes(setting))
    return tuple(found)
