"""Models by name: the CIFAR ResNets, and all models of timm."""

from typing import Any

from torch import nn

from seeking.errors import SeekingError, unknown
from seeking.matching.example_inputs import image_size as default_image_size
from seeking.models.resnet import ResNet

RESNETS = {f"resnet{depth}": depth for depth in (8, 14, 20, 32, 44, 56, 110)}


def check_name(name: str) -> None:
    """Check that a model exists.

    Raises:
        SeekingError: it does not.
    """
    import timm

    if name not in RESNETS and not timm.is_model(name):
        raise unknown("model", name, [*RESNETS, *timm.list_models()])


def create(name: str, *, num_classes: int, in_chans: int = 3, **kwargs: Any) -> nn.Module:
    """Create a model with random initial weights.

    Args:
        name: ``resnet8``, ``resnet14``, ``resnet20``, ``resnet32``, ``resnet44``, ``resnet56`` or ``resnet110``
            (for small images), or a model of timm.
        num_classes: number of classes.
        in_chans: number of image channels.
        kwargs: further arguments of the model's constructor, such as ``img_size``, ``patch_size`` or ``width``.

    Raises:
        SeekingError: the model does not exist or rejects the arguments.
    """
    import timm

    check_name(name)
    arguments = {"num_classes": num_classes, "in_chans": in_chans, **kwargs}
    try:
        if name in RESNETS:
            return ResNet(RESNETS[name], **arguments)
        model: nn.Module = timm.create_model(name, **arguments)
        return model
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        argument_text = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise SeekingError(f"model {name} rejects the arguments {argument_text}: {error}") from error


def input_shape(model: nn.Module, image_size: int | None = None, in_chans: int = 3) -> tuple[int, int, int]:
    """Shape of an input image: this size, or the default size of the model, or 32."""
    size = image_size or default_image_size(model) or 32
    return in_chans, size, size
