"""Pages from templates."""

from pathlib import Path

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, StrictUndefined, Template


def template(file: Path) -> Template:
    """A page's template; it can include what lies beside it, and "style.css" of this package."""
    environment = Environment(
        loader=ChoiceLoader([FileSystemLoader(file.parent), PackageLoader("ref_bioplaus.showing")]), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(file.name)
