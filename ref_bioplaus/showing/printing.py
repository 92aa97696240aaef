"""What the program prints, on any terminal: what it cannot show is replaced, and where nobody reads, work goes on."""

import os
import sys
from contextlib import suppress
from typing import Any


class Printed:
    """A stream that stops printing where it cannot any more, a closed pipe or a full disk, and raises nothing."""

    def __init__(self, stream: Any):
        """A text stream; what its encoding lacks is printed as "?"."""
        self.stream = stream
        with suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors="replace")

    def write(self, text: str) -> int:
        """Print, as far as that is possible; the number of characters."""
        try:
            self.stream.write(text)
        except (OSError, ValueError) as error:
            self.stop(error)
        return len(text)

    def flush(self) -> None:
        """Print what was held back."""
        try:
            self.stream.flush()
        except (OSError, ValueError) as error:
            self.stop(error)

    def stop(self, error: Exception) -> None:
        """Let what is printed from here on, and what was held back, go nowhere; says so unless the reader has left."""
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)
        if self is not sys.stderr and not isinstance(error, BrokenPipeError):
            print(f"What was printed is not complete ({error}).", file=sys.stderr)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def print_as_far_as_possible() -> None:
    """Have the process's output be of this kind; where it has none, it goes nowhere."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, Printed):
            setattr(sys, name, Printed(stream or open(os.devnull, "w", encoding="utf-8")))  # noqa: SIM115
