"""Models by name: families of the library's own, one file each, and all models of timm."""

import contextlib
import functools
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seeking.choices import Task
from seeking.errors import RunWarning, SeekingError, unknown
from seeking.matching.example_inputs import image_size as default_image_size
from seeking.models.family import Family, image_arguments
from seeking.plugins import modules_of
from seeking.weights_map import tensors

LOCAL = "local-dir:"
ELSEWHERE = ("hf-hub:", "hf_hub:", LOCAL)
"""Names of models that timm finds outside of its own list begin with one of these."""
PLAIN = (TypeError, ValueError, AssertionError, RuntimeError)
"""Errors of constructors whose message says enough."""


@functools.cache
def families() -> tuple[Family, ...]:
    """The families; every file in this package with a ``FAMILY`` adds one."""
    return tuple(module.FAMILY for module in modules_of(__name__) if hasattr(module, "FAMILY"))


def family_of(name: str) -> Family | None:
    """The family of a model; None if it is timm's."""
    return next((family for family in families() if family.pattern.fullmatch(name)), None)


def check_model_name(name: str) -> None:
    """Check that a model exists.

    Raises:
        SeekingError: it does not. Of a model on the hub, that is not known.
    """
    if name.startswith(LOCAL) and not (config := Path(name.removeprefix(LOCAL)) / "config.json").is_file():
        raise SeekingError(f"{name}: there is no {config}; give the folder of a model that timm has saved")
    if family_of(name) or name.startswith(ELSEWHERE):
        return
    own = [form for family in families() for form in family.names]
    for form in own:
        if "-" in form and name.startswith(form.partition("-")[0] + "-"):
            raise unknown("model", name, [form])
    import timm  # Slow to import.

    if not timm.is_model(name):
        raise unknown("model", name, [*own, *timm.list_models()])


def check_pretrained(name: str, arguments: Mapping[str, Any]) -> None:
    """Check that there are pretrained weights of a model, as far as that is known without the hub.

    Args:
        name: as in ``create``.
        arguments: further ones of ``create``, which may say where the weights are (``pretrained_cfg``).

    Raises:
        SeekingError: there are none.
    """
    import timm

    elsewhere = name.startswith(ELSEWHERE) or any(key.startswith("pretrained_cfg") for key in arguments)
    if family_of(name) or not (elsewhere or timm.is_model_pretrained(name)):
        raise SeekingError(
            f"there are no pretrained weights of {name}; give a file of weights, or a model of timm that has some"
        )


def create(name: str, *, num_classes: int, **kwargs: Any) -> nn.Module:
    """Create a model; its weights are random unless it is asked for ``pretrained`` ones.

    Args:
        name: ``resnet8``, ``resnet14``, ``resnet20``, ``resnet32``, ``resnet44``, ``resnet56`` or ``resnet110``
            (for small images), a model of timm, or one that timm finds elsewhere: ``hf-hub:OWNER/NAME`` on the hub,
            ``local-dir:FOLDER`` on the disk; ``mlp-WIDTH`` for tables, ``gpt2-LAYERSxWIDTH`` or
            ``llama-LAYERSxWIDTH`` for text.
        num_classes: number of classes, or size of the vocabulary.
        kwargs: further arguments of the model's constructor, such as ``in_chans``, ``img_size``, ``patch_size`` or
            ``width``; ``in_features`` of a perceptron, ``sequence_length`` of a language model; and those of
            ``timm.create_model``, such as ``pretrained``.

    Raises:
        SeekingError: the model does not exist, rejects the arguments, or its pretrained weights cannot be loaded.
    """
    check_model_name(name)
    arguments = {"num_classes": num_classes, **kwargs}
    pretrained = bool(arguments.pop("pretrained", False))
    if pretrained or name.startswith(ELSEWHERE):
        return _loaded(name, arguments, pretrained)
    try:
        return _made(name, arguments)
    except SeekingError:
        raise
    except Exception as error:  # Constructors raise errors of any kind.
        raise _rejection(name, arguments, error) from error


def check_arguments(name: str, given: Mapping[str, Any], others: Mapping[str, Any]) -> nn.Module | None:
    """Check that a model takes arguments of the user's, as far as that is known without data and the hub.

    Args:
        name: as in ``create``.
        given: the user's arguments.
        others: stand-ins for those that the data tell, such as ``num_classes``.

    Returns:
        The model that was made of them, mostly without weights (on the meta device); None if it would have to be
        loaded.

    Raises:
        SeekingError: it rejects them.
    """
    if name.startswith(ELSEWHERE):
        return None
    arguments = {**others, **given}
    arguments.pop("pretrained", None)
    try:
        with warnings.catch_warnings(action="ignore"):
            with contextlib.suppress(Exception), torch.device("meta"):
                return _made(name, arguments)
            return _made(name, arguments)  # Some models cannot be made on meta.
    except SeekingError:
        raise
    except Exception as error:
        raise _rejection(name, given, error) from error


def _made(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    if family := family_of(name):
        return family.make(name, **arguments)
    import timm

    model: nn.Module = timm.create_model(name, **arguments)
    return model


def _rejection(name: str, arguments: Mapping[str, Any], error: Exception) -> SeekingError:
    argument_text = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    told = f"rejects the arguments {argument_text}" if argument_text else "cannot be made"
    kind = "" if isinstance(error, PLAIN) else f"{type(error).__name__}: "
    return SeekingError(f"model {name} {told}: {kind}{error}")


def _loaded(name: str, arguments: dict[str, Any], pretrained: bool) -> nn.Module:
    import timm

    if pretrained:
        check_pretrained(name, arguments)
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **arguments)
    except Exception as error:  # The hub's client raises errors of its own.
        what = "the pretrained weights of " if pretrained else ""
        raise SeekingError(f"{what}{name} cannot be loaded: {type(error).__name__}: {error}") from error
    config = getattr(model, "pretrained_cfg", None) or {}
    of, classes, prefixes = config.get("num_classes"), arguments["num_classes"], config.get("classifier") or ()
    prefixes = (prefixes,) if isinstance(prefixes, str) else tuple(prefixes)
    if pretrained and of != classes:
        replaced = [key for key in tensors(model) if key.startswith(tuple(f"{prefix}." for prefix in prefixes))]
        warn_of_replaced(f"the pretrained weights of {name}", replaced, classes)
    return model


def warn_of_replaced(source: str, names: Collection[str], classes: int) -> None:
    """Tell which tensors start anew, since the weights are for another number of classes."""
    if names:
        warnings.warn(
            f"{source} are for another number of classes than {classes}; the head starts anew: {', '.join(names)}",
            RunWarning,
            stacklevel=3,
        )


def task_of(name: str) -> Task:
    """What data a model is for."""
    family = family_of(name)
    return family.task if family else "images"


def takes_images(name: str) -> bool:
    """Whether a model is neither for text nor for tables."""
    return task_of(name) == "images"


def check_task(name: str, task: Task) -> None:
    """Check that a model is for the data of a task.

    Raises:
        SeekingError: it is for other data.
    """
    if (needed := task_of(name)) == task:
        return
    forms = [form for family in families() if family.task == task for form in family.names]
    fitting = "a model for images" if task == "images" else f"a model such as {' or '.join(forms)}"
    raise SeekingError(
        f"{name} is a model of task {needed}, but the task is {task}; give task {needed} and its data, or {fitting}"
    )


def arguments_for(name: str, num_classes: int, in_chans: int = 3) -> dict[str, int]:
    """Arguments of a model when there are no data that tell them: of these classes, or of bytes if it is for text."""
    family = family_of(name)
    return (family.arguments if family else image_arguments)(num_classes, in_chans)


def example_input(name: str, model: nn.Module, in_chans: int, image_size: int | None = None) -> Tensor:
    """Two random samples as a model takes them: bytes, rows of a table, or images, of the model's own size or of 32."""
    generator = torch.Generator().manual_seed(0)
    family = family_of(name)
    if family and family.example:
        return family.example(in_chans, generator)
    size = image_size or default_image_size(model) or 32
    return torch.randn(2, in_chans, size, size, generator=generator)
