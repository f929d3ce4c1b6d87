"""Models by name: the CIFAR ResNets, which no library has, and all of timm's."""

from typing import Any

from torch import nn

from seeking.errors import SeekingError, unknown
from seeking.matching.example_inputs import image_size as made_for
from seeking.models.resnet import ResNet

RESNETS = {f"resnet{depth}": depth for depth in (8, 14, 20, 32, 44, 56, 110)}


def create(name: str, *, num_classes: int, in_chans: int = 3, **kwargs: Any) -> nn.Module:
    """Make a model with fresh weights.

    Args:
        name: ``resnet8``, ``resnet14``, ``resnet20``, ``resnet32``, ``resnet44``, ``resnet56`` or ``resnet110``
            (for small images), else any of timm's names.
        num_classes: length of the output.
        in_chans: channels of the input images.
        kwargs: for the model's own constructor, such as ``img_size``, ``patch_size`` or ``width``.

    Raises:
        SeekingError: no such model, or it refuses the arguments.
    """
    import timm

    if name not in RESNETS and not timm.is_model(name):
        raise unknown("model", name, [*RESNETS, *timm.list_models()])
    arguments = {"num_classes": num_classes, "in_chans": in_chans, **kwargs}
    try:
        if name in RESNETS:
            return ResNet(RESNETS[name], **arguments)
        model: nn.Module = timm.create_model(name, **arguments)
        return model
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise SeekingError(f"model {name} refuses the arguments {given}: {error}") from error


def input_shape(model: nn.Module, image_size: int | None = None, in_chans: int = 3) -> tuple[int, int, int]:
    """Shape of one input image: of the size asked for, else the one that the model was made for, else 32."""
    size = image_size or made_for(model) or 32
    return in_chans, size, size
