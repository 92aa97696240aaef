"""The numbers of a run for TensorBoard."""

from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any


class TensorBoard:
    """The numbers of every record as TensorBoard shows them."""

    def __init__(self, folder: Path, start: int = 0):
        """start: the first step to come; what is there of it or later, TensorBoard discards. Raises ImportError."""
        self.events = self.writer()(str(folder), purge_step=start)

    @staticmethod
    def writer() -> Any:
        """The class that writes. Raises ImportError with a sentence where none is installed."""
        for module in ("torch.utils.tensorboard", "tensorboardX"):
            with suppress(ImportError):
                return import_module(module).SummaryWriter
        raise ImportError(
            "TensorBoard's writer is not installed: pip install tensorboardX, or leave out --tensorboard."
        )

    def add(self, record: dict[str, Any]) -> None:
        """One record's numbers."""
        for name, value in record.items():
            by_layer = value.items() if isinstance(value, dict) else [("", value)]
            for layer, number in by_layer:
                if isinstance(number, int | float):
                    self.events.add_scalar(f"{name}/{layer}" if layer else name, number, record["step"])
        self.events.flush()
