"""What models may be trained towards, and what a loss_fn may return."""

import functools
from collections import OrderedDict
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import PLAIN, Plain, regression_loss
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from seeking import SeekingError, Trainer
from seeking.errors import DivergedError, RunWarning
from seeking.training.objective import Classification

X = torch.randn(16, 5, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(16) % 3


class Head(Plain):
    def __init__(self, width: int, outputs: int) -> None:
        super().__init__(width)
        self.out = nn.Linear(width, outputs)


def trainer(targets: Tensor, outputs: int = 3, **changes: Any) -> Trainer:
    torch.manual_seed(0)
    data = DataLoader(TensorDataset(X, targets), 8)
    return Trainer(Head(6, outputs), Head(9, outputs), train_loader=data, **changes, config=PLAIN)


HOT = (torch.rand(16, 3, generator=torch.Generator().manual_seed(1)) > 0.5).float()


@pytest.mark.parametrize(
    ("targets", "outputs", "message"),
    [
        (X[:, 0], 3, r"targets are float32 of shape \[8\].*if they are classes.*long.*set loss to mse"),
        (X[:, :1], 3, r"targets are float32 of shape \[8, 1\].*integers of shape \[8\].*set loss to mse"),
        (X[:, :1], 1, r"one output.*always 0.*set loss to mse.*binary_cross_entropy"),
        (CLASSES * 0, 1, "one output"),
        (CLASSES[:, None], 3, r"targets are int64 of shape \[8, 1\].*squeeze"),
        (HOT, 3, "probabilities of the classes, which sum to 1.*binary_cross_entropy"),
        (HOT.long(), 3, "several labels a sample.*binary_cross_entropy"),
        (HOT.bool(), 3, "targets are bool.*several labels"),
    ],
)
def test_what_are_no_classes_is_refused_at_the_start(targets: Tensor, outputs: int, message: str) -> None:
    with pytest.raises(SeekingError, match=message):
        trainer(targets, outputs)


def test_an_output_that_is_no_tensor_is_named() -> None:
    with pytest.raises(SeekingError, match="puts out a SimpleNamespace, not a tensor of logits"):
        Classification().loss(lambda inputs: SimpleNamespace(logits=inputs), (X, CLASSES))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "targets", [CLASSES.to(torch.uint8), F.one_hot(CLASSES).float()], ids=["uint8", "probabilities"]
)
def test_other_forms_of_classes_are_the_same_run(targets: Tensor) -> None:
    losses = [[row.get("loss") for row in trainer(each).fit().history] for each in (CLASSES, targets)]
    assert losses[0] == pytest.approx(losses[1])


def test_probabilities_are_evaluated_by_the_most_probable_class() -> None:
    model = nn.Linear(5, 3)
    probabilities = F.one_hot(CLASSES).float() * 0.7 + 0.1
    soft, hard = (Classification().evaluate(model, (X, targets))["accuracy"] for targets in (probabilities, CLASSES))
    assert torch.equal(soft, hard)


class Tokens(nn.Module):
    """Logits of 3 classes for each of any number of tokens of 2 values: [samples, 3, tokens]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(2, width), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.inner(x).relu()).movedim(-1, 1)


def token_loss(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch["x"]), batch["labels"])


@pytest.mark.slow
@settings(max_examples=20)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), min_size=1, max_size=4),
    ignored=st.floats(0, 1),
    seed=st.integers(0, 99),
    mapping=st.booleans(),
    options=st.sampled_from([{}, {"update": "joint"}, {"label_smoothing": 0.1}, {"teach": 0.6}]),
)
def test_every_label_of_a_step_weighs_the_same(
    sizes: list[tuple[int, int]], ignored: float, seed: int, mapping: bool, options: dict[str, Any]
) -> None:
    """Of batches of several lengths, whichever labels are -100: as if the step's batches were one, of single tokens."""
    torch.manual_seed(seed)
    parts = [(torch.randn(*size, 2), torch.randint(3, size)) for size in sizes]
    for _, labels in parts:
        labels[torch.rand(labels.shape) < ignored] = -100
    parts[-1][1][0, 0] = 1
    whole = [tuple(torch.cat([values.flatten(0, 1) for values in each])[:, None] for each in zip(*parts, strict=True))]
    results = []
    for batches in (whole, parts):
        torch.manual_seed(0)
        config = replace(PLAIN, epochs=1, accumulate=len(batches), condition="always", schedule="constant", **options)
        run = Trainer(
            *(Tokens(3), Tokens(5)),
            train_loader=[{"x": x, "labels": y} for x, y in batches] if mapping else batches,
            loss_fn=token_loss if mapping else None,
            config=replace(config, label_smoothing=0.0, teach=0.0) if mapping else config,
        )
        (row,) = [row for row in run.fit().history if row["kind"] == "step"]
        results.append([row["loss"], row["motivated_loss"], *(p.sum().item() for p in run.pair.base.parameters())])
    assert results[1] == pytest.approx(results[0], rel=1e-4, abs=1e-5)


def test_a_step_without_any_label_is_not_taken() -> None:
    run = trainer(CLASSES)
    run.fit()
    batch = [(X[:4], CLASSES[:4] * 0 - 100)] * 2
    with pytest.raises(DivergedError, match="loss became nan"):
        run.algorithm(batch, run.run)


FORMS = {
    "dict": lambda loss: {"loss": loss, "logits": torch.zeros(8, 3)},
    "tuple": lambda loss: (loss, torch.zeros(8, 3)),
    "list": lambda loss: [loss],
    "output": lambda loss: SimpleNamespace(loss=loss),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_loss_fn_may_return_its_loss_in_any_usual_form(form: Any) -> None:
    def run(loss_fn: Any) -> Any:
        torch.manual_seed(0)
        rows = [{"x": row, "y": row.sum()} for row in X]
        data = {"train_loader": DataLoader(rows, 8), "eval_loader": DataLoader(rows, 8)}
        return Trainer(Plain(6), Plain(9), **data, loss_fn=loss_fn, config=PLAIN).fit().history  # type: ignore[arg-type]

    assert run(lambda model, batch: form(regression_loss(model, batch))) == run(regression_loss)


@settings(max_examples=10)
@given(sizes=st.lists(st.integers(1, 7), min_size=1, max_size=6))
def test_an_evaluation_is_the_mean_over_samples_whatever_the_sizes_of_batches(sizes: list[int]) -> None:
    x = torch.randn(sum(sizes), 5)
    rows = {"x": x, "y": x.sum(dim=1)}
    parts = [{"x": a, "y": b} for a, b in zip(x.split(sizes), rows["y"].split(sizes), strict=True)]
    models = Plain(3), Plain(4)
    run = Trainer(*models, train_loader=[rows], eval_loader=parts, loss_fn=regression_loss, config=PLAIN)
    result = run.fit()
    with torch.no_grad():
        assert result.metrics["base"]["loss"] == pytest.approx(float(regression_loss(models[0], rows)), rel=1e-4)


def test_a_penalty_on_gradients_trains_and_is_evaluated_as_in_a_plain_loop() -> None:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        x = batch[0].clone().requires_grad_()
        output = model(x)
        (gradient,) = torch.autograd.grad(output.sum(), x, create_graph=True)
        return F.cross_entropy(output, batch[1]) + gradient.square().mean()

    models = [nn.Sequential(nn.Linear(5, width), nn.Tanh(), nn.Linear(width, 3)) for width in (6, 6, 9)]
    models[1].load_state_dict(models[0].state_dict())
    data = DataLoader(TensorDataset(X, CLASSES), 8)
    options: dict[str, Any] = {"loss_fn": loss, "optimizer": lambda model: torch.optim.SGD(model.parameters(), 0.1)}
    config = replace(PLAIN, epochs=1, condition="never", schedule="constant", warmup_epochs=0)
    result = Trainer(models[0], models[2], train_loader=data, eval_loader=data, config=config, **options).fit()
    optimizer = torch.optim.SGD(models[1].parameters(), 0.1)
    for batch in data:
        optimizer.zero_grad()
        loss(models[1], batch).backward()
        optimizer.step()
    assert all(map(torch.equal, models[0].parameters(), models[1].parameters()))
    expected = sum(loss(models[1], batch).item() for batch in data) / 2
    assert result.metrics["base"]["loss"] == pytest.approx(expected)


@pytest.mark.parametrize("wrong", ["nothing", "list", "class"])
def test_what_is_no_optimizer_is_named(wrong: str) -> None:
    def make(model: nn.Module) -> Any:
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        return {"nothing": None, "list": [optimizer], "class": torch.optim.SGD}[wrong]

    with pytest.raises(SeekingError, match=r"optimizer gives a \w+; it must give one optimizer of PyTorch"):
        trainer(CLASSES, optimizer=make)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"optimizer": torch.optim.SGD([torch.ones(1)], 0.1)}, "optimizer is a SGD; give a function .* lambda model"),
        ({"optimizer": torch.optim.Adam}, "optimizer is the class Adam; give a function"),
        ({"optimizer": functools.partial(torch.optim.Adam, lr=0.1)}, "optimizer is the class Adam; give a function"),
        ({"schedule": 0.1}, "schedule is a float; give a function .* lambda optimizer, steps"),
    ],
)
def test_what_makes_no_optimizer_or_schedule_of_a_model_is_named(given: dict[str, Any], told: str) -> None:
    with pytest.raises(SeekingError, match=told):
        trainer(CLASSES, **given)


def _parameters_for_a_model(parameters: Any) -> Any:
    return torch.optim.Adam(parameters)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"optimizer": _parameters_for_a_model}, "optimizer fails: TypeError: .*such as lambda model"),
        ({"schedule": lambda optimizer: None}, "schedule fails: TypeError: .*such as lambda optimizer, steps"),
    ],
)
def test_what_is_made_of_something_else_is_told_with_an_example(given: dict[str, Any], told: str) -> None:
    with pytest.raises(SeekingError, match=told):
        trainer(CLASSES, **given)


def test_an_optimizer_and_a_schedule_are_those_of_the_model_that_they_are_made_for() -> None:
    one = torch.optim.SGD(Head(6, 3).parameters(), 0.1)
    with pytest.raises(SeekingError, match="optimizer gives one that has no parameter of the base model"):
        trainer(CLASSES, optimizer=lambda model: one)
    with pytest.raises(SeekingError, match="schedule gives one of another optimizer than that of the base model"):
        trainer(CLASSES, schedule=lambda optimizer, steps: torch.optim.lr_scheduler.StepLR(one, steps))


def test_parameters_that_an_optimizer_leaves_out_are_named() -> None:
    def matrices(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD([p for p in model.parameters() if p.ndim == 2], 0.1)

    with pytest.warns(
        RunWarning, match=r"leaves out 2 of the 4 parameters of the base model.*: hidden.bias, out.bias; give"
    ):
        trainer(CLASSES, optimizer=matrices)


def test_an_optimizer_with_other_weights_for_evaluation_is_refused() -> None:
    class ScheduleFree(torch.optim.SGD):
        def train(self) -> None: ...

        def eval(self) -> None: ...

    with pytest.raises(SeekingError, match=r"ScheduleFree: .*does not switch between them"):
        trainer(CLASSES, optimizer=lambda model: ScheduleFree(model.parameters(), 0.1))


@pytest.mark.parametrize("state", ["shared", "inherit"])
def test_groups_of_named_parts_go_with_states_that_both_models_have(state: str) -> None:
    def groups(model: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD([{"params": model.out.parameters()}, {"params": model.first.parameters()}], 0.1, 0.9)

    torch.manual_seed(0)
    config = replace(PLAIN, optimizer_state=state, condition="always")
    data = DataLoader(TensorDataset(X, CLASSES), 8)
    models = [nn.Sequential(OrderedDict(first=nn.Linear(5, w), out=nn.Linear(w, 3))) for w in (6, 9)]
    Trainer(*models, train_loader=data, optimizer=groups, config=config).fit()


class RunningMean(nn.Module):
    """A loss that is divided by the mean of all earlier ones, with noise of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.ones(2))
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, model: nn.Module, batch: Any) -> Tensor:
        noise = 0.1 * torch.randn(batch[0].shape, generator=self.generator)
        loss = F.cross_entropy(model(batch[0] + noise), batch[1])
        self.total += torch.stack([loss.detach(), torch.ones(())])
        return loss * self.total[1] / self.total[0]


@pytest.mark.parametrize("evaluated", [False, True])
def test_a_loss_with_a_state_trains_as_in_a_plain_loop(evaluated: bool) -> None:
    data = DataLoader(TensorDataset(X, CLASSES), 8)
    torch.manual_seed(0)
    models, losses = [Head(6, 3), Head(6, 3), Head(9, 3)], [RunningMean(), RunningMean()]
    models[1].load_state_dict(models[0].state_dict())
    config = replace(PLAIN, epochs=1, condition="never", schedule="constant", verify=True)
    options = {"eval_loader": data if evaluated else None, "optimizer": lambda m: torch.optim.SGD(m.parameters(), 0.1)}
    Trainer(models[0], models[2], train_loader=data, loss_fn=losses[0], config=config, **options).fit()
    optimizer = torch.optim.SGD(models[1].parameters(), 0.1)
    for batch in data:
        optimizer.zero_grad()
        losses[1](models[1], batch).backward()
        optimizer.step()
    assert all(map(torch.equal, models[0].parameters(), models[1].parameters()))


class Weighted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.unused = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(()))

    def forward(self, model: nn.Module, batch: Any) -> Tensor:
        return self.scale * F.cross_entropy(model(batch[0]), batch[1])


def test_parameters_of_a_loss_that_no_optimizer_takes_are_named(recwarn: pytest.WarningsRecorder) -> None:
    inner = Weighted()
    for loss, name in ((inner, "scale"), (lambda model, batch: inner(model, batch), "inner.scale")):
        with pytest.warns(RunWarning, match=f"the loss has parameters that no optimizer .*as they are: {name};"):
            trainer(CLASSES, loss_fn=loss)
    recwarn.clear()
    trainer(CLASSES, loss_fn=inner, optimizer=lambda m: torch.optim.SGD([*m.parameters(), inner.scale], 0.1))
    frozen = Weighted().requires_grad_(False)
    trainer(CLASSES, loss_fn=frozen)
    assert not [warning for warning in recwarn if "the loss has parameters" in str(warning.message)]


class OnlyLoss:
    def loss(self, model: nn.Module, batch: Any, teacher_logits: Any = None) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])


class OnlyInputs(OnlyLoss):
    def model_inputs(self, batch: Any) -> Any:
        return batch[0]


@pytest.mark.parametrize(
    ("objective", "told"),
    [
        (OnlyLoss, "objective is the class OnlyLoss; give an object"),
        (OnlyLoss(), "a OnlyLoss without model_inputs and evaluate and is_better; give it these methods"),
        (OnlyInputs(), "a OnlyInputs without evaluate and is_better"),
    ],
)
def test_what_an_objective_lacks_is_named(objective: Any, told: str) -> None:
    with pytest.raises(SeekingError, match=told):
        trainer(CLASSES, objective=objective, eval_loader=DataLoader(TensorDataset(X, CLASSES), 8))


def test_inputs_of_an_objective_come_with_what_runs_the_models() -> None:
    with pytest.raises(
        SeekingError, match=r"OnlyInputs.model_inputs returned a Tensor, .*such as \(batch\[0\], None\)"
    ):
        trainer(CLASSES, objective=OnlyInputs())


def test_listeners_are_a_list_of_functions_and_get_rows_of_their_own() -> None:
    for wrong, told in ((print, "listeners is a builtin_function_or_method"), ([3], "a listener is a int")):
        with pytest.raises(SeekingError, match=told):
            trainer(CLASSES, listeners=wrong)
    rows: list[dict[str, Any]] = []
    run = trainer(CLASSES, listeners=[dict.clear, rows.append])
    history = run.fit().history
    assert [row for row in rows if row["kind"] == "step"] == [row for row in history if row["kind"] == "step"]
