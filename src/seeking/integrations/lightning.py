"""Motivated training with the Trainer of Lightning.

The base is what Lightning optimizes, by automatic optimization, so that accumulation, clipping, precision, steps and
schedules of ``L.Trainer`` keep their meaning. After each optimizer step of the base, the condition decides, and the
motivated model takes a step on the same batches.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from seeking.conditions import Condition, Outcome, Signals
from seeking.distributed.mean_loss import mean_loss, of_first_process
from seeking.errors import SeekingError
from seeking.gradients import gradients_by_name
from seeking.integrations import check_pair, make_condition, missing
from seeking.integrations.lightning_hooks import HooksOfBoth, Log, call, check_hooks
from seeking.integrations.lightning_strategies import check_trainer, parallel
from seeking.internals import leave_out_of_ddp
from seeking.pair import Pair
from seeking.training.custom_loss import loss_in, loss_of
from seeking.training.needs import Given
from seeking.training.rng import RandomState
from seeking.training.saved_condition import SavedCondition

try:
    import lightning as L
    from lightning.pytorch.trainer.states import TrainerFn
except ModuleNotFoundError as error:
    raise missing("lightning", "lightning") from error

LossFunction = Callable[[nn.Module, Any], Any]
"""From a model and a batch to the mean loss, in any of the forms that ``seeking.Trainer`` takes."""


class MotivatedModule(HooksOfBoth):
    """A pair as one ``LightningModule``, to be given to ``L.Trainer(...).fit``.

    Checkpoints hold both models, the motivated model's optimizer and the condition. What the motivated model logs has
    the prefix ``motivated_``; ``motivated_share`` is the share of motivated steps of an epoch. The learning rate of the
    motivated model follows the base's schedule, in proportion to the two rates at the start, and its momentum is that
    of the base.

    Args:
        pair: two models; either two ``LightningModule`` with ``training_step`` and ``configure_optimizers``, or any
            with ``loss_fn`` and ``optimizer``.
        condition: the condition, or its text.
        loss_fn: the loss of a model on a batch, for models that have no ``training_step``.
        optimizer: makes the optimizer of a model from its parameters.
        schedule: makes the learning rate scheduler of the base's optimizer; a scheduler, which is stepped after every
            epoch, or the mapping that Lightning takes.

    Attributes:
        pair: the two models.
        base: the base.
        motivated: the motivated model; use it inside ``pair.motivated()``.
        condition: the condition.
        motivated_steps: number of motivated steps so far.

    Raises:
        SeekingError: the models have no ``training_step`` and there is no ``loss_fn`` and ``optimizer``, or the
            condition needs what this loop has not.
    """

    def __init__(
        self,
        pair: Pair,
        *,
        condition: Condition | str | None = None,
        loss_fn: LossFunction | None = None,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
        schedule: Callable[[Optimizer], Any] | None = None,
    ) -> None:
        super().__init__()
        check_pair(pair, "MotivatedModule")
        self.pair, self.base, self.motivated = pair, pair.base, pair.motivated_model
        self.condition = make_condition(condition)
        self.loss_fn, self.optimizer, self.schedule = loss_fn, optimizer, schedule
        self.motivated_steps = 0
        if not all(isinstance(model, L.LightningModule) for model in (self.base, self.motivated)):
            if not (loss_fn and optimizer):
                raise SeekingError("the models are not both LightningModules; give loss_fn and optimizer")
        elif loss_fn or optimizer or schedule:
            raise SeekingError("the models are LightningModules, with a training_step and optimizers of their own")
        elif not all(_lightning_module(model).automatic_optimization for model in (self.base, self.motivated)):
            raise SeekingError(
                "a model of the pair has automatic_optimization=False, so that its training_step would take the steps, "
                "and the motivated model would never be trained; return the loss instead, or train in your own loop"
            )
        if self.condition.needs_held_out or self.condition.uses_budget:
            raise SeekingError(f"{self.condition} needs what only seeking.Trainer has; choose another condition")
        self._batches: list[tuple[Any, int, Tensor]] = []
        self._optimizer: Optimizer | None = None
        self._rates: list[float] = []
        self._restored: Mapping[str, Any] | None = None
        self._step = _Hidden()
        self._norm = math.nan
        leave_out_of_ddp(self, "motivated.")
        for name, prefix in (("base", ""), ("motivated", "motivated_")):
            model = getattr(self, name)
            if isinstance(model, L.LightningModule):
                if not loss_fn:
                    check_hooks(model)
                model.log = Log(self, model, prefix)  # type: ignore[method-assign]

    # The base, as Lightning trains it.

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The base's output."""
        return self.base(*args, **kwargs)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """The base's loss; remembers the batch for the motivated model."""
        result, loss = self._loss(self.base, batch, batch_idx)
        if loss is not None:
            if all(index != batch_idx for _, index, _ in self._batches):  # Not where an optimizer asks once more.
                self._batches.append((batch, batch_idx, loss.detach()))
            if self.loss_fn:
                self.log("train_loss", loss.detach(), prog_bar=True)
        return result

    def _loss(self, model: nn.Module, batch: Any, index: int) -> tuple[Any, Tensor | None]:
        if self.loss_fn:
            result = loss_of(self.loss_fn, model, batch)
            # None leaves the batch out, as under Lightning.
            loss = None if result is None else loss_in(result, "loss_fn")
            return loss, loss
        result = call(_lightning_module(model).training_step, batch, index)
        return result, result.get("loss") if isinstance(result, Mapping) else result

    def configure_optimizers(self) -> Any:
        """The base's optimizer and schedule. The motivated model's optimizer is not Lightning's.

        Raises:
            SeekingError: a model gives more than one optimizer, or the two give unlike groups of parameters.
        """
        configured = [self._configured(model) for model in (self.base, self.motivated)]
        base, motivated = (_only_optimizer(optimizers) for optimizers in configured)
        groups = len(base.param_groups), len(motivated.param_groups)
        if groups[0] != groups[1]:
            raise SeekingError(
                f"the base's optimizer has {groups[0]} parameter groups, the motivated model's {groups[1]}; "
                "configure both alike, since the motivated model's learning rates follow those of the base"
            )
        self._rates = [
            _initial(large) / _initial(small) if _initial(small) else 1.0
            for small, large in zip(base.param_groups, motivated.param_groups, strict=True)
        ]
        self._optimizer = motivated
        return configured[0]

    def _configured(self, model: nn.Module) -> Any:
        if not self.optimizer:
            return _lightning_module(model).configure_optimizers()
        optimizer = self.optimizer(model.parameters())
        if not self.schedule:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.schedule(optimizer)}

    # The motivated step.

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Take the base's step; if the condition holds, also the motivated one."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        batches, self._batches = self._batches, []
        if not batches:  # The base's training_step gave no loss.
            return
        signals = Signals(
            loss=mean_loss(torch.stack([loss.float() for _, _, loss in batches]).mean()),
            step=self.trainer.global_step,
            steps=_step_count(self.trainer.estimated_stepping_batches),
            epoch_length=self._epoch_length,
            learning_rate=float(optimizer.param_groups[0]["lr"]),
            base_stepped=math.isfinite(self._norm),
            grad_norm=self._norm if math.isfinite(self._norm) else None,
            gradients=gradients_by_name(self.base) if self.condition.needs_gradients else None,
        )
        holds = of_first_process(self.condition.update(signals.loss, signals), self.device)
        if holds:
            outcome = self._motivated_step(batches, optimizer)
            self.motivated_steps += outcome.taken
            self.condition.feedback(outcome)
        self.log("motivated_share", float(holds), on_step=False, on_epoch=True, batch_size=1, sync_dist=True)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Note the norm of the gradient, which is not clipped yet."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._norm = float(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
        if optimizer is self._optimizer and not math.isfinite(self._norm):
            for parameter in parameters:  # The motivated step is left out: it would spoil the base as well.
                parameter.grad = None

    def _motivated_step(self, batches: list[tuple[Any, int, Tensor]], base: Any) -> Outcome:
        assert self._optimizer is not None
        for group, base_group, rate in zip(self._optimizer.param_groups, base.param_groups, self._rates, strict=True):
            group["lr"] = rate * base_group["lr"]
            group.update({name: base_group[name] for name in ("momentum", "betas") if name in base_group})
        first: list[Tensor] = []
        precision, optimizer = self.trainer.precision_plugin, self._optimizer

        def closure() -> Tensor:
            optimizer.zero_grad()  # Some optimizers call it several times a step.
            losses: list[Tensor] = []
            for number, (batch, index, _) in enumerate(batches, start=1):
                synced = number == len(batches) or not isinstance(self._step.inner, DistributedDataParallel)
                with contextlib.nullcontext() if synced else self._step.inner.no_sync():
                    with precision.train_step_context():
                        loss = self._step.inner(batch, index)
                    losses.append(loss.detach())
                    precision.pre_backward(loss / self.trainer.accumulate_grad_batches, self).backward()
            first[:] = first or losses
            return torch.stack(losses).mean()

        self.base.zero_grad()  # Its gradients are done with.
        with self.pair.motivated() as module:
            # As for the base, this unscales under fp16, clips and steps.
            precision.optimizer_step(optimizer, model=self, closure=closure)
            gradients = gradients_by_name(module) if self.condition.needs_gradients else None
            optimizer.zero_grad()
        loss = mean_loss(torch.stack([loss.float() for loss in first]).mean())
        if self.loss_fn:
            self.log("motivated_train_loss", loss, batch_size=1)
        return Outcome(
            loss=loss,
            grad_norm=self._norm,
            flops=0.0,
            taken=math.isfinite(self._norm),
            gradients=gradients,
            shared_gradients=functools.partial(self.pair.map.shared.extract, gradients) if gradients else None,
        )

    @property
    def _epoch_length(self) -> int | None:
        return _step_count(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)

    def setup(self, stage: str) -> None:
        """Refuse, before the models are sharded, what could not train both."""
        if stage == "fit":
            check_trainer(self.trainer, self.pair)

    def on_train_start(self) -> None:
        """Make the motivated model ready to be trained, from the checkpoint that is resumed if there is one."""
        Given(budget=False, epoch_length=self._epoch_length is not None).check(self.condition)
        self._step = _Hidden(parallel(_Step(self), self.trainer.strategy))
        assert self._optimizer is not None
        if self._restored is not None:
            self._optimizer.load_state_dict(self._restored["optimizer"])
            SavedCondition(self.condition).load_state_dict(self._restored["condition"])
            self.motivated_steps = int(self._restored["motivated_steps"])
            self._restored = None
        self._batches = []
        self.call_hook("on_train_start")

    # Evaluate.

    def validation_step(self, batch: Any, batch_idx: int, *rest: Any) -> Any:
        """The base's and the motivated model's."""
        return self._evaluated("validation_step", "val_loss", batch, batch_idx, *rest)

    def test_step(self, batch: Any, batch_idx: int, *rest: Any) -> Any:
        """The base's and the motivated model's."""
        return self._evaluated("test_step", "test_loss", batch, batch_idx, *rest)

    def _evaluated(self, step: str, name: str, batch: Any, *rest: Any) -> Any:
        def measure(model: nn.Module, prefix: str) -> Any:
            if not self.loss_fn:
                return call(getattr(model, step), batch, *rest)
            loss = loss_in(loss_of(self.loss_fn, model, batch), "loss_fn")
            self.log(prefix + name, loss, on_epoch=True, on_step=False, prog_bar=True, sync_dist=True)
            return loss

        return self._on_both(measure)

    def predict_step(self, batch: Any, batch_idx: int, *rest: Any) -> Any:
        """The base's prediction; without LightningModules, its output for the batch."""
        return self(batch) if self.loss_fn else call(_lightning_module(self.base).predict_step, batch, batch_idx, *rest)

    def call_hook(self, name: str) -> None:
        """Call this hook of both models, if they are LightningModules."""
        if not self.loss_fn:
            self._on_both(lambda model, _: getattr(model, name)())

    def _on_both(self, measure: Callable[[nn.Module, str], Any]) -> Any:
        """The base's result. The motivated model gets the same random numbers; training goes on as after the base."""
        random = RandomState(self.device)
        before = random.snapshot()
        result = measure(self.base, "")
        with random.preserved(), self._entered():
            random.load_state_dict(before)
            measure(self.motivated, "motivated_")
        return result

    @contextlib.contextmanager
    def _entered(self) -> Iterator[None]:
        """The motivated state where Lightning evaluates, in inference mode, in which no weights may be tied."""
        gradients = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.set_grad_enabled(gradients), self.pair.motivated():
            yield

    # Checkpoints.

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Both models, the motivated one with the latest weights of the base."""
        with self._entered():
            return super().state_dict(*args, **kwargs)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning does not know of."""
        if self._optimizer is not None:
            checkpoint["seeking"] = {
                "optimizer": self._optimizer.state_dict(),
                "condition": SavedCondition(self.condition).state_dict(),
                "motivated_steps": self.motivated_steps,
            }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember it until the optimizers exist.

        Raises:
            SeekingError: the checkpoint is not one of a pair.
        """
        if "seeking" not in checkpoint:
            raise SeekingError("this checkpoint is not one of a MotivatedModule; it has no state of a condition")
        # With the weights alone, for evaluation or a new run, both models begin with new optimizers.
        with contextlib.suppress(RuntimeError):  # It has no trainer.
            if self.trainer.state.fn == TrainerFn.FITTING:
                self._restored = checkpoint["seeking"]


class _Step(nn.Module):
    """The motivated model's training step as a forward pass, which DDP needs."""

    def __init__(self, module: MotivatedModule) -> None:
        super().__init__()
        self.model = module.motivated
        self.outer = _Hidden(module)

    def forward(self, batch: Any, index: int) -> Tensor:
        loss: Tensor | None = self.outer.inner._loss(self.model, batch, index)[1]
        if loss is None:
            raise SeekingError("the motivated model's training_step gave no loss on a batch on which the base's did")
        return loss


class _Hidden:
    """Holds a module without registering it as a part."""

    def __init__(self, inner: nn.Module | None = None) -> None:
        self.inner: Any = inner


def _lightning_module(model: nn.Module) -> L.LightningModule:
    assert isinstance(model, L.LightningModule)
    return model


def _only_optimizer(configured: Any) -> Optimizer:
    """The optimizer in what ``configure_optimizers`` gives.

    Raises:
        SeekingError: it is not just one.
    """
    if isinstance(configured, tuple) and configured and isinstance(configured[0], list):
        configured = configured[0]
    if isinstance(configured, list | tuple) and len(configured) == 1:
        configured = configured[0]
    if isinstance(configured, Mapping):
        configured = configured["optimizer"]
    if not isinstance(configured, Optimizer):
        raise SeekingError("configure_optimizers of each model of a pair must give one optimizer")
    return configured


def _step_count(steps: float) -> int | None:
    """A number of steps, rounded up; None if there is no end."""
    return math.ceil(steps) if math.isfinite(steps) else None


def _initial(group: Mapping[str, Any]) -> float:
    return float(group.get("initial_lr", group["lr"]))
