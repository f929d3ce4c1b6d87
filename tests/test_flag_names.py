"""Messages name flags on the command line, and tell the flags that other tools have under another name."""

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeking import SeekingError
from seeking.commands import Train
from seeking.flag_names import OTHER_TOOLS, check_flags, with_flags

NAMES = [field.name for field in dataclasses.fields(Train)]
LONG = [name for name in NAMES if "_" in name]
SHORT = [name for name in NAMES if "_" not in name]


@pytest.mark.parametrize("here", OTHER_TOOLS)
def test_names_of_other_tools_lead_to_options_that_there_are(here: str) -> None:
    assert here.replace("-", "_") in NAMES
    for name in OTHER_TOOLS[here].split():
        assert name.replace("-", "_") not in NAMES
        dashes = "-" if len(name) == 1 else "--"
        with pytest.raises(SeekingError, match=rf"unknown option {dashes}{name}; did you mean --{here}\?"):
            check_flags([f"--{NAMES[0]}", "x", f"{dashes}{name}=3"], Train)


@pytest.mark.parametrize(("given", "here"), [("trainer.max_epochs", "epochs"), ("optimizer.lr", "lr")])
def test_names_with_the_part_of_lightning_before_them(given: str, here: str) -> None:
    with pytest.raises(SeekingError, match=rf"unknown option --{given}; did you mean --{here}\?"):
        check_flags([f"--{given}=3"], Train)


def test_each_name_leads_to_one_option() -> None:
    names = " ".join(OTHER_TOOLS.values()).split()
    assert len(names) == len(set(names))


@given(st.sampled_from(LONG), st.sampled_from(["give {}", "{} is 3", "a: set {} to 2", "{}; {}", "no\n{}: 4"]))
def test_arguments_become_flags(name: str, message: str) -> None:
    shown = with_flags(message.format(name, name), Train)
    assert shown == message.format(*["--" + name.replace("_", "-")] * 2)
    assert with_flags(shown, Train) == shown


@given(
    st.sampled_from(LONG),
    st.sampled_from(
        [
            "'{}'",
            "/tmp/{}/x",
            "my_{}",
            "{}_of",
            "{}.yaml",
            "--{}",
            "{}(3)",
            "{}:3,1",
            "known: a, {}, b",
            "did you mean {}?",
        ]
    ),
)
def test_what_only_looks_like_an_argument_is_left(name: str, message: str) -> None:
    assert with_flags(message.format(name), Train) == message.format(name)


def test_words_are_arguments_only_where_they_are_given_a_value() -> None:
    assert with_flags("epochs is 0; it must be 1 or more", Train) == "--epochs is 0; it must be 1 or more"
    assert with_flags("options:\n  lr: 0.1 in the run, 0.2 now", Train) == "options:\n  --lr: 0.1 in the run, 0.2 now"
    assert with_flags("condition: unknown\n  x\n  ^", Train) == "--condition: unknown\n  x\n  ^"
    assert (
        with_flags("set update to joint, or give update joint", Train)
        == "set --update to joint, or give --update joint"
    )
    for name in SHORT:
        told = with_flags(f"{name} cannot be combined with {name}; set {name} to x, or change {name}", Train)
        assert told == f"--{name} cannot be combined with --{name}; set --{name} to x, or change --{name}"
    assert with_flags("a cannot be combined with databases", Train) == "a cannot be combined with databases"
    assert with_flags("the batch: seed: 3", Train) == "the batch: seed: 3"
    assert with_flags("the seed of the data is 3", Train) == "the seed of the data is 3"
    assert not re.search("--", with_flags("no data set is there", Train))
