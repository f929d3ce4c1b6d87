"""Tensors of the base that each model keeps for itself."""

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import PLAIN, batches, steps, two_models, whole_and_resumed
from test_one_pass import Chain
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import seeking
from seeking import Pair, SeekingError, TrainConfig, Trainer, WeightsMap, match, verify
from seeking.algorithms import sandwich
from seeking.cli import main
from seeking.errors import MatchWarning, RunWarning
from seeking.prefix import find_prefix
from seeking.weights_map import tensors

X = torch.randn(48, 3, generator=torch.Generator().manual_seed(1))
OWN = ("norm", "head.*")
NAMES = ["stem", "blocks", "blocks.0", "blocks.*.outer", "norm*", "head", "*.bias", "stem.weight", "*"]


def chains(widths: tuple[int, int] = (4, 4)) -> tuple[Chain, Chain]:
    torch.manual_seed(0)
    return Chain(1, widths[0]), Chain(2, widths[1])


def data(batch_size: int = 8) -> DataLoader[Any]:
    return DataLoader(TensorDataset(X, X.argmax(1)), batch_size)


def trainer(config: TrainConfig, widths: tuple[int, int] = (4, 4), **more: Any) -> Trainer:
    return Trainer(*chains(widths), train_loader=data(), config=config, **more)


@settings(max_examples=30)
@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3))
def test_patterns_choose_tensors_by_their_names_and_modules(patterns: list[str]) -> None:
    base, motivated = chains()
    weights_map = match(base, motivated, batch=X[:2])
    chosen = weights_map.without(*patterns)
    expected = {
        "stem": ["stem"], "blocks": ["blocks"], "blocks.0": ["blocks"], "blocks.*.outer": ["blocks.0.outer"],
        "norm*": ["norm"], "head": ["head"], "stem.weight": ["stem.weight"], "*": ["stem", "blocks", "norm", "head"],
    }  # fmt: skip
    for name in weights_map.entries:
        within = any(f"{name}.".startswith(f"{prefix}.") for each in patterns for prefix in expected.get(each, ()))
        assert (name in chosen.own) == (within or ("*.bias" in patterns and name.endswith(".bias")))
    assert chosen.entries == weights_map.entries, "the whole map can be verified"
    assert chosen.shared.entries.keys() == weights_map.entries.keys() - chosen.own
    assert WeightsMap.from_dict(chosen.as_dict()) == chosen != weights_map
    assert chosen.without(*patterns) == chosen


def test_a_pattern_that_matches_nothing_names_what_is_close() -> None:
    weights_map = match(*chains(), batch=X[:2])
    with pytest.raises(SeekingError, match=r"unknown tensor or module of the base 'nrom'; did you mean norm"):
        weights_map.without("head", "nrom")
    with pytest.raises(SeekingError, match=r"\['head'\] is no pattern of names"):
        weights_map.without(["head"])  # type: ignore[arg-type]
    with pytest.raises(SeekingError, match="3 is no pattern of names"):
        Pair(*chains(), batch=X[:2], own=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("pattern", ["norm", "blocks.*.outer", "*"])
def test_one_pattern_may_be_given_by_itself(pattern: str) -> None:
    pairs = [Pair(*chains(), batch=X[:2], own=own) for own in (pattern, [pattern], (pattern,))]
    owns = [pair.map.own for pair in pairs] + [TrainConfig(own=pattern).own]
    assert owns[0] == owns[1] == owns[2] and owns[3] == (pattern,)


@settings(max_examples=15)
@given(
    patterns=st.lists(st.sampled_from(NAMES), min_size=1, max_size=2),
    widths=st.sampled_from([(4, 4), (4, 6)]),
    start=st.sampled_from(["base", "motivated"]),
    share=st.booleans(),
)
def test_tied_equals_copied_and_own_tensors_are_left_alone(
    patterns: list[str], widths: tuple[int, int], start: Any, share: bool
) -> None:
    models, trained = chains(widths), []
    for tie in (True, False):
        before = [{name: each.clone() for name, each in tensors(model).items()} for model in models]
        pair = Pair(*copy.deepcopy(models), batch=X[:2], own=patterns, tie=tie, shared_from=start)
        both = pair.base, pair.motivated_model
        for name in pair.map.own:
            target = pair.map.entries[name].target
            assert torch.equal(tensors(pair.base)[name], before[0][name])
            assert torch.equal(tensors(pair.motivated_model)[target], before[1][target])
        optimizers = tuple(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9) for model in both)
        for number in range(6):
            model, optimizer = both[number % 2], optimizers[number % 2]
            with pair.motivated(optimizers if share else None) if number % 2 else torch.enable_grad():
                F.cross_entropy(model(X), X.argmax(1)).backward()
                optimizer.step()
                optimizer.zero_grad()
        with pair.motivated():
            inside = pair.map.extract(tensors(pair.motivated_model))
        trained.append([tensors(model) for model in both])
        own = {name for name in inside if not torch.equal(inside[name], tensors(pair.base)[name])}
        assert own == pair.map.own
    for ours, theirs in zip(*trained, strict=True):
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_verification_is_that_of_the_whole_map() -> None:
    base, motivated = chains((4, 6))
    pair = Pair(base, motivated, batch=X[:2], own=OWN)
    assert verify(base, motivated, pair.map, X[:2])
    assert trainer(dataclasses.replace(PLAIN, own=OWN), (4, 6)).pair.map.own == pair.map.own


def test_one_tensor_of_two_names_is_shared_or_not() -> None:
    class Tied(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(7, width), nn.Linear(width, 7, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.embed(x))

    words = torch.arange(7)
    Pair(Tied(3), Tied(4), batch=words, own=("embed", "head"))
    with pytest.raises(SeekingError, match=r"embed.weight and head.weight are one tensor in the base.*name both"):
        Pair(Tied(3), Tied(4), batch=words, own=("head",))


JOINT: dict[str, Any] = {"update": "joint", "condition": "every:2 | after:4"}
RUNS: dict[str, dict[str, Any]] = {
    "paper": {"condition": "decrease:1", "optimizer_state": "shared"},
    "joint": {**JOINT, "optimizer_state": "inherit", "rewarm": 1.3, "fused": True},
    "one pass": {**JOINT, "one_pass": True, "teach": 0.5, "clip_grad": 0.5, "ema": 0.9},
    "private": {"condition": "always", "finish": "private", "base_condition": "every:2"},
}


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("widths", [(4, 4), (4, 6)], ids=["depth", "width"])
@pytest.mark.filterwarnings("ignore::seeking.errors.RunWarning")
def test_resumed_equals_uninterrupted(kind: str, widths: tuple[int, int], tmp_path: Path) -> None:
    config = dataclasses.replace(PLAIN, own=OWN, **RUNS[kind])

    def make(**more: Any) -> Trainer:
        return trainer(config, widths, **more)

    whole, resumed = whole_and_resumed(make, tmp_path / "run", [1, 8])
    assert resumed.pair.map.own == WeightsMap.load(tmp_path / "run" / "map.json").own == whole.pair.map.own
    with pytest.raises(SeekingError, match="own"):
        trainer(dataclasses.replace(config, own=("norm",)), widths, output=tmp_path / "run", resume=True)


@pytest.mark.parametrize("one_pass", [False, True])
def test_a_joint_update_is_one_optimizer_over_all_tensors_of_both(one_pass: bool) -> None:
    config = dataclasses.replace(
        PLAIN, own=OWN, update="joint", condition="always", one_pass=one_pass, base_weight=0.3, schedule="constant"
    )
    ours, models = trainer(config), chains()
    rows = steps(ours.fit())
    assert (ours.run.prefix is not None) == one_pass
    if ours.run.prefix:
        assert sorted(ours.run.prefix.modules) == ["blocks.0", "stem"], "norm and head are run by each"
    pair = Pair(*models, batch=X[:2], own=OWN)
    with pair.motivated():
        pass
    own = [p for name, p in pair.base.named_parameters() if name in pair.map.own]
    weights = [*pair.motivated_model.parameters(), *own]
    decayed = [p for p in weights if p.ndim > 1], [p for p in weights if p.ndim == 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed[0], "weight_decay": 5e-4}, {"params": decayed[1]}], lr=0.05, momentum=0.9, nesterov=True
    )
    losses = []
    for _ in range(2):
        for x, y in data():
            parts = [F.cross_entropy(model(x), y) for model in models]
            (0.3 * parts[0] + 0.7 * parts[1]).backward()
            for name, entry in pair.map.shared.entries.items():
                small, large = pair.base.get_parameter(name), pair.motivated_model.get_parameter(entry.target)
                large.grad += small.grad
                small.grad = None
            optimizer.step()
            optimizer.zero_grad()
            losses.append([part.item() for part in parts])
    recorded = [[row["loss"], row["motivated_loss"]] for row in rows]
    torch.testing.assert_close(torch.tensor(recorded), torch.tensor(losses), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("own", [("blocks",), ("blocks.0.inner",), ("stem",)])
def test_no_prefix_where_its_tensors_are_not_shared(own: tuple[str, ...]) -> None:
    base, motivated = chains()
    weights_map = match(base, motivated, batch=X[:2])
    assert find_prefix(base, motivated, weights_map, X[:2]) is not None
    assert find_prefix(base, motivated, weights_map.without(*own), X[:2]) is None


def test_nobody_steps_where_an_own_gradient_is_not_finite() -> None:
    config = dataclasses.replace(PLAIN, own=OWN, update="joint", condition="always", on_nonfinite="skip")
    run = trainer(config)
    with torch.no_grad():
        run.pair.base.head.bias.register_hook(lambda gradient: gradient * math.inf)
    before = copy.deepcopy([learner.module.state_dict() for learner in run.learners.values()])
    with pytest.warns(RunWarning, match="the motivated model's gradient norm is nan"):
        run.algorithm([next(iter(data()))], run.run)
    for learner, state in zip(run.learners.values(), before, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in learner.module.state_dict().items())
        assert not learner.gradients()


def test_what_is_the_bases_own_is_not_extracted_as_its_own() -> None:
    base, motivated = chains()
    weights_map = match(base, motivated, batch=X[:2])
    with pytest.warns(MatchWarning, match=r"head.bias and 3 more tensors of the base are its own"):
        seeking.extract(motivated, base, weights_map.without(*OWN))


def test_sandwich_training_refuses_own_tensors() -> None:
    run = Trainer(*two_models(), **batches(), config=dataclasses.replace(PLAIN, own=("fc",)), algorithm=sandwich)
    with pytest.raises(SeekingError, match="the base can have no tensors of its own"):
        run.fit()


def test_the_command_line_tells_of_own_tensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["map", "resnet8", "resnet14", "--own", "bn1", "fc", "--save", str(tmp_path / "map.json")]) == 0
    assert "each model's own, not shared: bn1.bias, bn1.num_batches_tracked" in capsys.readouterr().out
    assert "fc.weight" in WeightsMap.load(tmp_path / "map.json").own
    assert main(["map", "resnet8", "resnet14", "--own", "bn"]) == 2
    assert "did you mean bn1" in capsys.readouterr().err
