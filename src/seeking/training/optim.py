"""Optimizers and schedules by name."""

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    SequentialLR,
)

from seeking.distributed.sharding import copy_into, is_sharded
from seeking.errors import INCOMPATIBLE_STATE_ERRORS, RunWarning, SeekingError, unknown
from seeking.shared_state import is_elementwise
from seeking.training.config import TrainConfig

FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad)
"""Optimizers that PyTorch implements in a fused kernel."""

MakeOptimizer = Callable[[nn.Module], Optimizer]
MakeSchedule = Callable[[Optimizer, int], LRScheduler]
"""Maps an optimizer and the number of batches of the run to a schedule that is stepped once for every batch."""


def check_optimizer_name(optimizer: str) -> None:
    """Check that timm has an optimizer of this name.

    Raises:
        SeekingError: it has not.
    """
    from timm.optim import list_optimizers

    known = [str(name) for name in list_optimizers()]
    if optimizer not in known:
        raise unknown("optimizer", optimizer, known)


def make_optimizer(model: nn.Module, config: TrainConfig, fused: bool, name: str = "motivated") -> Optimizer:
    """Create one of timm's optimizers. Biases and other vectors get no weight decay.

    It takes frozen parameters as well, which have no gradients, so that they train if they are unfrozen later.

    Args:
        model: the model to train.
        config: name and arguments of the optimizer.
        fused: use the fused kernel, if the optimizer has one.
        name: which model it is, ``base`` or ``motivated``.

    Raises:
        SeekingError: the optimizer does not exist or rejects its arguments.
    """
    from timm.optim import create_optimizer_v2

    check_optimizer_name(config.optimizer)
    options: dict[str, Any] = {
        "lr": config.lr_of(name),
        "weight_decay": config.weight_decay,
        "momentum": config.momentum,
    }
    try:
        with _unfrozen(model):
            optimizer = create_optimizer_v2(model, config.optimizer, **options)
        # The kernels refuse complex parameters, SGD's only at its first step.
        if fused and isinstance(optimizer, FUSED) and all(p.is_floating_point() for p in model.parameters()):
            with contextlib.suppress(RuntimeError), _unfrozen(model):  # The kernel may not support the parameters.
                optimizer = create_optimizer_v2(model, config.optimizer, fused=True, **options)
                if isinstance(optimizer, torch.optim.SGD):
                    optimizer.register_step_pre_hook(_complete_momentum)
    except (TypeError, ValueError, AssertionError, RuntimeError, ImportError) as error:
        hint = "; give optimizer momentum, which is SGD without Nesterov's" if "Nesterov" in str(error) else ""
        raise SeekingError(f"cannot create the optimizer {config.optimizer}: {error}{hint}") from error
    _check_first_order(optimizer)
    return optimizer


@contextlib.contextmanager
def _unfrozen(model: nn.Module) -> Iterator[None]:
    """Inside, all parameters that can have gradients do."""
    differentiable = (p for p in model.parameters() if p.is_floating_point() or p.is_complex())
    frozen = [parameter for parameter in differentiable if not parameter.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def _check_first_order(optimizer: Optimizer) -> None:
    if getattr(optimizer, "is_second_order", False):  # As optimizers of timm declare it.
        raise SeekingError(
            f"optimizer {type(optimizer).__name__}: it takes gradients of gradients, for which a run keeps no graph "
            "(create_graph); use another optimizer, or a plain loop with seeking.Pair"
        )


def _complete_momentum(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Start the momentum of parameters that get their first gradient after others, at zero.

    The fused kernel of SGD fails on them: it takes it that all of them have momentum, or none.
    """
    for group in optimizer.param_groups:
        if not group["momentum"]:
            continue
        of_group = [parameter for parameter in group["params"] if parameter.grad is not None]
        new = [p for p in of_group if optimizer.state.get(p, {}).get("momentum_buffer") is None]
        if len(new) < len(of_group):
            for parameter in new:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def check_optimizer_options(config: TrainConfig) -> None:
    """Check that the optimizer can be made with the options.

    Raises:
        SeekingError: it cannot, or does not exist.
    """
    make_optimizer(nn.Linear(1, 1), config, fused=False)


def warmup_of(config: TrainConfig, steps: int, epoch_length: int | None) -> int:
    """Batches in which the schedule of ``make_schedule`` warms up, by the options."""
    warmup = config.warmup_steps or round(config.warmup_epochs * (epoch_length or steps / config.epochs))
    return min(warmup, steps - 1)


def make_schedule(optimizer: Optimizer, config: TrainConfig, steps: int, epoch_length: int | None) -> LRScheduler:
    """The schedule of ``config`` over ``steps`` batches.

    Args:
        optimizer: whose learning rate it sets.
        config: options.
        steps: batches of the run.
        epoch_length: batches in an epoch, if the run is not of whole epochs.
    """
    warmup = warmup_of(config, steps, epoch_length)
    remaining = max(1, steps - warmup)
    if config.schedule == "onecycle":
        warmup_share = max(2, warmup) / steps if warmup and steps > 2 else 0.3  # A rise of one batch has no length.
        peaks = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(optimizer, peaks, total_steps=max(2, steps), pct_start=warmup_share, cycle_momentum=False)
    main: LRScheduler
    if config.schedule == "cosine":
        main = CosineAnnealingLR(optimizer, remaining)
    elif config.schedule == "wsd":
        decay = max(1, round(config.decay * steps))
        main = LambdaLR(optimizer, lambda step: max(0.0, min(1.0, (remaining - step) / decay)))
    elif config.schedule == "step":
        main = MultiStepLR(optimizer, [remaining // 2, remaining * 3 // 4])
    else:
        main = LambdaLR(optimizer, lambda step: 1.0)
    if not warmup:
        return main
    linear = LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup)
    return SequentialLR(optimizer, [linear, main], milestones=[warmup])


MAKERS = {
    "optimizer": "lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3)",
    "schedule": "lambda optimizer, steps: CosineAnnealingLR(optimizer, steps)",
}
"""What a user's function looks like that makes an optimizer or a schedule."""


def check_makers(optimizer: object, schedule: object) -> None:
    """Check that what is to make optimizers and schedules is neither one already nor a class that takes parameters.

    Raises:
        SeekingError: it is.
    """
    for kind, make in (("optimizer", optimizer), ("schedule", schedule)):
        made, form = getattr(make, "func", make), f"a {type(make).__name__}"  # Of a partial, what it calls.
        of_parameters = isinstance(made, type) and issubclass(made, Optimizer)
        if isinstance(made, type):
            form = f"the class {made.__name__}"
        if make is not None and (of_parameters or not callable(make)):
            raise SeekingError(
                f"{kind} is {form}; give a function that makes one for each model, such as {MAKERS[kind]}"
            )


def made(kind: str, make: Callable[..., Any], *arguments: Any) -> Any:
    """What a user's function gives.

    Args:
        kind: ``optimizer`` or ``schedule``.
        make: the function.
        arguments: a model; or an optimizer and the number of batches of the run.

    Raises:
        SeekingError: it does not take these, or takes them for something else.
    """
    try:
        return make(*arguments)
    except TypeError as error:
        raise SeekingError(
            f"{kind} fails: TypeError: {error}; give a function that makes one for each model, such as {MAKERS[kind]}"
        ) from error


def check_trains(optimizer: Optimizer, model: nn.Module, name: str) -> None:
    """Check that an optimizer is one of a model; a warning names parameters that it leaves out.

    Args:
        optimizer: what a user's function gives.
        model: that the function was given.
        name: of the model.

    Raises:
        SeekingError: it has none of the model's parameters.
    """
    taken = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    trained = {key: id(parameter) for key, parameter in model.named_parameters() if parameter.requires_grad}
    left_out = [key for key, parameter in trained.items() if parameter not in taken]
    if trained and len(left_out) == len(trained):
        raise SeekingError(
            f"optimizer gives one that has no parameter of the {name} model; make it of the model that the function "
            f"gets, such as {MAKERS['optimizer']}"
        )
    if left_out:
        names = ", ".join(left_out[:5]) + (", …" if len(left_out) > 5 else "")
        warnings.warn(
            f"the optimizer leaves out {len(left_out)} of the {len(trained)} parameters of the {name} model, which "
            f"stay as they are: {names}; give it all, or freeze these in both models (requires_grad_(False))",
            RunWarning,
            stacklevel=2,
        )


def check_steppable(kind: str, stepped: Any) -> None:
    """Check what a user's function gives: an optimizer or schedule whose ``step()`` needs no arguments.

    Args:
        kind: ``optimizer`` or ``schedule``.
        stepped: what the function gives.

    Raises:
        SeekingError: it is something else, requires an argument, such as a closure or a metric, or needs calls besides.
    """
    if not (isinstance(stepped, Optimizer) if kind == "optimizer" else callable(getattr(stepped, "step", None))):
        raise SeekingError(f"{kind} gives a {type(stepped).__name__}; it must give one {kind} of PyTorch")
    _check_first_order(stepped)
    if kind == "optimizer" and all(callable(getattr(stepped, mode, None)) for mode in ("train", "eval")):
        raise SeekingError(
            f"optimizer {type(stepped).__name__}: the weights of training are not those to evaluate and save, and a "
            "run does not switch between them (train(), eval()); use another optimizer, or a plain loop with "
            "seeking.Pair"
        )
    # Of the class: schedules wrap the method of the optimizer.
    _, *parameters = inspect.signature(type(stepped).step).parameters.values()
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in variable]
    if required:
        raise SeekingError(
            f"{kind} {type(stepped).__name__}: its step() requires {', '.join(required)}, which the run does not "
            f"pass; use another {kind}, or a plain loop with seeking.Pair"
        )


def check_elementwise_state(make: MakeOptimizer, use: str, remedy: str) -> None:
    """Check, on a linear layer, that an optimizer's state has the shape of its parameters, so that it can be split.

    Args:
        make: creates the optimizer.
        use: what is done with the state, for the error message.
        remedy: what to set instead, for the error message.

    Raises:
        SeekingError: the state holds a tensor that is neither a scalar nor has a value for each entry of its parameter.
    """
    # Large enough for optimizers that only factorize the state of large matrices, and one that is whole blocks, for
    # those that quantize blocks. It draws no random number, so that runs stay what they were.
    layer = nn.Linear(130, 140)
    layer.blocks = nn.Parameter(torch.zeros(256, 128))
    try:
        trial = make(layer)
    except Exception:  # It takes parts of the model that this one has not. The states are checked as they are shared.
        return
    (layer(torch.ones(2, 130)).sum() + layer.blocks.sum()).backward()
    trial.step()
    for parameter in layer.parameters():
        for slot, value in trial.state[parameter].items():
            if not is_elementwise(value, parameter):
                raise SeekingError(
                    f"optimizer {type(trial).__name__}: its state {slot!r} has no value for each entry of a parameter "
                    f"of shape {list(parameter.shape)}, so it cannot be {use}; {remedy}, or use another optimizer"
                )


def load_optimizer_state(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load an optimizer's state exactly.

    ``Optimizer.load_state_dict`` casts the state to the dtype of the parameters and keeps the memory format of the
    loaded tensors, which changes how sums are rounded.

    Raises:
        SeekingError: the state belongs to another optimizer.
    """
    flags = [{k: v for k, v in group.items() if isinstance(v, bool)} for group in optimizer.param_groups]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    try:
        groups = [dict(group) for group in state["param_groups"]]
        for group, current in zip(groups, optimizer.param_groups, strict=True):
            # Implementation choices may change on resume: sharded parameters do not support fused steps.
            group.update({key: current[key] for key in ("fused", "foreach") if key in current and key in group})
        slots = {
            number: {slot: value for slot, value in saved.items() if not _is_sharded(parameters[number], value)}
            for number, saved in state["state"].items()
        }
        # Some optimizers keep more in it than these two, such as the state of a generator.
        optimizer.load_state_dict({**state, "state": slots, "param_groups": groups})
        for group, current_flags in zip(optimizer.param_groups, flags, strict=True):
            for key, value in current_flags.items():
                if group[key] is not value:
                    raise ValueError(f"{key} was {group[key]!r} and is {value} now")
        for number, saved in state["state"].items():
            parameter = parameters[number]
            parameter_state = optimizer.state[parameter]
            for slot, value in saved.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape and not value.is_sparse:
                    parameter_state[slot] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False)
                    copy_into(parameter_state[slot], value)
                elif isinstance(value, Tensor) and parameter_state[slot].dtype != value.dtype:
                    parameter_state[slot] = value.to(parameter_state[slot].device)
    except INCOMPATIBLE_STATE_ERRORS as error:
        raise SeekingError(f"the state of another optimizer ({type(error).__name__}: {error})") from error


def _is_sharded(parameter: Tensor, value: Any) -> bool:
    """Whether this process holds only a shard of a value; torch would first copy the full tensor to the device."""
    return is_sharded(parameter) and isinstance(value, Tensor) and value.shape == parameter.shape
