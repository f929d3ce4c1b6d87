"""The first step of the motivated model: what its extra capacity and its optimizer start with."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runs import CONFIG, PLAIN, OneStage, assert_equal, batches, run, two_models, whole_and_resumed
from torch import nn
from torch.optim import SGD, AdamW, Optimizer, RMSprop

import seeking
from seeking import MatchWarning, Pair, SeekingError, TrainConfig, Trainer, match
from seeking.block_copies import copy_blocks, sources
from seeking.models.resnet import ResNet
from seeking.training.joining import Joining
from seeking.training.learner import Learner
from seeking.training.progress import Progress
from seeking.verification.extra import extra_modules
from seeking.weights_map import tensors

LATE: dict[str, Any] = {"condition": "after:0.4", "epochs": 3}


def deep(seed: int = 0) -> tuple[OneStage, OneStage]:
    torch.manual_seed(seed)
    return OneStage(2, width=4), OneStage(4, width=4)


def chain(width: int, depth: int) -> nn.Sequential:
    blocks = [nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(depth)]
    return nn.Sequential(nn.Linear(3, width), nn.Sequential(*blocks), nn.Linear(width, 2))


def test_copies_leave_what_is_tied_to_the_bases() -> None:
    base, motivated = chain(4, 2), chain(4, 4)
    for number in (2, 3):
        motivated[1][number][0].weight = motivated[1][number - 2][0].weight
    weights_map = seeking.embed(base, motivated, extra="copied", batch=torch.randn(2, 3))
    for name, tensor in weights_map.extract(tensors(motivated)).items():
        assert torch.equal(tensor, tensors(base)[name])


@settings(max_examples=5)
@given(depth=st.integers(1, 3), more=st.integers(1, 3), how=st.sampled_from(["leading", "spread"]))
def test_extra_blocks_are_copies_of_the_bases_block_before(depth: int, more: int, how: Any) -> None:
    base, motivated = chain(4, depth), chain(4, depth + more)
    weights_map = match(base, motivated, batch=torch.randn(2, 3), depth=how)
    seeking.embed(base, motivated, weights_map, extra="copied")
    shared = {entry.target for entry in weights_map.entries.values()}
    last = ""
    for number in range(depth + more):
        name = f"1.{number}"
        if f"{name}.0.weight" in shared:
            last = name
        else:
            assert sources(motivated, weights_map)[name] == last
            for copy, source in zip(
                tensors(motivated.get_submodule(name)).values(),
                tensors(motivated.get_submodule(last)).values(),
                strict=True,
            ):
                assert torch.equal(copy, source)
    for name, tensor in weights_map.extract(tensors(motivated)).items():
        assert torch.equal(tensor, tensors(base)[name])


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ((chain(3, 1), chain(4, 2)), "differ in depth alone, but 0.weight holds more"),
        ((chain(3, 1), chain(3, 1)), "the motivated model has no extra block"),
        ((chain(3, 0), chain(3, 2)), "before 1 there is no block of the base of its class in its stage"),
    ],
)
def test_copies_that_do_not_apply_are_refused(models: tuple[nn.Module, nn.Module], message: str) -> None:
    base, motivated = models
    weights_map = match(base, motivated, batch=torch.randn(2, 3))
    before = {name: tensor.clone() for name, tensor in tensors(motivated).items()}
    with pytest.raises(SeekingError, match=message):
        seeking.embed(base, motivated, weights_map, extra="copied")
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors(motivated).items())


def test_tensors_of_other_shapes_keep_their_own_initialization_and_a_warning_names_them() -> None:
    base, motivated = ResNet(8, width=4), ResNet(14, width=4)
    own = motivated.layer2[1].conv1.weight.detach().clone()
    with pytest.warns(MatchWarning, match=r"layer2\.1\.conv1\.weight, layer3\.1\.conv1\.weight keep their own"):
        seeking.embed(base, motivated, extra="copied")
    assert torch.equal(motivated.layer2[1].conv1.weight, own)
    assert torch.equal(motivated.layer2[1].conv2.weight, base.layer2[0].conv2.weight)


@pytest.mark.slow
def test_extra_blocks_are_copied_from_what_the_base_has_learned() -> None:
    config = dataclasses.replace(CONFIG, extra="copied", **LATE)
    trainer = Trainer(*deep(), **batches(), config=config)
    motivated, weights_map = trainer.pair.motivated_model, trainer.pair.map
    seen = {}
    inherited = trainer.run.joining.begin

    def begin(*learners: Learner) -> None:
        joined_before = trainer.run.joining.step
        inherited(*learners)
        if joined_before is None:
            for block, source in sources(motivated, weights_map).items():
                own, theirs = (tensors(motivated.get_submodule(name)) for name in (block, source))
                seen[block] = all(
                    torch.equal(own[name], theirs[name]) for name in own if own[name].shape == theirs[name].shape
                )
            seen["step"] = trainer.progress.step

    trainer.run.joining.begin = begin  # type: ignore[method-assign]
    trainer.fit()
    assert seen.pop("step") == round(0.4 * trainer.progress.steps)
    assert seen.keys() == set(extra_modules(motivated, weights_map))
    assert all(seen.values())


OPTIMIZERS: list[Any] = [
    lambda groups: SGD(groups, momentum=0.9, nesterov=True, weight_decay=0.1),
    lambda groups: AdamW(groups, weight_decay=0.1),
    RMSprop,
]


@pytest.mark.parametrize("make", OPTIMIZERS)
@settings(max_examples=6, suppress_health_check=list(HealthCheck))
@given(rewarm=st.floats(0.3, 3), begin=st.integers(0, 4))
def test_rewarming_is_another_rate_of_the_extra_capacity_alone(make: Any, rewarm: float, begin: int) -> None:
    """The same as a rate by hand for extra blocks, as groups of their own; and of what is shared nothing changes."""
    torch.manual_seed(0)
    base, motivated = chain(4, 1).double(), chain(4, 3).double()
    twin = chain(4, 3).double()
    pair = Pair(base, motivated, match(base, motivated, batch=torch.randn(2, 3).double()))
    twin.load_state_dict(motivated.state_dict())
    extra = ("1.1.", "1.2.")
    groups = [
        {"params": [p for name, p in twin.named_parameters() if name.startswith(extra) == of_extra], "lr": 0.01}
        for of_extra in (False, True)
    ]
    optimizer = make([{"params": [*motivated.parameters()], "lr": 0.01}])
    reference: Optimizer = make(groups)
    progress = Progress(20, 1, step=begin)
    joining = Joining(pair, progress, copied=False, inherit=False, rewarm=rewarm, share=0.5)
    joining.step = begin
    factors = []
    for _ in range(12):
        factors.append(joining.factor)
        reference.param_groups[1]["lr"] = 0.01 * joining.factor
        x = torch.randn(5, 3).double()
        for model, own in ((motivated, optimizer), (twin, reference)):
            own.zero_grad()
            model(x).square().sum().backward()
            with joining.rewarming() if model is motivated else torch.enable_grad():
                own.step()
        progress.end_batch()
        for ours, theirs in zip(motivated.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs)
    assert factors[0] == factors[10] == factors[11] == 1
    assert factors[5] == pytest.approx(rewarm)


def test_the_bases_part_of_a_sliced_tensor_is_not_rewarmed() -> None:
    torch.manual_seed(0)
    base, motivated = chain(3, 1), chain(5, 1)
    pair = Pair(base, motivated, match(base, motivated, batch=torch.randn(2, 3)))
    joining = Joining(pair, Progress(10, 1, step=2), copied=False, inherit=False, rewarm=3.0, share=0.4, step=0)
    before = {name: p.detach().clone() for name, p in motivated.named_parameters()}
    with joining.rewarming(), torch.no_grad():
        for parameter in motivated.parameters():
            parameter.add_(0.25)
    shared = {entry.target: entry for entry in pair.map.entries.values()}
    for name, parameter in motivated.named_parameters():
        expected = torch.full_like(parameter, 0.75)
        expected[shared[name].mesh()] = 0.25
        torch.testing.assert_close(parameter - before[name], expected)


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
@pytest.mark.parametrize("models", [two_models, deep])
def test_an_inherited_state_is_the_bases_where_they_join_and_the_models_own_afterwards(
    models: Any, optimizer: str
) -> None:
    config = dataclasses.replace(PLAIN, optimizer=optimizer, optimizer_state="inherit", condition="after:3", epochs=1)
    trainer = Trainer(*models(), **batches(), config=config)
    base, motivated = (trainer.learners[name] for name in ("base", "motivated"))
    for batch in [next(iter(batches()["train_loader"]))] * 3:
        trainer.algorithm([batch], trainer.run)
    assert not motivated.optimizer.state
    with trainer.pair.motivated():
        trainer.run.joining.begin(base, motivated)
    parameters = dict(motivated.module.named_parameters())
    for name, parameter in base.module.named_parameters():
        entry = trainer.pair.map.entries[name]
        mine, theirs = base.optimizer.state[parameter], motivated.optimizer.state[parameters[entry.target]]
        assert mine.keys() == theirs.keys()
        for slot, value in mine.items():
            if value.shape == parameter.shape:
                inherited = theirs[slot]
                assert torch.equal(inherited[entry.mesh()], value)
                assert float(inherited.sum()) == pytest.approx(float(value.sum()), abs=1e-4), "zero elsewhere"
            else:
                assert torch.equal(theirs[slot], value)
            assert value.data_ptr() != theirs[slot].data_ptr()


@pytest.mark.parametrize(("models", "optimizer"), [(two_models, "adamw"), (deep, "momentum")])
def test_rewarming_with_an_inherited_state_moves_the_extra_capacity_alone(models: Any, optimizer: str) -> None:
    """On a step with another factor: the shared weights, and all moments, are those of the same step without it."""
    batch, by_kind = next(iter(batches()["train_loader"])), {}
    options = {"plain": {}, "rewarmed": {"rewarm": 3.0, "rewarm_share": 0.9}, "new": {"optimizer_state": "separate"}}
    for kind, more in options.items():
        chosen = {"optimizer": optimizer, "schedule": "constant", "condition": "after:3", "optimizer_state": "inherit"}
        trainer = Trainer(*models(), **batches(), config=dataclasses.replace(PLAIN, **{**chosen, **more}))
        learner = trainer.learners["motivated"]
        for step in range(5):
            before = {name: p.detach().clone() for name, p in learner.module.named_parameters()}
            trainer.algorithm([batch], trainer.run)
            trainer.progress.step = step + 1
        moved = {name: p.detach() - before[name] for name, p in learner.module.named_parameters()}
        by_kind[kind] = moved, {name: learner.optimizer.state[p] for name, p in learner.module.named_parameters()}
    factor = 1 + 2 * 2 / (0.9 * trainer.progress.steps)  # On the batch after the first motivated step.
    shared = {entry.target: entry for entry in trainer.pair.map.entries.values()}
    for name, plain in by_kind["plain"][0].items():
        expected = plain * factor
        if name in shared:
            expected[shared[name].mesh()] = plain[shared[name].mesh()]
        torch.testing.assert_close(by_kind["rewarmed"][0][name], expected, rtol=1e-3, atol=1e-6)
    for name, state in by_kind["plain"][1].items():
        for slot, value in state.items():
            assert torch.equal(by_kind["rewarmed"][1][name][slot], value), "no moment knows of the factor"
    inherited, new = by_kind["plain"][1], by_kind["new"][1]
    for name in shared:
        if name in inherited:
            assert any(not torch.equal(value, new[name][slot]) for slot, value in inherited[name].items())


@pytest.mark.slow
@pytest.mark.parametrize("at", [[7, 9]])
def test_a_run_with_a_joining_resumes_bit_for_bit(at: list[int], tmp_path: Path) -> None:
    config = dataclasses.replace(
        CONFIG, **LATE, extra="copied", optimizer_state="inherit", rewarm=1.3, rewarm_share=0.5, save_every="1"
    )

    def make(**more: Any) -> Trainer:
        return Trainer(*deep(), **batches(), config=config, **more)

    whole, resumed = whole_and_resumed(make, tmp_path / "run", at)
    assert whole.run.joining.step == resumed.run.joining.step == round(0.4 * whole.progress.steps)


@pytest.mark.slow
def test_a_roll_back_to_before_the_joining_joins_again(tmp_path: Path) -> None:
    poisoned = False

    def loss_fn(model: nn.Module, batch: Any) -> torch.Tensor:
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        return loss * float("nan") if poisoned and model.training and trainer.progress.step == 9 else loss

    config = dataclasses.replace(
        CONFIG, condition="after:8", optimizer_state="inherit", on_nonfinite="rollback", save_every="7"
    )
    trainer = Trainer(*two_models(), **batches(), config=config, loss_fn=loss_fn, output=tmp_path / "run")
    poisoned = True
    with pytest.warns(UserWarning, match="rolled back"):
        trainer.fit()
    assert trainer.run.joining.step == 10


@pytest.mark.slow
def test_neutral_and_copied_starts_are_options_of_the_trainer() -> None:
    for extra in ("neutral", "copied"):
        trainer = Trainer(*deep(), **batches(), config=dataclasses.replace(CONFIG, extra=extra))
        expected = deep()
        seeking.embed(*expected, trainer.pair.map, extra=extra, batch=torch.randn(2, 3, 8, 8))
        Pair(*expected, trainer.pair.map)
        weights = tensors(trainer.pair.motivated_model)
        assert all(torch.equal(tensor, weights[name]) for name, tensor in tensors(expected[1]).items())


@pytest.mark.slow
def test_options_that_change_nothing_change_nothing() -> None:
    """A factor of one, and a state that is inherited before there is one."""
    expected, _ = run(dataclasses.replace(CONFIG, fused=False))
    assert_equal(expected, run(dataclasses.replace(CONFIG, fused=False, rewarm=1.0))[0])
    config = dataclasses.replace(CONFIG, fused=False, condition="always", base_condition="after:1")
    assert_equal(run(config)[0], run(dataclasses.replace(config, optimizer_state="inherit"))[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rewarm": 0.0}, "rewarm is 0.0"),
        ({"rewarm_share": 1.0}, "rewarm_share is 1.0; it is a share of the run"),
        ({"rewarm": 1.3, "shard": True}, "rewarm cannot be combined with shard"),
        ({"extra": "copied", "shard": True}, "extra copied cannot be combined with shard"),
        ({"optimizer_state": "inherit", "shard": True}, "optimizer_state inherit cannot be combined with shard"),
        ({"extra": "copy"}, "unknown value of extra 'copy'; did you mean copied"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SeekingError, match=message):
        TrainConfig(**options)


def test_nothing_is_changed_where_a_block_cannot_be_copied() -> None:
    base = nn.Sequential(nn.Sequential(nn.Linear(3, 3)))
    motivated = nn.Sequential(nn.Sequential(nn.Linear(3, 3)), nn.Sequential(nn.Linear(3, 4)))
    weights_map = match(base, motivated)
    before = motivated[1][0].weight.detach().clone()
    with pytest.raises(SeekingError, match="0 has no tensor of the shape of 1's"):
        copy_blocks(motivated, weights_map)
    assert torch.equal(motivated[1][0].weight, before)
