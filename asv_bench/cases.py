"""What the driver measures. Every function yields records: dictionaries that JSON can hold.

kind      "step", "native", "kernel", "scaling", "memory", "start", "feedback" or "together"
key       what was measured, as in "native/W1/torch"; two runs of the same thing have the same key
seconds   the median, of one step; quartiles: [low, high]
ratio     {value, low, high, spread}: this time over the time of what `against` names; above 1 is slower
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ref_bioplaus import naming
from ref_bioplaus.backends import Backend
from ref_bioplaus.tree import leaves

from . import memory, primitives
from .flops import step_flops
from .measure import PAUSE, Call, Timings, interleaved, warm_up
from .native import forget_compiled, native_forms, native_training
from .workloads import WORKLOADS, Training, Workload, direct, methods_of, perceptron

Record = dict[str, Any]
COMMANDS = {
    "import ref_bioplaus": "import ref_bioplaus",
    "import numpy backend": "import ref_bioplaus.backends.numpy_.backend",
    "import torch backend": "import ref_bioplaus.backends.torch_.backend",
    "import jax backend": "import ref_bioplaus.backends.jax_.backend",
    "command --help": "import sys; sys.argv = ['ref-bioplaus', '--help']; from ref_bioplaus.__main__ import app; app()",
}


def record(kind: str, key: str, timings: Timings, subject: str, against: str | None = None, **more) -> Record:
    """A record of one subject, with its ratio to another one."""
    found: Record = {
        "kind": kind,
        "key": f"{kind}/{key}",
        "seconds": timings.median(subject),
        "quartiles": timings.quartiles(subject),
        "rounds": len(timings.seconds[subject]),
    }
    if against is not None:
        found |= {"against": against, "ratio": timings.ratio(subject, against)._asdict()}
    return found | more


def timed(methods: Sequence[str], workload: Workload) -> list[str]:
    """Those of some methods that are timed on a workload; one's own always."""
    return [m for m in methods if m in methods_of(workload) or naming.is_code(m)]


def steps(workload: Workload, backend: Backend, methods: Sequence[str], seconds: float) -> Iterator[Record]:
    """Every algorithm against backpropagation, in pairs: two trainings at a time are in memory."""
    chosen = timed(methods, workload)
    baseline = Training(workload, "BP", backend)
    compiled = {"BP": warm_up(baseline)}
    for method in dict.fromkeys(("BP", *chosen)):
        if method == "BP":
            timings = interleaved({"BP": baseline}, seconds)
        else:
            training = Training(workload, method, backend)
            compiled[method] = warm_up(training)
            timings = interleaved({method: training, "BP": baseline}, seconds)
        flops = step_flops(baseline.network, method, workload)
        median = timings.median(method)
        yield record(
            "step", f"{workload.name}/{backend.name}/{method}", timings, method, None if method == "BP" else "BP",
            workload=workload.name, backend=backend.name, kernels=backend.kernels.name, method=method,
            examples_per_second=workload.batch / median, flops=flops, flops_per_second=flops / median,
            compile_seconds=compiled[method],
        )  # fmt: skip


def native(workload: Workload, backend: Backend, seconds: float, compiled: bool) -> Iterator[Record]:
    """Backpropagation against the strongest native form, which a first contest finds: `forms` holds that one's times,
    `seconds` and `ratio` are of the contest of the two."""
    ours = Training(workload, "BP", backend)
    warm_up(ours)
    forget_compiled(backend.name)
    forms, failed = {}, {}
    for form in native_forms(workload, backend.name, compiled, backend.on_gpu):
        try:
            training = native_training(workload, form, backend)
            warm_up(training)
        except Exception as error:  # torch.compile fails in many ways: the others go on, and the record says so
            failed[form] = f"{type(error).__name__}: {error}"[:300]
            continue
        forms[form] = training
    pause = PAUSE if backend.name == "numpy" else 0.0
    rounds = 7 if len(forms) == 1 else 3  # several forms only find out which one the final is against
    contest = interleaved({"ours": ours, **forms}, seconds, rounds, pause)
    strongest = min(forms, key=contest.median)
    final = contest
    if len(forms) > 1:
        final = interleaved({"ours": ours, strongest: forms[strongest]}, seconds, pause=pause)
    yield record(
        "native", f"{workload.name}/{backend.name}", final, "ours", strongest,
        workload=workload.name, backend=backend.name, kernels=backend.kernels.name, strongest=strongest,
        forms={form: contest.median(form) for form in ("ours", *forms)}, failed=failed, compiler=compiled,
    )  # fmt: skip


def together(workload: Workload, backend: Backend, seconds: float, steps: int = 8) -> Iterator[Record]:
    """So many steps by one call against as many calls; `seconds` of one step, both ways."""
    stack, single = Training(workload, "BP", backend, steps=steps), Training(workload, "BP", backend)

    def calls() -> None:
        for _ in range(steps):
            single()

    subjects: dict[str, Any] = {"together": stack, "single": Call(calls, single.wait)}
    for subject in subjects.values():
        warm_up(subject)
    timings = interleaved(subjects, seconds)
    timings.seconds = {name: [s / steps for s in taken] for name, taken in timings.seconds.items()}
    yield record("together", f"{workload.name}/{backend.name}", timings, "together", "single", workload=workload.name,
                 backend=backend.name, kernels=backend.kernels.name, steps=steps)  # fmt: skip


def kernels(backend: Backend, seconds: float, names: Sequence[str] = primitives.NAMES) -> Iterator[Record]:
    """Every native kernel against its portable form."""
    for name in names:
        calls = {
            kind: Call(primitives.primitive(name, backend, tuple_), backend.synchronize)
            for kind, tuple_ in primitives.both(backend)
        }
        for call in calls.values():
            warm_up(call)
        timings = interleaved(calls, seconds, rounds=5)
        subject = list(calls)[-1]
        against = "portable" if len(calls) > 1 else None
        yield record("kernel", f"{name}/{backend.name}", timings, subject, against, backend=backend.name,
                     kernels=subject, primitive=name)  # fmt: skip


def scaling(backend: Backend, methods: Sequence[str], seconds: float) -> Iterator[Record]:
    """W1 with other batches, widths and depths, each algorithm by itself."""
    W1 = WORKLOADS["W1"]
    axes: dict[str, dict[int, Workload]] = {
        "batch": {n: replace(W1, batch=n) for n in (16, 64, 256, 1024)},
        "width": {n: replace(W1, build=partial(perceptron, n, 5)) for n in (64, 256, 1024)},
        "depth": {n: replace(W1, build=partial(perceptron, 256, n)) for n in (1, 5, 20)},
    }
    for axis, members in axes.items():
        for value, workload in members.items():
            trainings = {method: Training(workload, method, backend) for method in methods}
            for training in trainings.values():
                warm_up(training)
            timings = interleaved(trainings, seconds, rounds=5)
            for method in methods:
                yield record("scaling", f"{axis}/{value}/{backend.name}/{method}", timings, method, axis=axis,
                             value=value, backend=backend.name, kernels=backend.kernels.name, method=method,
                             examples_per_second=workload.batch / timings.median(method))  # fmt: skip


def peak_memory(
    workload: Workload, backend: Backend, methods: Sequence[str], strongest: Callable[[], str | None],
    device: str | None,
) -> Iterator[Record]:  # fmt: skip
    """Peak bytes of each algorithm, of BP with portable kernels, and of the native form: `strongest` knows it once it
    was measured, else the first one."""
    form = strongest() or native_forms(workload, backend.name, compiled=False)[0]
    kernels = "portable" if backend.kernels.name == "portable" else "native"
    subjects = [(kernels, f"form: {form}"), *[(kernels, m) for m in timed(methods, workload)]]
    if kernels == "native" and "BP" in methods and not backend.on_gpu:
        subjects.append(("portable", "BP"))
    for kind, subject in subjects:
        found = memory.peak_bytes(workload.name, backend.name, kind, subject, device, backend.precision)
        key = f"memory/{workload.name}/{backend.name}/{subject}" + "/portable" * (kind == "portable")
        yield {"kind": "memory", "key": key, "bytes": found, "workload": workload.name, "backend": backend.name,
               "kernels": kind, "subject": subject}  # fmt: skip


def starts(backend_names: Sequence[str]) -> Iterator[Record]:
    """Seconds from the shell to an import or a command's help, of five processes each."""
    for name, code in COMMANDS.items():
        if name.endswith(" backend") and name.split()[1] not in backend_names:
            continue
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            memory.new_process(code).check_returncode()
            seconds.append(time.perf_counter() - start)
        yield record("start", name, Timings({name: seconds}), name, name=name)


def feedback(workload: Workload, backend: Backend, seconds: float, device: str | None) -> Iterator[Record]:
    """DFA with stored and with generated feedback matrices: their bytes, the peak of a step's memory, and its time."""
    trainings = {how: Training(workload, "DFA", backend, build=direct(how)) for how in ("stored", "generated")}
    for training in trainings.values():
        warm_up(training)
    timings = interleaved(trainings, seconds)
    kernels = "portable" if backend.kernels.name == "portable" else "native"
    for how, training in trainings.items():
        arrays = leaves(training.state.feedback.params)
        yield record(
            "feedback", f"{workload.name}/{backend.name}/{how}", timings, how,
            None if how == "stored" else "stored", workload=workload.name, backend=backend.name,
            kernels=backend.kernels.name, how=how, bytes=sum(int(np.prod(a.shape)) * a.itemsize for a in arrays),
            peak_bytes=memory.peak_bytes(workload.name, backend.name, kernels, how, device, backend.precision),
        )  # fmt: skip
