"""The steps of sandwich training and of distillation."""

import copy
import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from runs import batches, two_models
from small_recipes import PLAIN
from torch import Tensor, nn
from torch.func import functional_call

from seeking import Trainer
from seeking.algorithms import distillation, sandwich
from seeking.training import count_flops
from seeking.training.next_byte import NextByte
from seeking.training.objective import Classification
from seeking.training.regression import Regression
from seeking.weights_map import tensors

pytestmark = pytest.mark.slow

IMAGES = torch.zeros(8, 3, 8, 8)


def summed(model: nn.Module, images: Tensor) -> Tensor:
    return model(images).sum()


def test_distillation_without_weight_is_ordinary_training() -> None:
    ordinary = Trainer(two_models()[0], **batches(), config=PLAIN)
    expected = ordinary.fit()
    teacher = two_models(seed=5)[1]
    distilled = Trainer(
        two_models()[0],
        **batches(),
        config=PLAIN,
        algorithm=distillation(teacher),
        objective=Classification(teacher_weight=0.0),
    )
    result = distilled.fit()
    for ours, theirs in zip(
        *(trainer.learners["base"].module.parameters() for trainer in (ordinary, distilled)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    teacher_forward = (result.cost.total - expected.cost.total) / result.cost.samples
    assert teacher_forward == pytest.approx(count_flops(teacher.requires_grad_(), summed, IMAGES)[0] / len(IMAGES))


def test_distillation_pulls_towards_the_teacher() -> None:
    teacher = two_models(seed=5)[1].eval()
    images = next(iter(batches()["eval_loader"]))[0]
    apart = []
    for weight in (0.0, 1.0):
        student = Trainer(
            two_models()[0],
            **batches(),
            config=dataclasses.replace(PLAIN, epochs=6),
            algorithm=distillation(teacher),
            objective=Classification(teacher_weight=weight, temperature=1.0),
        )
        student.fit()
        with torch.no_grad():
            ours = student.learners["base"].module.eval()(images).log_softmax(-1)
            apart.append(float(F.kl_div(ours, teacher(images).log_softmax(-1), log_target=True, reduction="batchmean")))
    assert apart[1] < apart[0]


def test_sandwich_is_one_step_on_the_sum_of_both_losses() -> None:
    trainer = Trainer(*two_models(), **batches(), config=PLAIN, algorithm=sandwich)
    assert trainer.pair
    base, motivated = two_models()
    with torch.no_grad():
        mapped = trainer.pair.map.embed(tensors(base), tensors(motivated))
        for name, tensor in tensors(motivated).items():
            tensor.copy_(mapped[name])
    decayed = [
        {"params": [p for p in motivated.parameters() if p.ndim < 2], "weight_decay": 0.0},
        {"params": [p for p in motivated.parameters() if p.ndim >= 2], "weight_decay": PLAIN.weight_decay},
    ]
    optimizer = torch.optim.SGD(decayed, lr=PLAIN.lr, momentum=0.9, nesterov=True)
    x, y = next(iter(batches()["train_loader"]))
    base.train()
    logits = motivated.train()(x)
    smaller = functional_call(base, trainer.pair.map.extract(dict(motivated.named_parameters())), (x,))
    (F.cross_entropy(logits, y) + F.cross_entropy(smaller, logits.detach().softmax(-1))).backward()
    optimizer.step()
    sandwich([(x, y)], trainer.run)
    for ours, theirs in zip(trainer.pair.motivated_model.parameters(), motivated.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def pointwise(form: str, width: int) -> nn.Module:
    """A model whose output at a position is that of the input there."""
    if form == "bytes":
        return nn.Sequential(nn.Embedding(256, width), nn.Linear(width, 256))
    if form == "positions":
        return nn.Sequential(nn.Conv1d(4, width, 1), nn.ReLU(), nn.Conv1d(width, 3, 1))
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 1 if form == "values" else 3))


@pytest.mark.parametrize("form", ["classes", "positions", "bytes", "values"])
def test_sandwich_training_of_any_task_counts_no_positions_without_a_label(form: str) -> None:
    torch.manual_seed(0)
    counted = torch.rand(5, 6) < 0.5
    x, y = torch.randn(5, 6, 4), torch.randint(3, (5, 6))
    labels = y.where(counted, -100)
    inputs, targets = {
        "classes": (x.flatten(0, 1), labels.flatten()),
        "positions": (x.movedim(-1, 1), labels),
        "bytes": (y, labels),
        "values": (x.flatten(0, 1), torch.randn(30)),
    }[form]
    objective: Any = {"bytes": NextByte(), "values": Regression()}.get(form, Classification())
    config = dataclasses.replace(PLAIN, optimizer="momentum", momentum=0.0, weight_decay=0.0)
    models, data = (pointwise(form, 5), pointwise(form, 8)), [(inputs, targets)]
    trainer = Trainer(*models, train_loader=data, config=config, algorithm=sandwich, objective=objective)
    assert trainer.pair
    base, larger = copy.deepcopy(trainer.pair.base), copy.deepcopy(trainer.pair.motivated_model)
    inside = trainer.pair.map.extract(dict(larger.named_parameters()))
    outputs = larger(inputs), functional_call(base, inside, (inputs,))
    if form == "values":
        loss = F.mse_loss(outputs[0][:, 0], targets) + F.mse_loss(outputs[1], outputs[0].detach())
    else:
        logits, smaller = (each.movedim(1, -1) if form == "positions" else each for each in outputs)
        logits, smaller = (each.reshape(30, -1)[counted.flatten()] for each in (logits, smaller))
        loss = F.cross_entropy(logits, y[counted]) + F.cross_entropy(smaller, logits.detach().softmax(-1))
    loss.backward()
    sandwich(data, trainer.run)
    for new, old in zip(trainer.pair.motivated_model.parameters(), larger.parameters(), strict=True):
        assert old.grad is not None
        torch.testing.assert_close(new, old - config.lr * old.grad, rtol=1e-4, atol=1e-6)


def test_after_a_sandwich_run_the_base_is_the_larger_models_part() -> None:
    trainer = Trainer(*two_models(), **batches(), config=PLAIN, algorithm=sandwich)
    result = trainer.fit()
    assert trainer.pair
    inside = trainer.pair.map.extract(dict(trainer.pair.motivated_model.named_parameters()))
    for name, parameter in trainer.pair.base.named_parameters():
        assert torch.equal(parameter, inside[name])
    assert result.cost.motivated_samples == result.cost.samples > 0
