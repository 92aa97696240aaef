"""How long a user waits before anything runs: a new process each."""

import subprocess
import sys

from .subjects import LIBRARIES

COMMANDS = {
    "import ref_bioplaus": "import ref_bioplaus",
    **{f"{name} backend": f"import ref_bioplaus as rb; rb.backends.get({name!r})" for name in LIBRARIES},
    "command --help": "import sys; sys.argv = ['ref-bioplaus', '--help']; from ref_bioplaus.__main__ import app; app()",
}


class Start:
    """Imports, backends, and the command's help."""

    params = (list(COMMANDS),)
    param_names = ("what",)

    def setup(self, what):
        """Once, so that files are in memory and compiled."""
        self.time_start(what)

    def time_start(self, what):
        """The whole process."""
        subprocess.run([sys.executable, "-c", COMMANDS[what]], check=True, capture_output=True)
