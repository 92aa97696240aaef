"""Synapses that several images share are equal ones of each image, whose gradients are summed."""

import numpy as np
import pytest

import ref_bioplaus as rb
from ref_bioplaus import initializers, losses, metrics, optimizers
from ref_bioplaus.algorithms.dense_feedback_alignment import DenseFeedback
from ref_bioplaus.algorithms.direct_feedback_alignment import DirectFeedback
from ref_bioplaus.conformance.cases.networks import CLASSES, batch, detector, pyramid, randomised
from ref_bioplaus.kernels import PORTABLE
from ref_bioplaus.network import Layer
from ref_bioplaus.random import normal
from ref_bioplaus.registry import ROWS
from ref_bioplaus.registry import row as registered
from ref_bioplaus.tree import leaves, named_leaves, tree_map
from ref_bioplaus.types import LayerParams
from tests.conftest import get

IMAGE, KEY = (8, 6, 3), np.array([0, 5], np.int32)
PARTS = {  # of the shared layers: channels, kernel, stride, padding, and what follows
    "h": ((4, (3, 2)), {}, (rb.bias, rb.tanh)),
    "a": ((6, 3), {"stride": (2, 1), "padding": 1}, (rb.bias,)),
    "b": ((8, (3, 1)), {"stride": (2, 1), "padding": (1, 0)}, ()),
}
TAKING = [r for r in ROWS if not r.inverses]
DRAWING = {"brsf", "backprop-noise-delta", "backprop-noise-gradient", "backprop-alignment"}  # by a layer's number


def built(shared):
    """A network with the shared layers once or for each image, and {layer: (name, which image)}."""
    net, of = rb.Builder(IMAGE), {}

    def add(name, *parts, image=None, **options):
        l = net.add(*parts, **options)
        of[l] = name, image
        return l

    fine = add("first", rb.conv(5, 3), rb.bias, rb.tanh)
    coarse = add("second", rb.conv(5, (3, 2), stride=2), rb.batch_norm, rb.tanh, inputs=(fine,))
    larger = net.add(rb.upsample(), inputs=(coarse,))
    merged = net.add(rb.tanh, inputs=(fine, larger))
    images = [net.layers[k].out_shape for k in (merged, coarse)]
    if shared:
        below = [add(f"image {i}", rb.rows(), inputs=(k,)) for i, k in enumerate((merged, coarse))]
        sets = [(rb.shared_conv, tuple(below), None)]
    else:
        below = [add(f"image {i}", inputs=(k,)) for i, k in enumerate((merged, coarse))]
        sets = [(rb.conv, (k,), i) for i, k in enumerate(below)]
    ends = {"a": [], "b": []}
    for make, inputs, i in sets:

        def synapses(name, make=make):
            given, options, behind = PARTS[name]
            return make(*given, **({"images": images} if make is rb.shared_conv else {}), **options), *behind

        h = add("h", *synapses("h"), inputs=inputs, concat=0 if shared else None, image=i)
        for name, units in (("a", 3), ("b", 4)):
            ends[name].append(add(name, *synapses(name), rb.rows(units), inputs=(h,), image=i))
    sides = [net.add(inputs=tuple(ends[name]), concat=0) for name in ends]
    add("joined", rb.tanh, rb.flatten, inputs=tuple(sides), concat=1)
    add("last", rb.dense(CLASSES), rb.bias)
    return net.build("float64"), of


ONE, ONE_OF = built(True)
SEVERAL, SEVERAL_OF = built(False)
LAYER = {name: l for l, (name, _) in ONE_OF.items()}


def test_the_network_here_is_the_suites():
    assert ONE.parameter_count == pyramid().parameter_count == SEVERAL.parameter_count - sum(
        int(np.prod(shape)) for name, shape in ONE.parameter_shapes.items() if int(name.split("/")[0]) in
        [LAYER[name] for name in PARTS]
    )  # fmt: skip


def shape_of(network, l, synaptic):
    return network[l].linear.out_shape if synaptic else network[l].out_shape


def piece(array, axis, l, synaptic):
    """The part of an array along its two axes (pixels, channels) that is of layer l of the network of several, with
    that layer's axes in their place. synaptic: whether they are of u_l."""
    name, image = SEVERAL_OF[l]
    shape, whole = shape_of(SEVERAL, l, synaptic), shape_of(ONE, LAYER[name], synaptic)
    if shape == whole:
        return array
    first = 0
    if image:
        before = next(k for k, known in SEVERAL_OF.items() if known == (name, 0))
        first = int(np.prod(shape_of(SEVERAL, before, synaptic))) // whole[1]
    rows = int(np.prod(shape)) // whole[1]
    cut = np.take(array, np.arange(first, first + rows), axis=axis)
    return cut.reshape(*array.shape[:axis], *shape, *array.shape[axis + 2 :])


def for_each(l, found):
    """What layer l of the network of several keeps, given what the network of one does."""
    if l not in SEVERAL_OF:
        return type(found[0])(*((None, {}) if isinstance(found[0], DenseFeedback) else ()))
    mine = found[LAYER[SEVERAL_OF[l][0]]]
    if isinstance(mine, DirectFeedback):
        return mine if mine.B is None else DirectFeedback(piece(mine.B, 1, l, False))
    if not isinstance(mine, DenseFeedback):
        return mine._replace(local=mine.local[: len(SEVERAL[l].local)])
    D = {}
    for k in SEVERAL.downstream(l) if l in SEVERAL.populations else ():
        if l not in SEVERAL[k].inputs:
            whole = mine.D[LAYER[SEVERAL_OF[k][0]]]
            units = len(shape_of(ONE, LAYER[SEVERAL_OF[k][0]], True))
            D[k] = piece(piece(whole, units, l, False), 0, k, True)
    return DenseFeedback(mine.W, D)


def as_several(state):
    """The state of the network of one with every shared layer's parameters in each of its images' layers."""

    def params(path):
        if not path.params:
            return path
        old = path.params
        empty = tuple(
            LayerParams(None, ({},) * len(SEVERAL[l].local)) if isinstance(old[0], LayerParams) else None
            for l in range(len(SEVERAL))
        )
        new = [for_each(l, old) if l in SEVERAL_OF or e is None else e for l, e in enumerate(empty)]
        return path._replace(params=tuple(new))

    stats = tuple(
        state.stats[LAYER[SEVERAL_OF[l][0]]] if l in SEVERAL_OF else ({},) * len(SEVERAL[l].local)
        for l in range(len(SEVERAL))
    )
    stats = tuple(s[: len(SEVERAL[l].local)] for l, s in enumerate(stats))
    return state._replace(forward=params(state.forward), feedback=params(state.feedback), stats=stats)


def without_crossing(state):
    """DenseFA from one image's u to another image's pixels: connections that separate layers do not have."""
    if not isinstance(state.feedback.params[0] if state.feedback.params else None, DenseFeedback):
        return state
    kept = list(state.feedback.params)
    for image in (0, 1):
        l = LAYER[f"image {image}"]
        D = dict(kept[l].D)
        for k in D:
            name = ONE_OF[k][0]
            theirs = [m for m, known in SEVERAL_OF.items() if known[0] == name]
            if len(theirs) > 1:
                sizes = [int(np.prod(shape_of(SEVERAL, m, True))) // D[k].shape[1] for m in theirs]
                mine = np.repeat([image == 0, image == 1], sizes)
                D[k] = D[k] * mine.reshape(-1, 1, 1, 1)
        kept[l] = kept[l]._replace(D=D)
    return state._replace(feedback=state.feedback._replace(params=tuple(kept)))


def total(name, found):
    """The sum over the layers of the network of several that stand for one."""
    parts = [found[l] for l, known in SEVERAL_OF.items() if known[0] == name]
    return tree_map(lambda *those: sum(those), *parts)


@pytest.mark.parametrize("row", [r for r in TAKING if r.name not in DRAWING], ids=lambda r: r.name)
def test_shared_synapses_are_equal_ones_whose_gradients_are_summed(row):
    optimizer, x = optimizers.sgd(0.05), batch(ONE, 3)
    one, several = (row.build(net, losses.cross_entropy(), optimizer, None) for net in (ONE, SEVERAL))
    state = without_crossing(randomised(one.init(KEY)))
    mode = one.modes[row.learning[0] if row.learning else next(iter(one.modes))]
    other = several.modes[next(name for name, step in one.modes.items() if step is mode)]
    given = get("numpy").batch(*x)
    new, found = mode(state, given)
    _, wanted = other(as_several(state)._replace(forward=as_several(state).forward._replace(
        memory=several.init(KEY).forward.memory)), given)  # fmt: skip
    assert np.allclose(found.loss, wanted.loss, rtol=1e-12)
    for name, l in LAYER.items():
        if name in ("joined", "image 0", "image 1"):
            continue
        for a, b in zip(leaves(found.grads[l]), leaves(total(name, wanted.grads)), strict=True):
            assert np.allclose(a, b, rtol=1e-10, atol=1e-13) and np.any(a != 0.0), (name, l)
        if found.feedback_grads is not None and found.feedback_grads[l].W is not None:
            assert np.array_equal(found.feedback_grads[l].W, found.grads[l].W)
    moved = [l for l in ONE.weighted if not np.array_equal(new.forward.params[l].W, state.forward.params[l].W)]
    assert moved == list(ONE.weighted)


@pytest.mark.parametrize("row", TAKING, ids=lambda r: r.name)
def test_every_rule_keeps_a_shared_parameter_once(row):
    algorithm = row.build(pyramid(), losses.cross_entropy(), optimizers.adam(0.01), None)
    state = algorithm.init(KEY)
    net, given = pyramid(), get("numpy").batch(*batch(pyramid(), 1))
    names = {
        f"{l}/{name.rpartition('/')[2]}" for l, p in enumerate(state.forward.params) for name, _ in named_leaves(p)
    }
    assert names == set(net.parameter_shapes)
    assert sum(p.size for p in leaves(state.forward.params)) == net.parameter_count == 2426
    for l in net.feedback_layers:
        B = getattr(state.feedback.params[l], "W", None) if state.feedback.params else None
        assert B is None or B.shape == net[l].linear.weight_shape
    for mode in algorithm.modes.values():
        state, _ = mode(state, given)
    assert all(np.isfinite(leaf).all() for leaf in leaves(state.forward.params))


def test_kolen_pollack_brings_shared_feedback_weights_to_the_weights():
    algorithm = rb.algorithms.kolen_pollack(pyramid(), losses.cross_entropy(), optimizers.sgd(0.0, decay=0.25))
    state = algorithm.init(KEY)
    new, _ = algorithm.modes["learn"](state, get("numpy").batch(*batch(pyramid(), 2)))
    for l in pyramid().feedback_layers:
        before, after = (s.forward.params[l].W - s.feedback.params[l].W for s in (state, new))
        assert np.allclose(after, 0.75 * before, rtol=1e-12)
    assert [*metrics.matrix_angles(new.forward.params, new.feedback.params)] == [2, 7, 8, 9, 12]


def test_a_weight_mirror_averages_over_the_pixels_of_all_images():
    network = pyramid()
    algorithm = rb.algorithms.weight_mirror(
        network, losses.cross_entropy(), optimizers.sgd(0.1), eta_B=1.0, lambda_B=1.0
    )
    state = randomised(algorithm.init(KEY))
    new, _ = algorithm.modes["mirror"](state, get("numpy").batch(*batch(network, 2)))
    layer, W = network[7], state.forward.params[7].W
    noise = normal((state.key, "mirror", state.t, 7), (2, *layer.in_shape), np.float64, PORTABLE)
    b, sums, reads, start = state.forward.params[7].local[0]["b"], 0.0, 0.0, 0
    for height, width in ((8, 6), (4, 3)):
        plain = rb.conv(4, (3, 2)).build((height, width, 5))
        y = noise[:, start : start + height * width].reshape(2, height, width, 5)
        sums = sums + plain.correlate(y, np.tanh(plain.apply(W, y) + b))
        one = np.ones((1, height, width, 1))
        reads = reads + rb.conv(1, (3, 2)).build((height, width, 1)).correlate(one, one)
        start += height * width
    assert np.allclose(new.feedback.params[7].W, sums / reads / 2, rtol=1e-12)


def test_symmetric_outputs_are_all_layers_whose_synapses_feed_no_others():
    network = detector()
    assert network.outputs == (8, 9) and pyramid().outputs == (12,)
    B = initializers.feedback_params(network, (KEY, "feedback"), symmetric_output=True)
    assert [l for l, b in enumerate(B) if b.W is not None] == [2, 7]
    row = registered("xiao")
    algorithm = row.build(network, losses.detection(CLASSES - 1), optimizers.sgd(0.1), None)
    state = randomised(algorithm.init(KEY))
    for l in network.feedback_layers:
        found = row.feedback(network, state, l, **row.options)
        W = state.forward.params[l].W
        wanted = W if l in (8, 9) else np.sign(W) * (2.0 / network[l].linear.fan_out) ** 0.5
        assert np.array_equal(found, wanted)
    assert network[7].linear.fan_out == 3 * 2 * 4


def test_layers_that_were_made_before_sum_their_inputs():
    assert Layer((1,), None, (), (3,), (3,)).join == rb.network.SUM
