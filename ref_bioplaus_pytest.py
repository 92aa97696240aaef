"""Options for the conformance suite: pytest --pyargs ref_bioplaus.conformance --rb-backend torch --rb-level 0-1.

An entry point, as pytest reads the options of a package's own conftest.py too late. So it is loaded by every pytest
that runs where the package is installed: it stands outside the package and imports nothing, above all not NumPy, which
would take its number of threads before a project's own conftest.py can set it. All else is in the suite's module,
conformance/test_suite.py.
"""

OPTIONS = {  # as of `ref-bioplaus conformance run`
    "backend": ("numpy", 'a backend by name, or as "module:object"'),
    "device": (None, "its device"),
    "dtype": ("float32", "float32, float64 or bfloat16"),
    "precision": ("ieee", "of float32 products: ieee, tf32 or bf16"),
    "kernels": ("portable", "portable, or native (the library's own forms)"),
    "mode": ("eager,compiled,donating", "eager, compiled, donating: one or several, with commas between"),
    "level": ("0-3", "0 to 4, as 0-2 or 0,2"),
    "case": ("*", "only checks whose id matches, as 1/kolen-pollack/*"),
    "algorithm": (None, "only these rules, by name or as my_rule.py:my_rule, with commas between"),
    "deviations": (None, "the folder with <backend>.toml, what is known to differ; ours if left out"),
}


def pytest_addoption(parser):
    """What to ask, and whom. No other project has these names."""
    group = parser.getgroup("ref_bioplaus", "conformance of ref_bioplaus (pytest --pyargs ref_bioplaus.conformance)")
    for name, (default, text) in OPTIONS.items():
        shown = "" if default is None else f" [{default}]"
        group.addoption(f"--rb-{name}", default=default, help=text + shown)
