"""What is judged by what: every name that a subject's numbers can hang on, and a check that fails where it is wrong.

    python -m ref_bioplaus.conformance.proofs.coverage.table conformance/README.md      writes the table anew

Names are found by looking at the code: kernels and their arguments, a backend's functions and their options
(brought.py), options of rules, optimizers, modifications, layers and all else (cases/options.py). A test puts a fault
into exactly that name and has the check fail; a name without a line fails the test.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ref_bioplaus.conformance.cases import options
from ref_bioplaus.conformance.checks.outcomes import Subject
from ref_bioplaus.conformance.proofs.coverage import brought
from ref_bioplaus.conformance.proofs.faults import option_ignored
from ref_bioplaus.machine.files import write_whole


class Line(NamedTuple):
    """A name, and what judges it."""

    name: str
    check: str  # the id of a check that fails; "" where none does
    why: str = ""  # why nothing judges it


def of(kernel: str, check: str, **options: str) -> dict[str, str]:
    """A kernel's check, and those of its options; a window's sides as window_stride."""
    return {kernel: check} | {f"{kernel}.{name.replace('_', '.')}": other for name, other in options.items()}


CONV, LOCAL = "0/synapses/conv(4, 2x3, stride 2x2)", "0/synapses/locally_connected(4, 2x3, stride 2x1)"
POOL, FACES = "0/max_pool/3x2 over the border", ("apply", "transport", "correlate")
WINDOWS = {"window_kernel": CONV, "window_stride": "0/synapses/conv(2, 3x3, stride 1x3)", "window_padding": CONV}
POOLED = {"window_kernel": POOL, "window_stride": POOL, "window_padding": "0/max_pool/uneven"}
SGD, ADAM = "0/optimizers/sgd", "0/optimizers/adam"
KERNELS: dict[str, str] = {
    **{f"dense_{face}": "0/synapses/dense(4)" for face in FACES},
    **{name: check for face in FACES for name, check in of(f"conv_{face}", CONV, **WINDOWS).items()},
    **{
        name: check
        for face in FACES
        for name, check in of(f"local_{face}", LOCAL, **dict.fromkeys(WINDOWS, LOCAL)).items()
    },
    **of("max_pool", POOL, **POOLED),
    **of("max_pool_backward", POOL, **POOLED),
    **of("batch_norm", "0/batch_norm/images", epsilon="0/batch_norm/images/epsilon"),
    **of("batch_norm_backward", "0/batch_norm/images"),
    **of("activation", "0/nonlinearity/tanh", nonlinearity="0/nonlinearity/sigmoid"),
    **of("activation_backward", "0/nonlinearity/tanh", nonlinearity="0/nonlinearity/sigmoid"),
    **of("channel_sum", "0/bias/add and channel_sum", axes="0/bias/add and channel_sum"),
    **of("sgd", SGD, keep=SGD, eta=SGD, momentum=SGD, nesterov=SGD),
    **of("adam", ADAM, keep=ADAM, eta=ADAM, correction=ADAM, b1=ADAM, b2=ADAM, epsilon=ADAM, form=ADAM),
    **of("random_words", "0/random/words", start="0/random/far", n="0/random/long"),
    **of("normal_table", "0/random/normal, long"),
    **of("each", "0/random/each", starts="0/random/each"),
    **of("threefry", "0/random/known answers"),
    **of("add", "0/bias/add and channel_sum"),
}
KEEP, SEQUENCES, MANNERS = "0/backend/keep", "0/backend/sequences", "3/manners/backprop/FC/learn"
STACKS = "0/backend/stacks"
BACKEND: dict[str, str] = {
    "asarray": "0/backend/asarray",
    "asarray.dtype": "0/backend/asarray",
    "to_numpy": "0/elementwise/tanh",
    "batch": "0/backend/batch",
    "key": "0/backend/key",
    "target_dtype": "0/backend/asarray",
    "compile": SEQUENCES,
    "compile.donate": MANNERS,
    "compile.keep": KEEP,
    "compile.steps": STACKS,
    "compiles": MANNERS,
    "eager": "0/elementwise/tanh",
    "wrap": "0/backend/functions",
    "wrap_donating": SEQUENCES,
    "wrap_stacked": STACKS,
    "probe": "0/products/precision",
    "export_params": "0/backend/export/kolen-pollack/conv, forward",
    "export_params.stats": "0/backend/export/kolen-pollack/ResNet, BN after ReLU, forward",
    "export_params.inverse": "0/backend/export/dtp/LC, feedback, dense_inverse",
    "import_params": "0/backend/export/kolen-pollack/conv, forward",
    "import_params.stats": "0/backend/export/kolen-pollack/ResNet, BN after ReLU, forward",
    "import_params.inverse": "0/backend/export/dtp/LC, feedback, dense_inverse",
}
UNJUDGED: dict[str, str] = {  # of kernels and backends
    "kernels.mean_of_product": "where a mean is divided: either way the numbers are right",
    "kernels.drawn": "how many numbers are made at a time: any number of them gives the same",
    "backend.at_once": "how many steps `train` runs by one call: any number of them gives the same",
    "backend.be_deterministic": "a wish for the same bits every time; that they are is asked of every step (level 3)",
    "backend.check": "a sentence for whoever begins with a wrong precision, which `probe` finds",
    "backend.dtypes": "a list of words; what is computed in each is judged when it is asked for",
    "backend.share_programs": "keeps what was compiled, and changes no number",
    "backend.forget_peak": "begins a new count of memory, and changes no number",
    "backend.free_bytes": "says how much memory is free, and changes no number",
    "backend.name": "a word to show, which changes no number",
    "backend.native_kernels": "what it gives is judged by --kernels native, kernel by kernel",
    "backend.on_gpu": "says where it computes, and changes no number",
    "backend.ownership": "its own tests ask who holds an array; what a donating step gives is judged",
    "backend.peak_bytes": "says how much memory was held, and changes no number",
    "backend.synchronize": "waits until a device is done, for whoever measures time",
    "backend.versions": "words to show, which change no number",
}


def judges() -> dict[str, str]:
    """The check of every name that is judged, as "kernels.conv_apply", "backend.key", "optimizers.sgd.momentum"."""
    return (
        {f"kernels.{name}": check for name, check in KERNELS.items()}
        | {f"backend.{name}": check for name, check in BACKEND.items()}
        | {name: ignored.check for name, ignored in options.IGNORED.items()}
    )


def unjudged() -> dict[str, str]:
    """Why nothing judges a name."""
    return UNJUDGED | options.UNJUDGED


def names() -> tuple[str, ...]:
    """Every name that there is."""
    kernels = (f"kernels.{name}" for name in brought.kernel_names())
    backend = (f"backend.{name}" for name in brought.backend_names())
    return (*kernels, *backend, *options.options())


def lines() -> Iterator[Line]:
    """A line for every name. Raises KeyError where one is missing."""
    judged, left = judges(), unjudged()
    for name in names():
        yield Line(name, judged[name]) if name in judged else Line(name, "", left[name])


def judged_by() -> dict[str, str]:
    """For a report: the check of every name, or "no: " and why there is none; a rule of one's own may have no lines."""
    judged, left = judges(), unjudged()
    return {name: judged.get(name) or f"no: {left.get(name, 'it has no line in this table')}" for name in names()}


def faulty(name: str) -> Subject:
    """A subject that is wrong in exactly this name."""
    room, _, rest = name.partition(".")
    if room == "kernels":
        return brought.kernel_fault(rest)
    if room == "backend":
        return brought.backend_fault(rest)
    return Subject(brought.right_one(), under=option_ignored(name))


def table() -> str:
    """The lines as Markdown: names of one owner that one check judges stand together."""
    rows: dict[tuple[str, str], list[str]] = {}
    for line in lines():
        owner, _, name = line.name.partition(".")
        rows.setdefault((owner, f"`{line.check}`" if line.check else f"nothing: {line.why}"), []).append(f"`{name}`")
    text = ["| of | name or option | judged by |", "|---|---|---|"]
    text += [f"| {owner} | {', '.join(those)} | {check} |" for (owner, check), those in rows.items()]
    return "\n".join(text)


def rewritten(text: str) -> str:
    """A page with its table as the code has it now. Raises ValueError where it has none."""
    found = re.fullmatch(r"(.*<!-- begin coverage -->\n).*?(<!-- end coverage -->.*)", text, re.S)
    if found is None:
        raise ValueError("the text has no section <!-- begin coverage --> ... <!-- end coverage -->")
    return f"{found[1]}{table()}\n{found[2]}"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    write_whole(page, rewritten(page.read_text("utf-8")).encode())
