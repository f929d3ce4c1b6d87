"""One model initialized from the other's weights."""

import copy
import dataclasses
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_model
from timm.models.metaformer import MetaFormer
from torch import Tensor, nn
from zoo import Sizes
from zoo_images import IMAGE_BRANCHES, PICTURES, Images
from zoo_tokens import TOKEN_BRANCHES, WORDS, Tokens

import seeking
from seeking import MatchWarning, SeekingError, match, verify
from seeking.cli import main
from seeking.data import load
from seeking.experiments import RunConfig, trainer
from seeking.experiments.tasks.images import ImagesOfRun
from seeking.models import create
from seeking.models.resnet import ResNet
from seeking.weights_map import tensors

SMALL = Sizes()


LARGE = Sizes(width=7, hidden=9, heads=5, per_group=3, depth=4, words=13)


def outputs(model: nn.Module, batch: Tensor) -> Tensor:
    with torch.no_grad():
        result: Tensor = model.eval()(batch)
    return result


@pytest.mark.parametrize("start", [seeking.embed, seeking.extract])
def test_weights_with_nan_are_refused_by_name_and_change_nothing(start: Callable[..., object]) -> None:
    base, motivated = (nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2)) for width in (3, 5))
    source, target = (base, motivated) if start is seeking.embed else (motivated, base)
    with torch.no_grad():
        source[2].bias[1] = torch.nan
    before = copy.deepcopy(target.state_dict())
    with pytest.raises(SeekingError, match=r"2\.bias of the (base|motivated model) holds NaN"):
        start(source, target)
    assert all(torch.equal(before[name], value) for name, value in target.state_dict().items())


ALL_CHANNELS = ("group norm", "channel attention")
"""Branches in which the base's channels look at the extra ones."""


@pytest.mark.parametrize("branch", sorted(IMAGE_BRANCHES.keys() - ALL_CHANNELS))
def test_a_function_preserving_initialization_is_the_base_and_can_learn(branch: str) -> None:
    torch.manual_seed(3)
    base, motivated = Images(SMALL, [branch]), Images(LARGE, [branch])
    own = {name: tensor.clone() for name, tensor in tensors(motivated).items()}
    weights_map = seeking.embed(base, motivated, batch=PICTURES)
    assert torch.allclose(outputs(base, PICTURES), outputs(motivated, PICTURES), atol=1e-6)
    assert all(torch.equal(weights_map.extract(tensors(motivated))[n], t) for n, t in tensors(base).items())
    kept = sum(torch.equal(own[name], tensor) for name, tensor in motivated.named_parameters())
    assert kept > 0, "extra capacity keeps its own initialization where it can"

    before = {name: parameter.clone() for name, parameter in motivated.named_parameters()}
    optimizer = torch.optim.SGD(motivated.parameters(), lr=0.1)
    motivated.train()
    for _ in range(4):
        optimizer.zero_grad()
        motivated(PICTURES + torch.randn_like(PICTURES)).square().sum().backward()
        optimizer.step()
    still = [n for n, p in motivated.named_parameters() if torch.equal(p, before[n])]
    # A bias before a batch norm has no gradient but for rounding; squeezed channels may all be cut off by their ReLU.
    assert all(name.endswith("bias") or "squeeze" in name or "excite" in name for name in still), still


@pytest.mark.slow
def test_a_deeper_transformer_computes_the_base() -> None:
    deeper = dataclasses.replace(SMALL, depth=4)
    for branch in TOKEN_BRANCHES:
        base, motivated = Tokens(SMALL, [branch], nn.LayerNorm), Tokens(deeper, [branch], nn.LayerNorm)
        with_own = copy.deepcopy(motivated)
        seeking.embed(base, motivated, batch=WORDS)
        assert torch.equal(outputs(base, WORDS), outputs(motivated, WORDS))
        seeking.embed(base, with_own, extra="own", batch=WORDS)
        assert not torch.allclose(outputs(base, WORDS), outputs(with_own, WORDS))


def test_a_warning_tells_what_cannot_be_preserved() -> None:
    base, motivated = Tokens(SMALL, ["mlp"], nn.LayerNorm), Tokens(LARGE, ["mlp"], nn.LayerNorm)
    with pytest.warns(MatchWarning, match="look at all channels"):
        seeking.embed(base, motivated, batch=WORDS)
    for branch in ALL_CHANNELS:
        with pytest.warns(MatchWarning, match="look at all channels"):
            seeking.embed(Images(SMALL, [branch]), Images(LARGE, [branch]), batch=PICTURES)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "drawn",
    [
        lambda x: x + torch.randn_like(x),
        lambda x: torch.nn.functional.gumbel_softmax(x, hard=True),
        lambda x: torch.nn.functional.dropout(x, 0.5, training=True),
        lambda x: torch.distributions.Normal(x, 1.0, validate_args=False).rsample(),
    ],
)
def test_what_a_forward_draws_is_no_difference(drawn: Callable[[Tensor], Tensor]) -> None:
    class Drawn(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.enter, self.mid, self.leave = nn.Linear(3, width), nn.Linear(width, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            leave: Tensor = self.leave(drawn(self.mid(self.enter(x).relu())))
            return leave

    base, motivated, x = Drawn(4), Drawn(6), torch.randn(2, 3)
    state = torch.get_rng_state()
    seeking.embed(base, motivated, batch=x)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(base.mid(base.enter(x).relu()), motivated.mid(motivated.enter(x).relu()))


@pytest.mark.filterwarnings("error")
def test_a_forward_that_changes_its_model_is_compared_in_its_first_pass() -> None:
    """As those with a queue of earlier keys and averaged weights, in evaluation mode, too."""

    class Contrast(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.query = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2))
            self.key = copy.deepcopy(self.query).requires_grad_(False)
            self.register_buffer("queue", torch.ones(2, 2))

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                for averaged, own in zip(self.key.parameters(), self.query.parameters(), strict=True):
                    averaged.lerp_(own, 0.5)
                keys = self.key(x)
            similar = self.query(x) @ torch.cat([keys, self.queue]).T
            self.queue.copy_(keys)
            return similar

    base, motivated, x = Contrast(4), Contrast(6), torch.randn(2, 3)
    with torch.no_grad():
        for parameter in (*base.query.parameters(), *motivated.query.parameters()):
            parameter.mul_(2)
    seeking.embed(base, motivated, batch=x)
    torch.testing.assert_close(base(x), motivated(x))


def test_blocks_that_scale_their_input_start_as_the_identity() -> None:
    kwargs = {"num_classes": 3, "dims": (8, 8, 8, 8), "res_scale_init_values": (None, None, 1.0, 1.0)}
    base, motivated = (MetaFormer(depths=depths, **kwargs) for depths in ((1, 1, 1, 1), (1, 2, 3, 1)))
    batch = torch.randn(1, 3, 64, 64)
    weights_map = match(base, motivated, batch=batch)
    assert verify(base, motivated, weights_map, batch)
    seeking.embed(base, motivated, weights_map, batch=batch)
    assert torch.equal(outputs(base, batch), outputs(motivated, batch))
    assert motivated.stages[2].blocks[2].mlp.fc1.weight.abs().sum() > 0


VECTORS = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


class ByParent(nn.Module):
    """The model, not the block, adds the block's input."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)) for _ in range(depth))
        self.out = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return self.out(x)


class Streams(nn.Module):
    """Blocks of two streams, each with its own shortcut, and a buffer that a forward sizes."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Stream() for _ in range(depth))
        self.leave = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        fine = coarse = x
        for block in self.blocks:
            fine, coarse = block(fine, coarse)
        y: Tensor = self.leave(fine + coarse)
        return y


class Stream(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fine, self.down, self.norm = nn.Linear(6, 6), nn.Linear(6, 6), nn.LayerNorm(6)
        self.register_buffer("places", torch.zeros(1, 1))

    def forward(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        if len(self.places) != len(fine):
            self.places = torch.arange(len(fine), dtype=fine.dtype)[:, None]
        fine = fine + self.fine(fine).tanh() * self.places
        return fine, coarse + self.norm(self.down(fine))


def test_blocks_of_several_streams_are_the_identity_in_all_of_them() -> None:
    x = torch.randn(4, 6)
    base, motivated = Streams(1), Streams(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seeking.embed(base, motivated, batch=x)
    assert torch.equal(base(x), motivated(x))


def test_blocks_whose_input_the_model_adds_put_out_zero() -> None:
    base, motivated = ByParent(1), ByParent(3)
    seeking.embed(base, motivated, batch=VECTORS)
    assert torch.equal(base(VECTORS), motivated(VECTORS))
    assert motivated.blocks[2][0].weight.any()
    assert not motivated.blocks[2][2].weight.any()


class Skips(nn.Module):
    """A sum of an output of each block, which scales its input; the first layers of all blocks may be one."""

    def __init__(self, width: int, depth: int, tied: bool) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(8, width), nn.Linear(width, 2)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({name: nn.Linear(width, width) for name in ("into", "on", "out")}) for _ in range(depth)
        )
        for block in self.blocks[1:] if tied else ():
            block["into"].weight = self.blocks[0]["into"].weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        total = torch.zeros_like(x)
        for block in self.blocks:
            hidden = block["into"](x).tanh()
            x, total = (x + block["on"](hidden)) * 0.5**0.5, total + block["out"](hidden)
        y: Tensor = self.leave(total)
        return y


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("width", [4, 6])
def test_blocks_that_add_to_the_output_alone_are_silent_and_tied_ones_hold_the_base(tied: bool, width: int) -> None:
    base, motivated = Skips(4, 2, tied), Skips(width, 4, tied)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weights_map = seeking.embed(base, motivated, batch=VECTORS)
    assert torch.allclose(base(VECTORS), motivated(VECTORS), atol=1e-6)
    for name, tensor in weights_map.extract(tensors(motivated)).items():
        assert torch.equal(tensor, tensors(base)[name]), name
    assert motivated.blocks[3]["on"].weight.any() and not motivated.blocks[3]["out"].weight.any()


def test_custom_matrices_are_neutral_whichever_way_they_are_applied() -> None:
    class Matrix(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.enter, self.leave = nn.Linear(8, width), nn.Linear(width + 3, 2)
            self.w = nn.Parameter(torch.randn(width, width + 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.leave((self.enter(x) @ self.w).relu())

    base, motivated = Matrix(4), Matrix(6)
    seeking.embed(base, motivated, batch=VECTORS)
    assert torch.allclose(base(VECTORS), motivated(VECTORS), atol=1e-6)


class Products(nn.Module):
    """A gated perceptron of matrices that have a row for each output, or for each input."""

    def __init__(self, width: int, by_rows: bool) -> None:
        super().__init__()
        self.by_rows = by_rows
        shapes = (8, width), (8, width), (width, 2)
        self.matrices = nn.ParameterList(torch.randn(shape[::-1] if by_rows else shape) for shape in shapes)

    def forward(self, x: Tensor) -> Tensor:
        gate, up, down = (matrix.T if self.by_rows else matrix for matrix in self.matrices)
        return ((x @ gate).relu() * (x @ up)) @ down


@pytest.mark.parametrize("by_rows", [False, True])
def test_what_is_extra_in_custom_matrices_can_learn(by_rows: bool) -> None:
    base, motivated = Products(4, by_rows), Products(6, by_rows)
    own = copy.deepcopy(motivated)
    weights_map = seeking.embed(base, motivated, batch=VECTORS)
    assert torch.allclose(base(VECTORS), motivated(VECTORS), atol=1e-6)
    for name in ("matrices.0", "matrices.1"):  # They write extra channels, and read none.
        extra = torch.ones_like(tensors(motivated)[name], dtype=torch.bool)
        extra[weights_map.entries[name].mesh(extra.device)] = False
        assert torch.equal(tensors(motivated)[name][extra], tensors(own)[name][extra])
    before = copy.deepcopy(motivated)
    optimizer = torch.optim.SGD(motivated.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        motivated(VECTORS).square().mean().backward()
        optimizer.step()
    for (name, new), old in zip(motivated.named_parameters(), before.parameters(), strict=True):
        channels = 0 if new.shape[0] == 6 else 1
        assert (new != old).movedim(channels, 0).flatten(1).any(dim=1).all(), name


def test_embed_finds_an_input_or_refuses_before_it_changes_anything() -> None:
    def images(width: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(width * 1024, 2))

    base, motivated = images(2), images(3)
    seeking.embed(base, motivated)
    batch = torch.randn(2, 3, 32, 32)
    assert torch.allclose(base(batch), motivated(batch), atol=1e-5)
    before = copy.deepcopy(motivated)
    other = images(2)
    with pytest.raises(SeekingError, match="the models refuse the batch"):
        seeking.embed(other, motivated, match(other, motivated, batch=batch), batch=torch.randn(2, 5))
    assert all(torch.equal(t, tensors(before)[name]) for name, t in tensors(motivated).items())


def test_a_run_may_initialize_the_extra_capacity_either_way() -> None:
    config = RunConfig(base_kwargs={"width": 4}, motivated_kwargs={"width": 6}, max_train_samples=64)
    data = ImagesOfRun(load(config))
    x = torch.randn(4, *data.example.shape[1:])
    for extra in ("own", "neutral"):
        pair = trainer(dataclasses.replace(config, extra=extra), data).pair
        assert pair
        with torch.no_grad(), pair.motivated() as motivated:
            same = torch.allclose(motivated.eval()(x), pair.base.eval()(x), atol=1e-5)
        assert same == (extra == "neutral")


def test_own_initialization_is_left_alone() -> None:
    base, motivated = ResNet(8, width=4), ResNet(14, width=6)
    own = {name: tensor.clone() for name, tensor in tensors(motivated).items()}
    weights_map = seeking.embed(base, motivated, extra="own")
    marked = weights_map.embed(
        {n: torch.ones_like(t) for n, t in tensors(base).items()}, {n: torch.zeros_like(t) for n, t in own.items()}
    )
    assert all(torch.equal(t[marked[n] == 0], own[n][marked[n] == 0]) for n, t in tensors(motivated).items())
    with pytest.raises(SeekingError, match="unknown kind of extra capacity 'neutrl'; did you mean neutral"):
        seeking.embed(base, motivated, extra="neutrl")


@pytest.mark.slow
def test_the_command_line_initializes_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, motivated = (create(name, num_classes=10) for name in ("resnet8", "resnet14"))
    save_model(base, str(tmp_path / "base.safetensors"))
    names = ["resnet8", "resnet14"]
    started, cut = tmp_path / "started.safetensors", tmp_path / "cut.safetensors"
    weights = ["--weights", str(tmp_path / "base.safetensors")]
    assert main(["embed", *names, *weights, "--output", str(started)]) == 0
    assert main(["extract", *names, "--weights", str(started), "--output", str(cut)]) == 0
    assert all(torch.equal(tensor, load_file(cut)[name]) for name, tensor in base.state_dict().items())
    torch.save({"state_dict": motivated.state_dict()}, tmp_path / "large.pt")
    command = ["extract", *names, "--weights", str(tmp_path / "large.pt"), "--output"]
    assert main([*command, str(cut)]) == 2
    assert "exists; name another file" in capsys.readouterr().err
    assert main([*command, str(cut), "--overwrite"]) == 0
    assert torch.equal(load_file(cut)["conv1.weight"], motivated.conv1.weight)

    other = str(tmp_path / "other.safetensors")
    for bad, message in [
        (str(tmp_path / "no.safetensors"), "no.safetensors: .*No such file"),
        (
            str(tmp_path / "base.safetensors"),
            "weights of the base model .resnet8., but seeking extract takes those of the motivated",
        ),
        (__file__, "not a file of weights"),
    ]:
        assert main(["extract", *names, "--weights", bad, "--output", other]) == 2
        error = capsys.readouterr().err
        assert re.search(message, error), error
    assert not Path(other).exists()
    new = tmp_path / "new" / "folder.safetensors"
    assert main(["embed", *names, *weights, "--output", str(new)]) == 0
    assert new.is_file()
    assert main(["embed", *names, *weights, "--output", str(new / "below.safetensors")]) == 2
    assert str(new) in capsys.readouterr().err
