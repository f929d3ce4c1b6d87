"""Recipes: which runs make an experiment, read from a small file."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

import tyro

from seeking.errors import SeekingError, unknown
from seeking.experiments.run import RunConfig
from seeking.files import read_yaml
from seeking.options import flags, registry

Method = Literal["motivated", "ordinary", "sandwich", "growth", "distillation"]
Kind = Literal["pair", "base", "motivated", "sandwich", "grown", "distilled"]

KNOBS = {
    "method": "motivated",
    "share": 0.5,
    "weight": 0.9,
    "temperature": 4.0,
    "rate": 1 / 6,
    "each": {},
}
"""What an arm may say beside the options of a run: its method; for growth and distillation, the share of the FLOPs that
goes into the base; the weight and temperature of distillation; the share of motivated batches that is expected; and
options for each kind of its runs."""

PRETRAINING = "pretraining/"
"""Folder of the runs that go before all arms."""


@dataclass(frozen=True)
class Run:
    """One training run of an experiment.

    Attributes:
        folder: below the experiment's.
        kind: what is trained, and how.
        config: its options.
        after: folder of the run whose weights it begins from, or learns from.
        knobs: of the method.
    """

    folder: str
    kind: Kind
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
        own = {**self.arms[arm], **more}
        knobs = {key: own.pop(key, default) for key, default in KNOBS.items()}
        config = self.config(pair, **own, seed=seed)
        named = re.sub(r"\W+", "-", arm).strip("-") + (f"-{budget:g}" if budget else "")
        first = None
        if self.pretraining:
            before = self.config(pair, **self.pretraining, seed=seed)
            first = Run(f"{PRETRAINING}{pair[0]}-{pair[1]}/seed{seed}", "pair", before, None, KNOBS)
        begin = first.folder if first else None
        # A model alone is the same run, whatever pair it is compared with, unless that decides how it is trained.
        of_pair = bool(budget or first or self.of_pairs.get("-".join(pair)))

        def run(kind: Kind, after: str | None = begin) -> Run:
            its, name = replace(config, **knobs["each"].get(kind, {})), f"{pair[0]}-{pair[1]}"
            name += "" if kind in ("pair", "sandwich") else f"-{kind}"
            if kind == "base":
                its = replace(its, motivated=pair[0], motivated_kwargs=config.base_kwargs)
                name = name if of_pair else pair[0]
            elif kind == "motivated":
                its = replace(its, base=pair[1], base_kwargs=config.motivated_kwargs)
                name = name if of_pair else pair[1]
            return Run(f"{under}/{named}/{name}/seed{seed}", kind, its, after, knobs)

        # FLOPs of an epoch of each kind of run, those of the larger model alone being 1. A teacher's forward pass is a
        # third of its step.
        small, share = 1 / ratio, knobs["share"]
        runs: tuple[Run, ...]
        costs: tuple[float, ...]
        parts: tuple[float, ...] = (1.0,)
        match knobs["method"]:
            case "motivated":
                runs, costs = (run("pair"),), (small + knobs["rate"],)
            case "sandwich":
                runs, costs = (run("sandwich"),), (small + 1,)
            case "ordinary":
                runs, costs = (run("base"), run("motivated")), (small, 1.0)
                parts = small / (1 + small), 1 / (1 + small)
            case "growth":
                base = run("base")
                runs, costs, parts = (base, run("grown", base.folder)), (small, 1.0), (share, 1 - share)
            case "distillation":
                teacher = run("motivated")
                student = run("distilled", teacher.folder)
                runs, costs, parts = (student, teacher), (small + 1 / 3, 1.0), (share, 1 - share)
            case other:
                raise unknown(f"method of {arm} in recipe {self.name}", str(other), get_args(Method))
        if budget:
            wanted = [budget * part / cost for part, cost in zip(parts, costs, strict=True)]
            epochs = _rounded(wanted, costs, budget)
            runs = tuple(
                replace(one, config=replace(one.config, epochs=n)) for one, n in zip(runs, epochs, strict=True)
            )
        by_model = {"base": (runs[0], "base"), "motivated": (runs[-1], "motivated" if len(runs) == 1 else "base")}
        ordered = sorted(runs, key=lambda one: one.after is not None and one.after != begin)
        return Trial(arm, pair, budget, seed, (*([first] if first else []), *ordered), by_model)


def _rounded(wanted: Sequence[float], costs: Sequence[float], budget: float) -> tuple[int, ...]:
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
    fixed = {*KNOBS, "base", "motivated", "seed", *itertools.chain(*recipe.search.values())}
    fixed |= {"epochs"} if recipe.budgets else set()
    if lost := sorted(fixed & changes.keys()):
        raise SeekingError(f"recipe {recipe.name} decides {', '.join(lost)} itself; copy it to a file to change that")
    if recipe.pretraining and any(recipe.search.values()):
        raise SeekingError(f"{path}: pretraining and search do not go together")
    for arm, pair in itertools.product(recipe.arms, recipe.pairs):
        if recipe.pretraining and recipe.arms[arm].get("method") in ("growth", "distillation"):
            raise SeekingError(f"{path}: {arm}: growth and distillation do not go with pretraining")
        own = {option for each in recipe.arms[arm].get("each", {}).values() for option in each}
        if twice := sorted(own & recipe.search[arm].keys()):
            raise SeekingError(f"{path}: {arm}: {', '.join(twice)} is both given by each and searched; remove one")
        for options in recipe.candidates(arm):
            recipe.trial(arm, pair, 10.0 if recipe.budgets else None, 0, 2.0, **options)
