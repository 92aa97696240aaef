"""Pages from templates."""

from pathlib import Path

from jinja2 import BaseLoader, ChoiceLoader, Environment, FileSystemLoader, PackageLoader, StrictUndefined, Template


def template(name: str, folder: Path | None = None) -> Template:
    """A page's template, from a folder or else this package's; it can include this package's, as "style.css"."""
    loaders: list[BaseLoader] = [] if folder is None else [FileSystemLoader(folder)]
    environment = Environment(
        loader=ChoiceLoader([*loaders, PackageLoader("ref_bioplaus.experiments")]), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(name)
