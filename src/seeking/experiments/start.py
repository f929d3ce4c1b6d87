"""The weights that a run starts from: timm's pretrained ones, or a file's."""

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seeking.checkpointing import run_files
from seeking.checkpointing.weights import load_weights, shapes_of_weights
from seeking.choices import MODELS, Extra, Model
from seeking.data.folders import shown
from seeking.data.table_columns import Category, Preparation
from seeking.errors import RunWarning, SeekingError
from seeking.files import read_json, user_path
from seeking.initialization import embed, extract
from seeking.models import check_pretrained, create
from seeking.models.heads import growing, shapes_of
from seeking.weights_map import WeightsMap, has_nan, tensors

PRETRAINED = "pretrained"


@dataclasses.dataclass(frozen=True)
class ModelArguments:
    """How both models are made; each value is by model.

    Attributes:
        names: of the models.
        arguments: of ``models.create``.
    """

    names: Mapping[Model, str]
    arguments: Mapping[Model, Mapping[str, Any]]

    def make(self, model: Model, **changes: Any) -> nn.Module:
        """Make one of them, with changes to its arguments."""
        return create(self.names[model], **{**self.arguments[model], **changes})


def sources(start_from: tuple[str, ...], pretrained: bool, plan: ModelArguments) -> dict[Model, str]:
    """What each model starts from: ``pretrained``, or the path of a file; models that start anew are left out.

    Args:
        start_from: ``base`` or ``motivated`` for that model's pretrained weights; ``base=FILE``, ``motivated=FILE``, or
            a ``FILE`` that is only one model's.
        pretrained: whether the models start from pretrained weights if none is named.
        plan: the models.

    Raises:
        SeekingError: they contradict each other.
    """
    origins: dict[Model, str] = {}

    def add(model: Model, source: str) -> None:
        if origins.setdefault(model, source) != source:
            raise SeekingError(
                f"start_from: the {model} model starts from {origins[model]} and from {source}; give one"
            )

    for named, source in _read(start_from):
        add(named or _model_of(source, plan), source)
    for model in MODELS:
        if plan.arguments[model].get("pretrained"):
            add(model, PRETRAINED)
    if pretrained and PRETRAINED not in origins.values():
        if origins:
            raise SeekingError(
                f"pretrained: the {', '.join(origins)} model starts from a file; name the one that starts from "
                "pretrained weights as well in start_from, or leave pretrained out"
            )
        origins = dict.fromkeys(MODELS, PRETRAINED)
    return origins


def check_start(
    start_from: tuple[str, ...], pretrained: bool, plan: ModelArguments, chosen: Model | None, extra: str
) -> None:
    """Check what can be checked before data are loaded: that files can be read and the options do not contradict.

    Which model a ``FILE`` alone belongs to is not known before the number of classes is. Two are of both models, or
    refused in any case.

    Raises:
        SeekingError: a file cannot be read, a model has no pretrained weights, or as ``sources`` and ``shared_from``.
    """
    given = _read(start_from)
    for model, source in given:
        if model is None or source != PRETRAINED:
            shapes_of_weights(source)
    if any(model is None for model, _ in given):
        if chosen is None and len({source for _, source in given}) > 1:
            raise _undecided(", ".join(source for _, source in given))
        return
    origins = sources(start_from, pretrained, plan)
    shared_from(origins, chosen, extra)
    for model, source in origins.items():
        if source == PRETRAINED:
            check_pretrained(plan.names[model], plan.arguments[model])


def shared_from(origins: Mapping[Model, str], chosen: Model | None, extra: str) -> Model | None:
    """Whose weights the shared part gets; None if both models start anew.

    Raises:
        SeekingError: that would overwrite weights that were asked for, or it was not said.
    """
    if not origins:
        return chosen
    if len(origins) == 2 and chosen is None:
        raise _undecided(f"base: {origins['base']}, motivated: {origins['motivated']}")
    owner = chosen or next(iter(origins))
    if owner not in origins:
        (other,) = origins
        raise SeekingError(
            f"shared_from is {owner}, but only the {other} model starts from weights ({origins[other]}), which new "
            f"ones would overwrite; give shared_from {other}"
        )
    if extra == "neutral" and "motivated" in origins:
        raise SeekingError(
            f"extra is neutral, which would overwrite weights that the motivated model starts from "
            f"({origins['motivated']}); leave extra at own"
        )
    return owner


def _undecided(sources: str) -> SeekingError:
    return SeekingError(
        f"both models start from weights ({sources}), and they share a part; say whose it is: shared_from base or "
        "motivated"
    )


def initial_models(plan: ModelArguments, seed: int, origins: Mapping[Model, str]) -> dict[str, nn.Module]:
    """Both models: what has a source is loaded, all else is initialized from the seed, each model independently.

    A head of other shapes, such as for another number of classes, starts anew; a warning names its tensors.

    Raises:
        SeekingError: weights cannot be loaded, are not of their model, or are not finite.
    """
    models: dict[str, nn.Module] = {}
    for model in MODELS:
        torch.manual_seed(seed)
        source, asked = origins.get(model), bool(plan.arguments[model].get("pretrained"))
        models[model] = plan.make(model, pretrained=source == PRETRAINED or (not origins and asked))
        if source not in (None, PRETRAINED):
            bounds = _not_finite(models[model])
            anew = load_weights(models[model], source, replaceable=_other_head(model, plan, models[model], source))
            for name in sorted(_not_finite(models[model]) - bounds):
                holds = "NaN" if has_nan(models[model].state_dict()[name]) else "Inf"
                raise SeekingError(f"{source}: {name} holds {holds}, from which nothing can start; give other weights")
            if anew:
                own, given = shapes_of(models[model]), shapes_of_weights(source)
                differ = [name for name in anew if name in given]  # A file has tied ones under one name.
                told = ", ".join(f"{name} is {list(given[name])}, here {list(own[name])}" for name in differ)
                warnings.warn(
                    f"{source}: of other shapes than the {model} model's, so these start anew: {told}",
                    RunWarning,
                    stacklevel=2,
                )
    return models


def warn_of_other_data(origins: Mapping[Model, str], now: Mapping[str, Any]) -> None:
    """Warn of weights of a run whose summary has other inputs or classes than the data: models go by places alone.

    Args:
        origins: what each model starts from.
        now: how the data are prepared, as ``Preparation.as_dict`` gives it; empty if they are not.
    """
    for path in sorted({*origins.values()} - {PRETRAINED}) if now else ():
        try:
            before = _places(read_json(Path(path).with_name("summary.json"))["preparation"])
        except (SeekingError, KeyError):  # Whatever it is, it does not say what the weights are of.
            continue
        for what, names in _places(now).items():
            if len(names) != len(before[what]):  # The head starts anew, or the weights do not fit.
                continue
            for place, (was, name) in enumerate(zip(before[what], names, strict=True), 1):
                if was != name:
                    warnings.warn(
                        f"start_from: {what} {place} of the weights in {path} is {shown([was], 1)}, but "
                        f"{shown([name], 1)} in the data; unless this is meant, give data with the same columns and "
                        "classes, in the same order",
                        RunWarning,
                        stacklevel=3,
                    )
                    break


def _places(preparation: Mapping[str, Any]) -> dict[str, list[str]]:
    """What each input and each output of a model is, by name.

    Raises:
        SeekingError: it is not a preparation of a table.
    """
    learnt, inputs = Preparation.from_dict(preparation), []
    for column in learnt.columns:
        names = [f"{column.name} {value}" for value in column.values] if isinstance(column, Category) else [column.name]
        inputs += [*names, f"{column.name} missing"] if column.missing else names
    return {"input": inputs, "class": [*learnt.classes]}


def share_weights(models: Mapping[str, nn.Module], weights_map: WeightsMap, owner: Model, extra: Extra) -> None:
    """Give both models the weights that they start with in a pair, to train one of them alone."""
    if owner == "motivated":
        extract(models["motivated"], models["base"], weights_map)
    else:
        embed(models["base"], models["motivated"], weights_map, extra=extra)


def check_given_again(run: Path) -> None:
    """Refuse to begin a run anew that was to start from weights which have not been given again.

    Raises:
        SeekingError: it was.
    """
    options = run_files.read_options(run)
    if options.get("start_from") or options.get("pretrained"):
        raise SeekingError(
            f"{run}: the run was to start from weights and has no checkpoint yet; give start_from and pretrained again"
        )


def _read(start_from: tuple[str, ...]) -> list[tuple[Model | None, str]]:
    """Each source with the model that it is named for; None for a ``FILE`` alone.

    Raises:
        SeekingError: one names no file.
    """
    given: list[tuple[Model | None, str]] = []
    for text in start_from:
        name, equals, path = text.partition("=")
        model = next((model for model in MODELS if model == name), None)
        if not (path if equals else name).strip():
            raise SeekingError(f"start_from is {text!r}, which names no file; give base=FILE, motivated=FILE or FILE")
        if model:
            given.append((model, str(user_path(path)) if equals else PRETRAINED))
        else:
            given.append((None, str(user_path(text))))
    return given


def _not_finite(module: nn.Module) -> set[str]:
    """The tensors with NaN or Inf; of a new model, those that hold bounds, such as a mask."""
    return {name for name, tensor in tensors(module).items() if not tensor.isfinite().all()}


def _other_head(model: Model, plan: ModelArguments, module: nn.Module, path: str) -> list[str]:
    """The tensors of a model's head, if the weights in a file are of such a model, but of other shapes."""
    own, given = shapes_of(module), shapes_of_weights(path)
    of_such_a_model = own.keys() >= given.keys() >= {name for name, _ in module.named_parameters()}
    if not of_such_a_model or all(own[name] == shape for name, shape in given.items()):
        return []
    classes = plan.arguments[model]["num_classes"]
    return [*growing(own, shapes_of(plan.make(model, num_classes=classes + 1, pretrained=False)), classes)]


def _model_of(path: str, plan: ModelArguments) -> Model:
    """The model that the weights in a file are of.

    Raises:
        SeekingError: they are of neither, or may be of both.
    """
    shapes_of_weights(path)  # Whether it can be read at all.
    fits = [model for model in MODELS if _fits(model, path, plan)]
    if len(fits) == 1:
        return fits[0]
    named = f"base={path} or motivated={path}"
    told = f"both models; say whose they are: {named}" if fits else f"neither model; {named} tells what does not fit"
    raise SeekingError(f"start_from: the weights in {path} fit {told}")


def _fits(model: Model, path: str, plan: ModelArguments) -> bool:
    try:
        module = plan.make(model, pretrained=False)
        load_weights(module, path, replaceable=_other_head(model, plan, module, path))
    except SeekingError:
        return False
    return True
