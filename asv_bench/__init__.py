"""Speed and memory, tracked from commit to commit. Not installed: run from the repository's root.

OpenBLAS's idle threads keep their cores for a tenth of a second after every product, which halves the speed of whatever
is timed next to NumPy. Here they sleep at once, unless the environment or an earlier import of NumPy says otherwise.
"""

import os
import sys

if "numpy" not in sys.modules:
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "8")  # 2^8 cycles; the report shows it
