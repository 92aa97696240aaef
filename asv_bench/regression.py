"""Did something become slower? Ratios are compared, not times: a machine's mood changes all times alike.

    python -m asv_bench.regression base.json new.json        a sentence for each ratio, with its limit
    python -m asv_bench.regression --self-check              shows that it sees a slowed kernel, and nothing else

A ratio is this time over another one of the same run: ours over native, an algorithm over backpropagation, a native
kernel over its portable form. It is worse where it grew by more than its limit: 10 %, or three times the scatter of
both runs' rounds, or of their passes where a run has several: a kernel's time may stay the same for a second and be
another one a few seconds later. Where the limit is above 25 % a ratio that stays below it proves nothing: such a check
cannot tell. `asv_bench.report --passes 3` goes on with further passes, ten at most, where it would come to that.

Exit codes: 0 nothing slowed · 1 something did · 2 not understood · 3 nothing slowed, and of some ratios it cannot tell
"""

import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from ref_bioplaus.machine.files import write_whole

SLACK = 0.10  # growth that is never reported
SCATTERS = 3.0
DOUBTFUL = 0.25  # growth that must be seen
RUNS = 10
PASSES = 3  # of a run of the self-check, which shows that three times their scatter raises no alarm
MOST_PASSES = 10
ROOT = Path(__file__).parent.parent
RESULT = Path(__file__).parent / "results" / "self_check.json"


class Change(NamedTuple):
    """One ratio in two runs, the growth from which on it counts, and the passes of the run that has fewer."""

    key: str
    against: str
    base: float
    new: float
    limit: float
    passes: int = 1

    @property
    def growth(self) -> float:
        """new / base - 1"""
        return self.new / self.base - 1.0

    @property
    def slowed(self) -> bool:
        """Whether it grew by more than its limit."""
        return self.growth > self.limit

    @property
    def doubtful(self) -> bool:
        """Whether it did not, and could nevertheless have grown by more than what must be seen."""
        most = (1.0 + self.growth) * (1.0 + self.limit) - 1.0
        return not self.slowed and self.limit > DOUBTFUL and most > DOUBTFUL

    def __str__(self) -> str:
        found = "slowed" if self.slowed else "cannot tell" if self.doubtful else "as before"
        more = f"with --passes {MOST_PASSES}" if self.passes < MOST_PASSES else "where less else runs"
        return (
            f"{self.key} {found}: {self.new:.3f} times {self.against}'s time, {self.base:.3f} before "
            f"({self.growth:+.0%}, limit {self.limit:+.0%}){f'; measure both {more}' if self.doubtful else ''}"
        )


def limit(base: Mapping[str, Any], new: Mapping[str, Any]) -> float:
    """The growth from which on a ratio counts, by its scatter in two runs."""
    return max(SLACK, math.expm1(SCATTERS * math.hypot(base["ratio"]["spread"], new["ratio"]["spread"])))


def changes(base: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[Change]:
    """Every ratio that both runs have against the same thing."""
    before = {r["key"]: r for r in base if r.get("ratio")}
    found = []
    for r in new:
        old = before.get(r["key"])
        # another strongest native form is another opponent: such ratios cannot be compared
        if old is None or not r.get("ratio") or old["against"] != r["against"]:
            continue
        passes = min(old.get("passes", 1), r.get("passes", 1))
        values = old["ratio"]["value"], r["ratio"]["value"]
        found.append(Change(r["key"], r["against"], *values, limit(old, r), passes))
    return found


def slower(base: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[Change]:
    """The ratios that grew by more than their limit, the worst first."""
    return sorted((c for c in changes(base, new) if c.slowed), key=lambda c: -c.growth)


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a results file. Raises ValueError where it is not one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["records"]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} is no results file: expected JSON with records, as asv_bench.report writes"
        ) from error


def verdict(base: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> tuple[list[str], int]:
    """Sentences, what slowed first, and the exit code: 0, 1 or 3. Raises ValueError where nothing can be compared."""
    compared, worse = changes(base, new), slower(base, new)
    if not compared:
        raise ValueError("nothing can be compared: the two runs have no ratio in common")
    had, seen = ({r["key"] for r in records if r.get("ratio")} for records in (base, new))
    other = sorted((had & seen) - {c.key for c in compared})
    lines = [f"{key} was not compared: it has another opponent now" for key in other]
    lines += [f"{key} was not compared: it was not measured again" for key in sorted(had - seen)]
    doubtful = [c for c in compared if c.doubtful]
    same = [c for c in compared if not c.slowed and not c.doubtful]
    count = f"{len(worse)} of {len(compared)} ratios slowed, and of {len(doubtful)} the check cannot tell"
    return [*map(str, [*worse, *doubtful, *same]), *lines, count], 1 if worse else 3 if doubtful else 0


# The check of the check


def small_run(slowed: bool, seconds: float, backend_name: str, kernel_kind: str) -> list[dict[str, Any]]:
    """A few ratios: FA and DFA over BP, BP over native, two kernels over their portable form where there is another.

    slowed: convolutions are done twice. seconds: of a contest, in all passes together.
    """
    from ref_bioplaus import backends
    from ref_bioplaus.machine.environment import keep_freed_memory

    from . import cases
    from .workloads import WORKLOADS

    keep_freed_memory()
    backend = backends.get(backend_name, kernels=kernel_kind)
    if slowed:
        backend.kernels = with_an_extra_pass(backend.kernels)
    W3, part = replace(WORKLOADS["W3"], batch=16), seconds / PASSES
    passes = [
        [
            *cases.steps(WORKLOADS["W1"], backend, ("FA", "DFA"), part),
            *cases.native(W3, backend, part, compiled=False),
            *cases.kernels(backend, part, ("conv_apply", "max_pool")),
        ]
        for _ in range(PASSES)
    ]
    return combined(passes)


def combined(passes: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Several passes over the same things as one: the median of each ratio, and the larger of both scatters.

    With more than the self-check's passes the scatter is that of their median, beside the median of those.
    Ratios against something else than in the first pass are left out: the strongest native form is not always the same.
    What has no ratio is as in the first pass.
    """
    found = []
    for first in passes[0]:
        if not first.get("ratio"):
            found.append({**first})
        else:
            ratios = [
                r["ratio"] for p in passes for r in p if r["key"] == first["key"] and r["against"] == first["against"]
            ]
            values = [ratio["value"] for ratio in ratios]
            within = statistics.median(ratio["spread"] for ratio in ratios)
            between = statistics.stdev(map(math.log, values)) if len(values) > 1 else 0.0
            spread = max(within, between) * min(1.0, math.sqrt(PASSES / len(values)))
            ratio = {"value": statistics.median(values), "spread": spread,
                     "low": min(r["low"] for r in ratios), "high": max(r["high"] for r in ratios)}  # fmt: skip
            found.append({**first, "ratio": ratio, "passes": len(values)})
    return found


def enough_passes(
    measured: Callable[[], Iterable[Mapping[str, Any]]], passes: int, in_time: Callable[[], bool],
    before: Callable[[Mapping[str, Any]], Mapping[str, Any] | None] = lambda record: None,
) -> list[dict[str, Any]]:  # fmt: skip
    """So many passes as one run, and further ones as long as there is time and the check could not tell.

    before: a record's counterpart in the run that it will be compared with, where that is known; else one with the same
    scatter.
    """
    found = [list(measured()) for _ in range(passes)]
    while True:
        run = combined(found)
        limits = [limit(before(r) or r, r) for r in run if r.get("ratio")]
        if len(found) >= MOST_PASSES or max(limits, default=0.0) <= DOUBTFUL or not in_time():
            return run
        found.append(list(measured()))


def with_an_extra_pass(kernels):
    """Kernels whose convolution does its forward product twice."""

    def conv_apply(W, x, window):
        return 0.5 * (kernels.conv_apply(W, x, window) + kernels.conv_apply(W, x + 0.0, window))

    return kernels._replace(conv_apply=conv_apply)


def self_check(seconds: float, backend_name: str, kernels: str, runs: int) -> tuple[list[str], bool]:
    """Run the same thing often and once slowed, each in a process of its own: sentences, and whether all is well."""

    def run(slowed):
        command = [sys.executable, "-m", "asv_bench.regression", "--small-run", "--seconds", str(seconds),
                   "--backend", backend_name, "--kernels", kernels]  # fmt: skip
        done = subprocess.run([*command, *["--slowed"] * slowed], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"a run failed: {done.stderr.strip()[-500:]}")
        return json.loads(done.stdout.splitlines()[-1])

    same = [run(False) for _ in range(runs)]
    alarms = [str(change) for i, a in enumerate(same) for b in same[i + 1 :] for change in slower(a, b)]
    caught = slower(same[0], run(True))
    compared = [change for i, a in enumerate(same) for b in same[i + 1 :] for change in changes(a, b)]
    lines = [
        f"{runs} runs of the same code, {len(compared)} comparisons of ratios: {len(alarms)} alarms; of "
        f"{sum(c.doubtful for c in compared)} it cannot tell, limits up to {max(c.limit for c in compared):+.0%}",
        *alarms,
        f"the same code with a slowed convolution: {len(caught)} alarms",
        *map(str, caught),
    ]
    RESULT.parent.mkdir(exist_ok=True)
    write_whole(RESULT, json.dumps({"lines": lines, "runs": same}, indent=1).encode())
    return lines, not alarms and any("conv_apply" in change.key for change in caught)


app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)


@app.command()
def main(
    base: Annotated[Path | None, typer.Argument(help="Results before.")] = None,
    new: Annotated[Path | None, typer.Argument(help="Results after.")] = None,
    check: Annotated[bool, typer.Option("--self-check", help="Ten equal runs, and one with a slowed kernel.")] = False,
    seconds: Annotated[float, typer.Option(help="Of each contest of the self-check.")] = 2.0,
    backend: Annotated[str, typer.Option(help="Of the self-check.")] = "torch",
    kernels: Annotated[str, typer.Option(help='Of the self-check: "native" or "portable".')] = "native",
    runs: Annotated[int, typer.Option(help="Equal runs of the self-check.")] = RUNS,
    small: Annotated[bool, typer.Option("--small-run", hidden=True)] = False,
    slowed: Annotated[bool, typer.Option("--slowed", hidden=True)] = False,
) -> None:
    """Compare two results files, or check the comparison itself."""
    if small:
        print(json.dumps(small_run(slowed, seconds, backend, kernels)))
        return
    if check:
        lines, well = self_check(seconds, backend, kernels, runs)
        code = 0 if well else 1
    elif base and new:
        try:
            lines, code = verdict(read(base), read(new))
        except (OSError, ValueError) as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(2) from None
    else:
        typer.echo("give two results files, base and new, or --self-check", err=True)
        raise typer.Exit(2)
    typer.echo("\n".join(lines))
    raise typer.Exit(code)


if __name__ == "__main__":
    app()
