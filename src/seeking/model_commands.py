"""The commands about two models: their map, its proof, and one initialized from the other."""

import contextlib
import functools
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from seeking.checkpointing.run_files import check_of_no_run
from seeking.checkpointing.weights import load_weights, save_weights, shapes_of_weights
from seeking.choices import Model
from seeking.commands import Embed, Extract, Map, TransferOptions, Verify
from seeking.errors import NotContainedError, SeekingError
from seeking.experiments.config import ModelConfig
from seeking.experiments.run import arguments, models, weights_map
from seeking.files import check_new, new_file
from seeking.initialization import embed, extract
from seeking.models import arguments_for, example_input, takes_images
from seeking.models.heads import arguments_of_weights, shapes_of
from seeking.option_types import check_least
from seeking.prefix import find_prefix
from seeking.report.output import print_text
from seeking.verification import verify
from seeking.weights_map import WeightsMap

OF_TORCH = frozenset({".bin", ".ckpt", ".pt", ".pth"})
"""Extensions of files that ``torch.save`` writes; others read them by it."""


def map_command(config: Map) -> int:
    """Run ``seeking map``.

    Raises:
        SeekingError: the models cannot be made, the larger cannot contain the base, or the map cannot be saved.
    """
    if config.save:
        _check_map(config.save)
    both = models(config, arguments_for(config.base, config.num_classes, config.in_chans))
    batch = example_input(config.base, both["base"], config.in_chans)
    derived = _derived(config, both, config.in_chans).without(*config.own)
    derived.check(both["base"], both["motivated"])
    print_text(derived.details() if config.details else derived)
    if find_prefix(both["base"], both["motivated"], derived, batch):
        print_text("prefix pair: one pass can serve both (update joint, one_pass)")
    if config.save:
        with new_file(config.save):
            derived.save(config.save)
        print_text(f"saved to {config.save}")
    return 0


def _check_map(path: Path) -> None:
    """Make sure that a map may be written here."""
    check_of_no_run(path)
    check_new(path, "file")
    if path.exists():
        try:
            WeightsMap.load(path)
        except SeekingError as error:
            raise SeekingError(f"{path} exists and is no weights map; name another file") from error


def _check_map_of(config: Verify, weights_map: WeightsMap, both: Mapping[str, nn.Module]) -> None:
    """Make sure that a map is one of these models.

    Raises:
        NotContainedError: it is not, which is an answer, as a verification that fails is.
        SeekingError: it is one of them with other numbers of classes or channels.
    """
    try:
        weights_map.check(both["base"], both["motivated"])
    except SeekingError as error:
        usual = arguments_for(config.motivated, config.num_classes, config.in_chans)
        make = functools.partial(arguments(config, usual).make, "motivated")
        told: dict[str, int] = {}
        with contextlib.suppress(SeekingError):
            told = arguments_of_weights(weights_map.motivated, make, usual, str(config.map))
        for argument, number in told.items():
            if number != usual[argument]:
                option = "num_classes" if argument == "num_classes" else "in_chans"
                raise SeekingError(
                    f"{option} is {usual[argument]}, and the map in {config.map} is of models with {number}; give "
                    f"{option} {number}"
                ) from error
        raise NotContainedError(str(error)) from error


def verify_command(config: Verify) -> int:
    """Run ``seeking verify``.

    Raises:
        SeekingError: the models cannot be made, or the map is not theirs.
    """
    check_least("image_size", config.image_size)
    if config.image_size is not None and not takes_images(config.base):
        raise SeekingError(f"image_size is {config.image_size}, but {config.base} takes no images; leave it out")
    both = models(config, arguments_for(config.base, config.num_classes, config.in_chans))
    batch = example_input(config.base, both["base"], config.in_chans, config.image_size)
    try:
        if config.map:
            derived = WeightsMap.load(config.map)
            _check_map_of(config, derived, both)
        else:
            derived = _derived(config, both, config.in_chans)
        verdict = verify(both["base"], both["motivated"], derived, batch, tolerance=config.tolerance)
    except NotContainedError as error:
        print_text(f"{config.base} in {config.motivated}: {error}")
        print_text("the base is NOT a sub-network of the motivated model")
        return 1
    print_text(f"{config.base} in {config.motivated}, input {list(batch.shape)}: {verdict.reason}")
    if not verdict:
        print_text("the base is NOT a sub-network of the motivated model under this map")
    return 0 if verdict else 1


def extract_command(config: Extract) -> int:
    """Run ``seeking extract``."""
    both, derived = _load_for_transfer(config, "motivated")
    extract(both["motivated"], both["base"], derived)
    with new_file(config.output):
        save_weights(both["base"], config.output)
    print_text(f"{config.base} extracted from {config.motivated}: {config.output}")
    return 0


def embed_command(config: Embed) -> int:
    """Run ``seeking embed``."""
    both, derived = _load_for_transfer(config, "base")
    embed(both["base"], both["motivated"], derived, extra=config.extra)
    with new_file(config.output):
        save_weights(both["motivated"], config.output)
    print_text(f"{config.motivated} initialized from {config.base}, extra capacity {config.extra}: {config.output}")
    return 0


def _load_for_transfer(config: TransferOptions, source: Model) -> tuple[dict[str, nn.Module], WeightsMap]:
    check_of_no_run(config.output)
    check_new(config.output, "file")
    if config.output.suffix.lower() in OF_TORCH:
        named = config.output.with_suffix(".safetensors")
        raise SeekingError(
            f"{config.output}: called as a file of torch.save, but it will be safetensors; name it {named}"
        )
    if config.output.exists() and not config.overwrite:
        raise SeekingError(f"{config.output} exists; name another file, or give --overwrite")
    common = _common_arguments(config, source)
    both = models(config, common, config.seed)
    _check_source(config, source, both)
    load_weights(both[source], config.weights)
    channels = common.get("in_features", common.get("in_chans", 0))
    return both, WeightsMap.load(config.map) if config.map else _derived(config, both, channels)


def _check_source(config: TransferOptions, source: Model, both: Mapping[str, nn.Module]) -> None:
    """Refuse weights of the model that is to get them."""
    given, shapes = shapes_of_weights(config.weights), {model: shapes_of(module) for model, module in both.items()}
    target: Model = "base" if source == "motivated" else "motivated"
    if given == shapes[target] != shapes[source]:
        command, other = ("extract", "embed") if source == "motivated" else ("embed", "extract")
        raise SeekingError(
            f"{config.weights}: weights of the {target} model ({getattr(config, target)}), but seeking {command} takes "
            f"those of the {source} model; seeking {other} goes the other way"
        )


def _common_arguments(config: TransferOptions, source: Model) -> dict[str, int]:
    """The arguments of both models: what is given, or what the weights tell."""
    classes, channels = config.num_classes, config.in_chans
    usual = arguments_for(config.base, 10 if classes is None else classes, 3 if channels is None else channels)
    given = {"num_classes": classes, "in_chans": channels, "in_features": channels}
    open_ones = {name: value for name, value in usual.items() if given.get(name) is None}
    if not open_ones:
        return usual
    make = functools.partial(arguments(config, usual).make, source)
    return usual | arguments_of_weights(shapes_of_weights(config.weights), make, open_ones, str(config.weights))


def _derived(config: ModelConfig, both: Mapping[str, nn.Module], channels: int) -> WeightsMap:
    """The map of both models; for images, on an input that the matching chooses."""
    batch = None if takes_images(config.base) else example_input(config.base, both["base"], channels)
    return weights_map(config, both["base"], both["motivated"], batch)
