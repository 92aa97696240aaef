"""The tables of backends/README.md: which kernels are native ones, and what has been proved where.

python -m tests.gpu_check.page backends/README.md      writes them anew, from the code and from reports
"""

import itertools
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from ref_bioplaus import backends
from ref_bioplaus.backends.cupy_ import kernels as cupy_kernels
from ref_bioplaus.backends.jax_ import kernels as jax_kernels
from ref_bioplaus.backends.torch_ import kernels as torch_kernels
from ref_bioplaus.gpu import verdict
from ref_bioplaus.kernels import PORTABLE, Kernels
from ref_bioplaus.machine.files import write_whole
from tests.gpu_check.product import KERNELS, PRECISIONS
from tests.helpers import ROOT

REPORT = ROOT / "tests" / "gpu_check" / "report.json"
RUNS = ROOT / "backends" / "reports"  # folders that `ref-bioplaus gpu` wrote
NAMES = [n for n in Kernels._fields if n not in ("name", "normal_table", "mean_of_product", "drawn")]
OPEN = {  # what no look without a GPU can prove
    "torch": "numbers, speed, and that CUDA records and replays the line",
    "jax": "numbers, speed, and what XLA makes of the program",
    "cupy": "numbers on a GPU, cuBLAS's precision, speed, and launches",
}


def native() -> dict[str, Kernels]:
    """Every library's native kernels for float32, those for GPUs as well."""
    numpy_with_kernels: Any = SimpleNamespace(**{name: getattr(np, name) for name in ("uint32", "int32")})
    numpy_with_kernels.ElementwiseKernel = lambda *given: given
    return {
        "NumPy": backends.get("numpy", kernels="native").kernels,
        "torch, CPU": torch_kernels.native_kernels(torch.device("cpu"), "float32", "ieee"),
        "torch, CUDA": torch_kernels.native_kernels(torch.device("cuda"), "float32", "ieee"),
        "JAX, CPU": jax_kernels.native_kernels("cpu", "float32", "ieee"),
        "JAX, GPU": jax_kernels.native_kernels("gpu", "float32", "ieee"),
        "CuPy": cupy_kernels.native(numpy_with_kernels),
    }


def kernels() -> str:
    """Which kernels are a library's own, and which portable."""
    every = native()
    own = [
        [name, *("own" if getattr(of, name) is not getattr(PORTABLE, name) else "" for of in every.values())]
        for name in NAMES
    ]
    return table(("kernel", *every), own)


def proved() -> str:
    """What has been proved where, from reports."""
    parts, executed = json.loads(REPORT.read_text("utf-8"))["parts"], runs()
    lines = []
    for part, of, (dtype, precision) in itertools.product(OPEN, KERNELS, PRECISIONS):
        if part != "cupy" or (precision == "ieee" and dtype != "bfloat16"):
            ran = executed.get(f"{part} {precision if dtype == 'float32' else dtype}, {of}", "no")
            lines.append((part, of, dtype, precision, ran, counted(parts, part, of, dtype, precision), OPEN[part]))
    days = "; ".join(f"{part} on {of['day']}, {of['looked_at']} of {of['of']}" for part, of in parts.items())
    headings = ("library", "kernels", "dtype", "precision", "executed on a GPU", "proved without one", "not proved")
    return f"{table(headings, lines)}\n\nLooked at last: {days}."


def counted(parts: Mapping[str, Any], part: str, kernels: str, dtype: str, precision: str) -> str:
    """How much of a kind was looked at, and how much of it is wrong."""
    by = parts.get(part, {}).get("by", {})
    if part == "cupy":
        looked, wrong = by.get(dtype, (0, 0)) if kernels == "native" else (0, 0)
        compiled = f"{looked} compilations{f', {wrong} wrong' * bool(wrong)}; " if looked else ""
        return f"{compiled}steps on the stand-in"
    looked, wrong = by.get(f"{kernels}/{dtype}/{precision}", (0, 0))
    return f"{looked} combinations{f', {wrong} wrong' * bool(wrong)}" if looked else "no"


def runs() -> dict[str, str]:
    """What runs of `ref-bioplaus gpu` have executed, by form and kernels: "torch tf32, native"."""
    found: dict[str, str] = {}
    for folder in sorted(RUNS.glob("*/")) if RUNS.exists() else ():
        outcomes = [line for line in verdict.lines(folder / "conformance.jsonl") if line["what"] == "outcome"]
        for key in dict.fromkeys(form_and_kernels(line) for line in outcomes):
            mine = [line for line in outcomes if form_and_kernels(line) == key]
            bad = sum(line["state"] in verdict.BAD for line in mine)
            found[key] = f"{folder.name}: {len(mine)} checks{f', {bad} fail' * bool(bad)}"
    return found


def form_and_kernels(line: Mapping[str, Any]) -> str:
    """The first two words of a question."""
    return ", ".join(line["question"].split(", ")[:2])


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """In Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


SECTIONS = {"kernels": kernels, "proved": proved}


def rewritten(text: str) -> str:
    """The page with its tables as they are now."""
    for name, make in SECTIONS.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        before, rest = text.split(begin, 1)
        text = f"{before}{begin}\n\n{make()}\n\n{end}{rest.split(end, 1)[1]}"
    return text


if __name__ == "__main__":
    page = Path(sys.argv[1])
    write_whole(page, rewritten(page.read_text("utf-8")).encode())
