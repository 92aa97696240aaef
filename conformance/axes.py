"""What the axes of every array are, in our layout (channels last) and in that of channels-first libraries.

An axis has a name; "*" joins the names of what one axis runs through, the last one fastest:

    NHWC                NCHW
    N,H,W,C             N,C,H,W           images
    N,H*W*C             N,C*H*W           flattened images
    N,units             N,units           vectors
    O,I                 O,I               dense weights: to O, from I
    O,H*W*C             O,C*H*W           dense weights behind a flattened image
    kh,kw,C,O           O,C,kh,kw         filters
    H,W,kh*kw*C,O       H,W,O,C,kh,kw     locally connected weights

Weights move as `layouts` moves them, biases and states of optimizers with what they belong to.
"""

import re
from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ref_bioplaus.linear import Convolution, LinearMap, LocalConnection, Transpose
from ref_bioplaus.local import Flatten
from ref_bioplaus.network import Network

LAYOUTS = ("NHWC", "NCHW")


class Axes(NamedTuple):
    """The axes of one array in both layouts, and how long they are."""

    ours: str
    theirs: str
    sizes: Mapping[str, int]

    def named(self, layout: str) -> str:
        """The axes in a layout, as "N,H,W,C"; "" of a number."""
        return self.ours if layout == "NHWC" else self.theirs

    def shape(self, layout: str) -> tuple[int, ...]:
        """The shape in a layout."""
        axes = self.named(layout)
        return tuple(prod(self.sizes[name] for name in axis.split("*")) for axis in axes.split(",")) if axes else ()

    def to(self, layout: str, array: np.ndarray) -> np.ndarray:
        """An array of our layout in another."""
        return self.moved(array, self.ours, self.named(layout))

    def back(self, layout: str, array: np.ndarray) -> np.ndarray:
        """An array of a layout in ours. Raises ValueError where it has another size."""
        return self.moved(array, self.named(layout), self.ours)

    def moved(self, array: np.ndarray, source: str, target: str) -> np.ndarray:
        """An array whose axes are `source`, with axes `target`."""
        if source == target:
            return array
        have, want = (re.split(r"[,*]", axes) for axes in (source, target))
        apart = np.reshape(array, [self.sizes[name] for name in have])
        shape = self.shape("NHWC" if target == self.ours else "NCHW")
        return np.ascontiguousarray(np.reshape(np.transpose(apart, [have.index(name) for name in want]), shape))

    def behind(self, axis: str, size: int) -> "Axes":
        """With one more axis in front: "N" or "O"."""
        return Axes(f"{axis},{self.ours}", f"{axis},{self.theirs}", {axis: size, **self.sizes})


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
    """An image (H, W, C) or a vector."""
    if len(shape) == 3:
        return Axes("H,W,C", "C,H,W", dict(zip("HWC", shape, strict=True)))
    return Axes("units", "units", {"units": shape[0]})


def places(network: Network) -> tuple[Places, ...]:
    """Per layer."""
    known: list[Places] = []
    for layer in network.layers:
        arriving = known[layer.inputs[0]].out if layer.inputs else plain(layer.in_shape)
        now, operations = plain(layer.linear.out_shape) if layer.linear else arriving, []
        for operation in layer.local:
            operations.append(now)
            if isinstance(operation, Flatten) and "," in now.ours:
                now = Axes(now.ours.replace(",", "*"), now.theirs.replace(",", "*"), now.sizes)
            elif operation.out_shape != operation.in_shape:
                now = plain(operation.out_shape)
        known.append(Places(arriving, tuple(operations), now))
    return tuple(known)


def weights(linear: LinearMap, arriving: Axes) -> Axes:
    """Of W_l, and of everything in its layout: B_l, V_l, gradients, memories."""
    if isinstance(linear, Transpose):
        return weights(linear.linear, arriving)
    if isinstance(linear, Convolution | LocalConnection):
        sizes = dict(zip(("kh", "kw"), linear.window.kernel, strict=True))
        sizes |= {"C": linear.window.in_shape[2], "O": linear.channels}
        if isinstance(linear, Convolution):
            return Axes("kh,kw,C,O", "O,C,kh,kw", sizes)
        sizes |= dict(zip("HW", linear.window.out_size, strict=True))
        return Axes("H,W,kh*kw*C,O", "H,W,O,C,kh,kw", sizes)
    if "*" in arriving.ours:
        return arriving.behind("O", linear.out_shape[0])
    return Axes("O,I", "O,I", {"O": linear.out_shape[0], "I": linear.in_shape[0]})


def parameter(place: Axes, shape: tuple[int, ...]) -> Axes:
    """Of a parameter of what neurons do: one per unit, or one per channel."""
    if shape == place.shape("NHWC"):
        return place
    return Axes("C", "C", {"C": shape[0]})


def above(place: Axes) -> Axes:
    """Of an array's first axes where they are another layer's u."""
    if place.ours == "units":
        return Axes("O", "O", {"O": place.sizes["units"]})
    sizes = {f"O{name}": size for name, size in place.sizes.items()}
    ours, theirs = (re.sub(r"([HWC])", r"O\1", axes) for axes in (place.ours, place.theirs))
    return Axes(ours, theirs, sizes)


def axes_of(name: str, array: Any, network: Network, layers: tuple[Places, ...] | None = None) -> Axes:
    """The axes of a tensor of a step by its name, as in "state/forward/params/2/W" or "info/h/3".

    layers: places(network), where they are at hand. Raises ValueError for a name that no rule fits.
    """
    layers, shape = layers or places(network), tuple(array.shape)
    if shape == ():
        return NUMBER
    if name.endswith("key"):
        return Axes("words", "words", {"words": 2})
    if name == "info/loss":
        return Axes("N", "N", {"N": shape[0]})
    if name == "batch/y":
        return Axes("N,classes", "N,classes", dict(zip(("N", "classes"), shape, strict=True)))
    if name in ("batch/x", "info/output"):
        return layers[0 if name == "batch/x" else -1].out.behind("N", shape[0])
    if signal := re.fullmatch(r"info/(h|targets|delta)/(\d+)", name):
        place = layers[int(signal[2])]
        return (place.summed if signal[1] == "delta" else place.out).behind("N", shape[0])
    if found := re.search(r"/(\d+)/(W|B|D/(\d+)|(?:local/)?(\d+)/\w+)$", name):
        l, what = int(found[1]), found[2]
        if what == "W":
            return weights(network[l].linear, layers[l].arriving)
        if what == "B":
            return layers[l].out.behind("O", shape[0])
        if what.startswith("D/"):
            first, last = above(layers[int(found[3])].summed), layers[l].out
            return Axes(f"{first.ours},{last.ours}", f"{first.theirs},{last.theirs}", {**first.sizes, **last.sizes})
        inverse = "feedback" in name  # the inverse of layer l ends where layer l begins
        return parameter(layers[l].arriving if inverse else layers[l].operations[int(found[4])], shape)
    raise ValueError(f'no rule gives the axes of "{name}", which has shape {shape}: add one to axes_of')
