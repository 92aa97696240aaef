"""Every algorithm and modification by name: one row each. `list`, the demo, the tests and the README read these rows.

A new algorithm is one file in algorithms/ and one row here.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .. import algorithms, losses, modifications
from ..network import Network
from ..showing.words import nearest
from ..types import NO_PARAMS, Algorithm, LayerParams, Loss, Optimizer, State


class Row(NamedTuple):
    """One trainable combination: an algorithm with its options, and the wrappers around its optimizer."""

    name: str  # as on the command line
    label: str  # as in the papers' tables
    module: str  # file in algorithms/
    paper: str
    equations: str
    make: Callable[..., Algorithm]
    options: Mapping[str, Any] = {}
    wrappers: tuple[tuple[str, Mapping[str, Any]], ...] = ()  # (name in MODIFICATIONS, options), innermost first
    inverses: bool = False  # takes an inverse_optimizer as well
    auxiliary: bool = False  # its loss needs an auxiliary output

    def build(
        self, network: Network, loss: Loss, optimizer: Optimizer, inverse_optimizer: Optimizer | None = None, **options
    ) -> Algorithm:
        """The algorithm; `options` override the row's. Raises ValueError for a missing inverse_optimizer."""
        for name, wrapper_options in self.wrappers:
            optimizer = MODIFICATIONS[name](optimizer, **wrapper_options)
        if not self.inverses:
            return self.make(network, loss, optimizer, **(dict(self.options) | options))
        if inverse_optimizer is None:
            raise ValueError(f'"{self.name}" learns inverses: give it an inverse_optimizer as well')
        return self.make(network, loss, optimizer, inverse_optimizer, **(dict(self.options) | options))


MODIFICATIONS: dict[str, Callable[..., Optimizer]] = {
    "batch-manhattan": modifications.batch_manhattan,
    "noisy-gradients": modifications.noisy_gradients,
    "align-to-random": modifications.align_to_random,
    "constant-norm": modifications.constant_norm,
    "fixed-signs": modifications.fixed_signs,
}

MOSKOVITZ, AKROUT, BARTUNOV = "Moskovitz et al. 2018", "Akrout et al. 2019", "Bartunov et al. 2018"
LIAO, XIAO = "Liao et al. 2015", "Xiao et al. 2018"
ALTERNATING = {"schedule": algorithms.alternating}
E_I = ("fixed-signs", {"start": 100})
CONST: tuple[str, dict] = ("constant-norm", {})
BM: tuple[str, dict] = ("batch-manhattan", {})


def _ss(name, label, paper, equations, rule, *wrappers):
    return Row(
        name, label, "sign_symmetry", paper, equations, algorithms.sign_symmetry, {"rule": rule}, tuple(wrappers)
    )


def _tp(name, label, paper, equations, make, auxiliary=False, **options):
    return Row(name, label, "target_propagation", paper, equations, make, options, inverses=True, auxiliary=auxiliary)


def _bp(name, label, paper, equations, *wrappers, **options):
    return Row(name, label, "backprop", paper, equations, algorithms.backprop, options, tuple(wrappers))


ROWS = (
    _bp("backprop", "BP", AKROUT, "(1), (2), (4)"),
    _bp("backprop-noise-delta", "BP + Noise (δ)", MOSKOVITZ, "sec. 5.3", noise_on_delta=1.0),
    _bp("backprop-noise-gradient", "BP + Noise (dW)", MOSKOVITZ, "sec. 5.3", ("noisy-gradients", {})),
    _bp("backprop-alignment", "BP + Alignment", MOSKOVITZ, "(9)", ("align-to-random", {})),
    _bp("backprop-constant-norm", "BP Const.", MOSKOVITZ, "(10)", CONST),
    Row("feedback-alignment", "FA", "feedback_alignment", AKROUT, "(1), (3), (4)", algorithms.feedback_alignment),
    Row("dfa", "DFA", "direct_feedback_alignment", "Nøkland 2016", "(7)", algorithms.direct_feedback_alignment),
    Row("dense-fa", "DenseFA", "dense_feedback_alignment", MOSKOVITZ, "sec. 4", algorithms.dense_feedback_alignment),
    _ss("usf", "FA-uSF", LIAO, "B = sign(W)", algorithms.uniform),
    _ss("usf-batch-manhattan", "FA-uSF + BM", LIAO, "B = sign(W)", algorithms.uniform, BM),
    _ss("brsf", "FA-brSF", LIAO, "B = |M| sign(W)", algorithms.batch_random),
    _ss("frsf", "FA-uSF Init. (frSF)", MOSKOVITZ, "(4)", algorithms.initial_magnitude),
    _ss("frsf-ei", "FA-uSF Init. E/I", MOSKOVITZ, "(4)", algorithms.initial_magnitude, E_I),
    _ss("sn", "FA-uSF SN", MOSKOVITZ, "(5)", algorithms.strict_norm),
    _ss("usf-constant-norm", "FA-uSF Const.", MOSKOVITZ, "(4), (10)", algorithms.initial_magnitude, CONST),
    _ss("usf-constant-norm-ei", "FA-uSF Const. E/I", MOSKOVITZ, "(4), (10)", algorithms.initial_magnitude, E_I, CONST),
    _ss("xiao", "SS", XIAO, "B = sign(W) sqrt(2 / n_out)", algorithms.fan_out_scale)._replace(
        options={"rule": algorithms.fan_out_scale, "symmetric_output": True}
    ),
    Row("kolen-pollack", "KP", "kolen_pollack", AKROUT, "(3), (16), (17)", algorithms.kolen_pollack),
    Row("weight-mirror", "WM", "weight_mirror", AKROUT, "(3), (4), (6), (7)", algorithms.weight_mirror),
    Row(
        "weight-mirror-turns", "WM, layers in turns", "weight_mirror", AKROUT, "(3), (4), (6), (7), (12)",
        algorithms.weight_mirror, {"layers": "turns", "bias_blocking": True},
    ),
    _tp("tp", "TP", BARTUNOV, "sec. 2.1.2", algorithms.tp),
    _tp("dtp", "DTP, parallel", BARTUNOV, "(2)", algorithms.dtp),
    _tp("dtp-alternating", "DTP, alternating", BARTUNOV, "(2)", algorithms.dtp, **ALTERNATING),
    _tp("sdtp", "SDTP, parallel", BARTUNOV, "(2)", algorithms.sdtp),
    _tp("sdtp-alternating", "SDTP, alternating", BARTUNOV, "(2)", algorithms.sdtp, **ALTERNATING),
    _tp("ao-sdtp", "AO-SDTP, parallel", BARTUNOV, "(3)", algorithms.ao_sdtp, auxiliary=True),
    _tp("ao-sdtp-alternating", "AO-SDTP, alternating", BARTUNOV, "(3)", algorithms.ao_sdtp, auxiliary=True,
        **ALTERNATING),
)  # fmt: skip


def row(name: str) -> Row:
    """The row of a name. Raises KeyError with the nearest names for an unknown one.

    A label (KP) is near its row's name, and a file of algorithms/ (sign-symmetry) near those of its rows.
    """
    for candidate in ROWS:
        if candidate.name == name:
            return candidate
    word, module = name.lower(), name.lower().replace("-", "_")
    akin = [r.name for r in ROWS if word in r.label.lower().replace(",", "").split() or module == r.module]
    names = [r.name for r in ROWS]
    close = akin or nearest(name, names) or names
    raise KeyError(f'algorithm "{name}" is unknown: did you mean {", ".join(close)}?')


def task_loss(chosen: Row, loss: Loss, classes: int) -> Loss:
    """The loss a row learns: with an auxiliary output behind the first `classes` units where it needs one."""
    return losses.with_auxiliary_output(loss, classes) if chosen.auxiliary else loss


def feedback_weights(row: Row, network: Network, state: State):
    """The feedback path's parameters; of sign-symmetry, what its rule makes of W and of the magnitudes it keeps."""
    rule = row.options.get("rule")
    if rule is None:
        return state.feedback.params
    params, B_0 = state.forward.params, state.feedback.params or (NO_PARAMS,) * len(network)
    B = [NO_PARAMS] * len(network)
    for l in network.feedback_layers:
        W, address = params[l].W, (state.key, "sign_symmetry", state.t, l)
        symmetric = row.options.get("symmetric_output", False) and l == network.weighted[-1]
        B[l] = LayerParams(W if symmetric else rule(network[l].linear, W, B_0[l].W, address, network.kernels))
    return tuple(B)
