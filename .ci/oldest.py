"""The oldest versions that pyproject.toml permits, as constraints for pip: what `make test-oldest` installs."""

import re
import tomllib
from pathlib import Path

EXTRAS = ("torch", "jax", "data", "detection", "bench", "test")  # what runs without a GPU


def oldest() -> dict[str, str]:
    """The oldest version that is permitted of each package that pyproject.toml names."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    named = [*project["dependencies"], *(one for extra in EXTRAS for one in project["optional-dependencies"][extra])]
    return dict(re.fullmatch(r"([\w-]+)[>=]=([\d.]+)(;.*)?", one).groups()[:2] for one in named)


if __name__ == "__main__":
    print("\n".join(f"{name}=={version}" for name, version in oldest().items()))
