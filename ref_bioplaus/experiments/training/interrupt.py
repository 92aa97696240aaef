"""Signals that ask a run to stop."""

import signal
import threading
from typing import Any


class Interrupt:
    """Ctrl-C and SIGTERM ask for a stop after the step; a second time they stop at once."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self.asked)
        return self

    def asked(self, number: int, frame: Any) -> None:
        """Remember the signal, and put back what it did before."""
        self.name = signal.Signals(number).name
        self.restore()

    def restore(self) -> None:
        """Signals do again what they did before."""
        while self.before:
            number, handler = self.before.popitem()
            signal.signal(number, handler)

    def __exit__(self, *error) -> None:
        self.restore()
