"""The program around the library: data, experiments, training, pages. `train` and its kin come when they are asked for.

from ref_bioplaus.experiments import Experiment, train
"""

from typing import TYPE_CHECKING, Any

PLACES = {
    "Experiment": "spec.experiment",
    "ExperimentError": "spec.experiment",
    "train": "training.starting",
    "resume": "training.starting",
    "evaluate": "training.starting",
    "load": "training.loaded",
    "Loaded": "training.loaded",
    "export": "training.loaded",
}
if TYPE_CHECKING:  # the same for type checkers, to which a name that is not there is an error
    from .spec.experiment import Experiment as Experiment
    from .spec.experiment import ExperimentError as ExperimentError
    from .training.loaded import Loaded as Loaded
    from .training.loaded import export as export
    from .training.loaded import load as load
    from .training.starting import evaluate as evaluate
    from .training.starting import resume as resume
    from .training.starting import train as train
else:

    def __getattr__(name: str) -> Any:
        """What a name of PLACES stands for, its module imported now."""
        from importlib import import_module

        if name in PLACES:
            return getattr(import_module(f".{PLACES[name]}", __name__), name)
        raise AttributeError(f"module {__name__} has no attribute {name}")
