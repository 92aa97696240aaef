"""CUDA graphs without a GPU: a stand-in makes the recorded calls again, on the graph's own memory, at every replay."""

import numpy as np
import pytest

from ref_bioplaus import algorithms, backends, losses
from ref_bioplaus.conformance.cases.networks import batch
from ref_bioplaus.linear import dense
from ref_bioplaus.local import bias, dropout, relu, tanh
from ref_bioplaus.modifications import fixed_signs
from ref_bioplaus.network import chain
from ref_bioplaus.optimizers import adam, sgd
from ref_bioplaus.tree import leaves, tree_map
from tests.helpers import Rerun

torch = pytest.importorskip("torch")

from ref_bioplaus.backends.torch_.capture import Captured  # noqa: E402
from ref_bioplaus.backends.torch_.trees import flattened, reader, writer  # noqa: E402

NETWORK = chain((7,), (dense(5), bias, tanh, dropout(0.25)), (dense(3), bias, relu), (dense(4), bias))
ROWS = {
    "BP, Adam, dropout": lambda n: algorithms.backprop(n, losses.cross_entropy(), adam(0.01)),
    "BP, Adam, decay": lambda n: algorithms.backprop(n, losses.cross_entropy(), adam(0.01, decay=0.1)),
    "WM": lambda n: algorithms.weight_mirror(n, losses.cross_entropy(), sgd(0.1, 0.9)),
    "E/I": lambda n: algorithms.sign_symmetry(n, losses.cross_entropy(), fixed_signs(sgd(0.1), start=2)),
    "DTP": lambda n: algorithms.dtp(n, losses.cross_entropy(), adam(0.01), adam(0.01)),
}


class Refuse(Rerun):
    """Cannot record."""

    def record(self, run):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")


class Scribbling(Rerun):
    """Graphs in one pool, each of whose replays leaves nothing of what the others have left in it."""

    def __init__(self):
        super().__init__()
        self.left = []  # by graph, its results that lie in the pool, not where it reads its arguments

    def record(self, run):
        replay, results = super().record(run)
        mine = [a for a, b in zip(results, run(), strict=True) if a is not b]
        self.left.append(mine)

        def replaying():
            for other in self.left:
                for place in other if other is not mine else ():
                    place.fill_(float("nan") if place.is_floating_point() else 77)
            replay()

        return replaying, results


class nothing:
    """A context that does nothing."""

    def __enter__(self):
        pass

    def __exit__(self, *error):
        pass


def compiled(name, graphs):
    """A backend whose steps are recorded by `graphs`, an algorithm, its compiled modes and a start."""
    backend = backends.get("torch", "cpu", "float32", kernels="native")
    backend.graphs = lambda: graphs
    algorithm = ROWS[name](NETWORK.with_kernels(backend.kernels))
    keep = ("loss", "output")
    modes = {m: backend.compile(step, donate=True, keep=keep) for m, step in algorithm.modes.items()}
    return backend, algorithm, modes, algorithm.init(backend.key(3))


def host(tree):
    return [leaf.numpy().copy() for leaf in leaves(tree)]


def same(a, b):
    return all(map(np.array_equal, host(a), host(b)))


@pytest.mark.parametrize("name", ROWS)
def test_replayed_steps_are_the_compiled_ones_bit_by_bit(name):
    """Several steps and modes, a last partial batch, and all losses kept until the end."""
    graphs, kept = Rerun(), []
    backend, algorithm, plain, s0 = compiled(name, None)
    _, _, replayed, s1 = compiled(name, graphs)
    order = [mode for epoch in range(2) for mode in algorithm.schedule(epoch, 0)]
    modes = list(dict.fromkeys([*order, *algorithm.modes]))[:2]
    for i, n in enumerate((6, 6, 2, 6, 2)):
        given = backend.batch(*batch(NETWORK, n, i))
        for mode in modes:
            before = host((s1.key, given))
            (s0, i0), (s1, i1) = plain[mode](s0, given), replayed[mode](s1, given)
            assert same(s0, s1)
            assert all(map(np.array_equal, before, host((s1.key, given))))
            kept.append((i1, host(i0)))
    assert all(all(map(np.array_equal, host(info), wanted)) for info, wanted in kept)
    assert graphs.recorded == 2 * len(modes)
    assert graphs.replays == 5 * len(modes)


def test_a_state_that_comes_back_is_not_copied_and_a_loaded_one_is():
    graphs = Rerun()
    backend, _, plain, s0 = compiled("BP, Adam, dropout", None)
    _, _, replayed, s1 = compiled("BP, Adam, dropout", graphs)
    given = backend.batch(*batch(NETWORK, 6))
    checkpoint = tree_map(torch.clone, s0)
    s1, _ = replayed["learn"](s1, given)
    place = s1.forward.params[1].W.data_ptr()
    s1, _ = replayed["learn"](s1, given)
    assert s1.forward.params[1].W.data_ptr() == place
    s1, _ = replayed["learn"](tree_map(torch.clone, checkpoint), given)  # the one before is held until it returns
    s1, _ = replayed["learn"](s1, given)
    for _ in range(2):
        s0, _ = plain["learn"](s0, given)
    assert same(s0, s1)
    s1 = None
    s1, _ = replayed["learn"](checkpoint, given)
    assert s1.forward.params[1].W.data_ptr() == place
    s1, _ = replayed["learn"](s1, given)
    assert same(s0, s1)
    assert graphs.recorded == 1


def test_two_states_of_one_step_do_not_disturb_each_other():
    """The second one comes while the first lies in the graph's memory, as a whole or as a view of a part of it."""
    graphs = Rerun()
    backend, algorithm, plain, _ = compiled("BP, Adam, decay", None)
    _, _, replayed, _ = compiled("BP, Adam, decay", graphs)
    given = backend.batch(*batch(NETWORK, 6))
    starts = [algorithm.init(backend.key(seed)) for seed in (1, 2)]
    expected = [plain["learn"](tree_map(torch.clone, s), given)[0] for s in starts]
    a, _ = replayed["learn"](tree_map(torch.clone, starts[0]), given)
    b, _ = replayed["learn"](tree_map(torch.clone, starts[1]), given)
    assert same(a, expected[0])
    assert same(b, expected[1])
    assert graphs.replays == 1
    part, wanted = a.forward.params[2].W[1:], expected[0].forward.params[2].W[1:].clone()
    a = None
    c, _ = replayed["learn"](tree_map(torch.clone, starts[1]), given)
    assert torch.equal(part, wanted)
    part = None
    c, _ = replayed["learn"](tree_map(torch.clone, starts[1]), given)
    assert same(c, expected[1])
    assert graphs.replays == 2


@pytest.mark.parametrize("name", ["BP, Adam, decay", "WM"])
def test_results_are_the_callers_whatever_graphs_of_the_same_pool_do(name):
    """Modes, shapes and a stack in turns: nothing that a caller has lies where a graph writes its results."""
    graphs, kept = Scribbling(), []
    backend, algorithm, plain, s0 = compiled(name, None)
    replaying, _, replayed, s1 = compiled(name, graphs)
    modes = list(algorithm.modes)[:2]
    stacked = replaying.compile(algorithm.modes[modes[0]], donate=True, keep=("loss",), steps=2)
    for i, n in enumerate((6, 2, 6, 2)):
        given = backend.batch(*batch(NETWORK, n, i))
        for mode in modes:
            (s0, _), (s1, info) = plain[mode](s0, given), replayed[mode](s1, given)
            kept.append((info, host(info)))
        pair = backend.batch(*map(np.stack, zip(*(batch(NETWORK, 6, i + j) for j in (5, 9)), strict=True)))
        for j in (0, 1):
            s0, _ = plain[modes[0]](s0, backend.batch(pair.x[j].numpy(), pair.y[j].numpy()))
        s1, info = stacked(s1, pair)
        kept += [(info, host(info)), (given, host(given)), (pair, host(pair))]
        places = {t.data_ptr() for results in graphs.left for t in results}
        assert not places & {t.data_ptr() for tree, _ in kept for t in leaves(tree)}
        assert not places & {t.data_ptr() for t in leaves(s1)}
    assert same(s0, s1)
    assert all(all(map(np.array_equal, host(tree), then)) for tree, then in kept)
    assert graphs.recorded == 2 * len(modes) + 1
    assert graphs.replays >= 8


@pytest.mark.parametrize("name", ["BP, Adam, dropout", "DTP"])
def test_a_stack_is_one_graph_of_its_steps(name):
    """A shorter stack is a graph of its own; what was lent, given and got stays what it was."""
    graphs, kept = Rerun(), []
    backend, algorithm, plain, s0 = compiled(name, None)
    replaying, _, _, s1 = compiled(name, graphs)
    for mode in list(algorithm.modes)[:1]:
        stacked = replaying.compile(algorithm.modes[mode], donate=True, keep=("loss", "output"), steps=3)
        before = graphs.recorded, graphs.replays
        for i, k in enumerate((3, 2, 3, 3)):
            given = [batch(NETWORK, 4, 10 * i + j) for j in range(k)]
            infos = []
            for one in given:
                s0, info = plain[mode](s0, backend.batch(*one))
                infos.append(host(info))
            stack = replaying.batch(*map(np.stack, zip(*given, strict=True)))
            if i == 1:  # somebody looks at the graph's memory, until the third stack has been
                held = s1.forward.params[1].W[1:]
                then = host(held)
            kept.append((stack, host(stack)))
            s1, info = stacked(s1, stack)
            assert same(s0, s1)
            assert all(np.array_equal(a, np.stack(b)) for a, b in zip(host(info), zip(*infos), strict=True))
            kept.append((info, host(info)))
            if i == 2:
                assert all(map(np.array_equal, host(held), then))
                held = None
        assert graphs.recorded - before[0] == 2
        assert graphs.replays - before[1] == 3
        assert len(stacked.run.lines) == 2
    assert all(all(map(np.array_equal, host(tree), then)) for tree, then in kept)


def test_tensors_that_change_places_keep_their_values():
    def step(state, x):
        return [state[0].add(x), state[1].mul(2.0)], x.sum()

    replayed = Captured(step, nothing, True, Rerun())
    (p, q), _ = replayed([torch.ones(3), torch.full((3,), 5.0)], torch.ones(3))
    (q, p), _ = replayed([q, p], torch.ones(3))
    assert q.tolist() == [11.0] * 3
    assert p.tolist() == [4.0] * 3


def test_what_cannot_be_recorded_runs_call_by_call_and_says_why():
    backend, _, plain, s0 = compiled("E/I", None)
    _, _, refused, s1 = compiled("E/I", Refuse())
    given = backend.batch(*batch(NETWORK, 6))
    with pytest.warns(UserWarning, match="not as a CUDA graph: operation not permitted when stream is capturing$"):
        s1, _ = refused["learn"](s1, given)
    (line,) = refused["learn"].run.lines
    assert line.reason == "operation not permitted when stream is capturing"
    for _ in range(2):
        s0, _ = plain["learn"](s0, given)
    s1, _ = refused["learn"](s1, given)
    assert same(s0, s1)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (lambda x: x[x > 0.5].sum(), "index.Tensor with a mask"),
        (lambda x: torch.nonzero(x).sum(), "nonzero"),
        (lambda x: (x.clone().index_put_((x > 0.5,), torch.arange(2.0)), x)[0], "index_put_.default with a mask"),
    ],
)
def test_steps_that_wait_for_the_gpu_are_not_recorded(step, reason):
    graphs = Rerun()
    x = torch.tensor([0.0, 1.0, 2.0])
    with pytest.warns(UserWarning, match=reason):
        found = Captured(step, nothing, False, graphs)(x)
    assert torch.equal(found, step(x))
    assert graphs.recorded == 0


WAYS = {  # to keep a tensor's memory in sight
    "itself": lambda t: t, "a view": lambda t: t[1:], "detached": lambda t: t.detach(),
    "a view of a view": lambda t: t.mT[1:][:, 1:], "numpy": lambda t: t.numpy(),
    "dlpack": lambda t: np.from_dlpack(t), "storage": lambda t: torch.tensor([]).set_(t.untyped_storage()),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_what_somebody_sees_of_the_graphs_memory_is_not_written_over(way):
    """While the state that it belongs to goes on, and after that state is gone and another one comes."""
    graphs = Rerun()
    backend, algorithm, plain, s0 = compiled("BP, Adam, decay", None)
    _, _, replayed, s1 = compiled("BP, Adam, decay", graphs)
    given = backend.batch(*batch(NETWORK, 6))
    s1, _ = replayed["learn"](s1, given)
    kept = WAYS[way](s1.forward.params[1].W)
    before = np.array(kept.tolist())
    for _ in range(2):
        s1, _ = replayed["learn"](s1, given)
    for _ in range(3):
        s0, _ = plain["learn"](s0, given)
    assert same(s0, s1)
    s1, other = None, algorithm.init(backend.key(9))
    expected, _ = plain["learn"](tree_map(torch.clone, other), given)
    found, _ = replayed["learn"](other, given)
    assert same(found, expected)
    assert np.array_equal(before, np.array(kept.tolist()))
    assert graphs.replays == 1


def test_trees_that_differ_are_not_read():
    a, b = torch.zeros(2, 3), torch.zeros(3, dtype=torch.int32)
    tree = ({"b": b, "a": a}, [a, None], (), NETWORK.L and (b,))
    read = reader(tree)
    assert [t is u for t, u in zip(read(tree), (a, b, a, b), strict=True)] == [True] * 4
    assert flattened(tree) == read(tree)
    for other in (
        ({"b": b, "c": a}, [a, None], (), (b,)), ({"b": b}, [a, None], (), (b,)), ({"b": b, "a": a}, [a], (), (b,)),
        ({"b": b, "a": a}, (a, None), (), (b,)), ({"b": b, "a": a}, [a, a], (), (b,)),
        ({"b": b, "a": a}, [None, None], (), (b,)), ({"b": b, "a": a}, [3, None], (), (b,)),
        ({"b": b, "a": a.mT}, [a, None], (), (b,)), ({"b": b, "a": a.to(torch.float64)}, [a, None], (), (b,)),
        ({"b": b, "a": torch.zeros(3, 2).mT}, [a, None], (), (b,)), ({"b": b, "a": a}, [a, None], (b,), (b,)),
    ):  # fmt: skip
        assert read(other) is None
    assert writer(({"z": ..., "a": ...}, [...], None, ()))([1, 2, 3]) == ({"a": 1, "z": 2}, [3], None, ())
