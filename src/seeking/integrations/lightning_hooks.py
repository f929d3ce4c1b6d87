"""Which hooks of the two models of a pair Lightning's loop reaches, and how."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

from seeking.errors import RunWarning, SeekingError
from seeking.integrations import missing

try:
    import lightning as L
    from lightning.pytorch.core.hooks import CheckpointHooks, DataHooks, ModelHooks
except ModuleNotFoundError as error:
    raise missing("lightning", "lightning") from error

OF_BOTH = tuple(
    f"on_{loop}_{when}"
    for loop, times in {
        "fit": ("start", "end"),
        "train": ("end", "epoch_start", "epoch_end"),
        "validation": ("start", "end", "epoch_start", "epoch_end"),
        "test": ("start", "end", "epoch_start", "epoch_end"),
    }.items()
    for when in times
)
"""Hooks without arguments that are called of both models."""

STEPS = frozenset({"training_step", "validation_step", "test_step", "predict_step", "configure_optimizers"})
"""What is called with arguments."""

OPTIMIZATION = frozenset(
    {"backward", "optimizer_step", "optimizer_zero_grad", "configure_gradient_clipping", "lr_scheduler_step"}
    | {"on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer", "configure_model"}
)
"""What changes how a model is trained. Not to call it would train another model than the user has written."""

EVERY = frozenset(
    {name for kind in (ModelHooks, DataHooks, CheckpointHooks) for name in dir(kind) if not name.startswith("_")}
    | OPTIMIZATION
    | {"configure_callbacks"}
)


def check_hooks(model: L.LightningModule) -> None:
    """Tell which hooks of a model of a pair are not called.

    Raises:
        SeekingError: one of them would change how the model is trained.
    """
    kind = type(model)
    known = EVERY - STEPS - {*OF_BOTH, "on_train_start"}
    own = sorted(name for name in known if getattr(kind, name, None) is not getattr(L.LightningModule, name, None))
    refused = [name for name in own if name in OPTIMIZATION]
    if refused:
        raise SeekingError(
            f"{kind.__name__} overrides {', '.join(refused)}, which is not called for the models of a pair; do it in "
            "training_step, in the data set or in a callback, or train in your own loop"
        )
    if own:
        warnings.warn(
            f"{', '.join(own)} of {kind.__name__} are not called for the models of a pair; put what they do into a "
            "callback, and give data loaders to fit",
            RunWarning,
            stacklevel=4,
        )


def call(method: Callable[..., Any], *args: Any) -> Any:
    """Call a step with as many of these arguments as it takes; Lightning lets users leave out the last ones."""
    kinds = [parameter.kind for parameter in inspect.signature(method).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return method(*args)
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return method(*args[: sum(kind in positional for kind in kinds)])


class HooksOfBoth(L.LightningModule):
    """A module whose hooks are those of two others; ``call_hook`` says how."""

    def call_hook(self, name: str) -> None:
        """Call this hook of both models, if they have it."""
        raise NotImplementedError


def _hook(name: str) -> Callable[[HooksOfBoth], None]:
    def hook(self: HooksOfBoth) -> None:
        self.call_hook(name)

    hook.__name__, hook.__doc__ = name, "That of both models, if they are LightningModules."
    return hook


for _name in OF_BOTH:
    setattr(HooksOfBoth, _name, _hook(_name))


class Log:
    """``log`` of a model inside: that of the module which Lightning knows, with a prefix.

    Where Lightning trains or evaluates the model by itself, such as after the run, it is the model's.
    """

    def __init__(self, outer: L.LightningModule, model: L.LightningModule, prefix: str) -> None:
        self.outer, self.model, self.prefix = outer, model, prefix

    def __call__(self, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        try:
            by_itself = self.model.trainer.lightning_module is self.model
        except RuntimeError:  # No trainer knows it.
            by_itself = False
        if by_itself:
            type(self.model).log(self.model, name, value, *args, **kwargs)
        else:
            self.outer.log(self.prefix + name, value, *args, **kwargs)
