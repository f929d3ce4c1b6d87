"""Recipes: which runs make an experiment, read from a small file."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import tyro

from seeking.errors import SeekingError, unknown
from seeking.experiments.methods import Method, Stage, methods
from seeking.experiments.run import RunConfig
from seeking.files import read_yaml
from seeking.options import flags, registry

DEFAULT_METHOD = "motivated"
PRETRAINING = "pretraining/"
"""Folder of the runs that go before all arms."""


@dataclass(frozen=True)
class Run:
    """One training run of an experiment.

    Attributes:
        folder: below the experiment's.
        method: name of the method that it belongs to.
        stage: of the method.
        config: its options.
        after: folder of the run whose weights it begins from, or learns from.
        knobs: of the method.
    """

    folder: str
    method: str
    stage: Stage
    config: RunConfig
    after: str | None
    knobs: Mapping[str, Any]


@dataclass(frozen=True)
class Trial:
    """One arm with one seed: its runs, and which of them gives which model.

    Attributes:
        arm: its name.
        pair: names of the two models.
        budget: of FLOPs, in epochs of the larger model alone; None where the arm has a number of epochs.
        runs: in the order in which they depend on each other.
        models: for ``base`` and ``motivated``, the run and the name of the model in it.
    """

    arm: str
    pair: tuple[str, str]
    budget: float | None
    seed: int
    runs: tuple[Run, ...]
    models: Mapping[str, tuple[Run, str]]


@dataclass(frozen=True)
class Recipe:
    """An experiment at one scale.

    Attributes:
        name: of the recipe.
        title: in words.
        scale: its name.
        classes: that the data must have; any number if None.
        pairs: names of two models each.
        options: of every run.
        of_pairs: options of the runs of each pair.
        arms: for each arm its knobs and options of its own.
        reference: the arm that the others are compared with.
        seeds: that a trustworthy answer takes.
        budgets: of FLOPs, in epochs of the larger model alone; none where the options say how many epochs.
        search: for each arm, the values of options and knobs that are tried on held-out training images, with a seed
            of their own, before the arms are run.
        pretraining: options of a run of the pair whose weights all others begin from; none if empty.
        jobs: runs at a time, where one for each core, or a few on an accelerator, are too many.
    """

    name: str
    title: str
    scale: str
    classes: int | None
    pairs: tuple[tuple[str, str], ...]
    options: Mapping[str, Any]
    of_pairs: Mapping[str, Mapping[str, Any]]
    arms: Mapping[str, Mapping[str, Any]]
    reference: str
    seeds: int
    budgets: tuple[float, ...]
    search: Mapping[str, Mapping[str, Sequence[Any]]]
    pretraining: Mapping[str, Any]
    jobs: int | None

    def config(self, pair: tuple[str, str], **options: Any) -> RunConfig:
        """The options of a run.

        Raises:
            SeekingError: there is no such option.
            SystemExit: it has another type, which has been said.
        """
        own = self.of_pairs.get("-".join(pair), {})
        given = {**self.options, **own, "base": pair[0], "motivated": pair[1], **options}
        there = flags(given, Path(f"recipe {self.name}"), RunConfig)
        return tyro.cli(RunConfig, args=there, prog="seeking reproduce", registry=registry)

    def candidates(self, arm: str) -> list[dict[str, Any]]:
        """What the search tries for an arm."""
        space = self.search[arm]
        return [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]

    def trials(self, seeds: Sequence[int], ratios: Mapping[tuple[str, str], float]) -> Iterator[Trial]:
        """Every arm with every seed, in the order that gives an answer soonest.

        Args:
            seeds: of the trials.
            ratios: for each pair, the larger model's FLOPs over the smaller one's.
        """
        for seed in seeds:
            for pair in self.pairs:
                for budget in self.budgets or (None,):
                    for arm in self.arms:
                        yield self.trial(arm, pair, budget, seed, ratios[pair])

    def trial(
        self,
        arm: str,
        pair: tuple[str, str],
        budget: float | None,
        seed: int,
        ratio: float,
        under: str = "arms",
        **more: Any,
    ) -> Trial:
        """One arm with one seed, in folders under this one, with more options if they are given."""
        options = {**self.arms[arm], **more}
        method = self.method(arm)
        options.pop("method", None)
        each = options.pop("each", {})
        knobs = {knob: options.pop(knob, default) for knob, default in method.knobs.items()}
        config = self.config(pair, **options, seed=seed)
        arm_folder = re.sub(r"\W+", "-", arm).strip("-") + (f"-{budget:g}" if budget else "")
        first = self._pretraining_run(pair, seed)
        # A model alone is the same run, whatever pair it is compared with, unless that decides how it is trained.
        of_pair = bool(budget or first or self.of_pairs.get("-".join(pair)))
        stages = method.stages(1 / ratio, knobs)
        epochs: Sequence[int] = [config.epochs] * len(stages)
        if budget:
            costs = [stage.cost for stage in stages]
            epochs = _rounded([budget * stage.share / stage.cost for stage in stages], costs, budget)
        runs: dict[str, Run] = {}
        for stage, count in sorted(zip(stages, epochs, strict=True), key=lambda planned: planned[0].after is not None):
            own = replace(config, **each.get(stage.name, {}))
            if budget:
                own = replace(own, epochs=count)
            name = f"{pair[0]}-{pair[1]}" + ("" if stage.role == "pair" else f"-{stage.name}")
            if stage.name == "base":
                own = replace(own, motivated=pair[0], motivated_kwargs=config.base_kwargs)
                name = name if of_pair else pair[0]
            elif stage.name == "motivated":
                own = replace(own, base=pair[1], base_kwargs=config.motivated_kwargs)
                name = name if of_pair else pair[1]
            after = runs[stage.after].folder if stage.after else first.folder if first else None
            folder = f"{under}/{arm_folder}/{name}/seed{seed}"
            runs[stage.name] = Run(folder, method.name, stage, own, after, knobs)
        models = {model: (runs[stage.name], model) for stage in stages for model in stage.gives}
        return Trial(arm, pair, budget, seed, (*([first] if first else []), *runs.values()), models)

    def method(self, arm: str) -> Method:
        """How an arm trains.

        Raises:
            SeekingError: there is no such method.
        """
        name = str(self.arms[arm].get("method", DEFAULT_METHOD))
        if name not in methods():
            raise unknown(f"method of {arm} in recipe {self.name}", name, methods())
        return methods()[name]

    def _pretraining_run(self, pair: tuple[str, str], seed: int) -> Run | None:
        if not self.pretraining:
            return None
        method = methods()[DEFAULT_METHOD]
        (stage,) = method.stages(1.0, method.knobs)
        config = self.config(pair, **self.pretraining, seed=seed)
        return Run(f"{PRETRAINING}{pair[0]}-{pair[1]}/seed{seed}", method.name, stage, config, None, method.knobs)


def _rounded(wanted: Sequence[float], costs: Sequence[float], budget: float) -> Sequence[int]:
    """Whole numbers of epochs next to those wanted, that together cost as nearly as can be the budget."""
    choices = itertools.product(
        *({max(1, math.ceil(one) - 1), max(1, math.floor(one)), math.floor(one) + 1} for one in wanted)
    )

    def off(choice: Sequence[int]) -> tuple[float, float]:
        spent = sum(n * cost for n, cost in zip(choice, costs, strict=True))
        return abs(spent - budget), sum(abs(n - one) for n, one in zip(choice, wanted, strict=True))

    return min(choices, key=off)


def names() -> list[str]:
    """The recipes that there are."""
    return sorted(one.name.removesuffix(".yaml") for one in files("seeking.experiments").joinpath("recipes").iterdir())


def read(name: str, scale: str, changes: Mapping[str, Any], source: str | None = None) -> Recipe:
    """Read a recipe.

    Args:
        name: of one that comes with the library, or the path of a YAML file.
        scale: that it is to be run at.
        changes: options of every run that are to be others.
        source: data of the training that goes before, if they are to be others.

    Raises:
        SeekingError: there is no such recipe or scale, or the file says something else than recipes do.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if name not in names():
            raise unknown("recipe", name, names())
        path = Path(str(files("seeking.experiments").joinpath("recipes", f"{name}.yaml")))
    content = read_yaml(path)
    scales = content.pop("scales", {})
    if not isinstance(scales, Mapping) or scale not in scales:
        raise unknown(f"scale of recipe {name}", scale, scales if isinstance(scales, Mapping) else ())
    at = scales[scale]
    if not isinstance(at, Mapping):
        raise SeekingError(f"{path}: scale {scale} is {at!r}; it must be a mapping")
    allowed = {*Recipe.__dataclass_fields__, "without"} - {"name", "scale", "of_pairs"}
    for key in (*content, *at):
        if key not in allowed:
            raise unknown(f"key in {path}", str(key), allowed)
    both = {**content, **at}
    from_source = {"data": source} if source else {}
    try:
        arms = {str(arm): dict(own or {}) for arm, own in both["arms"].items() if arm not in both.get("without", ())}
        pairs = [(str(base), str(motivated), dict(*own)) for base, motivated, *own in both["pairs"]]
        recipe = Recipe(
            name=path.stem,
            title=str(both["title"]),
            scale=scale,
            classes=both.get("classes"),
            pairs=tuple((base, motivated) for base, motivated, _ in pairs),
            options={**content.get("options", {}), **at.get("options", {}), **changes},
            of_pairs={f"{base}-{motivated}": own for base, motivated, own in pairs},
            search={arm: {**both.get("search", {}), **own.pop("search", {})} for arm, own in arms.items()},
            arms=arms,
            reference=str(both["reference"]),
            seeds=int(both.get("seeds", 3)),
            budgets=tuple(float(budget) for budget in both.get("budgets", ())),
            pretraining={**content.get("pretraining", {}), **at.get("pretraining", {})} | from_source,
            jobs=both.get("jobs"),
        )
        # What can be refused is refused before anything is run.
        _check(recipe, path, changes)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SeekingError(f"{path}: not a recipe ({type(error).__name__}: {error})") from error
    return recipe


def _check(recipe: Recipe, path: Path, changes: Mapping[str, Any]) -> None:
    if recipe.reference not in recipe.arms:
        raise unknown(f"reference in {path}", recipe.reference, recipe.arms)
    knobs = itertools.chain(*(method.knobs for method in methods().values()))
    fixed = {"method", "each", *knobs, "base", "motivated", "seed", *itertools.chain(*recipe.search.values())}
    fixed |= {"epochs"} if recipe.budgets else set()
    if lost := sorted(fixed & changes.keys()):
        raise SeekingError(f"recipe {recipe.name} decides {', '.join(lost)} itself; copy it to a file to change that")
    if recipe.pretraining and any(recipe.search.values()):
        raise SeekingError(f"{path}: pretraining and search do not go together")
    for arm, pair in itertools.product(recipe.arms, recipe.pairs):
        method = recipe.method(arm)
        if recipe.pretraining and any(stage.after for stage in method.stages(0.5, method.knobs)):
            raise SeekingError(f"{path}: {arm}: {method.name} does not go with pretraining; its runs begin from others")
        own = {option for each in recipe.arms[arm].get("each", {}).values() for option in each}
        if twice := sorted(own & recipe.search[arm].keys()):
            raise SeekingError(f"{path}: {arm}: {', '.join(twice)} is both given by each and searched; remove one")
        for options in recipe.candidates(arm):
            recipe.trial(arm, pair, 10.0 if recipe.budgets else None, 0, 2.0, **options)
