"""What is imported when: help and small programs wait for nothing that they do not use."""

import ast
import importlib
import subprocess
import sys
import types
from pathlib import Path

import pytest

import seeking

SLOW = {"torch", "accelerate", "datasets", "matplotlib", "sklearn", "sympy", "timm", "torchvision", "transformers"}
HELP = """
import contextlib, sys
import seeking
from seeking.cli import COMMANDS, main
assert main(["--help"]) == 0
for command in COMMANDS:
    with contextlib.suppress(SystemExit):
        main([command, "--help"])
print("imported:", *sys.modules)
"""


def imported_by(program: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return SLOW & {*done.stdout.rpartition("imported:")[2].split()}


def test_help_imports_nothing_slow() -> None:
    assert imported_by(HELP) == set()


@pytest.mark.slow
def test_a_command_imports_only_what_every_run_needs() -> None:
    program = "import sys, seeking.run_commands; seeking.internals.digits(); print('imported:', *sys.modules)"
    assert imported_by(program) == {"torch", "accelerate"}, "neither sympy, as sharding does"


@pytest.mark.parametrize("name", ["seeking", "seeking.data", "seeking.experiments", "seeking.training"])
def test_a_package_has_the_names_that_it_declares(name: str) -> None:
    package = importlib.import_module(name)
    tree = ast.parse(Path(str(package.__file__)).read_text(encoding="utf-8"))
    for_type_checkers = {
        alias.asname or alias.name
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert for_type_checkers == {*package.__all__}
    for each in package.__all__:
        assert not isinstance(getattr(package, each), types.ModuleType)


def test_names_are_listed_before_their_first_use() -> None:
    program = "import sys, seeking; assert {*seeking.__all__} <= {*dir(seeking)}; print('imported:', *sys.modules)"
    assert imported_by(program) == set()


def test_modules_of_a_package_are_its_attributes() -> None:
    assert seeking.matching.rule
    with pytest.raises(AttributeError, match="module 'seeking' has no attribute 'nothing'"):
        _ = seeking.nothing
    with pytest.raises(ImportError):
        from seeking import nothing  # noqa: F401


def test_what_is_imported_late_draws_no_random_number() -> None:
    program = "import random, seeking; state = random.getstate()"
    for name in ("match", "Pair", "Trainer"):  # Each imports what the one before does, and more.
        program += f"; seeking.{name}; assert random.getstate() == state, '{name}'"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
