"""A network's arrays as PyTorch has them: their axes, and the names of its parameters and statistics.

An axis has a name; "*" joins the names of what one axis runs through, the last one fastest:

    ours                PyTorch's
    H,W,C               C,H,W             images, and one number per unit of an image (`unit_bias`)
    H*W*C               C*H*W             flattened images, and one number per unit of such
    units, C            units, C          vectors, and one number per channel (`bias`, BatchNorm)
    O,I                 O,I               dense weights: to O, from I
    O,H*W*C             O,C*H*W           dense weights behind a flattened image
    kh,kw,C,O           O,C,kh,kw         filters, of one image or shared by several
    H,W,kh*kw*C,O       H,W,O,C,kh,kw     locally connected weights

B and V have the axes of W, a dense inverse's V those of (units below, units of l). What follows a flattened image has
its units in PyTorch's order until the next synapses; pixels as `rows` come in the order of channels last. A network
whose input is a vector takes the same vector there.

A name is a module and a tensor of it, as in "3.0.weight". Module l is layer l (0, the input, has none), and l.n its
n-th part, with parameters or not, as in nn.Sequential(nn.Conv2d, nn.BatchNorm2d, nn.ReLU); the bias right behind
synapses is theirs, but for one per unit behind a convolution. Where torchvision has the same network, names are
torchvision's, as in "layer1.0.conv1.weight": the model puts them into Layer.modules. So does rb.interop.from_torch with
those of the Module that it reads.

    W, B, V    weight        gamma    weight        mean    running_mean
    b, c       bias          beta     bias          var     running_var        and num_batches_tracked, (): always 0

What PyTorch has no name for keeps ours:

    l.B        B of direct feedback alignment, (O, *axes of h_l), with skips="exact" (O, *axes of x_l)
    l.D.k      D_{l,k} of dense feedback alignment, (*axes of u_k, *axes of h_l)

Our BatchNorm is PyTorch's of eps=epsilon and momentum=rate, whose defaults are the same (1e-5 and 0.1): both divide by
the batch's own variance in training, keep the unbiased one and divide by that in test. PyTorch also counts batches, and
reads the count only where momentum is None.
"""

import re
from collections.abc import Callable, Mapping
from math import prod
from typing import NamedTuple

from array_api_compat import array_namespace

from .linear import Convolution, Dense, LinearMap, LocalConnection, SharedConvolution, Transpose
from .local import Bias, Flatten
from .network import Concatenation, Layer, Network
from .tree import named_leaves
from .types import Array, LayerParams, Tree

Inverse = Callable[[Network, int], Layer]  # a form of target propagation's inverse, as in inverses.py


class Axes(NamedTuple):
    """The axes of one array in both layouts, and how long they are."""

    ours: str
    theirs: str
    sizes: Mapping[str, int]

    def named(self, layout: str) -> str:
        """The axes in a layout, "NHWC" for ours or "NCHW", as "N,H,W,C"; "" of a number."""
        return self.ours if layout == "NHWC" else self.theirs

    def shape(self, layout: str) -> tuple[int, ...]:
        """The shape in a layout."""
        axes = self.named(layout)
        return tuple(prod(self.sizes[name] for name in axis.split("*")) for axis in axes.split(",")) if axes else ()

    def to(self, layout: str, array: Array) -> Array:
        """An array of our layout in another."""
        return self.moved(array, self.ours, self.named(layout))

    def back(self, layout: str, array: Array) -> Array:
        """An array of a layout in ours. Raises ValueError where it has another size."""
        return self.moved(array, self.named(layout), self.ours)

    def moved(self, array: Array, source: str, target: str) -> Array:
        """An array whose axes are `source`, with axes `target`."""
        if source == target:
            return array
        xp, (have, want) = array_namespace(array), (re.split(r"[,*]", axes) for axes in (source, target))
        apart = xp.reshape(array, tuple(self.sizes[name] for name in have))
        shape = self.shape("NHWC" if target == self.ours else "NCHW")
        return xp.reshape(xp.permute_dims(apart, tuple(have.index(name) for name in want)), shape)

    def behind(self, axis: str, size: int) -> "Axes":
        """With one more axis in front: "N" or "O"."""
        return Axes(f"{axis},{self.ours}", f"{axis},{self.theirs}", {axis: size, **self.sizes})

    def flattened(self) -> "Axes":
        """All of it along one axis."""
        return Axes(self.ours.replace(",", "*"), self.theirs.replace(",", "*"), self.sizes)

    def before(self, last: "Axes") -> "Axes":
        """These axes, of another layer, and then `last`."""
        if self.ours == "units":
            first = Axes("O", "O", {"O": self.sizes["units"]})
        else:
            ours, theirs = (re.sub(r"([HWC])", r"O\1", axes) for axes in (self.ours, self.theirs))
            first = Axes(ours, theirs, {f"O{name}": size for name, size in self.sizes.items()})
        return Axes(f"{first.ours},{last.ours}", f"{first.theirs},{last.theirs}", {**first.sizes, **last.sizes})


NUMBER = Axes("", "", {})


class Places(NamedTuple):
    """One layer: the axes of what arrives at it, of what each of its local operations gets, and of its output."""

    arriving: Axes
    operations: tuple[Axes, ...]
    out: Axes

    @property
    def summed(self) -> Axes:
        """Of the pre-activation u_l, at which delta_l is taken."""
        return self.operations[0] if self.operations else self.out


def plain(shape: tuple[int, ...]) -> Axes:
    """An image (H, W, C) or a vector; other axes are numbered, and the same everywhere."""
    names = {3: "H,W,C", 1: "units"}.get(len(shape), ",".join(f"axis{i}" for i in range(len(shape))))
    return Axes(names, "C,H,W" if len(shape) == 3 else names, dict(zip(names.split(","), shape)))


def places(network: Network) -> tuple[Places, ...]:
    """Per layer. Raises ValueError where a flattened image is added to a vector that is none, in other order, or stands
    behind another."""
    known: list[Places] = []
    for l, layer in enumerate(network.layers):
        concat = isinstance(layer.join, Concatenation)
        arriving = plain(layer.in_shape) if concat or not layer.inputs else known[layer.inputs[0]].out
        if concat and any("*" in known[k].out.ours for k in layer.inputs):
            raise ValueError(
                f"layer {l} ({layer.name}) puts flattened images one behind the other, whose units PyTorch has in "
                "another order: flatten behind the join"
            )
        if not concat and any(known[k].out != arriving for k in layer.inputs):
            sources = " + ".join(f"{known[k].out.theirs} of layer {k}" for k in layer.inputs)
            raise ValueError(
                f"layer {l} ({layer.name}) adds units that PyTorch has in different orders ({sources}): flatten behind "
                "the join"
            )
        now, operations = plain(layer.linear.out_shape) if layer.linear else arriving, []
        for operation in layer.local:
            operations.append(now)
            if isinstance(operation, Flatten) and "," in now.ours:
                now = now.flattened()
            elif operation.out_shape != operation.in_shape:
                now = plain(operation.out_shape)
        known.append(Places(arriving, tuple(operations), now))
    return tuple(known)


def weights(linear: LinearMap, arriving: Axes) -> Axes:
    """Of W_l, and of everything in its layout: B_l, V_l, gradients, memories."""
    if isinstance(linear, Transpose):
        return weights(linear.linear, arriving)
    if isinstance(linear, Convolution | SharedConvolution | LocalConnection):
        sizes = dict(zip(("kh", "kw"), linear.window.kernel, strict=True))
        sizes |= {"C": linear.window.in_shape[2], "O": linear.channels}
        if not isinstance(linear, LocalConnection):
            return Axes("kh,kw,C,O", "O,C,kh,kw", sizes)
        sizes |= dict(zip("HW", linear.window.out_size, strict=True))
        return Axes("H,W,kh*kw*C,O", "H,W,O,C,kh,kw", sizes)
    if "*" in arriving.ours:
        return arriving.behind("O", linear.out_shape[0])
    return Axes("O,I", "O,I", {"O": linear.out_shape[0], "I": linear.in_shape[0]})


def parameter(place: Axes, shape: tuple[int, ...]) -> Axes:
    """Of a parameter of what neurons do: one per unit, one per channel, or something else."""
    channels = Axes("C", "C", {"C": place.sizes.get("C", 0)})
    return next((axes for axes in (place, channels, place.flattened()) if shape == axes.shape("NHWC")), plain(shape))


def axes_of_parameter(
    network: Network,
    known: tuple[Places, ...],
    path: str,
    shape: tuple[int, ...],
    inverse: Layer | None = None,
    consumer: bool = False,
) -> Axes:
    """Of one leaf of parameters or statistics by its path, as in "3/W", "3/local/0/b", "3/1/mean", "3/B", "3/D/5".

    inverse: the layer that V and c belong to. consumer: whether l of "l/B" is what direct feedback alignment's
    population feeds, as with skips="exact".
    """
    l, *place = path.split("/")
    layer, here = network[int(l)], known[int(l)]
    if place == ["W"]:
        linear = inverse.linear if inverse else layer.linear
        if inverse and isinstance(linear, Dense):  # from all units of layer l to all units below
            return here.arriving.flattened().before(here.out.flattened())
        return weights(linear, here.arriving)
    if place == ["B"]:
        return (here.arriving if consumer else here.out).behind("O", shape[0])
    if place[0] == "D":
        return known[int(place[1])].summed.before(here.out)
    return parameter(here.arriving if inverse else here.operations[int(place[-2])], shape)


NAMES = {"W": "weight", "b": "bias", "gamma": "weight", "beta": "bias", "mean": "running_mean", "var": "running_var"}
ORDER = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")  # of a module's tensors


class Tensor(NamedTuple):
    """One array in both forms: its path in {"params": ..., "stats": ...} ("" where ours has none), and its axes."""

    path: str
    axes: Axes


def tensors(network: Network, params: Tree, stats: Tree, inverse: Inverse) -> dict[str, Tensor]:
    """Every leaf of parameters and statistics by its name in PyTorch, in the order of a Module's state_dict().

    params: of the forward or the feedback path. stats: BatchNorm's, or None. inverse: that V and c are of.
    Raises ValueError for a leaf that does not fit the network.
    """
    for name, tree in (("params", params), ("stats", stats)):
        if tree is not None and len(tree) != len(network):
            raise ValueError(f"{name} has {len(tree)} layers, expected {len(network)} as the network has")
    first, last = params[network.weighted[0]], params[network.weighted[-1]]
    prepared = zip(params, network.layers[: network.weighted[0]])  # below the first synapses; they have no B, but may V
    forward = isinstance(first, LayerParams) and first.W is not None
    forward = forward and all(len(p.local) == len(layer.local) for p, layer in prepared)
    consumer = getattr(last, "B", None) is not None  # the last synapses feed no others
    known, rows = places(network), []
    for l, p in enumerate(params):
        V = None if forward or not isinstance(p, LayerParams) or not p.local else inverse(network, l)
        layer = V or network[l]
        for path, leaf in [*named_leaves(p, f"params/{l}"), *named_leaves(stats[l] if stats else None, f"stats/{l}")]:
            place, shape = path.partition("/")[2], tuple(leaf.shape)
            try:
                axes = axes_of_parameter(network, known, place, shape, V, consumer)
                fits = axes.shape("NHWC") == shape
            except (IndexError, AttributeError):  # no such operation, no synapses
                fits = False
            if not fits:
                raise ValueError(
                    f"{path} of shape {shape} does not fit layer {l} ({layer.name}): give the network that it is of, "
                    "and target propagation's inverse where it is not the mirrored one"
                )
            n, module, name = named(layer, l, place)
            rows.append((l, n, name, f"{module}.{name}", Tensor(path, axes)))
            if name == "running_var":
                count = "num_batches_tracked"
                rows.append((l, n, count, f"{module}.{count}", Tensor("", NUMBER)))
    rows.sort(key=lambda row: (*row[:2], ORDER.index(row[2]) if row[2] in ORDER else len(ORDER)))
    return {name: tensor for *_, name, tensor in rows}


def named(layer: Layer, l: int, place: str) -> tuple[int, str, str]:
    """Of a leaf of layer l, by its path as in `axes_of_parameter`: its module's number and name, and its own."""
    _, what, *rest = place.split("/")
    if what in ("B", "D"):
        return 0, str(l), ".".join((what, *rest))
    operation, name = (-1, "W") if what == "W" else (int(rest[-2] if what == "local" else what), rest[-1])
    follows = layer.local[0] if layer.linear and layer.local else None
    shared = isinstance(layer.linear, Convolution | SharedConvolution)  # in PyTorch a bias per channel, never per unit
    joined = isinstance(follows, Bias) and not (shared and len(follows.b_shape) > 1)
    n = max(0, operation + bool(layer.linear) - joined)
    return n, layer.modules[n] if n < len(layer.modules) else f"{l}.{n}", NAMES.get(name, name)
