import copy
import itertools
import json
import math
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seeking import (
    After,
    Always,
    Condition,
    ConsecutiveDecrease,
    Every,
    MatchedCount,
    Never,
    RandomTimes,
    SeekingError,
    parse_condition,
)
from seeking.conditions import BelowTrend, Exp3, HeldOutDecrease, LowGradNorm, SmoothedDecrease

losses = st.lists(st.floats(), max_size=60)
loss_atoms = st.one_of(
    st.integers(1, 4).map(ConsecutiveDecrease),
    st.floats(0, 1).map(RandomTimes),
    st.integers(1, 9).map(Every),
    st.integers(0, 40).map(After),
    st.just(None).map(lambda _: Always()),
    st.just(None).map(lambda _: Never()),
    st.builds(SmoothedDecrease, st.integers(1, 4), st.floats(0, 0.99)),
    st.builds(BelowTrend, st.floats(-2, 2), st.floats(0, 0.9)),
)
atoms = st.one_of(
    loss_atoms,
    st.builds(LowGradNorm, st.floats(-2, 2), st.floats(0, 0.9)),
    st.builds(HeldOutDecrease, st.integers(1, 5), st.integers(1, 2)),
    st.builds(Exp3, st.floats(0, 1), st.integers(1, 5)),
    st.sampled_from(("agreement:0.1", "affordable:0.5,0.1", "before:0.5", "after:0.5")).map(parse_condition),
)
conditions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda two: two[0] & two[1]),
        st.tuples(inner, inner).map(lambda two: two[0] | two[1]),
        inner.map(lambda condition: ~condition),
        inner.map(lambda condition: MatchedCount(condition, epoch_length=7)),
        inner.map(lambda condition: parse_condition(f"next({condition})")),
    ),
    max_leaves=6,
)


def run(condition: Condition, values: list[float]) -> list[bool]:
    fixed = {"epoch_length": 7, "steps": 60, "flops_planned": 99.0, "base_flops": 1.0, "motivated_flops": 2.0}
    return [
        condition.update(
            loss,
            **fixed,
            step=place,
            grad_norm=loss,
            held_out_loss=loss,
            flops_spent=float(place),
            gradients={"weight": torch.tensor([loss, 1.0])},
        )
        for place, loss in enumerate(values)
    ]


@given(st.integers(1, 4), losses)
def test_consecutive_decrease_is_its_definition(n: int, values: list[float]) -> None:
    decisions = run(ConsecutiveDecrease(n), values)
    for place, held in enumerate(decisions):
        window = values[max(0, place - n) : place + 1]
        fell = len(window) == n + 1 and all(math.isfinite(v) for v in window)
        assert held == (fell and all(later < earlier for earlier, later in itertools.pairwise(window)))


@given(st.integers(1, 3), losses, st.data())
def test_batches_on_which_the_base_rests_are_no_losses(n: int, values: list[float], data: st.DataObject) -> None:
    rested, expected = ConsecutiveDecrease(n), ConsecutiveDecrease(n)
    for loss in values:
        assert rested.update(loss) == expected.update(loss)
        for _ in range(data.draw(st.integers(0, 2))):
            assert not rested.update(loss, base_stepped=False)


@pytest.mark.parametrize(("n", "rate"), [(1, 1 / 2), (2, 1 / 6), (3, 1 / 24)])
def test_for_exchangeable_losses_the_rate_is_that_of_chance(n: int, rate: float) -> None:
    draw = random.Random(0)
    decisions = run(ConsecutiveDecrease(n), [draw.random() for _ in range(40_000)])
    assert sum(decisions) / len(decisions) == pytest.approx(rate, rel=0.05)


@given(conditions, losses)
def test_a_loss_that_is_not_finite_never_motivates(condition: Condition, values: list[float]) -> None:
    for loss, held in zip(values, run(condition, values), strict=True):
        assert math.isfinite(loss) or not held


@given(conditions, losses, losses)
def test_a_condition_goes_on_from_its_state(condition: Condition, before: list[float], after: list[float]) -> None:
    twin = copy.deepcopy(condition)
    run(condition, before)
    twin.load_state_dict(json.loads(json.dumps(condition.state_dict(), allow_nan=False)))
    assert run(twin, after) == run(condition, after)


@given(conditions)
def test_text_and_back_is_the_identity(condition: Condition) -> None:
    assert str(parse_condition(str(condition))) == str(condition)


@given(loss_atoms, loss_atoms, losses)
def test_compositions_are_the_boolean_ones_and_every_part_sees_every_batch(
    left: Condition, right: Condition, values: list[float]
) -> None:
    copies = [(parse_condition(str(left)), parse_condition(str(right))) for _ in range(3)]
    for loss in values:
        finite = math.isfinite(loss)
        first, second = left.update(loss), right.update(loss)
        assert (copies[0][0] & copies[0][1]).update(loss) == (first and second)
        assert (copies[1][0] | copies[1][1]).update(loss) == (first or second)
        assert (~copies[2][0]).update(loss) == (finite and not first)


def test_precedence_is_that_of_python() -> None:
    assert str(parse_condition("always | never & ~never")) == "always | (never & ~never)"
    assert str(parse_condition("(always | never) & never")) == "(always | never) & never"
    assert str(parse_condition("exp3: 0.25,  10 &decrease: 2")) == str(parse_condition("exp3:0.25,10 & decrease:2"))
    assert not parse_condition("(always | never) & never").update(1.0)
    assert parse_condition("always | never & never").update(1.0)


def test_times() -> None:
    assert run(Every(3), [1.0] * 7) == [False, False, True, False, False, True, False]
    assert run(After(2), [1.0] * 4) == [False, False, True, True]
    assert ConsecutiveDecrease(1).update(torch.tensor(1.0)) is False


def test_random_times_depend_on_seed_and_batch_alone_and_have_their_rate() -> None:
    noise = [random.random() for _ in range(5000)]
    decisions = run(RandomTimes(0.17, seed=3), noise)
    assert decisions == run(RandomTimes(0.17, seed=3), [1.0] * 5000)
    assert decisions != run(RandomTimes(0.17, seed=4), noise)
    assert sum(decisions) / 5000 == pytest.approx(0.17, abs=0.02)


def test_conditions_of_chance_in_one_text_draw_apart() -> None:
    decisions = run(parse_condition("random:0.5 & random:0.5"), [1.0] * 4000)
    assert sum(decisions) / 4000 == pytest.approx(0.25, abs=0.03)
    assert parse_condition("random:0.5", seed=4).seed == 4


@given(st.integers(2, 40), st.integers(0, 1000))
def test_matched_count_takes_the_count_of_the_epoch_before(length: int, seed: int) -> None:
    draw = random.Random(seed)
    values = [[draw.random() for _ in range(length)] for _ in range(6)]
    inner, matched = ConsecutiveDecrease(2), MatchedCount(ConsecutiveDecrease(2), seed=seed)
    wanted = [sum(inner.update(loss) for loss in epoch) for epoch in values]
    given_counts = [sum(matched.update(loss, epoch_length=length) for loss in epoch) for epoch in values]
    assert given_counts[1:] == wanted[:-1]
    assert sum(given_counts) - sum(wanted) == given_counts[0] - wanted[-1]


def test_matched_count_keeps_the_rate_in_the_first_epoch_and_is_random() -> None:
    draw = random.Random(0)
    first, inside, both = 0, 0, 0
    for seed in range(60):
        inner, matched = ConsecutiveDecrease(2), MatchedCount(ConsecutiveDecrease(2), seed=seed, epoch_length=390)
        for place in range(780):
            loss = draw.random()
            held, motivated = inner.update(loss), matched.update(loss)
            first += motivated and place < 390
            inside += motivated and place >= 390
            both += motivated and held and place >= 390
    assert first / (60 * 390) == pytest.approx(1 / 6, rel=0.1)
    assert inside / (60 * 390) == pytest.approx(1 / 6, rel=0.1)
    assert both / inside == pytest.approx(1 / 6, rel=0.15), "where it falls has nothing to do with the losses"


@pytest.mark.parametrize("text", ["next({})", "matched({})", "~{}", "{} & always", "never | {}", "~matched(next({}))"])
@pytest.mark.parametrize("inner", ["decrease:2", "affordable:1,1", "held_out:3", "agreement:0", "grad_norm"])
def test_a_condition_needs_what_its_parts_need(text: str, inner: str) -> None:
    whole, part = parse_condition(text.format(inner)), parse_condition(inner)
    for need in ("needs_gradients", "needs_grad_norm", "needs_held_out", "needs_budget", "uses_budget", "is_schedule"):
        assert getattr(whole, need) == getattr(part, need), need
    assert whole.needs_epoch_length == ("matched" in text)


def test_matched_count_without_an_epoch_length_says_so() -> None:
    with pytest.raises(ValueError, match="give it epoch_length"):
        MatchedCount(Always()).update(1.0)


@pytest.mark.parametrize(
    ("text", "message", "place"),
    [
        ("decrese:2", "unknown condition 'decrese'; did you mean decrease", 0),
        ("always & decrease:x", "'x' is not a number", 9),
        ("decrease:2 &", "the name of a condition is expected here", 12),
        ("(always", r"'\)' is expected here", 7),
        ("always always", "'&', '|' or the end is expected here", 7),
        ("random:2", "p is 2; a probability", 0),
        ("decrease:0", "n is 0", 0),
        ("every:2.5", "whole number", 0),
        ("random:nan", "not a finite number", 0),
        ("never | nowhere.Condition", "cannot import nowhere.Condition", 8),
        ("collections.OrderedDict", "not a subclass of seeking.Condition", 0),
        ("matched", "needs a condition in parentheses", 0),
        ("", "the name of a condition is expected here", 0),
        ("always ? never", "'&', '|' or the end is expected here", 7),
        ("~" * 60 + "always", "nested more than 50 deep", 50),
    ],
)
def test_text_that_does_not_parse_is_pointed_at(text: str, message: str, place: int) -> None:
    with pytest.raises(SeekingError, match=message.replace("|", r"\|").replace("?", r"\?")) as caught:
        parse_condition(text)
    assert str(caught.value).splitlines()[-1] == "  " + " " * place + "^"


def test_a_module_that_fails_on_import_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_conditions.py").write_text("class :\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SeekingError, match=r"cannot import broken_conditions\.Any: invalid syntax"):
        parse_condition("broken_conditions.Any")


def test_a_condition_of_ones_own_by_import_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_conditions.py").write_text(
        "import seeking\n"
        "class Below(seeking.Condition):\n"
        "    def __init__(self, level, other=0):\n"
        "        self.level = level + other\n"
        "    def holds(self, loss, **signals):\n"
        "        return loss < self.level\n"
    )
    monkeypatch.chdir(tmp_path)
    condition = parse_condition("own_conditions.Below:0.5,1 & after:1")
    assert run(condition, [1.0, 1.0, 2.0]) == [False, True, False]
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize("name", ["time.sleep:7", "shutil.rmtree:1", "webbrowser.open"])
def test_what_an_import_path_names_is_not_called_unless_it_is_a_class_of_conditions(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def called(*_: object) -> None:
        pytest.fail("called")

    monkeypatch.setattr(name.partition(":")[0], called)
    with pytest.raises(SeekingError, match="not a subclass of seeking"):
        parse_condition(name)


@pytest.mark.parametrize("kept", ["state_dict", "load_state_dict"])
def test_a_condition_that_saves_and_cannot_restore_is_refused_where_it_is_defined(kept: str) -> None:
    missing = ({"state_dict", "load_state_dict"} - {kept}).pop()
    with pytest.raises(TypeError, match=f"Forgetful has no {missing}"):
        type("Forgetful", (Condition,), {kept: lambda *_: {}})


@pytest.mark.parametrize("holds", [lambda self, loss: True, lambda self, loss, learning_rate: True])
def test_a_condition_that_cannot_take_all_signals_is_refused_where_it_is_defined(holds: Callable[..., bool]) -> None:
    with pytest.raises(TypeError, match=r"Narrow\.holds\(self, loss.*\) must take \*\*signals"):
        type("Narrow", (Condition,), {"holds": holds})


def test_conditions_do_not_compose_by_and_or_not() -> None:
    for compose in (lambda: Always() and Never(), lambda: Always() or Never(), lambda: not Always()):
        with pytest.raises(TypeError, match="compose conditions with &"):
            compose()
    for compose in (lambda: Always() & (lambda signals: True), lambda: Always() | "every:2"):
        with pytest.raises(TypeError, match="not a seeking"):
            compose()


@pytest.mark.parametrize("n", ["2", None, 1.5, 0, math.nan, math.inf])
def test_what_counts_batches_is_a_whole_number(n: float) -> None:
    with pytest.raises(ValueError, match=f"n is {n}; it counts batches, a whole number from 1 up"):
        ConsecutiveDecrease(n)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("affordable:0.3", "affordable: takes 0 or 2 numbers"),
        ("every:1,2,3", r"every: takes .* numbers?.*, not 3"),
        ("agreement:", "agreement: '' is not a number"),
        ("random", "random: takes"),
        ("exp3:0.1,2,3,4,5,6,7,8", r"exp3: takes .*, not 8"),
    ],
)
def test_how_many_numbers_a_condition_takes_is_said(text: str, message: str) -> None:
    with pytest.raises(SeekingError, match=message) as error:
        parse_condition(text)
    assert "__init__" not in str(error.value)
