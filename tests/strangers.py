"""Options of a run folder that somebody has made who means ill."""

import dataclasses
import inspect
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import timm
from hypothesis import strategies as st

from seeking.checkpointing.manifest import Manifest
from seeking.commands import Train

NOT_RESUMED = {"output", "config", "recipe", "overwrite", "resume", "accept_changed_data", "pretrained", "start_from"}
"""Options that would write, load or trust something, and are told apart from others by no value."""

USUAL = json.loads(json.dumps(dataclasses.asdict(Train()), default=str))

HARMLESS = {"model_name", "kwargs", "no_jit", "scriptable", "exportable"}
LOADING = sorted(set(inspect.signature(timm.create_model).parameters) - HARMLESS)
"""Arguments of timm's that load something."""


def spellings(name: str) -> st.SearchStrategy[str]:
    """Each ``_`` as ``_`` or ``-``, and whatever else could be taken for it."""
    parts = name.split("_")
    joined = st.lists(st.sampled_from("_-"), min_size=len(parts) - 1, max_size=len(parts) - 1).map(
        lambda between: "".join(a + b for a, b in zip(parts, [*between, ""], strict=True))
    )
    return joined | joined.flatmap(
        lambda text: st.sampled_from(
            (text.upper(), text.title(), f" {text}", f"{text} ", f"--{text}", f"{text}=", f"{text}\n", text + "\u200b")
        )
    )


KWARGS = ("model_kwargs", "base_kwargs", "motivated_kwargs")
CONDITIONS = ("condition", "base_condition")
hostile_arguments = st.dictionaries(
    st.sampled_from(LOADING).flatmap(spellings), st.sampled_from(("x.pth", "/tmp/x", True, 1, ["x"], {"file": "x"}))
)
hostile = st.one_of(
    st.tuples(st.sampled_from(KWARGS).flatmap(spellings), hostile_arguments),
    st.tuples(spellings("overrides"), st.just("/etc/passwd")),
    st.tuples(
        st.sampled_from(CONDITIONS).flatmap(spellings),
        st.sampled_from(("evil.Boom", "~evil.Boom", "every:2 | evil.Boom:1")),
    ),
    st.tuples(
        st.sampled_from(("base", "motivated")).flatmap(spellings),
        st.sampled_from(("hf-hub:a/b", "local-dir:/tmp", "hf_hub:a/b", "/tmp/x", ["resnet8", "--overrides", "x"])),
    ),
    st.tuples(st.sampled_from(sorted(NOT_RESUMED)).flatmap(spellings), st.sampled_from(("/etc", True, "x"))),
    st.tuples(
        st.sampled_from([field.name for field in dataclasses.fields(Train)]).flatmap(spellings),
        st.sampled_from(
            ("--overrides", ["--overrides", "/etc/passwd"], ["x", "--config=x"], {"--overrides": "x"}, None)
        ),
    ),
)


def stranger(folder: Path, changes: Iterable[tuple[str, Any]]) -> Path:
    """A folder that passes for a run, with some options other than usual."""
    changes = dict(changes)
    names = [key.replace("-", "_") for key in changes]
    options = {key: value for key, value in USUAL.items() if key not in names} | changes
    (folder / "config.json").write_text(json.dumps(options))
    Manifest(folder).announce("config.json", folder / "config.json")
    return folder


def offends(config: Train) -> bool:
    """Whether options that a stranger gave would load something."""
    return bool(
        any(getattr(config, name) for name in (*NOT_RESUMED, "overrides"))
        or any("evil" in getattr(config, name) for name in CONDITIONS)
        or not re.fullmatch(r"\w+", config.base + config.motivated)
        or {key.lower().replace("-", "_").strip() for name in KWARGS for key in getattr(config, name)} & set(LOADING)
    )
