"""What changes over steps, and what must not: mistakes that one step from one ordinary state does not show."""

from functools import partial

import numpy as np
import pytest

from ref_bioplaus import optimizers, random
from ref_bioplaus.conformance.cases.cases import Moment
from ref_bioplaus.conformance.cases.settings import settings
from ref_bioplaus.conformance.cases.variety import in_time
from ref_bioplaus.conformance.checks import levels, runner
from ref_bioplaus.conformance.checks.outcomes import Subject, built
from ref_bioplaus.conformance.checks.prepared import posed
from ref_bioplaus.conformance.proofs.faults import replaced
from ref_bioplaus.tree import leaves, named_leaves, tree_map, unflatten
from tests.conftest import get

CHECKS = {check.id: check for check in levels.checks((1, 2, 3))}


def around(change, modes=()):
    """A build whose steps are changed: change(step, state, batch, memo) -> new state, info; memo: a dict that lasts."""

    def build(asked, kernels):
        algorithm = built(asked, kernels)

        def wrong(step):
            memo = {"calls": 0}

            def run(state, batch):
                memo["calls"] += 1
                return change(step, state, batch, memo)

            return run

        chosen = {name: step if modes and name not in modes else wrong(step) for name, step in algorithm.modes.items()}
        return algorithm._replace(modes=chosen)

    return build


def with_forward(state, **parts):
    """The state with other parts of its forward path."""
    return state._replace(forward=state.forward._replace(**parts))


def with_feedback(state, **parts):
    """The state with other parts of its feedback path."""
    return state._replace(feedback=state.feedback._replace(**parts))


def counted(memory, by):
    """A memory whose counts are moved."""
    return unflatten(memory, [leaf + by if name.endswith("count") else leaf for name, leaf in named_leaves(memory)])


def forgotten(memory):
    """A memory of zeros whose counts stay."""
    kept = [leaf if name.endswith("count") else np.zeros_like(leaf) for name, leaf in named_leaves(memory)]
    return unflatten(memory, kept)


def wrong_when(when):
    """Weights doubled, in steps of which when(state, memo) says so."""

    def change(step, state, batch, memo):
        new, info = step(state, batch)
        if not when(state, memo):
            return new, info
        return with_forward(new, params=tree_map(lambda a: 2.0 * a, new.forward.params)), info

    return around(change)


def reset(when):
    """The memory forgotten, in steps of which when(new state, memo) says so."""

    def change(step, state, batch, memo):
        new, info = step(state, batch)
        return (with_forward(new, memory=forgotten(new.forward.memory)) if when(new, memo) else new), info

    return around(change)


def stale(step, state, batch, memo):
    """Every step after the first gives back the memory that the step before it gave."""
    new, info = step(state, batch)
    last, memo["memory"] = memo.get("memory", new.forward.memory), new.forward.memory
    return with_forward(new, memory=last), info


def resized(step, state, batch, memo):
    """Momentum is forgotten where the batch has another size than the last."""
    last, memo["n"] = memo.get("n", len(batch.x)), len(batch.x)
    return step(state if last == len(batch.x) else with_forward(state, memory=forgotten(state.forward.memory)), batch)


def drifting(size):
    """B drifts."""

    def change(step, state, batch, memo):
        new, info = step(state, batch)
        return with_feedback(new, params=tree_map(lambda a: a * (1.0 + size), new.feedback.params)), info

    return around(change)


def late_drift(step, state, batch, memo):
    """B drifts from the tenth step on."""
    new, info = step(state, batch)
    size = 1e-9 if memo["calls"] > 10 else 0.0
    return with_feedback(new, params=tree_map(lambda a: a * (1.0 + size), new.feedback.params)), info


def slowing(step, state, batch, memo):
    """Running statistics whose rate falls."""
    new, info = step(state, batch)
    share = 1.0 / memo["calls"]
    return new._replace(stats=tree_map(lambda a, b: a + share * (b - a), state.stats, new.stats)), info


def by_the_old_count(step, state, batch, memo):
    """Adam's correction made by t in place of t + 1."""
    new, info = step(with_forward(state, memory=counted(state.forward.memory, -1)), batch)
    return with_forward(new, memory=counted(new.forward.memory, 1)), info


def without_counting(step, state, batch, memo):
    """t stays."""
    new, info = step(state, batch)
    return new._replace(t=state.t), info


def short_count(step, state, batch, memo):
    """t is kept in 16 bits."""
    new, info = step(state, batch)
    return new._replace(t=new.t & np.int32(0xFFFF)), info


def other_count(step, state, batch, memo):
    """The feedback path counts with the forward one."""
    new, info = step(state, batch)
    memory = new.feedback.memory | {"count": new.forward.memory["count"]}
    return with_feedback(new, memory=memory), info


def both_count(step, state, batch, memo):
    """The forward path counts in a mode that is not its own."""
    new, info = step(state, batch)
    return with_forward(new, memory=counted(new.forward.memory, 1)), info


def from_call(first, alter):
    """A right step whose new state is altered from some call on."""

    def change(step, state, batch, memo):
        new, info = step(state, batch)
        return (alter(new) if memo["calls"] >= first else new), info

    return around(change)


def with_weights(change):
    """A change of the last layer's weights."""

    def alter(state):
        *others, last = state.forward.params
        return with_forward(state, params=(*others, last._replace(W=change(last.W))))

    return alter


def hard(step, state, batch, memo):
    """Soft targets taken for their largest class."""
    return step(state, batch._replace(y=np.eye(batch.y.shape[1])[np.argmax(batch.y, axis=1)]))


def timeless(draw):
    """A draw whose address has lost its time."""

    def run(address, *others, **options):
        kept = tuple(tag for i, tag in enumerate(address) if i == 0 or not hasattr(tag, "shape"))
        return draw(kept, *others, **options)

    return partial(replaced, draw, run)


KP, BP, FA = "2/shadow/kolen-pollack/FC", "1/backprop/FC/learn/6", "2/shadow/feedback-alignment/FC"
WRONG = {  # name -> a build, the check, the mode
    "the memory is forgotten in every fifth iteration": (reset(lambda new, memo: new.t % 5 == 0), KP, "compiled"),
    "the memory is forgotten in every fifth call": (reset(lambda new, memo: memo["calls"] % 5 == 0), KP, "compiled"),
    "a step gives the last step's memory": (around(stale), KP, "donating"),
    "momentum is forgotten where the batch changes": (around(resized), "1/kolen-pollack/FC/first steps", "compiled"),
    "wrong in the first iteration alone": (wrong_when(lambda s, memo: s.t == 0), KP, "eager"),
    "wrong from the hundredth iteration on": (wrong_when(lambda s, memo: s.t >= 100), BP, "eager"),
    "wrong from the hundredth to the hundred and first": (wrong_when(lambda s, memo: s.t == 100), KP, "compiled"),
    "wrong in odd iterations": (wrong_when(lambda s, memo: s.t % 2 == 1), BP, "compiled"),
    "wrong in even iterations": (wrong_when(lambda s, memo: s.t % 2 == 0), BP, "compiled"),
    "wrong from the thirtieth call on": (wrong_when(lambda s, memo: memo["calls"] >= 30), "2/free/backprop/FC",
                                         "compiled"),
    "t in 16 bits": (around(short_count), BP, "compiled"),
    "t stays in mirror mode": (around(without_counting, ("mirror",)), "1/weight-mirror/FC/mirror/6", "compiled"),
    "Adam corrected by t and not t + 1": (around(by_the_old_count), BP, "compiled"),
    "one count for both paths": (around(other_count), "1/kolen-pollack/FC/learn/6", "compiled"),
    "the forward path counts while inverses learn": (around(both_count, ("inverse",)),
                                                     "1/dtp-alternating/FC/inverse/6", "compiled"),
    "B drifts by 1e-12 a step": (drifting(1e-12), FA, "compiled"),
    "B drifts by 1e-9 a step from the tenth on": (around(late_drift), "2/free/feedback-alignment/FC", "compiled"),
    "running statistics slow down": (around(slowing), "2/shadow/backprop/conv", "compiled"),
    "B is turned in the fiftieth call": (
        from_call(50, lambda s: with_feedback(s, params=tree_map(lambda a: a[::-1, ...].copy(), s.feedback.params))),
        "3/over 60 batches/dense-fa/FC", "donating"),
    "a sign is let go in the fiftieth call": (from_call(50, with_weights(lambda W: -W)), "3/over 60 batches/frsf-ei/FC",
                                              "donating"),
    "a norm shrinks from the fiftieth call on": (from_call(50, with_weights(lambda W: 0.999 * W)),
                                                 "3/over 60 batches/backprop-constant-norm/FC", "donating"),
    "auxiliary units learn from the fiftieth call on": (from_call(50, with_weights(lambda W: 0.999 * W)),
                                                        "3/over 60 batches/ao-sdtp/FC", "donating"),
    "an update is not counted once": (
        from_call(60, lambda s: with_forward(s, memory=counted(s.forward.memory, -1))),
        "3/over 60 batches/feedback-alignment/FC", "donating"),
    "soft targets made hard": (around(hard), BP, "compiled"),
}  # fmt: skip
UNDER = {  # name -> what holds while the subject computes, and the check
    "the same dropout in every step": (timeless(random.bernoulli), "1/backprop/conv/learn/6"),
    "the same noise in every step": (timeless(random.normal), "1/dtp/FC/parallel/6"),
    "the same noise on every gradient": (timeless(random.normal), "1/backprop-noise-gradient/FC/learn/6"),
    "the same magnitudes in every step": (timeless(random.normal), "1/brsf/FC/learn/6"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_mistake_that_time_shows_is_found(name):
    build, id, mode = WRONG[name]
    wrong = runner.outcome_of(Subject(get("numpy", "float64"), build), CHECKS[id], mode)
    assert wrong.state == "fail", (wrong.state, wrong.reason)
    right = runner.outcome_of(Subject(get("numpy", "float64")), CHECKS[id], mode)
    assert right.state == "pass", right.reason


@pytest.mark.parametrize("name", UNDER)
def test_random_numbers_that_do_not_change_are_found(name):
    under, id = UNDER[name]
    wrong = runner.outcome_of(Subject(get("numpy", "float64"), under=under), CHECKS[id], "compiled")
    assert wrong.state == "fail", (wrong.state, wrong.reason)


@pytest.mark.parametrize(
    "id", ["2/shadow/kolen-pollack/FC/sgd, scheduled", "1/backprop/small, adam, piecewise, on all/learn/5"]
)
def test_a_learning_rate_that_is_made_once_is_found(id):
    seen, right = [], optimizers.rate

    def first(eta, count, dtype):
        seen.append(right(eta, count, dtype))
        return seen[0]

    subject = Subject(get("numpy", "float64"), under=partial(replaced, right, first))
    wrong = runner.outcome_of(subject, CHECKS[id], "compiled")
    assert wrong.state == "fail" and len(seen) > 3, (wrong.state, wrong.reason)


def test_a_state_in_time_differs_in_its_counts_alone():
    setting = next(s for s in settings() if s.id == "kolen-pollack/small, squared error")
    state = setting.start(0)
    moved = in_time(state, Moment(7, 5, 3))
    assert (int(moved.t), int(moved.forward.memory["count"]), int(moved.feedback.memory["count"])) == (7, 5, 3)
    same = in_time(moved, Moment(int(state.t), 1, 1))
    assert all(np.array_equal(a, b) for a, b in zip(leaves(state), leaves(same), strict=True))


def test_the_seeds_of_a_case_differ_in_kind():
    case = next(s for s in settings() if s.id == "backprop/averages")
    batches = [posed(case, seed, 6)[1] for seed in range(2)]
    assert np.all(batches[0][0][0] == 0) and abs(np.mean(batches[0][0])) < 0.5 and np.mean(batches[1][0]) > 2.5
    assert len(np.unique(batches[1][1], axis=0)) == 1
