"""What the axes of every array of a step are, in our layout (channels last) and in that of channels-first libraries.

Images are N,H,W,C or N,C,H,W, flattened ones N,H*W*C or N,C*H*W, vectors N,units. Weights, biases and states of
optimizers have the axes that `layouts` says.
"""

import re
from typing import Any

from ref_bioplaus.inverses import mirrored_inverse
from ref_bioplaus.layouts import NUMBER, Axes, Places, axes_of_parameter, places
from ref_bioplaus.network import Network

LAYOUTS = ("NHWC", "NCHW")


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
    if signal := re.fullmatch(r"(inverse/\w+|mirror/response|random/mirror|random/corruption)/(\d+)", name):
        l = int(signal[2])
        there = {"inverse/response": layers[network.output_of(l)].out, "mirror/response": layers[l].summed}
        return there.get(signal[1], layers[l].arriving).behind("N", shape[0])
    if found := re.search(r"/((\d+)/(W|B|D/\d+|(?:local/)?\d+/\w+))$", name):
        l = int(found[2])
        inverse = mirrored_inverse(network, l) if "feedback" in name and network[l].linear else None
        return axes_of_parameter(network, layers, found[1], shape, inverse)
    raise ValueError(f'no rule gives the axes of "{name}", which has shape {shape}: add one to axes_of')
