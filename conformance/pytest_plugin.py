"""The suite under pytest: pytest --pyargs ref_bioplaus.conformance --backend torch --dtype float32 --level 0-1.

An entry point, as pytest reads the options of a package's own conftest.py too late. Elsewhere it adds nothing.
"""

import sys

import pytest

PACKAGE = "ref_bioplaus.conformance"


def asked_for() -> bool:
    """Whether this call of pytest names the package."""
    return PACKAGE in sys.argv


def pytest_addoption(parser):
    """What to ask, and whom."""
    if not asked_for():
        return
    group = parser.getgroup("conformance of ref_bioplaus")
    group.addoption("--backend", default="numpy", help='a backend by name, or "module:object"')
    group.addoption("--device", default=None, help="its device")
    group.addoption("--dtype", default="float32", help="float32, float64 or bfloat16")
    group.addoption("--precision", default="ieee", help="ieee, tf32 or bf16")
    group.addoption("--mode", default="compiled", help="eager, compiled, donating: one or several, with commas")
    group.addoption("--level", default="0-3", help="levels, as in 0-1 or 0,2")


def pytest_generate_tests(metafunc):
    """A test per check and mode."""
    if metafunc.module.__name__ != f"{PACKAGE}.test_suite":
        return
    from ref_bioplaus.conformance import levels
    from ref_bioplaus.conformance.command import parse_levels
    from ref_bioplaus.conformance.records import MODES

    option = metafunc.config.getoption
    modes = option("--mode").split(",")
    unknown = set(modes) - set(MODES)
    if unknown:
        raise pytest.UsageError(f"--mode {min(unknown)} is unknown, expected some of {', '.join(MODES)}")
    asked = [(c, m) for c in levels.checks(parse_levels(option("--level"))) for m in modes if m in c.modes]
    metafunc.parametrize(("check", "mode"), asked, ids=[f"{check.id}-{mode}" for check, mode in asked])


@pytest.fixture(scope="session")
def conformance_subject(pytestconfig):
    """The backend under test, with our algorithms."""
    from ref_bioplaus import backends
    from ref_bioplaus.conformance.records import Subject

    option = pytestconfig.getoption
    try:
        backend = backends.get(option("--backend"), option("--device"), option("--dtype"), option("--precision"))
    except backends.BackendError as error:
        raise pytest.UsageError(str(error)) from error
    return Subject(backend)
