"""The program's commands, called in this process."""

from typer.testing import CliRunner

from ref_bioplaus.__main__ import app as program


def command(*words, code=0, app=program):
    """The result of a command, which must end with an exit code, this one (None: whichever), and no traceback."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert code in (None, result.exit_code), result.output
    assert "Traceback" not in result.output, result.output
    return result


def printed(*words, code=0):
    """All that a command prints, on one line."""
    return " ".join(command(*words, code=code).output.split())
