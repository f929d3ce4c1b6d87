"""Motivated training with the Trainer of Hugging Face transformers.

The base is the model that the Trainer trains, so that all of ``TrainingArguments`` applies to it as ever. Between its
optimizer step and the next one, the condition decides, and the motivated model takes a step on the same batches.
"""

import contextlib
import functools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from seeking.conditions import Condition, Outcome, Signals
from seeking.distributed.mean_loss import mean_loss, mean_over_processes, of_first_process
from seeking.errors import SeekingError
from seeking.gradients import gradients_by_name
from seeking.integrations import make_condition, missing
from seeking.integrations.transformers_arguments import check_arguments, check_processes
from seeking.integrations.transformers_models import MOTIVATED, add_noise, folder_of, load_model
from seeking.pair import Pair
from seeking.training.needs import Given
from seeking.training.rng import RandomState
from seeking.training.saved_condition import SavedCondition
from seeking.weights_map import in_double

try:
    import transformers
    from transformers.trainer import OPTIMIZER_NAME
    from transformers.trainer_utils import get_last_checkpoint, has_length
except ModuleNotFoundError as error:
    raise missing("transformers", "transformers") from error

STATE = "seeking.pt"
"""In the motivated model's folder of a checkpoint: its optimizer and the condition."""


class MotivatedTrainer(transformers.Trainer):
    """``transformers.Trainer`` for a pair.

    One step of ``TrainingArguments`` is a step of the base, and, if the condition holds, one of the motivated model on
    the same batches, with the same learning rate, accumulation, clipping and precision. Every folder that is saved
    holds the base, and in its folder ``motivated`` the motivated model; ``from_pretrained`` loads both. Metrics of the
    motivated model have the prefix ``eval_motivated_``; ``metric_for_best_model`` takes those of either model.

    Args:
        pair: the two models.
        args: as for ``transformers.Trainer``.
        condition: the condition, or its text.
        options: other arguments of ``transformers.Trainer``, but ``model``, ``model_init`` and ``optimizers``: for
            another optimizer give ``optimizer_cls_and_kwargs``, or override ``create_optimizer``, which is called for
            each model.

    Attributes:
        pair: the two models.
        condition: the condition.
        motivated_steps: number of motivated steps so far.

    Raises:
        SeekingError: the condition or an argument needs what this loop cannot do for two models.
    """

    def __init__(
        self,
        pair: Pair,
        args: transformers.TrainingArguments | None = None,
        *,
        condition: Condition | str | None = None,
        **options: Any,
    ) -> None:
        self.pair = pair
        self.condition = make_condition(condition)
        self.motivated_steps = 0
        args = args or transformers.TrainingArguments()
        generates = isinstance(self, transformers.Seq2SeqTrainer)
        check_arguments(pair, args, self.condition, options, generates=generates)
        super().__init__(pair.base, args, **options)
        check_processes(self.accelerator)
        pair.motivated_model.to(args.device)
        if config := getattr(pair.motivated_model, "config", None):
            config.use_cache = args.use_cache
        self._learner: tuple[nn.Module, Optimizer] | None = None
        self._ready_to_evaluate = False
        self._resumed: str | None = None
        self._noise: RemovableHandle | None = None
        self._epoch_length: int | None = None
        self._flops = 0.0
        self._grad_norm: Tensor | float | None = None
        self._batches: list[tuple[dict[str, Any], Any, Tensor]] = []
        self._since_log: list[float] = []
        self._last_log = 0
        # Before all others, which then see both models of one step, and at the end both of the best checkpoint.
        self.callback_handler.callbacks.insert(0, _Steps(self))

    # What the base's step leaves behind.

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """As in ``transformers.Trainer``; remembers the batch for the motivated model."""
        number = kwargs.get("num_items_in_batch", args[0] if args else None)
        loss: Tensor = super().training_step(model, inputs, number)
        self._batches.append((inputs, number, loss))
        return loss

    def set_initial_training_values(self, args: Any, dataloader: Any, *rest: Any) -> Any:
        """As in ``transformers.Trainer``; remembers the number of steps of an epoch."""
        values = super().set_initial_training_values(args, dataloader, *rest)
        self._epoch_length = values[1] if has_length(dataloader) else None
        Given(budget=False, epoch_length=self._epoch_length is not None).check(self.condition)
        return values

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        """As in ``transformers.Trainer``. Without it, conditions on the gradient's norm say that they lack it."""
        self._grad_norm = super()._get_grad_norm(*args, **kwargs)
        return self._grad_norm

    # The motivated step.

    def after_base_step(self) -> None:
        """Let the condition decide after a step of the base, and take the motivated step if it holds."""
        batches, self._batches = self._batches, []
        signals = self._signals(batches)
        # The base's gradients are done with; under fp16, the scaler would unscale them again.
        self.pair.base.zero_grad(set_to_none=True)
        if of_first_process(self.condition.update(signals.loss, signals), self.accelerator.device):
            outcome = self._motivated_step(batches, float(signals.motivated_flops or 0))
            self._since_log.append(outcome.loss)
            self.motivated_steps += outcome.taken
            self.condition.feedback(outcome)

    def _signals(self, batches: list[tuple[dict[str, Any], Any, Tensor]]) -> Signals:
        loss, flops, motivated_flops = self._over_processes(batches)
        self._flops += flops
        assert self.optimizer is not None
        # Fused optimizers leave a step out themselves, without accelerate's knowledge.
        overflow = self.accelerator.scaler is not None and not math.isfinite(float(self._grad_norm or 0))
        stepped = not (overflow or self.accelerator.optimizer_step_was_skipped)
        return Signals(
            loss=loss,
            step=self.state.global_step,
            steps=self.state.max_steps,
            epoch_length=self._epoch_length,
            learning_rate=float(self.optimizer.param_groups[0]["lr"]),
            flops_spent=self._flops,
            base_flops=flops,
            motivated_flops=motivated_flops,
            base_stepped=stepped,
            grad_norm=float(self._grad_norm) if stepped and self._grad_norm is not None else None,
            gradients=gradients_by_name(self.pair.base) if self.condition.needs_gradients else None,
        )

    def _over_processes(self, batches: list[tuple[dict[str, Any], Any, Tensor]]) -> tuple[float, float, float]:
        """The loss of a step, and the FLOPs of either model for it: the same in all processes, which decide alike."""
        own = [float(sum(self.floating_point_ops(inputs) for inputs, _, _ in batches))]
        with self._swapped(None):
            own.append(float(sum(self.floating_point_ops(inputs) for inputs, _, _ in batches)))
        loss = torch.stack([in_double(loss) for _, _, loss in batches]).sum()
        count = self.accelerator.num_processes
        mean, flops, motivated = mean_over_processes(torch.cat([loss.reshape(1), loss.new_tensor(own)]))
        return mean, count * flops, count * motivated

    def _motivated_step(self, batches: list[tuple[dict[str, Any], Any, Tensor]], flops: float) -> Outcome:
        assert self._learner and self.optimizer, "train() has not begun"
        model, optimizer = self._learner
        scaler = self.accelerator.scaler
        for group, base_group in zip(optimizer.param_groups, self.optimizer.param_groups, strict=True):
            group["lr"] = base_group["lr"]
        with self.pair.motivated() as module, self._swapped(optimizer):
            losses = []
            for number, (inputs, items, _) in enumerate(batches, start=1):
                last = number == len(batches)
                with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                    losses.append(super().training_step(model, inputs, items))
                self.current_flos += self.floating_point_ops(inputs)
            if scaler is not None:
                scaler.unscale_(optimizer)
            limit = self.args.max_grad_norm if self.args.max_grad_norm > 0 else math.inf
            norm = float(nn.utils.clip_grad_norm_(module.parameters(), limit))
            gradients = gradients_by_name(module) if self.condition.needs_gradients else None
            taken = math.isfinite(norm)
            if scaler is not None:  # It skips the step by itself.
                scaler.step(optimizer)
                scaler.update()
            elif taken:
                optimizer.step()
            optimizer.zero_grad()
        self._flops += flops
        return Outcome(
            loss=mean_loss(torch.stack([loss.float() for loss in losses]).sum()),
            grad_norm=norm,
            flops=flops,
            taken=taken,
            gradients=gradients,
            shared_gradients=functools.partial(self.pair.map.shared.extract, gradients) if gradients else None,
        )

    @contextlib.contextmanager
    def _swapped(self, optimizer: Optimizer | None) -> Iterator[None]:
        """Inside, the motivated model is the one that the methods of ``transformers.Trainer`` work on."""
        names = ("model", "model_wrapped", "optimizer")
        own = [getattr(self, name) for name in names]
        for name, value in zip(names, (self.pair.motivated_model, self.pair.motivated_model, optimizer), strict=True):
            setattr(self, name, value)
        try:
            yield
        finally:
            for name, value in zip(names, own, strict=True):
                setattr(self, name, value)

    # Begin, resume, end.

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """As in ``transformers.Trainer``.

        Raises:
            SeekingError: there is no checkpoint to resume from, or the two optimizers have unlike groups of parameters.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = get_last_checkpoint(str(self.args.output_dir))
            if resume_from_checkpoint is None:
                raise SeekingError(f"there is no checkpoint in {self.args.output_dir}; call train() without resuming")
        self._resumed = str(resume_from_checkpoint) if resume_from_checkpoint else None
        return super().train(self._resumed, *args, **kwargs)

    def begin_motivated(self) -> None:
        """Make the motivated model ready to be trained, from the checkpoint that is resumed if there is one.

        Raises:
            SeekingError: the two optimizers have unlike groups of parameters.
        """
        self._batches, self._since_log, self._last_log = [], [], self.state.global_step
        if self._learner is None:
            with self._swapped(None):
                self.create_optimizer()
                optimizer = self.optimizer
            assert self.optimizer is not None and optimizer is not None
            groups = len(self.optimizer.param_groups), len(optimizer.param_groups)
            if groups[0] != groups[1]:
                raise SeekingError(
                    f"the base's optimizer has {groups[0]} parameter groups, the motivated model's {groups[1]}; "
                    "create_optimizer must group both alike, since the motivated model takes the base's learning rates"
                )
            self._learner = self.accelerator.prepare_model(self.pair.motivated_model), optimizer
            self._ready_to_evaluate = True
        self._end_noise()
        if (alpha := self.args.neftune_noise_alpha) is not None:
            self._noise = add_noise(self.pair.motivated_model, alpha)
        if self._resumed:
            self._load(Path(self._resumed), self._learner[1])

    def _end_noise(self) -> None:
        if self._noise:
            self._noise.remove()
            self._noise = None

    def end_motivated(self) -> None:
        """After training: with ``load_best_model_at_end``, the motivated model is that of the best checkpoint, too."""
        self._end_noise()
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint:
            self._load(Path(self.state.best_model_checkpoint), None)

    def _load(self, checkpoint: Path, optimizer: Optimizer | None) -> None:
        """Continue from a checkpoint, of which the base is loaded already; without optimizer, the weights alone.

        Raises:
            SeekingError: it lacks the motivated model, or the optimizer of that model alone.
        """
        folder = checkpoint / folder_of(self.pair.motivated_model)
        if not folder.is_dir():
            raise SeekingError(f"{checkpoint} holds no motivated model ({folder}); was it saved by another trainer?")
        with self.pair.motivated() as model:
            load_model(model, folder)
        if optimizer is None:
            return
        if not (folder / STATE).exists():
            if not (checkpoint / OPTIMIZER_NAME).exists():  # With save_only_model, there are only weights.
                return
            raise SeekingError(
                f"{folder} has no {STATE}, with the motivated model's optimizer and the condition, while {checkpoint} "
                f"has the base's optimizer ({OPTIMIZER_NAME}); restore both, or remove both to go on from the weights"
            )
        state = torch.load(folder / STATE, map_location="cpu", weights_only=True)
        optimizer.load_state_dict(state["optimizer"])
        SavedCondition(self.condition).load_state_dict(state["condition"])
        self.motivated_steps, self._flops = state["motivated_steps"], state["flops"]

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As in ``transformers.Trainer``; the motivated model goes to the folder ``motivated`` inside."""
        folder = Path(output_dir or str(self.args.output_dir)) / folder_of(self.pair.motivated_model)
        with self.pair.motivated(), self._swapped(None):
            super().save_model(str(folder), True)
        # Before the base and the state of transformers: a checkpoint that has those has all.
        if self.args.should_save and self._learner and self.is_in_train and not self.args.save_only_model:
            state = {
                "optimizer": self._learner[1].state_dict(),
                "condition": SavedCondition(self.condition).state_dict(),
                "motivated_steps": self.motivated_steps,
                "flops": self._flops,
            }
            torch.save(state, folder / STATE)
        super().save_model(output_dir, _internal_call)

    def hyperparameter_search(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: each trial needs models, and so a pair, of its own.

        Raises:
            SeekingError: always.
        """
        raise SeekingError("hyperparameter_search cannot make a pair for each trial; make both in a loop of your own")

    # Evaluate and log.

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        """As in ``transformers.Trainer``: the base's predictions, and the metrics of both models."""
        options = dataloader, description, prediction_loss_only, ignore_keys
        random = RandomState(self.args.device, dataloader)
        before = random.snapshot()
        output = super().evaluation_loop(*options, metric_key_prefix)
        if not self._ready_to_evaluate:
            self.accelerator.prepare_model(self.pair.motivated_model, evaluation_mode=True)
            self._ready_to_evaluate = True
        # Both models are measured with the same random numbers, and training goes on with those after the first.
        with random.preserved(), self.pair.motivated(), self._swapped(None):
            random.load_state_dict(before)
            motivated = super().evaluation_loop(*options, f"{metric_key_prefix}_{MOTIVATED}")
        assert output.metrics is not None and motivated.metrics is not None
        output.metrics.update(motivated.metrics)
        return output

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As in ``transformers.Trainer``, with the mean loss and the share of motivated steps since the last log."""
        if "loss" in logs:
            steps, losses = self.state.global_step - self._last_log, self._since_log
            if losses:
                logs["motivated_loss"] = sum(losses) / len(losses)
            logs["motivated_share"] = len(losses) / max(steps, 1)
            self._since_log, self._last_log = [], self.state.global_step
        super().log(logs, *args, **kwargs)


class _Steps(transformers.TrainerCallback):
    """Calls the trainer where ``transformers.Trainer`` has no method to override."""

    def __init__(self, trainer: MotivatedTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.trainer.begin_motivated()

    def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.trainer.after_base_step()

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self.trainer.end_motivated()
