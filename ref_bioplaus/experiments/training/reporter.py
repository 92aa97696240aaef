"""What a run tells whoever watches it."""

from typing import Any


class Reporter:
    """Told how a run goes; this one keeps quiet."""

    def note(self, sentence: str) -> None:
        """Something worth knowing."""

    def start(self, steps: int, done: int) -> None:
        """The run begins with so many of its steps done."""

    def progress(self, step: int, loss: float | None) -> None:
        """So many steps are done."""

    def record(self, record: dict[str, Any]) -> None:
        """An evaluation."""
