"""One training step: time, compilation, memory, and the ratios that survive a noisy machine.

asv takes a number that grows for one that became worse: times, bytes, and ratios, all of them ours over another's.
"""

from asv_bench import memory
from asv_bench.cases import native, steps, together
from asv_bench.measure import warm_up
from asv_bench.native import native_forms
from asv_bench.workloads import METHODS, WORKLOADS, Training, methods_of

from .common import BACKENDS, SECONDS, backend_for, workload


class Steps:
    """Every algorithm on every workload and backend."""

    params = (BACKENDS, tuple(WORKLOADS), tuple(METHODS))
    param_names = ("backend", "workload", "algorithm")
    warmup_time = 0.0

    def setup(self, backend, name, method):
        """Compile and warm up."""
        if method not in methods_of(workload(name)):
            raise NotImplementedError(f"{method} is not timed on {name}")
        self.backend = backend_for(backend, name)
        self.training = Training(workload(name), method, self.backend)
        self.compile_seconds = warm_up(self.training)

    def time_step(self, backend, name, method):
        """One step."""
        self.training()
        self.training.wait()

    def track_compile_time(self, backend, name, method):
        """What the first step took longer than the second."""
        return self.compile_seconds

    track_compile_time.unit = "s"  # type: ignore[attr-defined]

    def track_ratio_to_backprop(self, backend, name, method):
        """Time over backpropagation's, interleaved."""
        (*_, last) = steps(workload(name), self.backend, (method,), SECONDS)
        return last["ratio"]["value"] if method != "BP" else 1.0


class Together:
    """Steps of small networks by one call, which wait for one launch."""

    params = (BACKENDS, ("W1", "W2"))
    param_names = ("backend", "workload")

    def setup(self, backend, name):
        """See whether it can be had."""
        self.backend = backend_for(backend, name)

    def track_ratio_to_single_steps(self, backend, name):
        """Time of eight steps by one call over that of eight calls."""
        (record,) = together(workload(name), self.backend, SECONDS)
        return record["ratio"]["value"]


class Memory:
    """Peak memory, in a process of its own."""

    params = (BACKENDS, tuple(WORKLOADS), tuple(METHODS))
    param_names = ("backend", "workload", "algorithm")

    def setup(self, backend, name, method):
        """See whether it can be had."""
        if method not in methods_of(workload(name)):
            raise NotImplementedError(f"{method} is not timed on {name}")
        backend_for(backend, name)

    def track_peak_memory(self, backend, name, method):
        """Bytes above what the libraries take."""
        return memory.peak_bytes(name, backend, "native", method)

    track_peak_memory.unit = "bytes"  # type: ignore[attr-defined]


class Native:
    """Backpropagation against the strongest native form."""

    params = (BACKENDS, tuple(WORKLOADS))
    param_names = ("backend", "workload")
    timeout = 1200

    def setup(self, backend, name):
        """See whether both can be had."""
        self.backend = backend_for(backend, name)
        native_forms(workload(name), backend, compiled=False)

    def track_ratio_to_native(self, backend, name):
        """Our time over native's, interleaved: below 1 ours is faster; which form was the strongest is printed."""
        (record,) = native(workload(name), self.backend, SECONDS, compiled=True)
        print(f"{name} on {backend}: the strongest native form is {record['strongest']}, {record['forms']}")
        return record["ratio"]["value"]

    def track_native_peak_memory(self, backend, name):
        """Bytes of the strongest native form that needs no compiler."""
        (record,) = native(workload(name), self.backend, SECONDS / 2, compiled=False)
        return memory.peak_bytes(name, backend, "native", f"form: {record['strongest']}")

    track_native_peak_memory.unit = "bytes"  # type: ignore[attr-defined]
