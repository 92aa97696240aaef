"""Wheel and sdist: complete, installable in an empty environment, and usable outside the repository."""

import sys
import tarfile
import textwrap
import venv
import zipfile

import pytest

from tests.helpers import ROOT
from tests.helpers.packages import run, wheel_of_the_tree


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(wheel from the tree, sdist, wheel from the sdist)"""
    folder = tmp_path_factory.mktemp("built")
    wheel, source = wheel_of_the_tree(folder)
    build = (sys.executable, "-m", "build", "--no-isolation")
    run(*build, "--sdist", "--outdir", folder / "sdist", cwd=source)
    (sdist,) = (folder / "sdist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    run(*build, "--wheel", "--outdir", folder / "second", cwd=unpacked)
    (second,) = (folder / "second").glob("*.whl")
    return wheel, sdist, second


def test_wheels_from_the_tree_and_from_the_sdist_hold_the_same_files(built):
    wheel, _, second = built
    contents = [
        {n: zipfile.ZipFile(w).read(n) for n in zipfile.ZipFile(w).namelist() if "/RECORD" not in n}
        for w in (wheel, second)
    ]
    assert contents[0] == contents[1]
    names = set(contents[0])
    python = {str(p.relative_to(ROOT)) for p in (ROOT / "ref_bioplaus").rglob("*.py") if "__pycache__" not in str(p)}
    python |= {
        f"ref_bioplaus/{p.relative_to(ROOT)}" for f in ("backends", "conformance") for p in (ROOT / f).rglob("*.py")
    }
    assert python - names == set()
    for needed in ("normal_table.npy", "py.typed", "embedded/fashion_mnist_small.npz",
                   "embedded/LICENSE.fashion_mnist", "experiments/demo/templates/demo.html",
                   "conformance/files/FORMAT.md", "conformance/files/c/by_hand.c"):  # fmt: skip
        assert f"ref_bioplaus/{needed}" in names
    outside = [n for n in names if not n.startswith(("ref_bioplaus/", "ref_bioplaus-"))]
    assert outside == ["ref_bioplaus_pytest.py"]  # no bare `backends`, `tests`
    (entry_points,) = (contents[0][n].decode() for n in names if n.endswith("entry_points.txt"))
    assert "[pytest11]\nref_bioplaus_conformance = ref_bioplaus_pytest\n" in entry_points
    assert [n for n in names if n.endswith("licenses/LICENSE")]


def test_the_demo_runs_in_an_empty_environment_outside_the_repository(built, tmp_path):
    wheel, _, _ = built
    venv.create(tmp_path / "empty", with_pip=True)
    python = tmp_path / "empty" / "bin" / "python"
    try:
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel, cwd=tmp_path)
    except AssertionError as error:
        if "No matching distribution" in str(error) or "NewConnectionError" in str(error):
            pytest.skip("no package index can be reached to install the dependencies from")
        raise
    command = tmp_path / "empty" / "bin" / "ref-bioplaus"
    out = run(command, "demo", "--quick", "--steps", "20", "--out", tmp_path / "page", cwd=tmp_path, COLUMNS="200")
    assert "agree" in out.strip().splitlines()[-1]
    page = (tmp_path / "page" / "index.html").read_text()
    assert "<svg" in page
    where = run(
        python,
        "-c",
        "import ref_bioplaus, ref_bioplaus.backends as b; print(ref_bioplaus.__file__, b.__file__)",
        cwd=tmp_path,
    )
    assert str(ROOT) not in where


def test_importing_the_library_imports_no_array_library_but_numpy():
    script = textwrap.dedent("""
        import sys
        import ref_bioplaus
        ref_bioplaus.models.bartunov2018.mnist_fc()
        print(sorted({"torch", "jax", "cupy", "array_api_strict", "matplotlib", "typer", "rich"} & set(sys.modules)))
    """)
    assert run(sys.executable, "-c", script, cwd="/").strip() == "[]"
