"""CONTRIBUTING.md's house rules, each one a test. Sizes are printed, not judged."""

import ast
import re
import tomllib
from pathlib import Path

import array_api_strict
import pytest

from ref_bioplaus import backends
from ref_bioplaus.experiments.demo import agreement
from ref_bioplaus.registry import ROWS
from tests.backends.test_cross_backend import CASES, batches, maker
from tests.conftest import get

ROOT = Path(__file__).parent.parent
LIBRARY = sorted(
    p
    for folder in ("", "algorithms", "models")
    for p in (ROOT / "ref_bioplaus" / folder).glob("*.py")
    if p.name not in ("cli.py", "__main__.py")
)
ALGORITHMS = [p for p in LIBRARY if p.parent.name == "algorithms" and p.name != "__init__.py"]
SOURCES = [
    *LIBRARY,
    *(ROOT / "ref_bioplaus" / name for name in ("cli.py", "__main__.py")),
    *sorted((ROOT / "ref_bioplaus" / "experiments").rglob("*.py")),
    *sorted((ROOT / "backends").glob("*.py")),
    *sorted((ROOT / "conformance").rglob("*.py")),
]
# Imports run downwards only: a module may import what stands on a line above its own.
ORDER = [
    {"types", "tree", "naming"},
    {"windows"},
    {"kernels"},
    {"random", "make_normal_table"},
    {"linear"},
    {"local"},
    {"network"},
    {"layouts", "credit", "losses", "initializers", "inverses", "metrics"},
    {"optimizers"},
    {"modifications", "calling"},
    {"algorithms", "models"},
    {"backends"},
    {"conformance", "experiments"},
    {"cli"},
    {"__main__"},
]
CREATION = {"zeros", "ones", "full", "empty", "arange", "linspace", "eye", "asarray"}


def name(path):
    return str(path.relative_to(ROOT))


def tree(path):
    return ast.parse(path.read_text())


def imports(path):
    """(module, names) of every import, absolute, wherever it stands in the file."""
    package = (
        ["ref_bioplaus", *path.relative_to(ROOT / "ref_bioplaus").parts[:-1]] if "ref_bioplaus" in path.parts else []
    )
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ()
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module, tuple(alias.name for alias in node.names)


def part(module, names=()):
    """Which entries of ORDER an import touches."""
    pieces = module.split(".")
    if pieces[0] != "ref_bioplaus":
        return set()
    return {pieces[1]} if len(pieces) > 1 else set(names) & set().union(*ORDER)


def own_part(path):
    relative = path.relative_to(ROOT)
    return relative.parts[0] if relative.parts[0] != "ref_bioplaus" else relative.parts[1].removesuffix(".py")


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_nothing_is_differentiated_automatically(path):
    forbidden = r"requires_grad|enable_grad|\bjax\.(grad|vjp|jvp|value_and_grad|jacrev|jacfwd|linearize)|autograd\."
    assert not re.findall(forbidden, path.read_text())


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_whether_a_file_is_there_is_asked_of_os_path(path):
    """pathlib's own questions raise for a name that is too long for a file system."""
    assert not re.findall(r"(?<!info)\.(?:exists|is_dir|is_file|is_symlink)\(\)", path.read_text())


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_the_library_imports_no_backend_and_no_array_library(path):
    host = {"random.py", "make_normal_table.py"}  # NumPy on the host, before any step
    for module, names in imports(path):
        top = module.split(".")[0]
        assert top not in ("torch", "jax", "cupy", "array_api_strict", "backends", "conformance"), module
        assert top != "numpy" or path.name in host, module
        assert not part(module, names) & {"backends", "conformance", "experiments", "cli"}, module


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if p.name != "__init__.py" or p.parent.name != "ref_bioplaus"], ids=name
)
def test_imports_run_downwards_only(path):
    level = {module: i for i, row in enumerate(ORDER) for module in row}
    own = own_part(path)
    for module, names in imports(path):
        for imported in part(module, names):
            around = {own, imported} == {"conformance", "experiments"}  # both stand around the library
            if imported != own and not around:
                assert level[imported] < level[own], f"{own} imports {imported}"


def test_every_module_has_its_place_in_the_order():
    known = set().union(*ORDER)
    assert {own_part(p) for p in SOURCES} - {"__init__"} <= known


@pytest.mark.parametrize("path", ALGORITHMS, ids=name)
def test_no_algorithm_imports_another(path):
    for module, names in imports(path):
        assert not module.startswith("ref_bioplaus.algorithms"), module
        assert "algorithms" not in names


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_nothing_is_written_in_place(path):
    """What can be seen in the text; the tests' read-only NumPy sees the rest."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.AugAssign):
            assert isinstance(node.target, ast.Name), f"line {node.lineno}"
        if isinstance(node, ast.Call):
            assert "out" not in {k.arg for k in node.keywords}, f"line {node.lineno}"
            if isinstance(node.func, ast.Attribute):
                assert not re.fullmatch(r"[a-z]\w*[a-z]_", node.func.attr), f"line {node.lineno}"
                assert node.func.attr not in ("put", "copyto", "fill", "itemset"), f"line {node.lineno}"
        assert not (isinstance(node, ast.Attribute) and node.attr == "at"), "JAX's and array-api-extra's x.at[]"


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_creation_names_dtype_and_device(path):
    if path.name == "make_normal_table.py":
        return
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CREATION:
            assert {"dtype", "device"} <= {k.arg for k in node.keywords}, f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_no_global_state(path):
    for node in ast.walk(tree(path)):
        assert not isinstance(node, ast.Global | ast.Nonlocal), f"line {node.lineno}"
    for node in tree(path).body:  # module-level tables are constants: written in capitals, or functions
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict | ast.List | ast.Set):
            assert all(isinstance(t, ast.Name) and t.id.isupper() for t in node.targets), f"line {node.lineno}"
    assert "set_backend" not in path.read_text()


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_no_string_chooses_an_algorithm(path):
    strings = {n.value for n in ast.walk(tree(path)) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    assert not strings & {row.name for row in ROWS}


@pytest.mark.parametrize(("row_name", "architecture"), CASES, ids=["-".join(case) for case in CASES])
def test_no_step_asks_an_array_for_its_truth(row_name, architecture, monkeypatch):
    """No `if` on array values, shown by arrays that refuse to be a bool, an int or a float."""

    def refuse(self):
        raise AssertionError("a step asked an array for a Python value")

    make, backend = maker(row_name, architecture), get("array-api-strict")
    algorithm = make(backend)
    state = algorithm.init(backend.key(1))
    x, y = batches(row_name, architecture)[0]
    b = backend.batch(x, y)
    for method in ("__bool__", "__int__", "__float__", "__index__", "__complex__"):
        monkeypatch.setattr(array_api_strict._array_object.Array, method, refuse)
    for mode in algorithm.modes.values():
        new, _ = mode(state, b)
        assert new.t.shape == ()


def test_the_read_only_numpy_can_refuse():
    array = get("read-only").asarray([1.0, 2.0])
    for derived in (array, array + 1.0, array.reshape(2, 1), array @ array.reshape(2, 1)):
        with pytest.raises(AssertionError, match="in place"):
            derived[0] = 3.0
    with pytest.raises(AssertionError, match="in place"):
        array += 1.0


@pytest.mark.parametrize("path", ALGORITHMS, ids=name)
def test_an_algorithms_docstring_has_its_four_parts(path):
    """Name and source · equations · State · Choices; and a line that is an equation names one that stands there."""
    docstring = ast.get_docstring(tree(path))
    lines = docstring.splitlines()
    assert re.search(r"\b(19|20)\d\d\b", lines[0])
    state, choices = (i for i, line in enumerate(lines) if re.match(r"(State|Choices): ", line))
    assert lines[state].startswith("State")
    assert any(line.startswith("    ") and "=" in line for line in lines[1:state])
    assert all(line.startswith("    ") for line in [*lines[state + 1 : choices], *lines[choices + 1 :]])
    in_code = set(re.findall(r"#.*?\((\d+)\)", path.read_text()))
    assert in_code <= set(re.findall(r"\((\d+)\)", docstring))


IMPORTING = {  # what imports by name, or runs source, and what it may be
    "ref_bioplaus/naming.py": {"import_module"},  # the gate
    "ref_bioplaus/__init__.py": {"import_module"},  # its own parts
    "ref_bioplaus/experiments/__init__.py": {"import_module"},  # those of PLACES
    "ref_bioplaus/experiments/training/measuring.py": {"import_module"},  # two writers of TensorBoard
    "ref_bioplaus/registry/readme.py": {"import_module"},  # the registry's modules
    "backends/straight.py": {"exec", "compile"},  # source that torch_trees.py and ownership.py make
}
BY_NAME = {"import_module", "__import__", "exec", "eval", "compile", "exec_module", "run_module", "run_path"}
UNPICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "runpy", "code"}


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_names_of_code_pass_one_gate(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            called = getattr(node.func, "id", getattr(node.func, "attr", None))
            builtin = isinstance(node.func, ast.Name) or called not in ("compile", "eval", "exec")  # backend.compile
            if called in BY_NAME and builtin:
                assert called in IMPORTING.get(name(path), ()), f"line {node.lineno}: {called}"
            for keyword in node.keywords:
                assert keyword.arg != "allow_pickle" or keyword.value.value is False, f"line {node.lineno}"
        changes_path = isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.path" and path.name != "naming.py"
        assert not changes_path, f"line {node.lineno}: sys.path"
    assert not {module.split(".")[0] for module, _ in imports(path)} & UNPICKLING


WRITING = {  # what opens files for writing, beside machine/files.py
    "ref_bioplaus/embedded/make_normal_table.py": "makes a file of the package",
    "ref_bioplaus/embedded/make_fashion_mnist_small.py": "makes a file of the package",
    "ref_bioplaus/experiments/many/jobs.py": "opens the null device",
    "ref_bioplaus/showing/printing.py": "opens the null device",
}


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_files_are_opened_for_writing_in_one_place(path):
    if path.name == "files.py" or name(path) in WRITING:
        return
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Call):
            continue
        called = getattr(node.func, "id", getattr(node.func, "attr", None))
        assert called not in ("write_text", "write_bytes", "touch", "tofile", "save_file"), f"line {node.lineno}"
        if called in ("open", "fdopen"):
            words = [ast.unparse(argument) for argument in (*node.args, *(k.value for k in node.keywords))]
            writes = [w for w in words if re.fullmatch(r"'[rbt]*[wax+][bt+]*'|.*O_(WRONLY|RDWR).*", w)]
            assert not writes, f"line {node.lineno}: {writes}"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_what_is_public_has_a_docstring(path):
    def check(node, prefix=""):
        for child in node.body:
            if isinstance(child, ast.FunctionDef | ast.ClassDef) and not child.name.startswith("_"):
                stub = isinstance(child, ast.FunctionDef) and ast.unparse(child.body[-1]) == "..."
                assert ast.get_docstring(child) or stub, f"{prefix}{child.name}, line {child.lineno}"
                if isinstance(child, ast.ClassDef):
                    check(child, f"{child.name}.")

    assert ast.get_docstring(tree(path)), "the module"
    check(tree(path))


@pytest.mark.parametrize("path", [*SOURCES, *sorted((ROOT / "tests").glob("*.py"))], ids=name)
def test_lines_have_120_columns_at_most(path):
    assert max(map(len, path.read_text().splitlines()), default=0) <= 120


def test_sub_packages_are_those_of_the_tree():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {"ref_bioplaus", "ref_bioplaus.backends", "ref_bioplaus.conformance"}
    for folder, prefix in ((ROOT / "ref_bioplaus", "ref_bioplaus"), (ROOT / "conformance", "ref_bioplaus.conformance"),
                           (ROOT / "backends", "ref_bioplaus.backends")):  # fmt: skip
        inner = [p.parent for p in (*folder.glob("*/__init__.py"), *folder.glob("*/*/__init__.py"))]
        outside = [p for p in folder.iterdir() if p.is_symlink()]
        found |= {".".join((prefix, *p.relative_to(folder).parts)) for p in inner if not {p, p.parent} & {*outside}}
    assert listed == found
    for link in ("backends", "conformance"):
        assert (ROOT / "ref_bioplaus" / link).is_symlink()
        assert (ROOT / "ref_bioplaus" / link).readlink() == Path("..") / link


def test_every_row_is_tried_on_every_backend():
    assert {row_name for row_name, _ in CASES} == {row.name for row in ROWS}
    assert {"numpy", "torch", "jax", "cupy", "array-api-strict"} == set(backends.names())
    assert agreement.LIMIT == 1e-11


def test_sizes_are_printed(capsys):
    """Guides, not limits: algorithm files 35 to 150 lines of code, others about 300."""
    sizes = {}
    for path in SOURCES:
        code = tree(path)
        documented = {
            line
            for node in ast.walk(code)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node)
            for line in range(node.body[0].lineno, node.body[0].end_lineno + 1)
        }
        lines = path.read_text().splitlines()
        blank = {i for i, line in enumerate(lines, 1) if not line.strip() or line.strip().startswith("#")}
        sizes[name(path)] = len(lines) - len(documented | blank)
    with capsys.disabled():
        print("\nlines of code: " + ", ".join(f"{path} {n}" for path, n in sorted(sizes.items(), key=lambda i: -i[1])))
    assert min(sizes.values()) >= 0
