"""Recipes: YAML files that describe the runs of an experiment."""

import functools
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from seeking.errors import SeekingError, naming, unknown
from seeking.experiments.config import RunConfig
from seeking.experiments.methods import Method, Stage, methods
from seeking.files import read_yaml
from seeking.option_parsing import parse_options
from seeking.options import flags, normalized, recipe_file, recipe_options

DEFAULT_METHOD = "motivated"
RECIPES = Path(__file__).parent / "recipes"
"""Folder of the library's recipes of experiments."""

NEEDED = ("title", "reference", "arms", "pairs")
"""Keys without which a file is no recipe."""

SHAPES: Mapping[str, tuple[type, str]] = {
    "arms": (Mapping, "a mapping of names to options"),
    "pairs": (list, "a list of lists of two models, such as [[resnet8, resnet14]]"),
    "without": (list, "a list of names of arms"),
    "seeds": (int, "a whole number"),
    "jobs": (int, "a whole number"),
    "classes": (int, "a whole number"),
    "options": (Mapping, "a mapping of options to values"),
    "pretraining": (Mapping, "a mapping of options to values"),
    "budgets": (list, "a list of numbers above 0"),
    "search": (Mapping, "a mapping of options to lists of values"),
}
"""What the values of these keys are."""

SET_BY_RECIPES = frozenset({"base", "motivated", "seed", "output"})
"""Options that follow from the pair, the seed and the folder of the experiment."""

LENGTHS = frozenset({"epochs", "max_steps"})
"""Options that say how long a run is."""

PRETRAINING = "pretraining/"
"""Folder of the pretraining runs that all arms start from."""


@dataclass(frozen=True)
class Run:
    """One training run of an experiment.

    Attributes:
        folder: run folder, relative to the experiment's folder.
        method: name of the method.
        stage: stage of the method.
        config: options of the run.
        after: folder of the run whose weights this one starts from or learns from.
        settings: settings of the method.
    """

    folder: str
    method: str
    stage: Stage
    config: RunConfig
    after: str | None
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Trial:
    """One arm with one seed: its runs, and the run that yields each model.

    Attributes:
        arm: name of the arm.
        pair: names of the two models.
        budget: FLOPs, in epochs of the larger model alone; None if the options set the number of epochs.
        runs: the runs, each after those it depends on.
        models: for ``base`` and ``motivated``, the run and the model's name in it.
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
        name: name of the recipe.
        title: title for tables and figures.
        scale: name of the scale.
        classes: number of classes that the data must have; any number if None.
        pairs: names of the base and the motivated model of each pair.
        options: options of every run; ``recipe``, here and below, holds the options of a training recipe, which all
            others override.
        of_pairs: additional options for the runs of a pair.
        arms: settings of the method and additional options of each arm.
        reference: the arm that the others are compared with.
        seeds: default number of seeds.
        budgets: FLOPs, in epochs of the larger model alone; empty if the options set the number of epochs.
        search: for each arm, a grid of options and settings. The best is chosen on held-out training data, with a
            seed of its own, before the arms are run.
        pretraining: options of a run of the pair that all others start from; no pretraining if empty.
        jobs: runs in parallel, if the default is too many.
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
            SeekingError: an option does not exist.
            SystemExit: an option has the wrong type; the message has been printed.
        """
        pair_options = self.of_pairs.get("-".join(pair), {})
        merged = self.merged({**pair_options, "base": pair[0], "motivated": pair[1], **options})
        return _parsed(tuple(flags(merged, Path(f"recipe {self.name}"), RunConfig)))

    def merged(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """These options over those of every run, and all of them over the training recipe's.

        Raises:
            SeekingError: an option is given under two names.
        """
        explicit = normalized({**self.options, **options}, Path(f"recipe {self.name}"))
        return {**explicit.pop("recipe", {}), **explicit}

    def candidates(self, arm: str) -> list[dict[str, Any]]:
        """All combinations in an arm's search grid."""
        grid = self.search[arm]
        return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]

    def trials(self, seeds: Sequence[int], ratios: Mapping[tuple[str, str], float]) -> Iterator[Trial]:
        """Every arm with every seed; all arms of a seed come before the next seed.

        Args:
            seeds: the seeds.
            ratios: for each pair, the FLOPs of the larger model over those of the smaller one.
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
        parent: str = "arms",
        **extra_options: Any,
    ) -> Trial:
        """One arm with one seed; its run folders are below ``parent``."""
        options = {**self.arms[arm], **extra_options}
        method = self.method(arm)
        options.pop("method", None)
        of_stages = options.pop("each", {})
        settings = {name: options.pop(name, default) for name, default in method.settings.items()}
        arm_folder = re.sub(r"\W+", "-", arm).strip("-") + (f"-{budget:g}" if budget else "")
        pretraining = self._pretraining_run(pair, seed)
        # Several pairs can share the run of a model alone, unless the pair changes how it is trained; two models of one
        # name differ in their arguments.
        pair_specific = bool(budget or pretraining or self.of_pairs.get("-".join(pair)) or pair[0] == pair[1])
        stages = method.stages(1 / ratio, settings)
        if budget and any(stage.length != 1 for stage in stages):
            raise SeekingError(f"{arm}: length cannot be set where budgets say how long a run is; remove one")
        epochs = _epochs_within(budget, stages) if budget else {}
        runs: dict[str, Run] = {}
        for stage in sorted(stages, key=lambda stage: stage.after is not None):
            config = self.config(pair, **{**options, **of_stages.get(stage.name, {})})
            if stage.length != 1:
                whole = config.max_steps and max(1, round(stage.length * config.max_steps))
                config = replace(config, epochs=max(1, round(stage.length * config.epochs)), max_steps=whole)
            config = replace(config, seed=seed, epochs=epochs.get(stage.name, config.epochs))
            name = "-".join(pair if stage.role == "pair" else (*pair, stage.name))
            if stage.name == "base":
                config = replace(config, motivated=config.base, motivated_kwargs=config.base_kwargs)
                name = name if pair_specific else pair[0]
            elif stage.name == "motivated":
                config = replace(config, base=config.motivated, base_kwargs=config.motivated_kwargs)
                name = name if pair_specific else pair[1]
            previous = runs[stage.after] if stage.after else pretraining
            folder = f"{parent}/{arm_folder}/{name}/seed{seed}"
            runs[stage.name] = Run(folder, method.name, stage, config, previous.folder if previous else None, settings)
        models = {model: (runs[stage.name], model) for stage in stages for model in stage.outputs}
        return Trial(arm, pair, budget, seed, (*([pretraining] if pretraining else []), *runs.values()), models)

    def method(self, arm: str) -> Method:
        """The method of an arm.

        Raises:
            SeekingError: the method does not exist.
        """
        name = str(self.arms[arm].get("method", DEFAULT_METHOD))
        if name not in methods():
            raise unknown(f"method of {arm} in recipe {self.name}", name, methods())
        return methods()[name]

    def _pretraining_run(self, pair: tuple[str, str], seed: int) -> Run | None:
        if not self.pretraining:
            return None
        method = methods()[DEFAULT_METHOD]
        (stage,) = method.stages(1.0, method.settings)
        config = replace(self.config(pair, **self.pretraining), seed=seed)
        return Run(f"{PRETRAINING}{pair[0]}-{pair[1]}/seed{seed}", method.name, stage, config, None, method.settings)


@functools.lru_cache(maxsize=1024)  # Several trials have the same options, and parsing takes tens of milliseconds.
def _parsed(arguments: tuple[str, ...]) -> RunConfig:
    return parse_options(RunConfig, arguments, "seeking train")  # Whose help has these options.


def _epochs_within(budget: float, stages: Sequence[Stage]) -> dict[str, int]:
    """The epochs of each stage, rounded up or down such that their total cost is closest to the budget."""
    exact = [budget * stage.share / stage.cost for stage in stages]
    choices = itertools.product(
        *({max(1, math.ceil(count) - 1), max(1, math.floor(count)), math.floor(count) + 1} for count in exact)
    )

    def distance(choice: Sequence[int]) -> tuple[float, float]:
        spent = sum(count * stage.cost for count, stage in zip(choice, stages, strict=True))
        return abs(spent - budget), sum(abs(count - value) for count, value in zip(choice, exact, strict=True))

    closest = min(choices, key=distance)
    return {stage.name: count for stage, count in zip(stages, closest, strict=True)}


def names() -> list[str]:
    """Names of the built-in recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def read(name: str, scale: str, changes: Mapping[str, Any], source: str | None = None) -> Recipe:
    """Read a recipe.

    Args:
        name: a built-in recipe, or the path of a YAML file.
        scale: the scale to run.
        changes: options that override those of every run.
        source: data set of the pretraining, instead of the recipe's.

    Raises:
        SeekingError: the recipe or the scale does not exist, or the file is not a valid recipe.
    """
    path = recipe_file(name, RECIPES)
    content = _content(path, name, scale)
    if source and not content["pretraining"]:
        raise SeekingError(f"recipe {name} has no pretraining, whose data --source names; leave it out")
    from_source = {"data": source} if source else {}
    try:
        of_arms = {arm: options for arm, options in content["arms"].items() if arm not in content["without"]}
        arms = {str(arm): _resolved(options or {}) for arm, options in of_arms.items()}
        pairs = [(str(base), str(motivated), _resolved(*options)) for base, motivated, *options in content["pairs"]]
        recipe = Recipe(
            name=path.stem,
            title=str(content["title"]),
            scale=scale,
            classes=content.get("classes"),
            pairs=tuple((base, motivated) for base, motivated, _ in pairs),
            options=_resolved({**content["options"], **changes}),
            of_pairs={f"{base}-{motivated}": options for base, motivated, options in pairs},
            search={arm: {**content.get("search", {}), **options.pop("search", {})} for arm, options in arms.items()},
            arms=arms,
            reference=str(content["reference"]),
            seeds=int(content.get("seeds", 3)),
            budgets=tuple(map(float, content["budgets"])),
            pretraining=_resolved({**content["pretraining"], **from_source}),
            jobs=content.get("jobs"),
        )
        # Validate before anything is run.
        _check(recipe, path, changes)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SeekingError(f"{path}: not a recipe ({type(error).__name__}: {error})") from error
    return recipe


def _content(path: Path, name: str, scale: str) -> dict[str, Any]:
    """What a recipe's file has for a scale, whose options are over those at the top.

    Raises:
        SeekingError: the scale does not exist, or a key is missing, unknown or of another form.
    """
    content = read_yaml(path)
    scales = content.pop("scales", None)
    if not isinstance(scales, Mapping) or not scales:
        raise SeekingError(f"{path}: scales is {scales!r}; name at least one, such as `scales: {{{scale}: {{}}}}`")
    if scale not in scales:
        raise unknown(f"scale of recipe {name}", scale, scales)
    of_scale = scales[scale]
    if not isinstance(of_scale, Mapping):
        raise SeekingError(f"{path}: scale {scale} is {of_scale!r}; it must be a mapping")
    allowed = {*Recipe.__dataclass_fields__, "without"} - {"name", "scale", "of_pairs"}
    for key in (*content, *of_scale):
        if key not in allowed:
            raise unknown(f"key in {path}", str(key), allowed)
    merged = {**content, **of_scale}
    if lacking := [key for key in NEEDED if key not in merged]:
        raise SeekingError(f"{path}: a recipe needs {', '.join(lacking)}; add it, at the top or in the scale {scale}")
    for part, (key, (kind, shape)) in itertools.product((content, of_scale), SHAPES.items()):
        if key in part and not isinstance(part[key], kind):
            raise SeekingError(f"{path}: {key} is {part[key]!r}; it must be {shape}")
    arms, pairs = merged["arms"], merged["pairs"]
    budgets, excluded = merged.setdefault("budgets", []), merged.setdefault("without", [])
    if not all(isinstance(budget, int | float) and budget > 0 for budget in budgets):
        raise SeekingError(f"{path}: budgets is {budgets!r}; it must be {SHAPES['budgets'][1]}")
    if not arms:
        raise SeekingError(f"{path}: arms is {arms!r}; name at least one, such as `arms: {{ordinary: {{}}}}`")
    if not pairs or not all(isinstance(pair, list) and len(pair) in (2, 3) for pair in pairs):
        raise SeekingError(f"{path}: pairs is {pairs!r}; it must be {SHAPES['pairs'][1]}")
    for arm in excluded:
        if arm not in arms:
            raise unknown(f"arm in without of {path}", str(arm), arms)
    return merged | {key: {**content.get(key, {}), **of_scale.get(key, {})} for key in ("options", "pretraining")}


def _resolved(options: Mapping[str, Any] = {}) -> dict[str, Any]:
    """These options, with the options of a training recipe in the place of its name, so that they are recorded."""
    resolved = dict(options)
    if (name := resolved.pop("recipe", None)) is not None:
        resolved["recipe"] = recipe_options(name)
    return resolved


def _each(arm: str, options: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The options of one of the runs of an arm, with where they are."""
    return ((f"{arm}: each: {stage}", own) for stage, own in options.get("each", {}).items())


def _check(recipe: Recipe, path: Path, changes: Mapping[str, Any]) -> None:
    if recipe.reference not in recipe.arms:
        raise unknown(f"reference in {path}", recipe.reference, recipe.arms)
    settings = itertools.chain(*(method.settings for method in methods().values()))
    fixed = {"method", "each", *settings, *SET_BY_RECIPES, *itertools.chain(*recipe.search.values())}
    fixed |= LENGTHS if recipe.budgets else set()
    if conflicts := sorted(fixed & changes.keys()):
        raise SeekingError(f"recipe {recipe.name} sets {', '.join(conflicts)} itself; copy it to a file to change that")
    places = [("options", recipe.options), ("pretraining", recipe.pretraining), *recipe.of_pairs.items()]
    places += [item for arm, options in recipe.arms.items() for item in ((arm, options), *_each(arm, options))]
    places += [(f"{arm}: search", grid) for arm, grid in recipe.search.items()]
    for place, options in places:
        if given := sorted(SET_BY_RECIPES & options.keys()):
            raise SeekingError(
                f"{path}: {place}: {', '.join(given)} cannot be set here; models go by pairs, the rest by --seeds and "
                "--output"
            )
        lengths = sorted(LENGTHS & normalized(options, path).keys())
        if lengths and recipe.budgets and place != "pretraining":
            raise SeekingError(
                f"{path}: {place}: {', '.join(lengths)} cannot be set where budgets say how long a run is; remove one"
            )
    if recipe.pretraining and any(recipe.search.values()):
        raise SeekingError(f"{path}: pretraining and search cannot be combined; remove one")
    for arm, pair in itertools.product(recipe.arms, recipe.pairs):
        method = recipe.method(arm)
        of_arm = {name: recipe.arms[arm].get(name, default) for name, default in method.settings.items()}
        with naming(f"{path}: {arm}"):
            stages = {stage.name: stage for stage in method.stages(0.5, of_arm)}
        separate = method.settings.keys() if method.searched_separately else ()
        if unsearchable := sorted(separate & recipe.search[arm].keys()):
            raise SeekingError(f"{path}: {arm}: search: {', '.join(unsearchable)} is the same for both models; set it")
        for name in recipe.arms[arm].get("each", {}):
            if name not in stages:
                raise unknown(f"run of {method.name} in {path}: {arm}: each", str(name), stages)
        for option, values in recipe.search[arm].items():
            if not isinstance(values, list) or not values:
                raise SeekingError(f"{path}: {arm}: search: {option} is {values!r}; it must be a list of values")
        if recipe.pretraining and any(stage.after for stage in stages.values()):
            raise SeekingError(
                f"{path}: {arm}: {method.name} cannot be combined with pretraining; its runs start from each other"
            )
        fixed_options = {option for options in recipe.arms[arm].get("each", {}).values() for option in options}
        if duplicates := sorted(fixed_options & recipe.search[arm].keys()):
            raise SeekingError(f"{path}: {arm}: {', '.join(duplicates)} is both set by each and searched; remove one")
        for options in recipe.candidates(arm):
            recipe.trial(arm, pair, 10.0 if recipe.budgets else None, 0, 2.0, **options)
