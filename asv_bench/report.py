"""The measurement driver: `make bench-report`, or python -m asv_bench.report with options for a part of it.

Every record is appended to results/records.jsonl as soon as it is there, so that an interruption loses nothing, and the
tables hold the newest record of every key: parts measured one after the other, on one machine, come together.
"""

import datetime
import json
import subprocess
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ref_bioplaus import backends, naming
from ref_bioplaus.backends import Backend, BackendError
from ref_bioplaus.machine.environment import keep_freed_memory
from ref_bioplaus.machine.files import to_write

from . import cases, measure, page
from .native import device_name
from .regression import MOST_PASSES, enough_passes, read, verdict
from .where import environment_record, machine
from .workloads import METHODS, WORKLOADS

RESULTS = Path(__file__).parent / "results"
PARTS = ("native", "algorithms", "kernels", "memory", "scaling", "start", "feedback")
SEVERAL = f"With several: up to {MOST_PASSES} times, where a comparison could not tell."
PEAK_SECONDS = 0.3  # of each measurement of a peak, before every case
app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)


def plan(
    workloads: Sequence[str], learning: dict[str, Backend], methods: Sequence[str], parts: Sequence[str],
    seconds: float, compiled: bool, device: str | None, lines: Path,
) -> Iterator[tuple[str, Any]]:  # fmt: skip
    """What is to be measured, in order: (name, function that yields records)."""
    if "start" in parts:
        yield "imports and commands", lambda: cases.starts(list(learning))
    for name, backend in learning.items():
        if "kernels" in parts:
            yield f"kernels on {name}", partial(cases.kernels, backend, seconds / 5)
        for w in (WORKLOADS[w] for w in workloads if backend.on_gpu or not WORKLOADS[w].needs_gpu):
            if "native" in parts:
                yield f"{w.name} on {name} against native", partial(cases.native, w, backend, seconds, compiled)
            if "algorithms" in parts:
                yield f"{w.name} on {name}, algorithms", partial(cases.steps, w, backend, methods, seconds)
            if "memory" in parts:
                strongest = partial(strongest_form, lines, key_on(backend, f"native/{w.name}/{name}"))
                yield f"{w.name} on {name}, memory", partial(cases.peak_memory, w, backend, methods, strongest, device)
            if "feedback" in parts and "DFA" in methods:
                yield f"{w.name} on {name}, DFA's feedback", partial(cases.feedback, w, backend, seconds, device)
        if "scaling" in parts:
            yield f"scaling on {name}", partial(cases.scaling, backend, methods, seconds / 5)


def key_on(backend: Backend, key: str) -> str:
    """A record's key, with its device and precision where they are not the usual ones."""
    return "/".join([key, *(word for word in (device_name(backend), backend.precision) if word not in ("cpu", "ieee"))])


def strongest_form(lines: Path, key: str) -> str | None:
    """The strongest native form, where it has been measured."""
    return merged(lines).get(key, {}).get("strongest")


def stamped(learning: dict[str, Backend], precision: str) -> dict[str, dict[str, Any]]:
    """What every record of a backend tells beside its own: device, precision, versions, and the device's peak, which
    `higher_peaks` finds."""
    return {
        name: {"device": device_name(backend), "precision": precision, "versions": backend.versions(), "peak": 0.0}
        for name, backend in learning.items()
    }


def higher_peaks(stamps: dict[str, dict[str, Any]], precision: str) -> None:
    """Measure the devices' peaks, and keep the higher ones: whatever else runs can only lower them."""
    peak = {
        device: max(measure.peaks(seconds=PEAK_SECONDS, device=device, precision=precision).values())
        for device in {stamp["device"] for stamp in stamps.values()}
    }
    for stamp in stamps.values():
        stamp["peak"] = max(stamp["peak"], peak[stamp["device"]])


def commit() -> str:
    """The checkout's commit, with a + where it was changed; "" where there is none."""
    found = [
        subprocess.run(["git", *what], cwd=RESULTS.parent, capture_output=True, text=True)
        for what in (
            ("rev-parse", "--short", "HEAD"),
            ("status", "--porcelain", "--untracked-files=no", "..", ":!results"),
        )
    ]
    if found[0].returncode:
        return ""
    return found[0].stdout.strip() + ("+" if found[1].stdout.strip() else "")


def merged(lines: Path) -> dict[str, dict[str, Any]]:
    """The newest record of every key. A last line that was cut off is left out."""
    found: dict[str, dict[str, Any]] = {}
    for line in lines.read_text(encoding="utf-8").splitlines() if lines.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[record["key"]] = record
    return found


def chosen(text: str, known: Sequence[str], what: str) -> list[str]:
    """The names in a comma-separated option. Raises typer.BadParameter for an unknown one."""
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in known and not (what == "algorithm" and naming.is_code(name)):
            raise typer.BadParameter(f'{what} "{name}" is unknown, expected some of {",".join(known)}')
    return names


@app.command()
def main(
    workloads: Annotated[str, typer.Option(help="As in W1,W3.")] = ",".join(WORKLOADS),
    backend: Annotated[str, typer.Option("--backends", help="As in torch,jax.")] = "torch,jax,numpy,cupy",
    algorithms: Annotated[str, typer.Option(help="As in BP,FA,KP or my_rule.py:my_rule.")] = ",".join(METHODS),
    parts: Annotated[str, typer.Option(help="What to measure.")] = ",".join(PARTS),
    kernels: Annotated[str, typer.Option(help='"native" or "portable".')] = "native",
    precision: Annotated[str, typer.Option(help="Of float32 products: ieee, tf32 or bf16.")] = "ieee",
    device: Annotated[str | None, typer.Option(help="As in cpu or cuda.")] = None,
    seconds: Annotated[float, typer.Option(help="Of each contest.")] = 10.0,
    minutes: Annotated[float, typer.Option(help="Begin nothing new after so many.")] = 600.0,
    compiled: Annotated[bool, typer.Option(help="Try torch.compile too: up to a minute for each net.")] = True,
    passes: Annotated[
        int, typer.Option(min=1, help=f"Go over each contest so often, and keep the medians. {SEVERAL}")
    ] = 1,
    out: Annotated[Path, typer.Option(help="Folder of the results; what is there is kept and completed.")] = RESULTS,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what was measured before.")] = False,
    against: Annotated[
        Path | None, typer.Option(help="Earlier results.json: exit code 1 where ratios grew, 3 where it cannot tell.")
    ] = None,
) -> None:
    """Measure, and write results.json, RESULTS.md and index.html."""
    console = Console()
    before = None if against is None else earlier(against)
    wanted, methods = chosen(workloads, list(WORKLOADS), "workload"), chosen(algorithms, list(METHODS), "algorithm")
    what = chosen(parts, PARTS, "part")
    learning: dict[str, Backend] = {}
    for name in chosen(backend, backends.names(), "backend"):
        try:
            learning[name] = backends.get(name, device=device, precision=precision, kernels=kernels)
        except BackendError as error:
            console.print(f"{name} is left out: {error}", markup=False)
    if not learning:
        console.print("there is no backend to measure")
        raise typer.Exit(2)
    out.mkdir(parents=True, exist_ok=True)
    kept = keep_freed_memory()  # as the commands that train do; for every subject alike
    lines, failures = out / "records.jsonl", 0
    place = environment_record(machine(learning) | {"freed memory": "kept" if kept else "given back"})
    if fresh:
        lines.unlink(missing_ok=True)
    end = datetime.datetime.now() + datetime.timedelta(minutes=minutes)

    def in_time():
        return datetime.datetime.now() < end

    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress, to_write(lines, append=True) as file:
        stamps = stamped(learning, precision)
        run = {"date": place["machine"]["date"], "commit": commit(), "environment": place["key"]}
        file.write(json.dumps(place).encode() + b"\n")

        def keep(record):
            name = record.get("backend")
            mine = {} if name is None else stamps[name] | {"key": key_on(learning[name], record["key"])}
            file.write(json.dumps(record | run | mine).encode() + b"\n")
            file.flush()

        def counterpart(record):
            return next((r for r in before or () if r["key"] == key_on(learning[record["backend"]], record["key"])
                         and r.get("ratio") and r["against"] == record["against"]), None)  # fmt: skip

        task = progress.add_task("")
        for name, function in plan(wanted, learning, methods, what, seconds, compiled, device, lines):
            if not in_time():
                console.print(f"the time is up: {name} and what follows it were not measured", markup=False)
                break
            progress.update(task, description=name)
            try:
                higher_peaks(stamps, precision)
                found = function() if passes == 1 else enough_passes(function, passes, in_time, counterpart)
                for record in found:
                    keep(record)
                console.print(f"{name}: done", markup=False)
            except KeyboardInterrupt:
                console.print("interrupted: what was measured is kept")
                break
            except Exception as error:  # one case that fails must not cost the others
                failures += 1
                console.print(f"{name} failed: {type(error).__name__}: {error}", markup=False)
    records = list(merged(lines).values())
    page.write(out, records)
    console.print(f"{len(records)} records; the page is {out / page.PAGE}", markup=False)
    code = 0
    if before is not None:
        try:
            sentences, code = verdict(before, records)
        except ValueError as error:
            sentences, code = [str(error)], 1
        console.print("\n".join(sentences), markup=False)
    raise typer.Exit(1 if failures else code)


def earlier(path: Path) -> list[dict[str, Any]]:
    """The records of an earlier run, read before this one writes. Raises typer.BadParameter where there are none."""
    try:
        return read(path)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"--against: {error}") from error


if __name__ == "__main__":
    app()
