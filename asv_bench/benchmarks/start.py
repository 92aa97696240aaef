"""How long a user waits before anything runs: a new process each."""

from asv_bench.cases import COMMANDS
from asv_bench.memory import new_process


class Start:
    """Imports, and the command's help."""

    params = (tuple(COMMANDS),)
    param_names = ("what",)

    def setup(self, what):
        """Once, so that files are in memory and compiled; a library that is missing is skipped."""
        done = new_process(COMMANDS[what])
        if done.returncode:
            raise NotImplementedError(done.stderr[-200:])

    def time_start(self, what):
        """The whole process."""
        new_process(COMMANDS[what]).check_returncode()
