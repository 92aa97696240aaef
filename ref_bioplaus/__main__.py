"""The command, as `python -m ref_bioplaus`: Python then looks for modules in the current folder first, but for -P."""

from .cli import app

app()
