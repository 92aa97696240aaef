"""Single kernels, portable and native."""

from asv_bench.cases import kernels
from asv_bench.measure import Call, warm_up
from asv_bench.primitives import NAMES, both, primitive

from .common import BACKENDS, SECONDS, backend_for


class Kernels:
    """Every primitive on every backend."""

    params = (BACKENDS, NAMES, ("portable", "native"))
    param_names = ("backend", "primitive", "kernels")
    warmup_time = 0.0

    def setup(self, backend, name, kind):
        """Compile and warm up."""
        self.backend = backend_for(backend)
        chosen = dict(both(self.backend))
        tuple_ = chosen["portable"] if kind == "portable" else self.backend.kernels
        self.call = Call(primitive(name, self.backend, tuple_), self.backend.synchronize)
        warm_up(self.call)

    def time_kernel(self, backend, name, kind):
        """One call."""
        self.call()
        self.call.wait()


class KernelRatios:
    """Native against portable, interleaved."""

    params = (BACKENDS, NAMES)
    param_names = ("backend", "primitive")

    def setup(self, backend, name):
        """See whether it can be had."""
        self.backend = backend_for(backend)

    def track_ratio_to_portable(self, backend, name):
        """The native kernel's time over the portable one's."""
        (record,) = kernels(self.backend, SECONDS / 2, (name,))
        return record["ratio"]["value"]
