"""Batches are split into samples, and every sample of a step weighs the same."""

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numbered import DATA, config, models
from torch import Tensor, nn

from seeking import SeekingError, Trainer
from seeking.training.micro_batches import MicroBatches, Part, split
from seeking.training.objective import Classification
from seeking.training.samples import first_sample, sample_count
from seeking.weights_map import leaves_in


@pytest.mark.slow
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.booleans())
@settings(max_examples=20)
def test_every_sample_of_a_step_weighs_the_same(sizes: list[int], mapping: bool) -> None:
    bounds = torch.tensor([0, *sizes]).cumsum(0).tolist()
    parts = [DATA[start:end] for start, end in itertools.pairwise(bounds)]
    weights = []
    for batches in ([DATA[: bounds[-1]]], parts):
        base, motivated = models()

        def loss_fn(model: nn.Module, batch: Any) -> Tensor:
            x, y = (batch["x"], batch["y"]) if mapping else batch
            return nn.functional.cross_entropy(model(x / 20), y)

        trainer = Trainer(
            base,
            motivated,
            train_loader=[{"x": x, "y": y} for x, y in batches] if mapping else batches,
            loss_fn=loss_fn,
            optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.5),
            config=config(epochs=1, accumulate=len(batches), condition="always", schedule="constant", verify=False),
        )
        (row,) = [row for row in trainer.fit().history if row["kind"] == "step"]
        assert trainer.run.cost.samples == trainer.run.cost.motivated_samples == bounds[-1]
        weights.append(torch.cat([p.flatten() for model in (base, motivated) for p in model.parameters()]))
        weights.append(torch.tensor([row["loss"], row["motivated_loss"]]))
    torch.testing.assert_close(weights[0], weights[2], rtol=0, atol=2e-6)
    torch.testing.assert_close(weights[1], weights[3], rtol=0, atol=2e-6)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 5))
def test_the_parts_of_all_processes_are_the_batches_and_weigh_as_their_samples(
    sizes: list[int], processes: int
) -> None:
    values = [torch.randn(size) for size in sizes]
    of_processes = [*zip(*(split([value, ["name"] * len(value)], processes) for value in values), strict=True)]
    mean = 0.0
    for parts in of_processes:
        group = MicroBatches(parts, processes)
        mean += sum(float(batch[0].mean()) * weight for batch, weight in zip(group, group.weights, strict=True))
    assert mean / processes == pytest.approx(float(torch.cat(values).mean()), abs=1e-5)
    for number, value in enumerate(values):
        parts = [process[number] for process in of_processes]
        assert all(len(part.batch[0]) == len(part.batch[1]) for part in parts)
        whole = parts[0].batch[0] if parts[0].copies > 1 else torch.cat([part.batch[0] for part in parts])
        assert torch.equal(whole, value)


@dataclasses.dataclass
class Record:
    features: Tensor
    number: int


def batch_of(values: Tensor, kind: str) -> Any:
    """Samples whose features are all their number."""
    features = [value.repeat(5) for value in values]
    sequences = [value.repeat(1 + number % 4) for number, value in enumerate(values)]
    numbers = [int(value) for value in values]
    forms: dict[str, Any] = {
        "lists": (features, numbers),
        "lists of tensors": [features, [*values]],
        "sequences": (sequences, values),
        "labels stacked": (features, values),
        "targets": {"images": features, "targets": [{"label": value[None], "name": str(value)} for value in values]},
        "nested": ({"ids": torch.stack(features), "temperature": 0.5}, [torch.stack(features)], values),
        "names": (values, [str(number) for number in numbers], [None] * len(numbers)),
        "mappings": [{"x": value.repeat(5), "y": value[None]} for value in values],
        "records": [Record(value.repeat(5), number) for value, number in zip(values, numbers, strict=True)],
    }
    return forms[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "lists",
        "lists of tensors",
        "sequences",
        "labels stacked",
        "targets",
        "nested",
        "names",
        "mappings",
        "records",
    ],
)
@given(samples=st.integers(1, 9), processes=st.integers(2, 4))
@settings(max_examples=12)
def test_batches_of_any_form_are_split_between_samples(kind: str, samples: int, processes: int) -> None:
    assume(kind != "labels stacked" or samples != 5)  # Each sample has as many features.
    values = torch.arange(10.0, 10.0 + samples)
    parts = split(batch_of(values, kind), processes)
    bounds = [samples * number // processes for number in range(processes + 1)]
    for part, (start, end) in zip(parts, itertools.pairwise(bounds), strict=True):
        of_part = values if samples < processes else values[start:end]
        if kind == "sequences" and samples >= processes:
            expected = [value.repeat(1 + (start + number) % 4) for number, value in enumerate(of_part)]
            torch.testing.assert_close(part.batch, (expected, of_part), rtol=0, atol=0)
        else:
            torch.testing.assert_close(of_tensors(part.batch), of_tensors(batch_of(of_part, kind)), rtol=0, atol=0)


@pytest.mark.parametrize("boxes", [2, 3])
def test_mappings_in_a_list_are_samples_whatever_their_tensors_hold(boxes: int) -> None:
    targets = [{"boxes": torch.full((boxes, 4), float(number)), "labels": torch.zeros(boxes)} for number in range(2)]
    for number, part in enumerate(split((torch.zeros(2, 3, 8, 8), targets), 2)):
        torch.testing.assert_close(part.batch, (torch.zeros(1, 3, 8, 8), targets[number : number + 1]))


@pytest.mark.parametrize("kind", ["mappings", "records"])
@given(samples=st.integers(1, 9))
def test_a_list_of_samples_is_as_many_and_stacked_ones_in_a_list_are_not(kind: str, samples: int) -> None:
    listed = batch_of(torch.arange(float(samples)), kind)
    assert sample_count(listed) == samples and sample_count(first_sample(listed)) == 1
    stacked = {"x": torch.zeros(samples, 5), "y": torch.zeros(samples)}
    for batch in ([stacked], (stacked, stacked), ({"x": torch.zeros(samples, 5), "rate": 0.5}, {"y": stacked["y"]})):
        assert sample_count(batch) == samples


def of_tensors(batch: Any) -> list[Any]:
    """All that is in a batch, texts and None as words of a known kind."""
    return [leaf if isinstance(leaf, Tensor | int | float) else hash(str(leaf)) for leaf in leaves_in(batch)]


@pytest.mark.parametrize("kind", ["sparse", "jagged", "packed"])
def test_what_cannot_be_split_is_told(kind: str) -> None:
    sequences = [torch.ones(1) for _ in range(4)]  # As many numbers as samples.
    inputs = {
        "sparse": lambda: torch.eye(4).to_sparse(),
        "jagged": lambda: torch.nested.nested_tensor(sequences, layout=torch.jagged),
        "packed": lambda: torch.nn.utils.rnn.pack_sequence(sequences),
    }[kind]()
    with pytest.raises(SeekingError, match=r"holds a (sparse or nested tensor|PackedSequence), which cannot be split"):
        split((inputs, torch.arange(4)), 2)


@pytest.mark.parametrize("rest", [(), (torch.zeros(4),), (["a", "b", "c", "d"],)])
def test_labels_that_do_not_count_are_left_out_whatever_follows_them(rest: tuple[Any, ...]) -> None:
    batch = torch.zeros(4, 3), torch.tensor([1, -100, 0, -100]), *rest
    assert Classification().count(batch) == 2


def test_batches_that_do_not_come_from_a_loader_weigh_as_their_samples() -> None:
    group = MicroBatches.of([DATA[:6], DATA[:2]], 2)
    assert (group.weights, group.samples) == ([0.75, 0.25], 16)
    assert MicroBatches.of(group, 2) is group
    assert MicroBatches([Part([], 0)], 1).weights == [0]
