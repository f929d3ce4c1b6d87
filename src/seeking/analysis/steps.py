"""How far does one step of each model move the base's held-out loss?"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from seeking.training.learner import SCHEDULED
from seeking.training.run import Run

State = Mapping[str, Any]


def put_back(run: Run, parts: State) -> None:
    """Give the models of a run the weights, the optimizer state and the learning rate of a checkpoint.

    Args:
        run: the run. A pair that was separated cannot be joined again, so begin with its oldest checkpoint.
        parts: the states of the parts of the checkpoint, by name.
    """
    if "pair" in parts:
        run.pair.load_state_dict(parts["pair"])
    for name, learner in run.learners.items():
        learner.roll_back(parts[name])
        for group, saved in zip(learner.optimizer.param_groups, parts[name]["optimizer"]["param_groups"], strict=True):
            group.update({key: saved[key] for key in SCHEDULED if key in saved})


def changes_by_a_step(
    run: Run, parts: State, batches: Sequence[Any], measure: Callable[[], float]
) -> dict[str, list[float]]:
    """By how much one step changes a measure, for each model and batch, each time from the same checkpoint.

    Args:
        run: the run; at the checkpoint again afterwards.
        parts: the states of the parts of the checkpoint, by name.
        batches: the batches to step on.
        measure: the base's held-out loss, or another number.
    """
    put_back(run, parts)
    before = measure()
    changes: dict[str, list[float]] = {name: [] for name in run.learners}
    for batch in batches:
        for name, learner in run.learners.items():
            put_back(run, parts)
            with run.synced(name):
                run.step(learner, [batch])
            changes[name].append(measure() - before)
    put_back(run, parts)
    return changes
