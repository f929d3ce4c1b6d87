"""A pair in and out of the motivated state: what is shared is in both models, and the rest stays apart."""

import copy

import pytest
import torch
import torch.nn.functional as F
from families import SMALL_FAMILIES, Family
from timm.optim import create_optimizer_v2
from torch import nn

from seeking import Pair, SeekingError, match, recalibrate, verify
from seeking.pair import NORM_STATISTICS
from seeking.shared_tensors import MAX_BLOCKS
from seeking.weights_map import tensors

families = pytest.mark.parametrize("family", SMALL_FAMILIES, ids=str)
OPTIMIZERS = {
    "sgd": lambda model: torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3),
    "adamw": lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3),
    # Counts its steps in plain integers.
    "adabelief": lambda model: create_optimizer_v2(model.parameters(), "adabelief", lr=1e-3),
}


def train(pair: Pair, optimizer: str, *, share: bool, size: int, steps: int = 12) -> list[float]:
    """The three-line loop, motivated at every third step and on the way with dropout-free models."""
    optimizers = OPTIMIZERS[optimizer](pair.base), OPTIMIZERS[optimizer](pair.motivated_model)
    generator = torch.Generator().manual_seed(1)
    losses = []

    def step(model: nn.Module, of: torch.optim.Optimizer) -> None:
        of.zero_grad()
        loss = F.cross_entropy(model.train()(images), labels)
        loss.backward()
        of.step()
        losses.append(loss.item())

    for number in range(steps):
        images = torch.randn(8, 3, size, size, generator=generator)
        labels = torch.randint(10, (8,), generator=generator)
        step(pair.base, optimizers[0])
        if number % 3 == 1:
            with pair.motivated(optimizers if share else None) as model:
                step(model, optimizers[1])
    return losses


# Every two of them together.
@pytest.mark.parametrize(
    ("norm", "optimizer", "share"),
    [
        ("shared", "sgd", False),
        ("private", "sgd", True),
        ("private", "adamw", False),
        ("shared", "adamw", True),
        ("shared", "adabelief", False),
        ("private", "adabelief", True),
    ],
)
@families
def test_tied_equals_copied_bit_for_bit(family: Family, norm: str, optimizer: str, share: bool) -> None:
    base, motivated = family.make()
    tied = Pair(*copy.deepcopy((base, motivated)), norm=norm)
    copied = Pair(*copy.deepcopy((base, motivated)), norm=norm, tie=False)
    runs = [train(pair, optimizer, share=share, size=family.size) for pair in (tied, copied)]
    assert runs[0] == runs[1]
    for pair in (tied, copied):
        with pair.motivated():
            pass
    for ours, theirs in ((tied.base, copied.base), (tied.motivated_model, copied.motivated_model)):
        assert all(torch.equal(t, tensors(theirs)[n]) for n, t in tensors(ours).items())


@families
def test_inside_the_base_is_in_the_motivated_model_and_outside_it_has_its_steps(family: Family) -> None:
    pair = Pair(*family.make(), norm="shared")
    with torch.no_grad():
        for parameter in pair.base.parameters():
            parameter.add_(1)
    with pair.motivated() as model:
        assert model is pair.motivated_model
        inside = pair.map.extract(tensors(model))
        assert all(torch.equal(t, inside[n]) for n, t in tensors(pair.base).items())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2)
    outside = pair.map.extract(tensors(pair.motivated_model))
    assert all(torch.equal(p, outside[n]) for n, p in pair.base.named_parameters())
    assert all(torch.equal(p, 2 * inside[n]) or pair.map.entries[n].whole for n, p in pair.base.named_parameters())


def test_whole_tensors_use_one_storage_and_sliced_ones_do_not() -> None:
    pair = Pair(*SMALL_FAMILIES[1].make())
    ours, theirs = dict(pair.base.named_parameters()), dict(pair.motivated_model.named_parameters())
    for name, parameter in ours.items():
        entry = pair.map.entries[name]
        assert (parameter.data_ptr() == theirs[entry.target].data_ptr()) == entry.whole
        assert parameter is not theirs[entry.target], "gradients stay apart"


@families
def test_an_exception_leaves_the_motivated_state_with_the_shared_part_copied_back(family: Family) -> None:
    pair = Pair(*family.make())

    def body() -> None:
        with pair.motivated() as model, torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(3.0)
            raise RuntimeError("in the body")

    with pytest.raises(RuntimeError, match="in the body"):
        body()
    assert all((parameter == 3.0).all() for parameter in pair.base.parameters())


def test_private_norms_stay_apart_and_shared_ones_do_not() -> None:
    family = SMALL_FAMILIES[1]
    for norm, same in (("shared", True), ("private", False), ("recalibrated", False)):
        pair = Pair(*family.make(), norm=norm)
        train(pair, "sgd", share=False, size=family.size, steps=6)
        with pair.motivated():
            inside = pair.map.extract(tensors(pair.motivated_model))
        statistics = {n: b for n, b in pair.base.named_buffers() if n.endswith(NORM_STATISTICS[:2])}
        assert all(torch.equal(b, inside[n]) == same for n, b in statistics.items())


def test_a_pretrained_base_brings_its_norm_statistics_whatever_the_policy() -> None:
    base, motivated = SMALL_FAMILIES[0].make()
    base.train()(torch.randn(8, 3, 16, 16))
    pair = Pair(base, motivated, norm="private")
    assert torch.equal(pair.motivated_model.bn1.running_mean, base.bn1.running_mean)
    assert pair.motivated_model.bn1.running_mean.data_ptr() != base.bn1.running_mean.data_ptr()


def test_models_that_move_after_pairing_are_tied_again() -> None:
    pair = Pair(*SMALL_FAMILIES[1].make(), norm="shared")
    pair.base.double()
    with pytest.raises(SeekingError, match=r"float64 on cpu.*float32 on cpu; move both"), pair.motivated():
        pass
    pair.motivated_model.double()
    with torch.no_grad():
        pair.base.fc.bias.fill_(7.0)
        pair.base.conv1.weight.fill_(5.0)
    with pair.motivated() as model:
        assert (model.fc.bias == 7).all()
        assert (model.conv1.weight[:8] == 5).all()
        assert model.fc.bias.data_ptr() == pair.base.fc.bias.data_ptr()


@families
def test_a_graph_of_the_base_from_before_a_motivated_step_is_refused(family: Family) -> None:
    pair = Pair(*family.make())
    loss = pair.base(torch.randn(4, 3, family.size, family.size)).sum()
    with pair.motivated() as model, torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("tie", [True, False])
def test_within_itself_the_motivated_state_is_the_same_state(tie: bool) -> None:
    pair = Pair(*SMALL_FAMILIES[1].make(), tie=tie)
    with pair.motivated() as model, torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(2.0)
        with pair.motivated() as again:
            assert again is model
    assert all((parameter == 2.0).all() for parameter in pair.base.parameters())


class Repeating(nn.Module):
    """The same layer twice, under two names."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem, self.body, self.head = nn.Linear(3, width), nn.Linear(width, width), nn.Linear(width, 2)
        self.again = self.body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.again(self.body(self.stem(x)).relu()).relu())


@pytest.mark.parametrize("width", [4, 6])
def test_a_module_under_two_names_is_one_module(width: int) -> None:
    pair = Pair(Repeating(4), Repeating(width))
    assert verify(pair.base, pair.motivated_model, pair.map, torch.randn(5, 3))
    with pair.motivated() as model, torch.no_grad():
        model.body.weight.fill_(3.0)
    assert (pair.base.again.weight == 3.0).all()


def test_many_blocks_move_by_index() -> None:
    base, motivated = SMALL_FAMILIES[1].make()
    scattered = match(base, motivated, width="even")
    pair = Pair(base, motivated, scattered)
    assert scattered.entries["layer3.0.conv2.weight"].block_count() > MAX_BLOCKS
    with torch.no_grad():
        base.layer3[0].conv2.weight.normal_()
    with pair.motivated() as model:
        assert torch.equal(scattered.extract(tensors(model))["layer3.0.conv2.weight"], base.layer3[0].conv2.weight)


def test_recalibrated_statistics_are_the_means_over_the_batches() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(4, momentum=0.3)).train()
    batches = [torch.randn(16, 4) + 3 for _ in range(5)]
    before = torch.get_rng_state()
    recalibrate(model, batches)
    assert torch.equal(torch.get_rng_state(), before)
    norm = model[1]
    torch.testing.assert_close(norm.running_mean, torch.stack([b.mean(0) for b in batches]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([b.var(0) for b in batches]).mean(0))
    assert (norm.momentum, norm.training, model.training) == (0.3, True, True)


@pytest.mark.parametrize("state", ["separate", "shared"])
def test_after_separation_each_model_learns_by_itself(state: str) -> None:
    base, motivated = (nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2)) for width in (3, 5))
    pair = Pair(base, motivated, match(base, motivated, batch=torch.zeros(1, 4)))
    optimizers = [torch.optim.AdamW(model.parameters(), lr=0.1) for model in (base, motivated)]
    pair.optimizers = tuple(optimizers) if state == "shared" else None
    x = torch.randn(8, 4)

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()

    step(base, optimizers[0])
    with pair.motivated():
        step(motivated, optimizers[1])
    step(base, optimizers[0])
    pair.separate()
    mapped = pair.map.extract(tensors(motivated))
    assert all(torch.equal(mapped[name], tensor) for name, tensor in tensors(base).items())
    before = {name: tensor.clone() for name, tensor in tensors(base).items()}
    counts = [optimizers[0].state[parameter]["step"].item() for parameter in base.parameters()]
    step(motivated, optimizers[1])
    assert all(torch.equal(before[name], tensor) for name, tensor in tensors(base).items())
    assert counts == [optimizers[0].state[parameter]["step"].item() for parameter in base.parameters()]
    with pytest.raises(SeekingError, match="the pair was separated"), pair.motivated():
        pass


def test_a_pair_says_what_it_is() -> None:
    def network(width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))

    pair = Pair(network(3), network(8))
    assert repr(pair) == "Pair(Sequential of 23 in Sequential of 58 parameters; 1 tensor tied, 3 copied)"
    pair.separate()
    assert repr(pair) == "Pair(Sequential of 23 in Sequential of 58 parameters; separated)"
    assert "0 tensors tied, 4 copied" in repr(Pair(network(3), network(8), tie=False))
