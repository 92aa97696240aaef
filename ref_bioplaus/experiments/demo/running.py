"""Every algorithm on every backend: they learn the embedded images, and, judged apart, they agree.

    results = run(Settings(backends=("numpy", "torch"), quick=True))
    results.verdict()                  # one sentence
    page.write(results, Path("demo"))  # a page and a JSON file

With `processes` above 1 the tasks run side by side; they do the same in either way.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from ... import backends, registry
from ...backends import Backend, BackendError
from ...machine.environment import environment
from ...registry import Row
from .networks import ARCHITECTURES
from .processes import FEWEST, Pool
from .results import REFERENCE, Progress, Record, Results, Settings
from .work import Task, Work, in_process, received

CHECKER = "array-api-strict"  # slow by design: it takes part in the agreement, and learns only when it is named


def run(settings: Settings, progress: Progress | None = None) -> Results:
    """Train and compare. A row that fails on a backend is reported in its record and stops nothing else.

    Ctrl-C ends the run early and returns what was finished. Raises BackendError, KeyError and NamingError, each one
    sentence, for a named backend or rule that cannot be had and an unknown algorithm, before anything runs.
    """
    progress = progress or Progress()
    results = Results(settings)
    work = Work(settings)
    try:
        rows = chosen_rows(settings)
        with timed(results, "start"):
            learning = available(work, results)
        results.environment = environment(learning)
        tasks = learning_tasks(rows, [*learning], settings.quick)
        judged = [Task(row.name, a.name) for a in ARCHITECTURES for row in rows if a.trains(row)]
        names = compared_backends(settings, results)
        here = any(not getattr(row.name, "lasting", True) for row in rows)  # what no other process can have
        several = settings.processes > 1 and len(tasks) + len(judged) >= FEWEST and not here
        with Pool(settings.processes) if several else nullcontext() as pool:
            if pool:
                results.environment["processes"] = f"{settings.processes}, each with its share of the cores"
            with timed(results, "learning"):
                progress.stage("Learning", len(tasks))
                carry_out(tasks, (), work, pool, results, progress)
            with timed(results, "agreement"):
                progress.stage("Agreement", len(judged))
                carry_out(judged, names, work, pool, results, progress)
    except KeyboardInterrupt:
        results.interrupted = True
    return results


@contextmanager
def timed(results: Results, part: str) -> Iterator[None]:
    """Add up where the time goes."""
    began = time.perf_counter()
    try:
        yield
    finally:
        results.seconds[part] = results.seconds.get(part, 0.0) + time.perf_counter() - began


def chosen_rows(settings: Settings) -> list[Row]:
    """The rows named, in the registry's order, those of one's own behind. Raises KeyError for an unknown name, and
    NamingError for code that cannot be had."""
    named = {row.name: row for row in map(registry.row, settings.algorithms)}
    ours = [row for row in registry.ROWS if not named or row.name in named]
    return ours + [row for name, row in named.items() if row not in ours]


def available(work: Work, results: Results) -> dict[str, Backend]:
    """The float32 backends that learn, by name. One that was not asked for and cannot be had is left out, and why is
    noted. Raises BackendError for one that was asked for."""
    settings, found = work.settings, {}
    if settings.device and not settings.backends:
        raise BackendError("a device needs the backends that shall use it: name them with --backend")
    for name in dict.fromkeys(settings.backends) or backends.names():
        if not settings.backends and name == CHECKER:
            continue
        if not settings.backends and name not in backends.installed():
            how = backends.INSTALL.get(name)
            results.left_out[name] = "its library is not installed" + (f": {how}" if how else "")
            continue
        backend = work.backend(name, "float32")
        if not isinstance(backend, BackendError):
            found[name] = backend
        elif settings.backends:
            raise backend
        else:
            results.left_out[name] = str(backend)
    return found


def learning_tasks(rows: Sequence[Row], names: Sequence[str], quick: bool) -> list[Task]:
    """Every row of every architecture on every backend; in a quick run on one, in turns."""
    pairs = [(row.name, a.name) for a in ARCHITECTURES for row in rows if a.trains(row)]
    return [
        Task(*pair, name)
        for turn, name in enumerate(names)
        for pair in (pairs[turn :: len(names)] if quick else pairs)
    ]  # fmt: skip


def compared_backends(settings: Settings, results: Results) -> list[str]:
    """Every backend that is here, but the reference."""
    named = settings.backends or tuple(n for n in backends.installed() if n not in results.left_out)
    checker = (CHECKER,) if CHECKER in backends.installed() else ()
    return [name for name in dict.fromkeys((*named, *checker)) if name != REFERENCE]


def carry_out(
    tasks: Sequence[Task], names: Sequence[str], work: Work, pool: Pool | None, results: Results, progress: Progress
) -> None:
    """Do tasks, here or in the pool, and record what comes of them, in the tasks' order whichever comes first."""
    done: dict[int, list[Record]] = {}
    try:
        if pool:
            for i, sent in pool.run(in_process, [(work.settings, task, names) for task in tasks]):
                progress.task(tasks[i].label, 1)
                done[i] = received(tasks[i], sent, work.steps(tasks[i], names))
                progress.done(done[i])
        else:
            for i, task in enumerate(tasks):
                progress.task(task.label, work.steps(task, names))
                done[i] = work.done(task, names, progress)
                progress.done(done[i])
    finally:
        results.add(record for i in sorted(done) for record in done[i])
