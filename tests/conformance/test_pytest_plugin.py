"""The conformance suite under pytest, started in every way that pytest can be, and projects that do not ask for it."""

import datetime
import inspect
import json
import os
import re
import subprocess
import sys
import tomllib

import pytest

import ref_bioplaus_pytest
from ref_bioplaus.conformance import test_suite
from ref_bioplaus.conformance.checks import levels
from ref_bioplaus.conformance.checks.outcomes import Check, Finding
from ref_bioplaus.conformance.commands.conformance import run
from ref_bioplaus.conformance.judging.judge import LIMIT, Score
from tests.helpers import ROOT
from tests.helpers.own_code import RULE

NAME, MODULE = "ref_bioplaus_conformance", "ref_bioplaus_pytest"
SMALL = "--rb-level 0 --rb-case 0/loss/*"


# Other processes


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """What makes pytest load the plugin as pyproject.toml names it, whatever is installed here: a PYTHONPATH."""
    folder = tmp_path_factory.mktemp("installed")
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    assert entries == {NAME: MODULE}
    (folder / "plugin-0.dist-info").mkdir()
    (folder / "plugin-0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 0\n")
    (folder / "plugin-0.dist-info" / "entry_points.txt").write_text(f"[pytest11]\n{NAME} = {MODULE}\n")
    return os.pathsep.join((str(folder), str(ROOT)))


@pytest.fixture
def outside(installed, tmp_path):
    """Runs Python in a folder of its own; returns what it said. No option of this pytest reaches it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}

    def run(*arguments, code=0, **environment):
        done = subprocess.run(
            [sys.executable, *map(str, arguments)], cwd=tmp_path, capture_output=True, text=True, check=False,
            env=clean | {"PYTHONPATH": installed} | environment, timeout=300,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    return run


def test_a_project_that_does_not_ask_for_it_notices_nothing(outside, tmp_path):
    """It may have options of the same words, starts before NumPy is imported, and gets no test of ours."""
    (tmp_path / "conftest.py").write_text(
        "import sys\n"
        "ours = sorted(m for m in sys.modules if m.partition('.')[0] in ('numpy', 'ref_bioplaus', 'rich', 'typer'))\n"
        f"assert ours == [] and {MODULE!r} in sys.modules, ours\n"
        "def pytest_addoption(parser):\n"
        "    for name in ('backend', 'device', 'dtype', 'precision', 'kernels', 'mode', 'level', 'case'):\n"
        "        parser.addoption('--' + name, default='theirs')\n"
    )
    (tmp_path / "test_theirs.py").write_text(
        "import pytest\n"
        "@pytest.fixture\n"
        "def check(pytestconfig):\n"
        "    return pytestconfig.getoption('--backend'), pytestconfig.getoption('--level')\n"
        "@pytest.mark.parametrize('mode', ['a', 'b'])\n"
        "def test_theirs(check, mode):\n"
        "    assert check == ('mine', 'theirs')\n"
    )
    assert "2 passed" in outside("-m", "pytest", "-W", "error", "--backend", "mine")


def test_options_come_through_the_environment_and_to_every_worker(outside):
    pytest.importorskip("xdist")
    said = outside("-m", "pytest", "--pyargs", "ref_bioplaus.conformance", PYTEST_ADDOPTS=f"-n 1 {SMALL}")
    asked = sum(len(check.modes) for check in levels.checks([0]) if check.id.startswith("0/loss/")) + 1
    assert f"1 worker [{asked} items]" in said and f"{asked} passed" in said and asked > 5


def test_one_test_by_its_name_from_another_program(outside):
    name = "ref_bioplaus.conformance.test_suite::test_conformance[0/loss/cross_entropy-eager]"
    program = f"import pytest, sys; sys.exit(pytest.main(['--pyargs', {name!r}, '--rb-dtype', 'float64', '-v']))"
    said = outside("-c", program)
    assert "test_conformance[0/loss/cross_entropy-eager] PASSED" in said and "1 passed" in said


# In this process


class Recorder:
    """What a run of pytest did: outcomes by the test's name, and its sentences."""

    def __init__(self):
        self.outcomes, self.said = {}, {}

    def note(self, report):
        """One report."""
        self.said[report.nodeid.rpartition("::")[2]] = str(getattr(report, "longrepr", "") or "")

    def pytest_collectreport(self, report):
        """What could not be collected."""
        if report.failed:
            self.note(report)

    def pytest_runtest_logreport(self, report):
        """What became of a test."""
        if report.when == "call":
            self.note(report)
            self.outcomes[report.nodeid.rpartition("::")[2]] = (
                "xfailed" if hasattr(report, "wasxfail") else report.outcome
            )
            self.said[report.nodeid.rpartition("::")[2]] += getattr(report, "wasxfail", "")


def ran(*arguments, code=0, what=("--pyargs", "ref_bioplaus.conformance")):
    """The record of the suite under options."""
    recorder = Recorder()
    always = ("-c", os.devnull, "--rootdir", ".", "-p", f"no:{NAME}", "-p", MODULE, "-p", "no:cacheprovider", "-s")
    assert pytest.main([*always, *what, *map(str, arguments)], plugins=[recorder]) == code, recorder.said
    return recorder


GOOD = Finding((Score("info/h/1", LIMIT / 4),))
BAD = Finding((Score("info/h/1", 5 * LIMIT, (1, 2), 0.25, 0.5, 1e-3),))
ROW = {"id": "1/dtp/*", "device": "cpu", "dtype": "float32", "reason": "It fuses.", "link": "https://example.org/7"}


@pytest.fixture
def suite(monkeypatch, tmp_path):
    """Fake checks in the place of the suite's, in an empty folder; notes the subject that each was asked of."""
    asked = []

    def check(id, finding, modes=("eager", "compiled", "donating")):
        def run(subject, mode):
            b = subject.backend
            asked.append((b.name, b.dtype, b.kernels.name))
            return finding

        return Check(id, int(id[0]), id.split("/")[1], run, modes)

    checks = [
        check("0/loss/exact", GOOD, ("eager",)),
        check("1/dfa/FC", GOOD),
        check("1/dtp/FC", BAD, ("eager", "compiled")),
        check("1/usf/FC", Finding(undecidable=3), ("eager",)),
    ]
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])  # which pytest and the suite add to
    monkeypatch.setattr(levels, "checks", lambda wanted: tuple(c for c in checks if c.level in wanted))
    monkeypatch.chdir(tmp_path)
    return asked


def deviation(folder, **changes):
    """A file of one row that is in order, with changes."""
    today = str(datetime.date.today())
    row = ROW | {"since": "2025-01-01", "until": today} | changes
    lines = (f"{key} = {json.dumps(value)}" for key, value in row.items())
    (folder / "numpy.toml").write_text("\n".join(("[[deviation]]", *lines)))
    return ("--rb-deviations", folder)


def test_outcomes_are_those_of_the_command(suite):
    found = ran(code=1)
    assert found.outcomes == {
        "test_conformance[0/loss/exact-eager]": "passed",
        "test_conformance[1/dfa/FC-eager]": "passed",
        "test_conformance[1/dfa/FC-compiled]": "passed",
        "test_conformance[1/dfa/FC-donating]": "passed",
        "test_conformance[1/dtp/FC-eager]": "failed",
        "test_conformance[1/dtp/FC-compiled]": "failed",
        "test_conformance[1/usf/FC-eager]": "skipped",
        "test_deviations": "passed",
    }
    assert "info/h/1[1, 2] departs first: 0.5, expected 0.25" in found.said["test_conformance[1/dtp/FC-eager]"]
    assert set(suite) == {("numpy", "float32", "portable")}


def test_every_option_reaches_the_suite(suite):
    found = ran("--rb-level", "1", "--rb-mode", "donating, eager", "--rb-case", "*/dfa/*")
    assert sorted(found.outcomes)[:2] == ["test_conformance[1/dfa/FC-donating]", "test_conformance[1/dfa/FC-eager]"]
    assert len(found.outcomes) == 3
    suite.clear()
    ran("--rb-dtype", "float64", "--rb-kernels", "native", "--rb-device", "cpu", "--rb-case", "0/*")
    assert suite == [("numpy", "float64", "native")]
    suite.clear()
    ran("--rb-backend", "array-api-strict", "--rb-precision", "ieee", "--rb-case", "0/*")
    assert suite == [("array-api-strict", "float32", "portable")]


def test_a_test_by_its_path_and_name(suite):
    name = f"{ROOT / 'ref_bioplaus' / 'conformance' / 'test_suite.py'}::test_conformance[1/dfa/FC-donating]"
    assert ran(what=(name,)).outcomes == {"test_conformance[1/dfa/FC-donating]": "passed"}


def test_without_the_plugin_the_defaults_are_asked(suite):
    class Config:
        """A pytest without the options."""

        stash = pytest.Stash()

        def getoption(self, name, default):
            return default

    class Metafunc:
        """Of test_conformance."""

        config, fixturenames = Config(), ["check", "mode"]

        def parametrize(self, names, values, ids):
            assert len(values) == len(ids) == 7 and ids[0] == "0/loss/exact-eager"

    test_suite.pytest_generate_tests(Metafunc())


def test_a_backend_may_stand_in_the_current_folder(suite, tmp_path):
    (tmp_path / "in_this_folder.py").write_text("from ref_bioplaus.backends.numpy_.backend import backend\n")
    ran("--rb-backend", "in_this_folder:backend", "--rb-case", "0/*")
    assert suite == [("numpy", "float32", "portable")]


def test_deviations_excuse_and_are_strict(suite, tmp_path):
    found = ran(*deviation(tmp_path))
    assert [found.outcomes[f"test_conformance[1/dtp/FC-{mode}]"] for mode in ("eager", "compiled")] == ["xfailed"] * 2
    assert "It fuses; see https://example.org/7" in found.said["test_conformance[1/dtp/FC-eager]"]
    found = ran(*deviation(tmp_path, id="1/d*"), code=1)
    assert {name for name, outcome in found.outcomes.items() if outcome == "failed"} == {
        f"test_conformance[1/dfa/FC-{mode}]" for mode in ("eager", "compiled", "donating")
    }
    assert "does not hold any more" in found.said["test_conformance[1/dfa/FC-eager]"]
    for changes, words in (({"id": "1/dpt/*"}, "matches nothing"), ({"until": "2025-02-01"}, "ended on 2025-02-01")):
        found = ran(*deviation(tmp_path, **changes), code=1)
        assert words in found.said["test_deviations"]
        assert found.outcomes["test_conformance[1/dtp/FC-eager]"] == "failed"
    assert ran(*deviation(tmp_path), "--rb-case", "1/dfa/*").outcomes["test_deviations"] == "passed"
    assert ran(*deviation(tmp_path, device="cuda"), code=1).outcomes["test_conformance[1/dtp/FC-eager]"] == "failed"


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("backend", "touch", 'backend "touch" is unknown'),
        ("backend", "", "name a backend with --rb-backend"),
        ("backend", "numpy,array-api-strict", "pytest checks one at a time, and numpy float32 ieee and array-api-stri"),
        ("device", "cuda", 'device "cuda" is not there'),
        ("dtype", "float16", '--rb-dtype is "float16", expected some of'),
        ("dtype", "float32,float64", "pytest checks one at a time"),
        ("precision", "fp8", '--rb-precision is "fp8"'),
        ("kernels", "fast", '--rb-kernels is "fast"'),
        ("mode", "lazy", '--rb-mode is "lazy", expected some of eager, compiled, donating'),
        ("level", "5", '--rb-level is "5", expected levels from 0 to 4'),
        ("case", "[", 'matches --rb-case "["'),
        ("deviations", "nowhere", "nowhere is no folder to read (No such file or directory): name one with --rb-devia"),
    ],
)
def test_a_mistake_is_one_sentence_and_no_test_runs(suite, option, value, words):
    found = ran(f"--rb-{option}", value, code=2)
    (said,) = found.said.values()
    assert words in said and said.endswith(".") and "\n" not in said, said
    assert found.outcomes == {} and suite == []


def test_a_rule_of_ones_own_is_judged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_rule.py").write_text(RULE)
    found = ran("--rb-level", "1", "--rb-mode", "eager", "--rb-algorithm", "my_rule.py:rule", "--rb-case", "*/FC/*")
    rule = "test_conformance[1/my_rule.py:rule/FC"
    names = (f"{rule}/learn/1-eager]", f"{rule}/learn/6-eager]", f"{rule}/init-eager]", "test_deviations")
    assert found.outcomes == dict.fromkeys(names, "passed")
    found = ran("--rb-algorithm", "my_rule.py:nothing", code=2)
    assert 'has no "nothing"' in next(iter(found.said.values()))


def test_the_plugin_has_the_options_of_the_command_and_the_pages_know_them():
    defaults = {name: p.default for name, p in inspect.signature(run).parameters.items()}
    for name in ("json", "html", "since", "jobs"):  # pytest has --junit-xml, plugins for pages, --failed-first and -n
        del defaults[name]
    ours = {name: default for name, (default, _) in ref_bioplaus_pytest.OPTIONS.items()}
    assert ours == defaults | {"backend": "numpy"}
    for page in (ROOT / "README.md", ROOT / "conformance" / "README.md"):
        (line,) = re.findall("^pytest --pyargs ref_bioplaus.conformance (.*)", page.read_text(), re.M)
        named = re.findall(r"--(\S+)", line)
        assert named and all(name.removeprefix("rb-") in ours and name.startswith("rb-") for name in named)
