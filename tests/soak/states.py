"""States: values taken apart and put together, of random generators, and of runs that go on."""

import contextlib
import json
import math
import random
import shutil
import types
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from inputs import NUMBERS, Json, changed
from runs import batches, two_models
from target import Target
from torch import Tensor

from seeking import RunError, SeekingError, TrainConfig, Trainer
from seeking.checkpointing import serialize, snapshot
from seeking.training.rng import RandomState


def equal(one: Any, other: Any, pairs: dict[int, Tensor] | None = None) -> bool:
    """Whether two values are the same in type and content, and one tensor in several places is one in both."""
    pairs = {} if pairs is None else pairs
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        # Empty tensors have nothing to share.
        if one.numel() and pairs.setdefault(id(one), other) is not other:
            return False
        plain = [value.resolve_conj().resolve_neg().flatten() for value in (one, other)]
        bits = [v.clone(memory_format=torch.contiguous_format).view(torch.uint8) for v in plain]
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*bits)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, float):
        return repr(one) == repr(other)
    if isinstance(one, dict):
        return equal(list(one), list(other)) and equal(list(one.values()), list(other.values()), pairs)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(equal(*both, pairs) for both in zip(one, other, strict=True))
    return bool(one == other)


DTYPES = st.sampled_from(sorted(serialize.DTYPES)).map(serialize.DTYPES.__getitem__)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Tensors of any type and bits."""
    dtype, shape = draw(DTYPES), draw(st.sampled_from(((), (0,), (1,), (3,), (2, 3), (2, 0, 4))))
    bits = torch.frombuffer(bytearray(draw(st.binary(min_size=8, max_size=8)) * 64), dtype=torch.uint8)
    try:
        flat = bits.view(dtype) if dtype != torch.bool else bits > 127
        tensor = flat[: math.prod(shape)].clone().view(shape)
    except (RuntimeError, TypeError):  # Quantized and packed types, of which tensors are not made in this way.
        return torch.ones(shape)
    return tensor.t() if tensor.ndim == 2 and draw(st.booleans()) else tensor


@st.composite
def arrays(draw: st.DrawFn) -> "np.ndarray[Any, Any]":
    """Arrays of any type, some of them views."""
    kinds = ("?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", ">i4", ">f8", "g")
    array = np.zeros(draw(st.sampled_from(((), (0,), (3,), (2, 3)))), draw(st.sampled_from(kinds)))
    array[...] = draw(st.integers(0, 99))
    return array[:: draw(st.sampled_from((1, 2, -1)))] if array.ndim else array


def packable(shared: tuple[Tensor, Tensor]) -> st.SearchStrategy[Any]:
    """Values with keys and types of any kind, in which some tensors are in several places."""
    # fmt: off
    keys = st.sampled_from((
        "a", "b", "a/b", "/a", "", "/", "$tensor", "$x", "0", 0, 1, -1, (0, "a"), ((), 1), ("a", "b"), "é", "\ud800",
    ))
    leaves = st.sampled_from((
        None, True, False, *NUMBERS, 10**400, 0.5, -0.0, 1e308, math.nan, math.inf, -math.inf, "", "$x", "\ud800",
    ))
    # fmt: on

    def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        dicts, parts = st.dictionaries(keys, inner, max_size=4), st.lists(inner, max_size=4)
        return dicts | parts | parts.map(tuple) | dicts.map(Counter)

    again = st.integers(0, 1).map(lambda index: shared[index])  # Sampling would need their text.
    return st.recursive(leaves | again | tensors() | arrays() | DTYPES, containers, max_leaves=12)


class Packable:
    """A value, shown even if it holds tensors of types that PyTorch cannot print."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        with contextlib.suppress(RuntimeError):
            return repr(self.value)
        return f"what packs to {serialize.pack(self.value)[0]}"


@st.composite
def packed(draw: st.DrawFn) -> Packable:
    """Values as above; hypothesis shows what a composite gives by its own text."""
    return Packable(draw(packable((draw(tensors()), draw(tensors())))))


class States(Target):
    """Values taken apart and put together again."""

    ones, twos, c = torch.ones(2), torch.full((2,), 2.0), torch.tensor([1 + 2j])
    # fmt: off
    values = (
        *({"a/b": ones, "a": {"b": twos}}, {"a": {"b": twos}, "a/b": ones}, {"/a": ones, "a": twos}),
        *({1: ones, "1": twos}, {"a": [ones], ("a", 0): {"x": twos}}, {(1, "a"): {"": ones}, "": twos}),
        [torch.zeros(0, 2), torch.zeros(0, 3), {"a/b": torch.zeros(0), "a": {"b": torch.zeros(0, 5)}}],
        [ones, ones, ones[:1], ones.view(torch.int32), ones.view(1, 2)],
        *(np.arange(4)[::-1], np.arange(4, dtype=">i4"), np.ones(2, dtype=np.longdouble), np.array(3.0)),
        *([c, c.conj()], [c, c.conj().imag]),
    )
    # fmt: on
    known = tuple(map(Packable, values))
    inputs = packed()

    def check(self, content: Packable) -> None:
        packed, tensors = serialize.pack(content.value)
        assert equal(serialize.unpack(json.loads(json.dumps(packed, allow_nan=False)), tensors), content.value)


def replaced(tree: Json, path: tuple[Any, ...], value: Json) -> Json:
    """The same JSON with another value at a path."""
    if not path:
        return value
    copy = tree.copy()
    copy[path[0]] = replaced(tree[path[0]], path[1:], value)
    return copy


class Generators(Target):
    """States of random generators."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.owner = types.SimpleNamespace(
            torch=torch.Generator(),
            numpy=np.random.default_rng(1),
            mersenne=np.random.Generator(np.random.MT19937(1)),
            old=np.random.RandomState(1),
            python=random.Random(1),
        )
        self.random = RandomState(torch.device("cpu"), self.owner)
        self.valid = json.loads(json.dumps(self.random.state_dict()))
        wrong: dict[tuple[Any, ...], tuple[Json, ...]] = {
            ("numpy", "state", "pos"): (625, 10**6, -1, 10**30, "1", 1.5),
            ("own", "0.old", "state", "pos"): (625, -1),
            ("own", "0.mersenne", "state", "pos"): (625, -1),
            ("numpy",): ([], ["MT19937"], ["MT19937", []], {}, None, "a", 3),
            ("numpy", "gauss"): (None, "a", []),
            ("python", 2): ("a", [], {}, True),
            ("python", 1): (None, [], [-1] * 625, [2**64] * 625, ["a"] * 625),
            ("torch",): ("", "zz", "00", "00" * 5056, "ff" * 5056, None),
            ("own",): (None, [], "0.old", 3),
        }
        self.known = [
            self.valid,
            *(replaced(self.valid, path, value) for path, values in wrong.items() for value in values),
        ]
        self.inputs = changed(self.valid) | changed(self.valid) | changed(self.valid).flatmap(changed)

    def check(self, content: Json) -> None:
        try:
            self.random.load_state_dict(content)
            # NumPy reads whatever memory such a position points at.
            for state in (np.random.get_state(legacy=False), self.owner.old.get_state(legacy=False)):
                assert 0 <= state["state"]["pos"] <= 624, "NumPy would read beyond its state"
            assert 0 <= self.owner.mersenne.bit_generator.state["state"]["pos"] <= 624, "beyond its state"
            for python in (random, self.owner.python):
                assert isinstance(python.gauss(0, 1) + python.random(), float)
            for numpy in (np.random, self.owner.old, self.owner.numpy, self.owner.mersenne):
                assert isinstance(numpy.normal() + numpy.random(), float)
            torch.rand(1)
            torch.rand(1, generator=self.owner.torch)
        finally:
            self.random.load_state_dict(self.valid)


class Ended(Exception):
    """Ends a run once it has gone on."""


class Resumed(Target):
    """Runs that go on from a checkpoint in which one thing is another."""

    share = 20
    allowed = (SeekingError, RunError)
    seconds = 5.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.valid = folder / "valid"
        trainer = self.trainer(self.valid, stop_at=8, save_every="1")
        with contextlib.suppress(Ended):
            trainer.fit()
        trainer.saver.wait()
        self.checkpoint, *older = snapshot.list_checkpoints(self.valid / "checkpoints")
        for path in older:
            shutil.rmtree(path)
        tree, _ = snapshot.read(self.checkpoint)
        self.known = [
            tree,
            {},
            {"$tuple": []},
            *({key: value for key, value in tree.items() if key != name} for name in tree),
        ]
        self.inputs = changed(tree).filter(lambda content: isinstance(content, dict))

    def trainer(self, output: Path, stop_at: int = -1, **options: Any) -> Trainer:
        def listen(row: dict[str, Any]) -> None:
            if row["kind"] == "step" and row["step"] >= stop_at:
                raise Ended

        condition = "decrease:1 | matched(random:0.5)"
        config = TrainConfig(epochs=3, condition=condition, optimizer="adamw", lr=0.01, **options)
        return Trainer(*two_models(), **batches(), config=config, output=output, resume=True, listeners=[listen])

    def check(self, content: Json) -> None:
        with self.scratch(self.valid) as output:
            checkpoint, trainer = output / "checkpoints" / self.checkpoint.name, None
            (checkpoint / "state.json").write_text(json.dumps(content))
            (checkpoint / "manifest.json").write_text(snapshot._manifest(int(checkpoint.name[5:]), checkpoint))
            try:
                trainer = self.trainer(output)
                with contextlib.suppress(Ended):
                    trainer.fit()
            finally:
                if trainer and trainer.saver:
                    with contextlib.suppress(RunError):
                        trainer.saver.wait()
                aside = list(checkpoint.parent.glob("damaged-*"))
                assert checkpoint.exists() or aside, "what the folder held is gone"
