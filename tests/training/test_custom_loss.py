"""A model learns from the other one's logits by a ``loss_fn`` that returns them, as it does by an objective."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import PLAIN, batches, run, steps, two_models
from torch import Tensor, nn

from seeking import SeekingError, TrainConfig, Trainer
from seeking.training.custom_loss import CustomLoss
from seeking.training.objective import Classification

TAUGHT = dataclasses.replace(PLAIN, epochs=1, condition="always", teach=0.4)


def with_logits(model: nn.Module, batch: Any) -> dict[str, Tensor]:
    logits = model(batch[0])
    return {"loss": F.cross_entropy(logits, batch[1]), "logits": logits}


def as_an_output(model: nn.Module, batch: Any) -> SimpleNamespace:
    return SimpleNamespace(**with_logits(model, batch))


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("options", [{}, {"update": "joint"}, {"student": "motivated"}, {"accumulate": 2}], ids=str)
def test_a_loss_fn_with_logits_teaches_as_the_objective_does(options: dict[str, Any], precision: Any) -> None:
    config = dataclasses.replace(TAUGHT, precision=precision, **options)
    expected, _ = run(config)
    for loss_fn in (with_logits, as_an_output):
        trainer, _ = run(config, loss_fn=loss_fn)
        for name, learner in trainer.learners.items():
            torch.testing.assert_close(learner.module.state_dict(), expected.learners[name].module.state_dict())


@settings(max_examples=25)
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    classes=st.integers(2, 5),
    last=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 999),
)
def test_classes_and_labels_that_count_are_found(
    shape: list[int], classes: int, last: bool, dtype: torch.dtype, seed: int
) -> None:
    """Wherever the classes are, whichever labels are -100, and though mixed precision returns copies of the logits."""
    torch.manual_seed(seed)
    labels = torch.randint(classes, shape)
    labels[torch.rand(shape) < 0.3] = -100
    labels.view(-1)[0] = 0
    student, teacher = (torch.randn(labels.numel(), classes) for _ in range(2))
    expected = Classification(teacher_weight=0.3, temperature=2.0).loss_of_logits(
        student.to(dtype).float(), (None, labels.flatten()), teacher
    )

    def placed(logits: Tensor) -> Tensor:
        logits = logits.view(*shape, classes)
        return logits if last else logits.movedim(-1, 1)

    class Model(nn.Module):
        def forward(self) -> Any:
            logits = placed(student).to(dtype).requires_grad_()
            rows = logits if last else logits.movedim(1, -1)
            loss = F.cross_entropy(rows.flatten(0, -2).float(), labels.flatten())
            return SimpleNamespace(loss=loss, logits=logits.float())

    objective = CustomLoss(lambda model, batch: model(), teacher_weight=0.3, temperature=2.0)
    assert torch.equal(objective.logits(Model(), None), placed(student).to(dtype).float())
    torch.testing.assert_close(objective.loss(Model(), None, placed(teacher)), expected)


@pytest.mark.parametrize(
    ("loss_fn", "message"),
    [
        (lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]), "the loss_fn returns none with the loss"),
        (
            lambda model, batch: (
                with_logits(model, batch) if len(model.layer1) == 1 else F.cross_entropy(model(batch[0]), batch[1])
            ),
            "the loss_fn returns none with the loss",
        ),
        (
            lambda model, batch: {"loss": model(batch[0]).square().mean(), "logits": model(batch[0])},
            "not computed from the logits that it returns",
        ),
        (
            lambda model, batch: {"loss": (logits := model(batch[0])).square().mean(), "logits": logits},
            "no cross-entropy of the classes",
        ),
        (
            lambda model, batch: {"loss": (logits := model(batch[0])).logsumexp(1).mean(), "logits": logits.detach()},
            "not computed from the logits that it returns",
        ),
    ],
)
def test_logits_that_cannot_teach_are_refused_before_training(loss_fn: Any, message: str) -> None:
    with pytest.raises(SeekingError, match=message):
        Trainer(*two_models(), **batches(), config=TAUGHT, loss_fn=loss_fn)
    Trainer(*two_models(), **batches(), config=dataclasses.replace(TAUGHT, teach=0.0), loss_fn=loss_fn)


def test_logits_of_another_shape_in_the_other_model_are_refused_before_training() -> None:
    """The loss may be the same with all of them, so that the base is a sub-network."""

    def loss_fn(model: nn.Module, batch: Any) -> dict[str, Tensor]:
        times = len(model.layer1)
        logits = model(batch[0]).repeat(times, 1)
        return {"loss": F.cross_entropy(logits, batch[1].repeat(times)), "logits": logits}

    with pytest.raises(SeekingError, match=r"have the shape \[8, 4\] with one model and \[16, 4\] with the"):
        Trainer(*two_models(), **batches(), config=TAUGHT, loss_fn=loss_fn)


def test_logits_that_are_missing_in_training_alone_are_told_at_the_first_step() -> None:
    """As those of a model whose fused loss computes none in training."""

    def loss_fn(model: nn.Module, batch: Any) -> dict[str, Tensor | None]:
        logits = model(batch[0])
        return {"loss": F.cross_entropy(logits, batch[1]), "logits": None if model.training else logits}

    late = dataclasses.replace(TAUGHT, base_condition="after:0.5")
    with pytest.raises(SeekingError, match="the loss_fn returns none with the loss"):
        run(late, loss_fn=loss_fn)
    with pytest.raises(SeekingError, match="cannot be combined with shard"):
        Trainer(*two_models(), **batches(), config=TrainConfig(teach=0.3, shard=True), loss_fn=with_logits)


def test_a_batch_without_a_label_that_counts_teaches_nothing() -> None:
    """Where the loss of no label is a number, as of a sum over the labels that are there, so is the student's."""

    def loss_fn(model: nn.Module, batch: Any) -> dict[str, Tensor]:
        logits = model(batch[0])
        labels = torch.full_like(batch[1], -100) if batch[1][0] == 0 else batch[1]
        loss = F.cross_entropy(logits, labels, reduction="sum") / (labels != -100).sum().clamp(min=1)
        return {"loss": loss, "logits": logits}

    _, result = run(TAUGHT, loss_fn=loss_fn)
    losses = [row["loss"] for row in steps(result)]
    assert 0 in losses
    assert max(losses) > 0
    nothing = [(images, torch.zeros_like(labels)) for images, labels in batches()["train_loader"]]
    run(TAUGHT, train_loader=nothing, loss_fn=loss_fn)


def test_models_that_are_sure_of_a_batch_can_be_taught() -> None:
    """In float32, the gradient of a label with a probability of 1 - 1e-9 is 0, those of the other classes are not."""
    models = two_models()
    for model in models:
        nn.init.zeros_(model.fc.weight)
        nn.init.constant_(model.fc.bias[:1], 25.0)
    first = [(images, torch.zeros_like(labels)) for images, labels in batches()["train_loader"]]
    Trainer(*models, train_loader=first, config=TAUGHT, loss_fn=with_logits).fit()


@pytest.mark.parametrize("alone", [0, 1])
def test_a_model_alone_needs_no_logits(alone: int) -> None:
    """So the options of the pair serve for each of its models alone, as the default objective's do."""
    models = [model if number == alone else None for number, model in enumerate(two_models())]
    loss_fn = lambda model, batch: F.cross_entropy(model(batch[0]), batch[1])  # noqa: E731
    Trainer(*models, **batches(), config=dataclasses.replace(TAUGHT, epochs=1), loss_fn=loss_fn).fit()
