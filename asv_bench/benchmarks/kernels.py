"""Single kernels, native against portable."""

from asv_bench.cases import kernels
from asv_bench.primitives import NAMES

from .common import BACKENDS, SECONDS, backend_for


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
