import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeking import Index, SeekingError

positions = st.lists(st.integers(0, 400), unique=True, max_size=60)


@given(positions)
def test_an_index_holds_its_positions_in_order(given_positions: list[int]) -> None:
    index = Index.of(given_positions)
    assert list(index) == given_positions
    assert len(index) == len(given_positions)


@given(positions)
def test_text_and_back_is_the_identity(given_positions: list[int]) -> None:
    index = Index.of(given_positions)
    assert Index.parse(str(index)) == index


@given(st.integers(0, 50), st.integers(0, 50))
def test_covers_means_every_position(size: int, other: int) -> None:
    assert Index.of(range(size)).covers(other) == (size == other)
    assert Index.of(list(range(size))).covers(size)


def test_heads_are_a_few_runs() -> None:
    rows = [3 * 0 + i for i in range(192)] + [384 + i for i in range(192)] + [768 + i for i in range(192)]
    assert str(Index.of(rows)) == "0:192, 384:576, 768:960"
    assert str(Index.of(range(0, 384, 2))) == "0:384:2"


@pytest.mark.parametrize("text", ["a", "1:", "3:1", "-1", "0:4:0", "1,,2", "0:9:-1"])
def test_text_that_is_no_index_is_refused_by_name(text: str) -> None:
    with pytest.raises(SeekingError, match="index"):
        Index.parse(text)
