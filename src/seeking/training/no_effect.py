"""Warnings of options that do nothing for a pair, or not what is meant, by the others or by who steps when."""

import warnings

from seeking.conditions import Condition
from seeking.conditions.forecast import Forecast
from seeking.errors import RunWarning
from seeking.training.config import TrainConfig
from seeking.training.needs import Given
from seeking.training.progress import Progress


def warn_of_no_effect(
    config: TrainConfig, base: Condition, motivated: Condition, given: Given, progress: Progress
) -> None:
    """Warn of options that have been changed and have no effect.

    Args:
        config: options.
        base: decides when the base steps. Both are left as they are.
        motivated: decides when the motivated model steps.
        given: what the run has for them.
        progress: of the run, for its length.
    """
    _warn_of_options(config)
    _warn_of_held_out(base, motivated, given)
    of_base = Forecast(base)
    _warn_of_schedules(config, of_base, Forecast(motivated), Forecast(base & motivated), progress)
    _warn_of_early_finish(config, of_base, progress)


def _warn_of_options(config: TrainConfig) -> None:
    serving = {
        "finish_at": ("finish to private", config.finish == "private"),
        "student": ("teach to a weight", config.teach > 0),
        "base_weight": ("update to joint", config.update == "joint"),
        "rewarm_share": ("rewarm to a factor", config.rewarm is not None),
        "recalibration_batches": ("norm to recalibrated", config.norm == "recalibrated"),
        "decay": ("schedule to wsd", config.schedule == "wsd"),
    }
    defaults = TrainConfig()
    for name, (other, on) in serving.items():
        value = getattr(config, name)
        if value not in (getattr(defaults, name), None) and not on:
            _warn(f"{name} is {value}", f"; set {other}")


def _warn_of_held_out(base: Condition, motivated: Condition, given: Given) -> None:
    """Warn of training data that are held out for conditions, if neither measures the loss on them."""
    if given.held_out and not (base.needs_held_out or motivated.needs_held_out):
        _warn(
            "held_out sets training data aside", f": neither condition ({base}; {motivated}) measures the loss on them"
        )


def _warn_of_schedules(
    config: TrainConfig, of_base: Forecast, of_motivated: Forecast, of_both: Forecast, progress: Progress
) -> None:
    """Warn of options for batches on which both models step, if there are none by the schedules of both."""
    base, motivated = of_base.condition, of_motivated.condition
    never = f": base_condition {base} and condition {motivated} never hold on the same batch"
    if config.teach and _steps(of_both, progress) == 0:
        _warn(f"teach is {config.teach}", never)
    if config.update != "joint":
        return
    own = "from which on each model has weights of its own"
    finish, later = None, f" before finish_at {config.finish_at}, {own}"
    if config.finish == "private" and config.finish_at is not None:
        finish = round(config.finish_at * progress.steps)
    if _steps(of_both, progress) == 0:
        _warn("update is joint", never)
    elif config.finish == "private" and finish is None:
        _warn("update is joint", f": a private finish with finish_at None begins with the base's first step, {own}")
    elif _steps(of_base, progress) and _steps(of_base, progress, finish) == 0:
        _warn("update is joint", f": by base_condition {base}, the base takes no step{later}")
    elif _steps(of_motivated, progress) and _steps(of_motivated, progress, finish) == 0:
        _warn("update is joint", f": by condition {motivated}, the motivated model takes no step{later}")
    elif _steps(of_both, progress, finish) == 0:
        _warn("update is joint", f"{never}{later}")


def _warn_of_early_finish(config: TrainConfig, of_base: Forecast, progress: Progress) -> None:
    """Warn of a base that gets weights of its own well before its first step: it starts from old ones."""
    if config.finish == "tied" or config.finish_at is None:
        return
    finish = round(config.finish_at * progress.steps)
    if _steps(of_base, progress) and _steps(of_base, progress, finish + max(1, progress.steps // 20)) == 0:
        warnings.warn(
            f"by base_condition {of_base.condition}, the base takes its first step later than finish_at "
            f"{config.finish_at}: it starts from what it shared there, not from what the motivated model has learnt "
            "since; set finish_at to where the base starts, or to None, which stands for its first step",
            RunWarning,
            stacklevel=5,
        )


def _steps(forecast: Forecast, progress: Progress, before: int | None = None) -> int | None:
    """On how many of the run's batches, or of those before this one, a condition holds; None if it is no schedule."""
    length = progress.steps, progress.epoch_length
    end = progress.steps if before is None else min(before, progress.steps)
    steps, later = (forecast.left(step - 1, *length) for step in (0, end))
    return None if steps is None or later is None else steps - later


def _warn(option: str, why: str) -> None:
    warnings.warn(f"{option}, which has no effect{why}", RunWarning, stacklevel=6)
