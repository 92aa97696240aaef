"""What asv runs. It knows this folder alone: the repository's root is put on the path, for asv_bench.

Last, so that the ref_bioplaus that is measured is the installed one: asv installs that of every commit it compares.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))
