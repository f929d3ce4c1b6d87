"""A model and what trains it."""

import contextlib
import operator
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from seeking.distributed.sharding import copy_into
from seeking.errors import SeekingError
from seeking.gradients import gradients_by_name, make_dense
from seeking.internals import buffer_slots, foreach_copy, let_schedule_begin
from seeking.training.modes import set_modes, training_modes
from seeking.training.optim import load_optimizer_state
from seeking.weights_map import tensors

State = dict[str, Any]

SCHEDULED = ("lr", "momentum", "betas")
"""What schedules set in the groups of an optimizer; all else in them belongs to the optimizer."""


class Learner:
    """A model with its optimizer and schedule.

    Args:
        name: ``base`` or ``motivated``.
        module: the model as the user made it.
        model: the same, prepared for the devices.
        optimizer: of the module's parameters.
        schedule: stepped once a batch of the run, whether or not this model is trained on it.
        planned_steps: batches of the run that the schedule is made for.
        warmup: batches in which the schedule warms up; that begins with the first step of any model.
        custom_optimizer: whether the optimizer is the user's, which may take sparse gradients; others get dense ones.
        custom_schedule: whether the schedule is the user's: then its own state is saved; else the schedule follows from
            the options and the number of steps.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        model: nn.Module,
        optimizer: Optimizer,
        schedule: LRScheduler,
        *,
        planned_steps: int,
        warmup: int = 0,
        custom_optimizer: bool = False,
        custom_schedule: bool = False,
    ) -> None:
        self.name, self.module, self.model = name, module, model
        self.optimizer, self.schedule = optimizer, schedule
        let_schedule_begin(optimizer)  # Schedules count batches: the motivated model's may go on before its first step.
        self.seconds = 0.0
        self.warmup = warmup
        self.rate_factor = 1.0
        """Of the schedule's learning rate, in the next step."""
        self.stepped = False
        """Whether the model has taken a step since this object was made."""
        self.parameters = [*module.parameters()]
        self._planned_steps, self._custom_schedule = planned_steps, custom_schedule
        self._takes_sparse = custom_optimizer
        self._schedule_steps = 0
        self._modes = training_modes(model)
        set_modes(self._modes)
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        self._not_averaged = [p for p in module.parameters() if several and not p.requires_grad]
        self._slots = buffer_slots(module)
        self._buffers: list[Tensor | None] = []
        self._values: list[Tensor] = []

    @property
    def column_prefix(self) -> str:
        """What the names of the model's columns begin with in the rows of the metrics."""
        return "" if self.name == "base" else "motivated_"

    @property
    def learning_rate(self) -> float:
        """Of the first parameter group."""
        return float(self.schedule.get_last_lr()[0]) * self.rate_factor

    def gradients(self) -> dict[str, Tensor]:
        """The gradients of the latest backward pass by parameter name; valid after the step as well."""
        return gradients_by_name(self.module)

    def train_mode(self) -> nn.Module:
        """The model, each of its modules in its mode for training; only the model's own mode is looked at."""
        if not self.model.training:
            set_modes(self._modes)
        return self.model

    def complete_gradients(self) -> None:
        """Give sparse gradients their zeros after a backward pass, unless the optimizer may want them sparse."""
        if not self._takes_sparse:
            make_dense(self.parameters)

    def drop_unshared_gradients(self) -> None:
        """Drop gradients that DDP does not average over the processes: of parameters that were frozen at the start."""
        for parameter in self._not_averaged:
            parameter.grad = None

    def zero_grad(self) -> None:
        """Drop all gradients: also of parameters that the optimizer does not have, which would add up."""
        self.optimizer.zero_grad()
        self.module.zero_grad()

    @contextlib.contextmanager
    def at_rate(self) -> Iterator[None]:
        """Inside, the optimizer has the schedule's learning rate times ``rate_factor``."""
        groups = self.optimizer.param_groups if self.rate_factor != 1 else []
        rates = [group["lr"] for group in groups]
        try:
            for group in groups:
                group["lr"] = group["lr"] * self.rate_factor
            yield
        finally:
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate

    def step_schedule(self) -> None:
        """Continue the schedule by one batch of the run."""
        self._schedule_steps += 1
        self.schedule.step()

    def keep_buffers(self) -> None:
        """Remember the buffers as they are before a forward pass."""
        current = [buffers[name] for buffers, name in self._slots]
        present = [buffer for buffer in current if buffer is not None]
        if len(current) == len(self._buffers) and all(map(operator.is_, current, self._buffers)):
            if present:
                foreach_copy(self._values, present)
        else:  # At first, and whenever the model has replaced a buffer by another tensor.
            self._buffers, self._values = current, [buffer.clone() for buffer in present]

    @torch.no_grad()
    def restore_buffers(self) -> None:
        """Undo what forward passes have done to the buffers since."""
        values = iter(self._values)
        for (buffers, name), buffer in zip(self._slots, self._buffers, strict=True):
            buffers[name] = buffer.copy_(next(values)) if buffer is not None else None

    def state_dict(self) -> State:
        """Everything that decides the model's future."""
        schedule = self.schedule.state_dict() if self._custom_schedule else None
        return {
            "model": model_state(self.module),
            "optimizer": self.optimizer.state_dict(),
            "schedule": {"steps": self._schedule_steps, "planned": self._planned_steps, "state": schedule},
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from where ``state_dict`` was called; a run of another length continues with its own schedule.

        Raises:
            SeekingError: it is the state of another model or optimizer.
        """
        self._load_model(state["model"])
        initial_rates = [group["lr"] for group in self.optimizer.param_groups]
        load_optimizer_state(self.optimizer, state["optimizer"])
        self.seconds = float(state["seconds"])
        saved = state["schedule"]
        if saved["state"] and saved["planned"] == self._planned_steps:
            self.schedule.load_state_dict(saved["state"])
            self._schedule_steps = saved["steps"]
            return
        for group, rate in zip(self.optimizer.param_groups, initial_rates, strict=True):
            group["lr"] = rate
        for _ in range(min(saved["steps"], self._planned_steps)):
            self.step_schedule()

    def roll_back(self, state: Mapping[str, Any]) -> None:
        """Take back the weights and the optimizer's memory of a state; the schedule goes on."""
        self._load_model(state["model"])
        groups = self.optimizer.param_groups
        scheduled = [{key: value for key, value in group.items() if key in SCHEDULED} for group in groups]
        load_optimizer_state(self.optimizer, state["optimizer"])
        for group, values in zip(self.optimizer.param_groups, scheduled, strict=True):
            group.update(values)

    @torch.no_grad()
    def _load_model(self, state: Mapping[str, Any]) -> None:
        own, saved = tensors(self.module), state["tensors"]
        for name in sorted(own.keys() | saved.keys()):
            before, now = (list(side[name].shape) if name in side else "missing" for side in (saved, own))
            if before != now:
                raise SeekingError(f"{name} of the {self.name} model was {before} and is {now} now")
        for name, tensor in own.items():
            copy_into(tensor, saved[name])
        if extra := state["extra"]:
            self.module.load_state_dict(extra, strict=False)


def model_state(module: nn.Module) -> State:
    """Every parameter and buffer, which of them the model itself saves, and what else it saves."""
    own, state = tensors(module), module.state_dict()
    extra = {key: value for key, value in state.items() if key not in own}
    return {"tensors": own, "persistent": [key for key in state if key in own], "extra": extra}
