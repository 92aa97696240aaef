"""Every algorithm and modification by name: one row each. `list`, the demo, the tests and the README read these rows.

A new algorithm is one file in algorithms/, its line in algorithms/__init__.py and one row here. Whatever is known of an
algorithm outside of its file stands in its row; a row that says nothing is asked everything.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .. import algorithms, losses, modifications, naming, optimizers
from ..network import Network
from ..showing.words import nearest
from ..types import NO_PARAMS, Algorithm, Array, LayerParams, Loss, Optimizer, State
from .recipes import DEFAULT, DEFAULT_INVERSE, MIRROR, Recipe


class Asked(NamedTuple):
    """What the conformance suite and the benchmarks ask of a row."""

    variant: bool = False  # of an algorithm for which another row is asked everything: less is asked of it
    brief: bool = False  # a setting of another row: the suite's cases have it on one or two networks
    adam: bool = False  # the suite's cases learn by Adam, and not by gradient descent with momentum and decay
    smooth: bool = True  # a step is a smooth function of the state: a free run stays near the reference's
    noisy: bool = False  # a step draws numbers for each sample, so that the order of the batch matters
    large: bool = True  # the benchmarks time it on large networks, too


DECLARATIONS = {
    "B stays": "no step changes the feedback path, and an update hangs on B as the state holds it, not on t or the key",
    "B has W's layout": "feedback.params[l].W has the shape of W_l for every layer l with others that learn below it",
    "keeps no feedback weights": "the feedback path of the state is empty",
    "B moves as W does": "by gradient descent without decay B_l moves by what W_l moves by",
    "hidden errors do not read W above them": "other weights above that make the same of the batch change no update",
    "equals BP when B = W": "with B_l = W_l the update is backpropagation's, and with another B it is not",
    "linear in the error": "the update by a sum of errors is the sum of their updates",
    "the same for two losses": "losses that differ, but not in their gradient at the output, give one update",
    "needs no global error": "other targets change no update below the output layer",
    "B learns without targets": "other targets change nothing in the modes that leave the forward path alone",
    "moves without an error": "an error of exactly 0 moves W all the same (where it is not declared, it must not)",
}  # what a row may declare, and how `ref-bioplaus check` tests it: by changing what must not matter


class Row(NamedTuple):
    """One trainable combination: an algorithm with its options, and the wrappers around its optimizer."""

    name: str  # as on the command line
    label: str  # as in the papers' tables
    module: str  # file in algorithms/
    paper: str
    equations: str
    make: Callable[..., Algorithm]
    options: Mapping[str, Any] = {}
    wrappers: tuple[tuple[Any, Mapping[str, Any]], ...] = ()  # (name in MODIFICATIONS, options), innermost first
    inverses: bool = False  # takes an inverse_optimizer as well
    auxiliary: bool = False  # its loss needs an auxiliary output
    learning: tuple[str, ...] = ()  # the modes that assign errors and teach the forward weights; () for all
    feedback: Callable[..., Array] | None = None  # (network, state, l, **options) -> B_l; None: feedback.params[l].W
    recipes: Mapping[str, Recipe] = {}  # rates, by the demo's network: "fc", the usual ones, and "lc"
    family: str = ""  # title of the demo's picture that it is drawn in; "" for one of its file's name
    note: str = ""  # what a reader of the demo's table must know of the time of its steps
    asked: Asked = Asked()
    declares: tuple[str, ...] = ()  # what is true of it beyond what is asked of every rule: of DECLARATIONS

    def build(
        self, network: Network, loss: Loss, optimizer: Optimizer, inverse_optimizer: Optimizer | None = None,
        **options: Any,
    ) -> Algorithm:  # fmt: skip
        """The algorithm; `options` override the row's. Raises ValueError for a missing inverse_optimizer."""
        for name, wrapper_options in self.wrappers:
            optimizer = wrapper(name)(optimizer, **wrapper_options)
        if not self.inverses:
            return self.make(network, loss, optimizer, **(dict(self.options) | options))
        if inverse_optimizer is None:
            raise ValueError(f'"{self.name}" learns inverses: give it an inverse_optimizer as well')
        return self.make(network, loss, optimizer, inverse_optimizer, **(dict(self.options) | options))

    def learns(self, mode: str) -> bool:
        """Whether a mode assigns errors."""
        return not self.learning or mode in self.learning

    def recipe(self, network: str = "fc") -> Recipe:
        """The rates to learn with on one of the demo's networks, where nobody says otherwise."""
        return self.recipes.get(network, DEFAULT_INVERSE if self.inverses else DEFAULT)

    def taught(self, network: Network, loss: Loss, by: str = "fc") -> Algorithm:
        """The algorithm, with the optimizers and options of a recipe."""
        eta, momentum, decay, adam, inverse_eta, options = self.recipe(by)
        optimizer = optimizers.adam(eta, decay=decay) if adam else optimizers.sgd(eta, momentum, decay=decay)
        inverse = optimizers.adam(inverse_eta) if self.inverses else None
        return self.build(network, loss, optimizer, inverse, **options)

    @property
    def file(self) -> str:
        """Where it is written."""
        return naming.parts(self.name)[0] if naming.is_code(self.name) else f"algorithms/{self.module}.py"

    @property
    def short(self) -> str:
        """The label in a word, as benchmarks name it: "SN" of "FA-uSF SN", "DTP" of "DTP, parallel"."""
        return self.label.split(",")[0].split()[-1]


MODIFICATIONS: dict[str, Callable[..., Optimizer]] = {
    "batch-manhattan": modifications.batch_manhattan,
    "noisy-gradients": modifications.noisy_gradients,
    "align-to-random": modifications.align_to_random,
    "constant-norm": modifications.constant_norm,
    "fixed-signs": modifications.fixed_signs,
}


def wrapper(name: Any) -> Callable[..., Optimizer]:
    """The modification of a name; of one's own, which comes with its name or in its place, that itself."""
    return MODIFICATIONS[name] if name in MODIFICATIONS else getattr(name, "thing", name)


MOSKOVITZ, AKROUT, BARTUNOV = "Moskovitz et al. 2018", "Akrout et al. 2019", "Bartunov et al. 2018"
LIAO, XIAO = "Liao et al. 2015", "Xiao et al. 2018"
RANDOM, LEARNED = "Random feedback", "Learned feedback weights"  # families
ALTERNATING = {"schedule": algorithms.alternating}
E_I = ("fixed-signs", {"start": 100})
CONST: tuple[str, dict] = ("constant-norm", {})
BM: tuple[str, dict] = ("batch-manhattan", {})
LINEAR = ("linear in the error", "the same for two losses")
NONE_KEPT = ("keeps no feedback weights",)
NO_TRANSPORT = ("hidden errors do not read W above them",)
LIKE_W = ("B has W's layout",)
FA = (*LIKE_W, *NO_TRANSPORT, "equals BP when B = W", *LINEAR)  # whatever delivers its errors as FA does


def _bp(name, label, paper, equations, *wrappers, recipes=(), variant=True, **options):
    asked = Asked(variant, brief=variant, adam=True)
    noisy = "noise_on_delta" in options
    return Row(name, label, "backprop", paper, equations, algorithms.backprop, options, tuple(wrappers),
               recipes=dict(recipes), family="Backpropagation", asked=asked,
               declares=(*NONE_KEPT, *(LINEAR[1:] if noisy else LINEAR)))  # fmt: skip


def _ss(name, label, paper, equations, rule, *wrappers, recipes=(), variant=True, **options):
    return Row(name, label, "sign_symmetry", paper, equations, algorithms.sign_symmetry, {"rule": rule} | options,
               tuple(wrappers), feedback=algorithms.sign_feedback, recipes=dict(recipes), family="Sign-symmetry",
               asked=Asked(variant, smooth=False),
               declares=((LIKE_W if rule is algorithms.initial_magnitude else NONE_KEPT) + LINEAR))  # fmt: skip


def _wm(name, label, equations, variant=False, **options):
    recipe = Recipe(0.05, options=MIRROR)
    return Row(name, label, "weight_mirror", AKROUT, equations, algorithms.weight_mirror, options,
               learning=("engaged",), recipes={"fc": recipe} | ({} if variant else {"lc": recipe}), family=LEARNED,
               note="a mirror step follows every step, inside its time",
               asked=Asked(variant, brief=variant, adam=True),
               declares=(*FA, "B learns without targets"))  # fmt: skip


def _tp(name, label, paper, equations, make, recipes=(), variant=False, auxiliary=False, declares=(), **options):
    return Row(name, label, "target_propagation", paper, equations, make, options, inverses=True, auxiliary=auxiliary,
               learning=("parallel", "forward"), recipes=dict(recipes), family="Target propagation",
               asked=Asked(variant, "schedule" in options, adam=not auxiliary, noisy=True, large=False),
               declares=("B learns without targets", *(NO_TRANSPORT * (make is not algorithms.dtp)), *declares)
               )  # fmt: skip


ROWS = (
    _bp("backprop", "BP", AKROUT, "(1), (2), (4)", recipes={"lc": DEFAULT}, variant=False),
    _bp("backprop-noise-delta", "BP + Noise (δ)", MOSKOVITZ, "sec. 5.3", recipes={"fc": Recipe(0.02)},
        noise_on_delta=1.0),
    _bp("backprop-noise-gradient", "BP + Noise (dW)", MOSKOVITZ, "sec. 5.3", ("noisy-gradients", {})),
    _bp("backprop-alignment", "BP + Alignment", MOSKOVITZ, "(9)", ("align-to-random", {})),
    _bp("backprop-constant-norm", "BP Const.", MOSKOVITZ, "(10)", CONST),
    Row("feedback-alignment", "FA", "feedback_alignment", AKROUT, "(1), (3), (4)", algorithms.feedback_alignment,
        recipes={"lc": DEFAULT}, family=RANDOM, declares=("B stays", *FA)),
    Row("dfa", "DFA", "direct_feedback_alignment", "Nøkland 2016", "(7)", algorithms.direct_feedback_alignment,
        family=RANDOM, asked=Asked(adam=True), declares=("B stays", *NO_TRANSPORT, *LINEAR)),
    Row("dense-fa", "DenseFA", "dense_feedback_alignment", MOSKOVITZ, "sec. 4", algorithms.dense_feedback_alignment,
        family=RANDOM, asked=Asked(adam=True, large=False), declares=("B stays", *LIKE_W, *NO_TRANSPORT, *LINEAR)),
    _ss("usf", "FA-uSF", LIAO, "B = sign(W)", algorithms.uniform, recipes={"fc": Recipe(0.01)}),
    _ss("usf-batch-manhattan", "FA-uSF + BM", LIAO, "B = sign(W)", algorithms.uniform, BM,
        recipes={"fc": Recipe(1e-3, momentum=0.5)}),
    _ss("brsf", "FA-brSF", LIAO, "B = |M| sign(W)", algorithms.batch_random, recipes={"fc": Recipe(0.02)}),
    _ss("frsf", "FA-uSF Init. (frSF)", MOSKOVITZ, "(4)", algorithms.initial_magnitude),
    _ss("frsf-ei", "FA-uSF Init. E/I", MOSKOVITZ, "(4)", algorithms.initial_magnitude, E_I),
    _ss("sn", "FA-uSF SN", MOSKOVITZ, "(5)", algorithms.strict_norm,
        recipes={"fc": Recipe(0.02), "lc": DEFAULT}, variant=False),
    _ss("usf-constant-norm", "FA-uSF Const.", MOSKOVITZ, "(4), (10)", algorithms.initial_magnitude, CONST),
    _ss("usf-constant-norm-ei", "FA-uSF Const. E/I", MOSKOVITZ, "(4), (10)", algorithms.initial_magnitude, E_I, CONST),
    _ss("xiao", "SS", XIAO, "B = sign(W) sqrt(2 / n_out)", algorithms.fan_out_scale, symmetric_output=True),
    Row("kolen-pollack", "KP", "kolen_pollack", AKROUT, "(3), (16), (17)", algorithms.kolen_pollack,
        recipes={"fc": Recipe(0.05, decay=5e-3), "lc": Recipe(0.2, decay=1e-2)}, family=LEARNED,
        declares=(*FA, "B moves as W does")),
    _wm("weight-mirror", "WM", "(3), (4), (6), (7)"),
    _wm("weight-mirror-turns", "WM, layers in turns", "(3), (4), (6), (7), (12)", variant=True, layers="turns",
        bias_blocking=True),
    _tp("tp", "TP", BARTUNOV, "sec. 2.1.2", algorithms.tp,
        recipes={"fc": Recipe(4e-3, adam=True, inverse_eta=2e-3)}, variant=True, declares=("moves without an error",)),
    _tp("dtp", "DTP, parallel", BARTUNOV, "(2)", algorithms.dtp,
        recipes={"lc": Recipe(4e-3, adam=True, inverse_eta=4e-3)}),
    _tp("dtp-alternating", "DTP, alternating", BARTUNOV, "(2)", algorithms.dtp, variant=True, **ALTERNATING),
    _tp("sdtp", "SDTP, parallel", BARTUNOV, "(2)", algorithms.sdtp),
    _tp("sdtp-alternating", "SDTP, alternating", BARTUNOV, "(2)", algorithms.sdtp, variant=True, **ALTERNATING),
    _tp("ao-sdtp", "AO-SDTP, parallel", BARTUNOV, "(3)", algorithms.ao_sdtp, variant=True, auxiliary=True),
    _tp("ao-sdtp-alternating", "AO-SDTP, alternating", BARTUNOV, "(3)", algorithms.ao_sdtp, variant=True,
        auxiliary=True, **ALTERNATING),
)  # fmt: skip
BACKPROP = ROWS[0]  # against which the others are measured


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
    """The feedback path's parameters, or what the row's algorithm makes of them and of W in this step."""
    if row.feedback is None:
        return state.feedback.params
    B = {l: LayerParams(row.feedback(network, state, l, **row.options)) for l in network.feedback_layers}
    return tuple(B.get(l, NO_PARAMS) for l in range(len(network)))
