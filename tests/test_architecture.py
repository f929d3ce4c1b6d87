"""The shape of the code: no import cycles, small files, private corners of other libraries in one place."""

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import seeking

PACKAGE = Path(seeking.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def imported(path: Path) -> Iterator[str]:
    """The modules of the package that a file imports by name, wherever in the file, but for type checking alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in submodules if name in MODULES)
            if any(name not in MODULES for name in submodules):
                yield str(node.module)


def test_no_file_imports_itself_through_others() -> None:
    graph = {name: set(imported(path)) - {name} for name, path in MODULES.items()}
    assert sum(map(len, graph.values())) > 100
    graphlib.TopologicalSorter(graph).prepare()  # Raises CycleError, which names the cycle.


UPWARD = {
    ("seeking.report.folder", "seeking.commands"),  # The defaults of the options that it shows.
    ("seeking.training.trainer", "seeking.report.showing"),  # What a run shows of itself.
    ("seeking.training.build", "seeking.algorithms"),  # The algorithm of the options.
}
"""The imports that run against the order of the folders, which ``docs/architecture.md`` names."""


def test_folders_import_in_one_direction() -> None:
    graph: dict[str, set[str]] = {}
    upward = set()
    for name, path in MODULES.items():
        for other in imported(path):
            folder, target = (f"{each}.".split(".")[1] for each in (name, other))
            exceptions = {(name, known) for known in (other, f"seeking.{target}")} & UPWARD
            upward |= exceptions
            if folder and target and folder != target and not exceptions:
                graph.setdefault(folder, set()).add(target)
    graphlib.TopologicalSorter(graph).prepare()
    assert upward == UPWARD


def test_the_core_imports_neither_the_trainer_nor_a_framework() -> None:
    core = ("pair", "initialization", "weights_map", "matching", "verification", "conditions")
    for name, path in MODULES.items():
        if name.split(".")[1:2] and name.split(".")[1] in core:
            assert not [other for other in imported(path) if ".training" in other or ".experiments" in other], name
            roots = {node.split(".")[0] for node in _outside(path)}
            assert not roots & {"accelerate", "timm", "transformers", "lightning", "datasets"}, name


def test_integrations_are_imported_by_nobody() -> None:
    for name, path in MODULES.items():
        integrations = [other for other in imported(path) if other.startswith("seeking.integrations")]
        assert not integrations or name.startswith("seeking.integrations."), name


def _outside(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_files_are_small() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {str(path): count for path, count in lines.items() if count > 400} == {}
    assert lines[PACKAGE / "training" / "trainer.py"] < 300


def test_private_names_of_other_libraries_are_in_one_file() -> None:
    """An attribute with a leading underscore belongs to ``self`` or to a class of the same file."""
    private = []
    for path in FILES:
        if path.name == "internals.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        own |= {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                names = [node.attr]
            elif isinstance(node, ast.ImportFrom):
                names = [alias.name for alias in node.names]
            else:
                continue
            private += [
                f"{path.name}: {name}" for name in names if _private(name) and name not in own and name != "_exit"
            ]
    assert not private


def test_each_private_name_of_another_library_has_a_test() -> None:
    tree = ast.parse((PACKAGE / "internals.py").read_text(encoding="utf-8"))
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    tests = ast.parse(Path(__file__).with_name("test_internals.py").read_text(encoding="utf-8"))
    tested = {node.attr for node in ast.walk(tests) if isinstance(node, ast.Attribute)}
    assert len(names) > 20
    assert names <= tested


def _private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_exit"  # os._exit is documented.


def test_the_layout_in_the_docs_is_that_of_the_code() -> None:
    page = (PACKAGE.parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    layout = page.split("```")[1]
    named = set(re.findall(r"\b(\w+(?:\.py|/))", layout))
    members = {path.name + ("/" if path.is_dir() else "") for path in PACKAGE.iterdir()}
    members -= {"__init__.py", "__pycache__/", "py.typed"}
    assert members <= named
    assert {name for name in named if name.endswith(".py")} <= {path.name for path in FILES}
