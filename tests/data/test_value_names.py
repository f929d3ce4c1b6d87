"""Which values of a table are the same class or category."""

import re
import warnings
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seeking import SeekingError
from seeking.data.table_targets import in_order
from seeking.data.value_names import surprises, value_name
from seeking.errors import RunWarning
from seeking.experiments.config import RunConfig
from seeking.experiments.tasks import task

NUMBERS = st.from_regex(r"[+-]?(0|[1-9][0-9]{0,4})(\.[0-9]{0,3})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)
CODES = st.from_regex(r"[+-]?0[0-9]{1,3}", fullmatch=True)
WORDS = st.sampled_from(["b", "x1", "1x", "1,5", "٣", "0x1", "1 2", "é"])
CLASSES = st.one_of(CODES, WORDS, st.sampled_from(["1", "1.0", "+1", "1.", "1e0", "7", "7.0", "-0", "0", "12", "12.0"]))


@settings(max_examples=50)
@given(texts=st.lists(NUMBERS, min_size=2, max_size=8, unique=True))
def test_numbers_have_one_name_if_and_only_if_they_are_equal(texts: list[str]) -> None:
    for one, other in pairwise(texts):
        same = Decimal(one) == Decimal(other)
        assert (value_name(one) == value_name(other)) == same
        assert bool(surprises([one, other])) == same
    assert all(value_name(value_name(text)) == value_name(text) for text in texts)


@given(text=CODES | WORDS)
def test_all_else_has_the_name_that_it_is_written_with(text: str) -> None:
    assert value_name(text) == text


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("1e3", "1000"),
        ("1.50", "1.5"),
        (".5", "0.5"),
        ("1E-3", "0.001"),
        ("-0.0", "0"),
        ("1e999", "1E+999"),
        ("0e5", "0"),
        ("9" * 50 + ".0", "9" * 50),
        ("1e" + "9" * 30, "1e" + "9" * 30),
        ("007", "007"),
        ("00.5", "00.5"),
    ],
)
def test_names_of_numbers(text: str, name: str) -> None:
    assert value_name(text) == name


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["1", "2", "b"], ""),
        (["1.0", "2.0"], ""),
        (["01", "02", "11", "12"], ""),  # As many digits in each.
        (["1", "1.0", "b"], "1 and 1.0 are the same number and count as one"),
        (
            ["007", "7"],
            "leading zero, such as 007, are names, .* the others, such as 7, are numbers; .* write them alike",
        ),
        (["007", "07", "x"], "leading zero, such as 007, are names, each of its own; where"),
        (["007", "8", "8.0"], "8 and 8.0 are .*; those with a leading zero"),
    ],
)
def test_what_may_surprise(texts: list[str], told: str) -> None:
    assert re.search(told, surprises(texts)) if told else not surprises(texts)


@given(values=st.lists(CLASSES, min_size=2, max_size=6, unique=True), quoted=st.booleans())
@settings(max_examples=40, deadline=None)
def test_labels_and_categories_go_by_one_rule_and_surprises_are_told_once(
    values: list[str], quoted: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("names") / "a.csv"
    names = {value_name(value) for value in values}
    fields = [f'"{value}"' if quoted or "," in value else value for value in values]
    path.write_text("x,c,label\n" + "".join(f"{n % 3},{field},{field}\n" for n in range(40) for field in fields))
    config = RunConfig(task="tabular", data=str(path), category_columns=("c",))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if len(names) < 2:
            with pytest.raises(SeekingError, match="all training rows are of one class"):
                task("tabular").load(config, 1, config.loss)
            return
        data = task("tabular").load(config, 1, config.loss)
    _, column = data.train.preparation["columns"]  # type: ignore[attr-defined]
    assert {*data.train.classes} == {*column["values"]} == names  # type: ignore[attr-defined]
    told = [str(warning.message) for warning in caught if issubclass(warning.category, RunWarning)]
    expected = surprises(values)
    assert told == ([f"column {name} of a.csv: {expected}" for name in ("label", "c")] if expected else [])


@given(names=st.permutations(["007", "07", "7", "10", "9", "-3"]))
def test_the_order_of_classes_does_not_depend_on_that_of_the_rows(names: list[str]) -> None:
    assert in_order(names) == ["-3", "007", "07", "7", "9", "10"]


def test_a_fraction_is_no_class_whatever_codes_there_are(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,label\n" + "1,007\n2,1.50\n" * 9)
    config = RunConfig(task="tabular", data=str(tmp_path / "a.csv"))
    with pytest.raises(SeekingError, match=r"row 2 of a.csv: 1.50 is no class; to learn values, set loss to mse"):
        task("tabular").load(config, 1, config.loss)
