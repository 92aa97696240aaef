"""What asv runs. It knows this folder alone: the repository's root is put on the path, for asv_bench."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
