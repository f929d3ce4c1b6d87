"""The state of a run: everything that decides its future, taken and given back."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, pad_across_processes

from seeking.errors import SeekingError
from seeking.training import checkpoint
from seeking.training.config import MAY_CHANGE
from seeking.training.cost import Cost
from seeking.training.folder import RunFolder
from seeking.training.optim import inner, load_state
from seeking.training.state import unpack
from seeking.weights_map import WeightsMap, tensors

if TYPE_CHECKING:
    from seeking.training.trainer import Trainer

State = dict[str, Any]


def take(trainer: "Trainer") -> State:
    """The state of a run between two steps. Processes gather: to be called in all of them."""
    accelerator = trainer.accelerator
    return {
        "options": options(trainer),
        "map": trainer.pair.map.as_dict() if trainer.pair else None,
        "epoch_length": trainer.epoch_length,
        "place": {"epoch": trainer.epoch, "place": trainer.place, "step": trainer.step, "held": trainer.held},
        "models": {
            name: {
                "tensors": tensors(learner.module),
                "persistent": [key for key in learner.module.state_dict() if not key.endswith("_extra_state")],
                "extra": {k: v for k, v in learner.module.state_dict().items() if k.endswith("_extra_state")},
            }
            for name, learner in trainer.learners.items()
        },
        "optimizers": {name: inner(one.optimizer).state_dict() for name, one in trainer.learners.items()},
        "schedules": {name: learner.schedule.state_dict() for name, learner in trainer.learners.items()},
        "seconds": {name: learner.seconds for name, learner in trainer.learners.items()},
        "failures": {name: learner.failures for name, learner in trainer.learners.items()},
        "rollbacks": trainer.rollbacks,
        "scaler": accelerator.scaler.state_dict() if accelerator.scaler is not None else None,
        "condition": {"text": str(trainer.condition), "state": trainer.condition.state_dict()},
        "cost": asdict(trainer.cost),
        "metrics": trainer.metrics,
        "metrics_bytes": trainer.folder.metrics_bytes if trainer.folder else 0,
        "random": _gathered({"epoch": trainer.epoch_random, "now": trainer.random.capture()}, accelerator),
    }


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
        load_models(trainer, saved)
        place = saved["place"]
        for name, learner in trainer.learners.items():
            fresh = [group["lr"] for group in learner.optimizer.param_groups]
            load_state(inner(learner.optimizer), saved["optimizers"][name])
            learner.seconds, learner.failures = saved["seconds"][name], saved["failures"][name]
            if saved["options"].get("epochs") == trainer.config.epochs:
                learner.schedule.load_state_dict(saved["schedules"][name])
                continue
            # A schedule of another length is followed from the start to this step.
            for group, rate in zip(learner.optimizer.param_groups, fresh, strict=True):
                group["lr"] = rate
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
                for _ in range(place["step"]):
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
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise SeekingError(f"the checkpoint is of another run ({type(error).__name__}: {error})") from error


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
            tensor.copy_(theirs[key])
        if extra := saved["models"][name]["extra"]:
            learner.module.load_state_dict(extra, strict=False)


def roll_back(trainer: "Trainer", saved: Mapping[str, Any]) -> None:
    """Give both models, and what their optimizers remember, what they had when ``saved`` was taken; time goes on."""
    load_models(trainer, saved)
    for name, learner in trainer.learners.items():
        optimizer = inner(learner.optimizer)
        scheduled = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
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
    found: State | None = None
    if accelerator.is_main_process and (read := folder.newest()):
        found = unpack(*read)
    if accelerator.num_processes > 1:
        step = broadcast(torch.tensor(found["place"]["step"] if found else -1, device=accelerator.device))
        if step >= 0 and not accelerator.is_main_process:
            found = unpack(*checkpoint.read(folder.checkpoints / f"step-{int(step):08d}"))
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


def _gathered(value: Any, accelerator: Accelerator) -> list[Any]:
    """A JSON-serialisable value of each process."""
    if accelerator.num_processes == 1:
        return [value]
    text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(accelerator.device)
    padded = pad_across_processes(text[None], dim=1, pad_index=ord(" "))
    return [json.loads(bytes(row.tolist())) for row in accelerator.gather(padded)]
