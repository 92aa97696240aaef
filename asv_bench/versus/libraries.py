"""Run by asv in the environment that it has made: gives it the libraries of this checkout's .venv, or of the one that
ASV_LIBRARIES names, so that all commits meet the same ones and nothing is fetched twice."""

import os
import sys
import sysconfig
from pathlib import Path


def main() -> None:
    """Write a .pth file. Exits with a sentence where there are no libraries."""
    own = Path(sysconfig.get_path("purelib"))
    place = Path(os.environ.get("ASV_LIBRARIES") or Path(__file__).resolve().parents[2] / ".venv")
    found = place / own.relative_to(sys.prefix)
    if not os.path.isdir(found):
        sys.exit(f"{found} is not there: call `make .venv/ready` first, or name an environment in ASV_LIBRARIES.")
    (own / "libraries.pth").write_text(f"{found}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
