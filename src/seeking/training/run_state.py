"""The state of a run: everything that decides its future, taken and given back."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, pad_across_processes
from torch import nn

from seeking.conditions import Condition
from seeking.errors import MISFITS, SeekingError
from seeking.sharding import fill, reshard, whole
from seeking.training import checkpoint
from seeking.training.config import MAY_CHANGE
from seeking.training.cost import Cost
from seeking.training.folder import RunFolder
from seeking.training.optim import load_state
from seeking.training.state import unpack
from seeking.weights_map import WeightsMap, tensors

if TYPE_CHECKING:
    from seeking.training.trainer import Trainer

State = dict[str, Any]

SCHEDULED = ("lr", "momentum", "betas")
"""What schedules set in the groups of an optimizer; all else in them belongs to the optimizer."""


def take(trainer: "Trainer") -> State:
    """The state of a run between two steps. Processes gather: to be called in all of them."""
    accelerator = trainer.accelerator
    if trainer.config.shard:
        reshard(*(learner.module for learner in trainer.learners.values()))
    state = {
        "options": options(trainer),
        "map": trainer.pair.map.as_dict() if trainer.pair else None,
        "epoch_length": trainer.epoch_length,
        "place": {"epoch": trainer.epoch, "place": trainer.place, "step": trainer.step, "held": trainer.held},
        "models": {name: _model(learner.module) for name, learner in trainer.learners.items()},
        "optimizers": {name: one.optimizer.state_dict() for name, one in trainer.learners.items()},
        # One of the options' own schedules follows from them and the step.
        "schedules": {name: learner.schedule.state_dict() for name, learner in trainer.learners.items()}
        if trainer.own_schedule
        else None,
        "seconds": {name: learner.seconds for name, learner in trainer.learners.items()},
        "failures": {name: learner.failures for name, learner in trainer.learners.items()},
        "rollbacks": trainer.rollbacks,
        "scaler": accelerator.scaler.state_dict() if accelerator.scaler is not None else None,
        "condition": {"text": str(trainer.condition), "state": trainer.condition.state_dict()},
        "cost": asdict(trainer.cost),
        "metrics": trainer.metrics,
        "metrics_bytes": trainer.folder.metrics_bytes if trainer.folder else 0,
        "random": gathered({"epoch": trainer.epoch_random, "now": trainer.random.capture()}, accelerator),
    }
    return whole(state, keep=accelerator.is_main_process) if trainer.config.shard else state


def _model(module: nn.Module) -> State:
    own, state = tensors(module), module.state_dict()
    extra = {key: value for key, value in state.items() if key not in own}
    return {"tensors": own, "persistent": [key for key in state if key in own], "extra": extra}


def give_back(trainer: "Trainer", saved: Mapping[str, Any]) -> None:
    """Put a run where it was when ``saved`` was taken.

    Raises:
        SeekingError: it is the state of another run.
    """
    try:
        if saved["epoch_length"] != trainer.epoch_length:
            raise SeekingError(
                f"an epoch had {saved['epoch_length']} batches and has {trainer.epoch_length} now; the data or the "
                "batch size are others"
            )
        if saved["condition"]["text"] != str(trainer.condition):
            raise SeekingError(f"the condition was {saved['condition']['text']} and is {trainer.condition} now")
        if trainer.pair and WeightsMap.from_dict(saved["map"]) != trainer.pair.map:
            raise SeekingError("the weights map was another")
        _check(trainer, saved)
        load_models(trainer, saved)
        place = saved["place"]
        for name, learner in trainer.learners.items():
            fresh = [group["lr"] for group in learner.optimizer.param_groups]
            load_state(learner.optimizer, saved["optimizers"][name])
            learner.seconds, learner.failures = saved["seconds"][name], saved["failures"][name]
            if saved["schedules"] and saved["options"]["epochs"] == trainer.config.epochs:
                learner.schedule.load_state_dict(saved["schedules"][name])
                continue
            for group, rate in zip(learner.optimizer.param_groups, fresh, strict=True):
                group["lr"] = rate
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
                for _ in range(min(place["step"], trainer.config.epochs * trainer.epoch_length)):
                    learner.schedule.step()
        trainer.epoch, trainer.place, trainer.step = place["epoch"], place["place"], place["step"]
        trainer.held, trainer.rollbacks = place["held"], saved["rollbacks"]
        if trainer.accelerator.scaler is not None:
            trainer.accelerator.scaler.load_state_dict(saved["scaler"])
        trainer.condition.load_state_dict(saved["condition"]["state"])
        trainer.cost = Cost(**saved["cost"])
        trainer.metrics = saved["metrics"]
        own = saved["random"][trainer.accelerator.process_index % len(saved["random"])]
        trainer.epoch_random = own["epoch"]
        trainer.random.restore(own["now"])
    except MISFITS as error:
        raise SeekingError(f"the checkpoint is of another run ({type(error).__name__}: {error})") from error


def _check(trainer: "Trainer", saved: Mapping[str, Any]) -> None:
    """Make sure of the values that are only used later."""
    numbers = [*saved["seconds"].values(), *saved["failures"].values(), *saved["rollbacks"].values()]
    numbers += [saved["cost"][name] for name in asdict(trainer.cost)]
    numbers += [value for found in saved["metrics"].values() for value in found.values()]
    place, epoch, step = (saved["place"][name] for name in ("place", "epoch", "step"))
    counts = [place, epoch, step, saved["metrics_bytes"], saved["epoch_length"]]
    good = all(type(number) in (int, float) for number in numbers)
    good = good and all(type(count) is int and count >= 0 for count in counts)
    # An epoch may have had fewer batches than its loader promised.
    good = good and place <= saved["epoch_length"] and step <= epoch * saved["epoch_length"] + place
    if not good or type(saved["place"]["held"]) is not bool:
        raise ValueError(f"step {step} cannot be batch {place} of epoch {epoch}, or another number is out of place")
    _check_condition(trainer.condition, saved["condition"]["state"])


def _check_condition(condition: Condition, state: Any) -> None:
    """The state of a condition of ours is of its parts' states, of numbers and of nothing; a user's is the user's."""
    if not type(condition).__module__.startswith("seeking."):
        return
    if not isinstance(state, dict) or state.keys() != condition.state_dict().keys():
        raise ValueError("the state of another condition")
    for key, value in state.items():
        part = getattr(condition, key, None)
        if isinstance(part, Condition):
            _check_condition(part, value)
        elif value is not None and type(value) not in (int, float):
            raise ValueError(f"{value!r} in the state of the condition")


@torch.no_grad()
def load_models(trainer: "Trainer", saved: Mapping[str, Any]) -> None:
    """Give both models the weights and buffers of a state.

    Raises:
        SeekingError: they are those of other models.
    """
    for name, learner in trainer.learners.items():
        ours, theirs = tensors(learner.module), saved["models"][name]["tensors"]
        for key in sorted(ours.keys() | theirs.keys()):
            was, now = (list(one[key].shape) if key in one else "missing" for one in (theirs, ours))
            if was != now:
                raise SeekingError(f"{key} of the {name} model was {was} and is {now} now")
        for key, tensor in ours.items():
            fill(tensor, theirs[key])
        if extra := saved["models"][name]["extra"]:
            learner.module.load_state_dict(extra, strict=False)


def roll_back(trainer: "Trainer", saved: Mapping[str, Any]) -> None:
    """Give both models, and what their optimizers remember, what they had when ``saved`` was taken; time goes on."""
    load_models(trainer, saved)
    for name, learner in trainer.learners.items():
        optimizer = learner.optimizer
        scheduled = [{k: v for k, v in group.items() if k in SCHEDULED} for group in optimizer.param_groups]
        load_state(optimizer, saved["optimizers"][name])
        for group, values in zip(optimizer.param_groups, scheduled, strict=True):
            group.update(values)
    if trainer.accelerator.scaler is not None:
        trainer.accelerator.scaler.load_state_dict(saved["scaler"])


def newest(folder: RunFolder, accelerator: Accelerator) -> State | None:
    """The state in the newest whole checkpoint of a folder, the same in every process; None if there has been none.

    Raises:
        SeekingError: none is whole.
    """
    if accelerator.num_processes == 1:
        return _newest(folder)
    found, step = None, -1  # Of a new run.
    try:
        if accelerator.is_main_process and (found := _newest(folder)):
            step = found["place"]["step"]
    except SeekingError:
        step = -2
        raise
    finally:
        step = int(broadcast(torch.tensor(step, device=accelerator.device)))
    if step == -2:
        raise SeekingError("the first process has found no checkpoint that can be resumed")
    if step >= 0 and not accelerator.is_main_process:
        found = unpack(*checkpoint.read(folder.checkpoints / checkpoint.name(step)))
    return found


def _newest(folder: RunFolder) -> State | None:
    read = folder.newest()
    if read is None:
        return None
    found: State = unpack(*read)
    parts = {"options": dict, "map": dict | None, "place": dict, "models": dict, "metrics_bytes": int}
    if not isinstance(found, dict) or not all(isinstance(found.get(key, ...), kind) for key, kind in parts.items()):
        raise SeekingError("the newest checkpoint is not one of a run")
    return found


def check_options(trainer: "Trainer", saved: Mapping[str, Any], ignored: frozenset[str] = frozenset()) -> None:
    """Refuse options other than the run's, unless they may change.

    Raises:
        SeekingError: with both values of each that differs.
    """
    ours, theirs = options(trainer), saved["options"]
    differ = [
        f"  {name}: {theirs[name]!r} in the run, {ours[name]!r} now"
        for name in sorted(ours.keys() & theirs.keys() - MAY_CHANGE - ignored)
        if ours[name] != theirs[name]
    ]
    if differ:
        lines = ["it was made with other options:", *differ, "Give those to resume it, or name another output folder"]
        raise SeekingError("\n".join(lines))


def options(trainer: "Trainer") -> State:
    """The options of a run as they are recorded."""
    recorded: State = json.loads(json.dumps(asdict(trainer.config), default=str))
    return recorded


def gathered(value: Any, accelerator: Accelerator) -> list[Any]:
    """A JSON-serialisable value of each process."""
    if accelerator.num_processes == 1:
        return [value]
    text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(accelerator.device)
    padded = pad_across_processes(text[None], dim=1, pad_index=ord(" "))
    return [json.loads(bytes(row.tolist())) for row in accelerator.gather(padded)]
