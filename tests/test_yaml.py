"""Files of options are YAML 1.2, and what is ambiguous in them is refused."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeking.files import read_yaml_text

SCALARS = {
    "1e-1": 0.1,
    "-1E+3": -1000.0,
    "1.": 1.0,
    ".5": 0.5,
    "1_000": 1000,
    "0o10": 8,
    "0x1F": 31,
    "8:12": "8:12",
    "2020-01-01": "2020-01-01",
    "on": "on",
    "true": True,
    "~": None,
    "-.inf": -math.inf,
}


@pytest.mark.parametrize("text", SCALARS)
def test_scalars_are_those_of_yaml_1_2(text: str) -> None:
    value = read_yaml_text(f"[{text}]")[0]
    assert value == SCALARS[text] and type(value) is type(SCALARS[text])


@given(st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), st.none()))
def test_numbers_are_read_as_they_are_written(value: object) -> None:
    text = json.dumps(value).replace("Infinity", ".inf")
    assert read_yaml_text(text) == value


@pytest.mark.parametrize("text", ["010", "-08", "0_1", "{a: 1, a: 2}", "[{b: {c: 1, c: 1}}]", "{1: a, 1: b}"])
def test_what_is_ambiguous_in_yaml_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"given twice|octal or a decimal"):
        read_yaml_text(text)
