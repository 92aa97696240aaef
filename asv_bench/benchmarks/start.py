"""How long a user waits before anything runs: a new process each."""

import subprocess
import sys

from asv_bench.cases import COMMANDS
from asv_bench.memory import ROOT


class Start:
    """Imports, and the command's help."""

    params = (tuple(COMMANDS),)
    param_names = ("what",)

    def setup(self, what):
        """Once, so that files are in memory and compiled; a library that is missing is skipped."""
        done = subprocess.run([sys.executable, "-c", COMMANDS[what]], capture_output=True, cwd=ROOT)
        if done.returncode:
            raise NotImplementedError(done.stderr.decode()[-200:])

    def time_start(self, what):
        """The whole process."""
        subprocess.run([sys.executable, "-c", COMMANDS[what]], check=True, capture_output=True, cwd=ROOT)
