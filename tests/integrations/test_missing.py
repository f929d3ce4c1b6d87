"""A library that is not installed is named, with the command that installs it."""

import importlib
import sys

import pytest


@pytest.mark.parametrize("library", ["transformers", "lightning"])
def test_a_missing_library_is_named(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"seeking.integrations.{library}", raising=False)
    with pytest.raises(ModuleNotFoundError, match=rf"pip install '.\[{library}\]'"):
        importlib.import_module(f"seeking.integrations.{library}")
