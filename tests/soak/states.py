"""States: of random generators, and of runs that go on."""

import contextlib
import json
import random
import shutil
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from inputs import Json, changed
from runs import batches, two_models
from target import Target

from seeking import RunError, SeekingError, TrainConfig, Trainer
from seeking.checkpointing import snapshot
from seeking.training.rng import RandomState


class Generators(Target):
    """States of random generators."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.numpy = np.random, np.random.RandomState(1), np.random.Generator(np.random.MT19937(1))
        self.python = random, random.Random(1)
        owner = types.SimpleNamespace(torch=torch.Generator(), numpy=self.numpy, python=self.python)
        self.random = RandomState(torch.device("cpu"), owner, np.random.default_rng(1))
        self.valid = json.loads(json.dumps(self.random.state_dict()))
        own, words = self.valid["own"], self.valid["python"][1]
        self.known = [
            self.valid,
            *(self.valid | {"torch": value} for value in ("", "zz", "00", "00" * 5056, "ff" * 5056, None)),
            *(self.valid | {"numpy": value} for value in ([], ["MT19937", []], {}, None, "a")),
            *(self.valid | {"python": [3, value, None]} for value in (None, [-1] * 625, [2**64] * 625, ["a"] * 625)),
            *(self.valid | {"python": [3, words, value]} for value in ("a", {}, [], True)),
            *(self.valid | self.moved("numpy", self.valid["numpy"], at) for at in (625, -1, 10**30, "1", 1.5)),
            *(self.valid | {"own": own | self.moved(f"0.numpy.{n}", own[f"0.numpy.{n}"], 625)} for n in (1, 2)),
        ]
        self.inputs = changed(self.valid) | changed(self.valid) | changed(self.valid).flatmap(changed)

    def moved(self, name: str, state: Json, position: Json) -> Json:
        """A state in which NumPy would read at another position in its memory."""
        return {name: {**state, "state": {**state["state"], "pos": position}}}

    def check(self, content: Json) -> None:
        try:
            self.random.load_state_dict(content)
            states = [each.get_state(legacy=False) for each in self.numpy[:2]] + [self.numpy[2].bit_generator.state]
            for state in states:
                assert 0 <= state["state"]["pos"] <= 624, "NumPy would read whatever memory lies there"
            assert all(isinstance(each.gauss(0, 1) + each.random(), float) for each in self.python)
            assert all(isinstance(each.normal() + each.random(), float) for each in self.numpy)
            torch.rand(1)
        finally:
            self.random.load_state_dict(self.valid)


class Ended(Exception):
    """Ends a run once it has gone on."""


class Resumed(Target):
    """Runs that go on from a checkpoint in which one thing is another."""

    share = 20
    refusals = (SeekingError, RunError)
    seconds = 5.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.valid = folder / "valid"
        self.go_on(self.valid, until=8, save_every="1")
        self.checkpoint, *older = snapshot.list_checkpoints(self.valid / "checkpoints")
        for path in older:
            shutil.rmtree(path)
        tree, _ = snapshot.read(self.checkpoint)
        without = ({key: value for key, value in tree.items() if key != name} for name in tree)
        other = (
            {**tree, "parts": {**tree["parts"], name: value}}
            for name, value in zip(list(tree["parts"])[:3], ("a", [], 1), strict=True)
        )
        self.known = [tree, {}, {"$tuple": []}, *without, *other]
        self.inputs = changed(tree).filter(lambda content: isinstance(content, dict))

    def go_on(self, output: Path, until: int = 0, **options: Any) -> None:
        """Train until after a step, the first one by default."""

        def listen(row: dict[str, Any]) -> None:
            if row["kind"] == "step" and row["step"] >= until:
                raise Ended

        condition = "decrease:1 | matched(random:0.5)"
        config = TrainConfig(epochs=3, condition=condition, optimizer="adamw", lr=0.01, **options)
        trainer = Trainer(*two_models(), **batches(), config=config, output=output, resume=True, listeners=[listen])
        try:
            with contextlib.suppress(Ended):
                trainer.fit()
        finally:
            with contextlib.suppress(RunError):
                trainer.saver.wait()

    def check(self, content: Json) -> None:
        with self.scratch(self.valid) as output:
            checkpoint = output / "checkpoints" / self.checkpoint.name
            (checkpoint / "state.json").write_text(json.dumps(content))
            (checkpoint / "manifest.json").write_text(snapshot.manifest_text(int(checkpoint.name[5:]), checkpoint))
            try:
                self.go_on(output)
            finally:
                aside = list(checkpoint.parent.glob("damaged-*"))
                assert checkpoint.exists() or aside, "what the folder held is gone"
