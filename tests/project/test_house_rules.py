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
from tests.conftest import get
from tests.helpers import ROOT, SOURCES
from tests.helpers.step_cases import CASES, batches, maker

LIBRARY = sorted(
    p
    for folder in ("", "algorithms", "models")
    for p in (ROOT / "ref_bioplaus" / folder).glob("*.py")
    if p.name != "__main__.py"
)
ALGORITHMS = [p for p in LIBRARY if p.parent.name == "algorithms" and p.name != "__init__.py"]
# Imports run downwards only: a module may import what stands on a line above its own, and its own room.
ORDER = [
    {"tree", "naming"},
    {"types"},
    {"windows"},
    {"kernels"},
    {"random"},
    {"linear"},
    {"local"},
    {"network"},
    {"layouts", "credit", "losses", "initializers", "inverses", "metrics"},
    {"optimizers"},
    {"modifications", "calling"},
    {"algorithms", "models"},
    {"backends"},
    {"showing"},
    {"machine", "embedded"},
    {"registry"},
    {"conformance.cases", "experiments.data", "experiments.papers"},
    {"conformance.judging", "experiments.boxes", "experiments.spec"},
    {"conformance.checks", "experiments.runs"},
    {"conformance.files", "experiments.training"},
    {"conformance.reporting", "experiments.many"},
    {"conformance.proofs", "conformance.authors", "experiments.figures"},
    {"conformance.commands", "experiments.demo"},
    {"conformance.test_suite", "experiments.commands"},
    {"experiments.examples"},
    {"gpu"},
    {"__main__"},
]
PLACES = {place: i for i, row in enumerate(ORDER) for place in row}
SHARED = {"showing", "machine", "embedded", "registry"}  # what both programs stand on
AROUND = {"backends", "conformance", "experiments", "gpu", "__main__"} | SHARED  # around the library
MOST = 14  # .py files of a folder
CREATION = {"zeros", "ones", "full", "empty", "arange", "linspace", "eye", "asarray"}


def name(path):
    return str(path.relative_to(ROOT))


def tree(path):
    return ast.parse(path.read_text())


def module_of(path):
    """As it is imported, whatever the checkout's folder is called."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in (*(() if parts[0] == "ref_bioplaus" else ("ref_bioplaus",)), *parts))


MODULES = {module_of(path).removesuffix(".__init__") for path in SOURCES}


def imports(path):
    """(module, names) of every import, absolute, wherever it stands in the file, but for what only checkers are told:
    what the library's own __init__ finds when it is first named."""
    package, code = module_of(path).split(".")[:-1], tree(path)
    if path == ROOT / "ref_bioplaus" / "__init__.py":
        code.body = [node for node in code.body if not (isinstance(node, ast.If) and is_typing(node.test))]
    for node in ast.walk(code):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ()
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module, tuple(alias.name for alias in node.names)


def is_typing(test):
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def place(module):
    """The entry of ORDER that a module belongs to; None for the package itself, and for what only joins rooms."""
    pieces = module.split(".")
    inside = pieces[1:] if pieces[0] == "ref_bioplaus" else []
    return next((name for n in (2, 1) if (name := ".".join(inside[:n])) in PLACES), None)


def part(module, names=()):
    """Which entries of ORDER an import touches."""
    whole = [f"{module}.{name}" if f"{module}.{name}" in MODULES else module for name in names] or [module]
    return {place(name) for name in whole} - {None}


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
    for module, names in imports(path):
        top = module.split(".")[0]
        assert top not in ("torch", "jax", "cupy", "array_api_strict", "backends", "conformance"), module
        assert top != "numpy" or path.name == "random.py", module  # NumPy on the host, before any step
        assert not {entry.partition(".")[0] for entry in part(module, names)} & AROUND, module


@pytest.mark.parametrize("path", [p for p in SOURCES if place(module_of(p))], ids=name)
def test_imports_run_downwards_only(path):
    own = place(module_of(path))
    for module, names in imports(path):
        for imported in part(module, names) - {own}:
            assert PLACES[imported] < PLACES[own], f"{own} imports {imported}"
            programs = {own.partition(".")[0], imported.partition(".")[0]}
            assert programs != {"conformance", "experiments"}, f"{own} imports {imported}"


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("test_*.py")), ids=name)
def test_no_test_module_imports_another(path):
    """What several use lies in tests/helpers; text of programs that tests start counts, too."""
    found = re.findall(r"^ *(?:from|import) +tests\.(?:\w+\.)*test_\w+", path.read_text(), re.MULTILINE)
    assert found == []


def test_every_module_has_its_place_in_the_order():
    joining = {"ref_bioplaus", "ref_bioplaus.conformance", "ref_bioplaus.experiments"}
    assert {module for module in MODULES if not place(module)} == joining
    assert {place(module) for module in MODULES} - {None} == {*PLACES}


def test_no_folder_is_a_hall():
    folders = {p.parent for folder in ("", "asv_bench", "tests") for p in SOURCES + [*(ROOT / folder).rglob("*.py")]}
    mine = [
        p for p in folders if not {".venv", ".venv-oldest", ".venv-gpu", "build", ".asv"} & {*p.relative_to(ROOT).parts}
    ]
    sizes = {name(p): len([*p.glob("*.py")]) for p in mine if p != ROOT / "ref_bioplaus"}
    assert not {folder: n for folder, n in sizes.items() if n > MOST}
    assert len([*(ROOT / "ref_bioplaus").glob("*.py")]) == 20


def test_the_map_of_the_rooms_is_printed(capsys):
    """What stands on what: every room, its files, and the rooms that it imports."""
    rooms = {}
    for path in SOURCES:
        own = place(module_of(path))
        if own and ("." in own or own in AROUND):
            files, uses = rooms.setdefault(own, (set(), set()))
            files.add(path.stem)
            for module, names in imports(path):
                uses |= {used for used in part(module, names) if "." in used or used in AROUND} - {own}
    with capsys.disabled():
        print("\nlibrary: " + " < ".join(", ".join(sorted(row)) for row in ORDER[: PLACES["backends"]]))
        for own in sorted(rooms, key=lambda room: PLACES[room]):
            files, uses = rooms[own]
            print(f"{own}: {', '.join(sorted(files - {'__init__'}))}")
            print(f"    on {', '.join(sorted(uses, key=lambda room: PLACES[room])) or 'the library'}")
    assert {*rooms} == {entry for entry in PLACES if "." in entry or entry in AROUND}


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


BY_LIBRARY = {  # what tells libraries apart by name outside of backends/
    "asv_bench/native/__init__.py": "pairs a backend with the library that it is timed against",
    "asv_bench/page.py": "reads records of benchmarks, whose goals differ by library",
    "asv_bench/cases.py": "NumPy's native opponent is another library, whose threads need a pause",
    "asv_bench/where.py": "records torch's own threads",
}
ASKING = [p for p in SOURCES if p.relative_to(ROOT).parts[0] != "backends"] + sorted((ROOT / "asv_bench").rglob("*.py"))


@pytest.mark.parametrize("path", ASKING, ids=name)
def test_backends_are_asked_by_methods_not_by_name(path):
    """A backend of somebody's own is asked the same."""
    known = {*backends.names()}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Compare):
            words = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
            assert not words & known or name(path) in BY_LIBRARY, f"line {node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr"):
            of = ast.unparse(node.args[0])
            assert not re.fullmatch(r"(.*\.)?backend(\.device)?", of), f"line {node.lineno}: {ast.unparse(node)}"


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
    "ref_bioplaus/naming.py": {"import_module", "exec_module"},  # the gate
    "ref_bioplaus/__init__.py": {"import_module"},  # its own parts
    "ref_bioplaus/experiments/__init__.py": {"import_module"},  # those of PLACES
    "ref_bioplaus/experiments/training/tensorboard.py": {"import_module"},  # two writers of TensorBoard
    "ref_bioplaus/registry/readme.py": {"import_module"},  # the registry's modules
    "backends/straight.py": {"exec", "compile"},  # source that torch_/trees.py and ownership.py make
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


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name != "of_your_own.py"], ids=name)
def test_parameters_of_public_functions_are_annotated(path):
    """All but those of the example of 60 lines, which shows how little a file of one's own needs."""

    def check(body):
        for node in body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                check(node.body)
            if not isinstance(node, ast.FunctionDef) or (node.name.startswith("_") and node.name != "__init__"):
                continue
            of = node.args
            every = [*of.posonlyargs, *of.args, *of.kwonlyargs, *(one for one in (of.vararg, of.kwarg) if one)]
            bare = [one.arg for one in every if one.annotation is None and one.arg not in ("self", "cls")]
            assert not bare, f"{node.name}, line {node.lineno}: {', '.join(bare)}"

    check(tree(path).body)


@pytest.mark.parametrize("path", [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))], ids=name)
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
