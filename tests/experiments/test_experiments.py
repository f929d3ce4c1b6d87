import contextlib
import copy
import dataclasses
import errno
import json
import math
import multiprocessing
import re
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import programs
import psutil
import pytest
import torch
import torch.nn.functional as F
import yaml
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import batches, image_folder, two_models
from safetensors.torch import load_file
from scipy import stats
from torch import Tensor, nn
from torch.func import functional_call

from seeking import RunError, SeekingError, TrainConfig, Trainer
from seeking.algorithms import distillation, sandwich
from seeking.cli import main, with_files
from seeking.commands import Train
from seeking.conditions import parse
from seeking.experiments import parallel
from seeking.experiments import recipe as recipes
from seeking.experiments import search as searching
from seeking.experiments.claim import claim as claimed
from seeking.experiments.methods import methods
from seeking.experiments.recipe import Recipe, names, read
from seeking.experiments.reproduce import reproduce
from seeking.experiments.results import curve, estimate, evidence, first_reaching, gather, mean_curve, mean_evidence
from seeking.option_parsing import parse_options
from seeking.report import experiment, plots
from seeking.report.metric import ACCURACY
from seeking.training import count_flops
from seeking.training.next_byte import NextByte
from seeking.training.objective import Classification
from seeking.training.regression import Regression
from seeking.weights_map import tensors

pytestmark = pytest.mark.slow

PLAIN = TrainConfig(epochs=1, lr=0.05, precision="no", channels_last=False, fused=False)

TINY: dict[str, Any] = {
    "title": "Everything, small",
    "classes": 10,
    "reference": "ordinary",
    "options": {"max_train_samples": 64, "batch_size": 32, "lr": 0.05, "verify": False, "model_kwargs": {"width": 4}},
    "arms": {
        "ordinary": {"method": "ordinary"},
        "condition": {},
        "sandwich": {"method": "sandwich"},
        "growth": {"method": "growth"},
        "distillation": {"method": "distillation"},
    },
    "scales": {
        "quick": {"pairs": [["resnet8", "resnet14"]], "seeds": 2, "options": {"epochs": 1}},
        "by-cost": {"pairs": [["resnet8", "resnet14"]], "seeds": 1, "budgets": [1, 2], "search": {"lr": [0.01, 0.05]}},
    },
}


def tiny(folder: Path, **changes: Any) -> str:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**TINY, **changes}, sort_keys=False))
    return str(path)


@contextlib.contextmanager
def by_one_thread() -> Iterator[None]:
    """As each of two processes side by side has on two cores: other numbers of threads sum in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def one_thread() -> Iterator[None]:
    with by_one_thread():
        yield


FIGURES = ("draw_arms", "draw_by_flops", "draw_evidence", "draw_front")


@pytest.fixture(autouse=True)
def _no_figures_of_experiments(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each seed that is finished draws all of them, which takes longer than its runs."""
    for name in FIGURES if "figures" not in request.fixturenames else ():
        monkeypatch.setattr(plots, name, lambda *given: None)


@pytest.fixture
def figures() -> None:
    """A test that asks for this draws them."""


def claim(recipe: Recipe, root: Path) -> None:
    with claimed(recipe, root):
        pass


def quietly(name: str, row: dict[str, Any]) -> None: ...


def results(root: Path) -> dict[str, Any]:
    return json.loads((root / "results.json").read_text())


def untimed(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


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


@given(
    st.sampled_from(sorted(methods())),
    st.floats(1.2, 4.0),
    st.floats(10, 60),
    st.floats(0.2, 0.8),
)
@settings(max_examples=40)
def test_every_method_spends_the_budget(method: str, ratio: float, budget: float, share: float) -> None:
    method_settings = {"share": share} if "share" in methods()[method].settings else {}
    recipe = Recipe(
        "x", "x", "x", None, (("resnet8", "resnet14"),), {}, {}, {"arm": {"method": method, **method_settings}},
        "arm", 1, (), {}, {}, None,
    )  # fmt: skip
    trial = recipe.trial("arm", ("resnet8", "resnet14"), budget, 0, ratio)
    # FLOPs of an epoch, those of the larger model alone being 1.
    flops = {
        "pair": 1 / ratio + 1 / 6,
        "sandwich": 1 / ratio + 1,
        "base": 1 / ratio,
        "motivated": 1,
        "grown": 1,
        "distilled": 1 / ratio + 1 / 3,
    }
    spent = sum(run.config.epochs * flops[run.stage.name] for run in trial.runs)
    assert spent == pytest.approx(budget, abs=0.501 * max(flops[run.stage.name] for run in trial.runs))
    for number, run in enumerate(trial.runs):
        assert run.after is None or run.after in [before.folder for before in trial.runs[:number]]


@pytest.mark.parametrize("name", names())
def test_recipes_can_be_planned_at_every_scale(name: str) -> None:
    content = yaml.safe_load((Path(recipes.__file__).parent / "recipes" / f"{name}.yaml").read_text())
    assert {"quick", "small", "full"} <= content["scales"].keys()
    for scale in content["scales"]:
        recipe = read(name, scale, {})
        assert recipe.seeds >= 3
        trials = [*recipe.trials(range(2), {pair: 1.5 + n for n, pair in enumerate(recipe.pairs)})]
        assert len(trials) == len(recipe.pairs) * len(recipe.arms) * 2 * max(1, len(recipe.budgets))
        folders: dict[str, Any] = {}
        for trial in trials:
            for run in trial.runs:  # What is shared is the same.
                assert folders.setdefault(run.folder, run) == run


def test_the_help_names_every_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["reproduce", "--help"])
    words = set(re.findall(r"[\w-]+", capsys.readouterr().out))
    assert {*names()} <= words


def test_the_docs_name_every_key_of_a_recipe() -> None:
    page = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", page.split("## Custom recipes")[1].split("\n## ")[0], re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == {*Recipe.__dataclass_fields__, "scales", "without"} - {"name", "scale", "of_pairs"}


def test_a_recipe_gives_tables_and_figures_goes_on_and_takes_more_seeds(tmp_path: Path, figures: None) -> None:
    recipe = read(tiny(tmp_path), "quick", {})
    root = tmp_path / "out"
    text = reproduce(recipe, root, range(1), 1, quietly)
    assert text.startswith("# Everything, small")
    assert {"results.json", "results.md", "resnet8-resnet14.png", "resnet8-resnet14-condition.png"} <= {
        path.name for path in root.iterdir()
    }
    first = results(root)
    assert [record["arm"] for record in first["records"]] == [*TINY["arms"]]
    assert all(
        math.isclose(record["base_curve"][-1][1], record["flops"])
        for record in first["records"]
        if len(record["runs"]) == 1
    )
    stamps = {path: path.stat().st_mtime_ns for path in root.rglob("summary.json")}
    reproduce(recipe, root, range(2), 1, quietly)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    both = results(root)
    assert both["records"][: len(TINY["arms"])] == first["records"]
    assert {record["seed"] for record in both["records"]} == {0, 1}
    assert [front["name"] for front in both["fronts"]] == [arm for arm in TINY["arms"] if arm != "ordinary"]
    assert "| method | cost of parity |" in (root / "results.md").read_text()
    gains = next(row for row in both["rows"] if row["arm"] == "condition")["base_gain"]
    by_arm = {(record["arm"], record["seed"]): record for record in both["records"]}
    assert gains["values"] == [by_arm["condition", s]["base"] - by_arm["ordinary", s]["base"] for s in (0, 1)]


def test_parallel_gives_the_same_results_and_what_fails_is_told_when_all_others_are_done(
    tmp_path: Path, one_thread: None
) -> None:
    """Also of a run that starts from another one."""
    diverging = {name: {**TINY["arms"][name], "lr": 1e30} for name in ("ordinary", "growth")}
    arms = {"diverging": diverging["ordinary"], "condition": {}, "growth": TINY["arms"]["growth"]}
    arms["diverging growth"] = diverging["growth"]
    recipe = read(tiny(tmp_path, arms=arms, reference="condition"), "quick", {"epochs": 2})
    records = []
    for jobs in (1, 2):
        root = tmp_path / str(jobs)
        with pytest.raises(RunError, match=r"arms/diverging/.* at step \d+.*\n(.*\n)*arms/diverging-growth/resnet8/"):
            reproduce(recipe, root, range(1), jobs, quietly)
        assert {path.parent.parent.parent.name for path in root.rglob("summary.json")} == {"condition", "growth"}
        done = [trial for trial in recipe.trials([0], {recipe.pairs[0]: 2.0}) if "diverging" not in trial.arm]
        records.append([gather(trial, root, ACCURACY) for trial in done])
        assert not multiprocessing.active_children()
    assert untimed(records[0]) == untimed(records[1])
    assert [len(record["runs"]) for record in records[0]] == [1, 2]


def test_a_search_chooses_on_held_out_training_images(tmp_path: Path, figures: None) -> None:
    recipe = read(tiny(tmp_path, arms={"ordinary": {"method": "ordinary"}, "condition": {}}), "by-cost", {})
    root = tmp_path / "out"
    reproduce(recipe, root, range(1), 1, quietly)
    chosen = json.loads((root / "search.json").read_text())
    assert chosen.keys() == {"ordinary", "condition"}
    best = max(chosen["condition"]["tried"], key=lambda candidate: candidate["base"] + candidate["motivated"])
    assert chosen["condition"]["best"] == best["options"]
    for model in ("base", "motivated"):  # Alone, each has its own best.
        best = max(chosen["ordinary"]["tried"], key=lambda candidate, model=model: candidate[model])
        assert chosen["ordinary"]["best"]["each"][model] == best["options"]
        (run,) = [*(root / "arms" / "ordinary-2").glob(f"*-{model}/*/config.json")]
        assert json.loads(run.read_text())["lr"] == best["options"]["lr"]
    searched = [json.loads(path.read_text()) for path in (root / "search").rglob("config.json")]
    assert {options["validation"] for options in searched} == {searching.SEARCH_VALIDATION}
    run = [json.loads(path.read_text()) for path in (root / "arms" / "condition-2").rglob("config.json")]
    assert [options["lr"] for options in run] == [chosen["condition"]["best"]["lr"]]
    assert [options["validation"] for options in run] == [None]
    assert (root / "resnet8-resnet14-flops.png").exists()


def started_run(folder: Path, name: str) -> BaseProcess:
    """``seeking reproduce`` with two processes, which it starts anew, when it has begun to train."""
    options = ["--seeds", "1", "--set", "epochs=8", "--output", "cut", "--jobs", "2"]
    program = programs.command(folder, ["reproduce", name, *options])
    while not [*(folder / "cut").glob("arms/*/*/seed0/metrics.jsonl")] and program.is_alive():
        time.sleep(0.05)
    return program


@pytest.fixture(scope="module")
def uncut(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The records of two arms that nothing cuts off."""
    folder = tmp_path_factory.mktemp("uncut")
    arms = {arm: TINY["arms"][arm] for arm in ("condition", "sandwich")}
    recipe = read(tiny(folder, arms=arms, reference="condition"), "quick", {"epochs": 8})
    with by_one_thread():
        reproduce(recipe, folder / "out", range(1), 1, quietly)
    return untimed(results(folder / "out")["records"])


@pytest.mark.parametrize(
    ("number", "code", "twice", "arms"),
    [
        (signal.SIGINT, 130, False, ("condition", "sandwich")),
        (signal.SIGINT, 130, True, ("condition",)),
        (signal.SIGTERM, 75, True, ("condition",)),
        (signal.SIGKILL, -signal.SIGKILL, False, ("condition",)),
    ],
)
def test_cut_off_it_goes_on_and_gives_what_it_would_have(
    number: int,
    code: int,
    twice: bool,
    arms: tuple[str, ...],
    uncut: list[dict[str, Any]],
    tmp_path: Path,
    one_thread: None,
) -> None:
    """With one arm, one of the two processes has nothing to do. A second signal comes while the program waits."""
    name = tiny(tmp_path, arms={arm: TINY["arms"][arm] for arm in arms}, reference="condition")
    program = started_run(tmp_path, name)
    started = psutil.Process(program.pid)
    processes = started.children(recursive=True)
    if twice:
        for process in processes:
            process.suspend()
        started.send_signal(number)
        time.sleep(1)
    started.send_signal(number)
    if twice:
        time.sleep(1)
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
    assert programs.exit_codes([program]) == [code]
    assert not psutil.wait_procs(processes, timeout=30)[1]
    for folder in (tmp_path / "cut" / "arms").glob("*/*/seed0"):  # What an orphan saves.
        with FileLock(folder / ".lock", timeout=60):
            pass
    assert not [*(tmp_path / "cut").rglob("summary.json")]
    reproduce(read(name, "quick", {"epochs": 8}), tmp_path / "cut", range(1), 1, quietly)
    assert untimed(results(tmp_path / "cut")["records"]) == [record for record in uncut if record["arm"] in arms]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = read(tiny(tmp_path), "quick", {})
    root = tmp_path / "out"
    root.mkdir()
    (root / "mine.txt").write_text("mine")
    with pytest.raises(SeekingError, match="does not hold the results of a recipe"):
        claim(recipe, root)
    assert [path.name for path in root.iterdir()] == ["mine.txt"]
    (root / "mine.txt").rename(root / "recipe.json")
    for mine, why in (("mine", "not JSON"), ('{"soup": 1}', "does not hold the results of a recipe")):
        (root / "recipe.json").write_text(mine)
        with pytest.raises(SeekingError, match=why):
            claim(recipe, root)
        assert (root / "recipe.json").read_text() == mine
    (root / "recipe.json").unlink()
    claim(read(tiny(tmp_path), "quick", {"lr": 0.3}), root)
    claim(recipe, root)  # Nothing has begun.
    before = (root / "recipe.json").read_text()
    assert "0.05" in before
    (root / "arms").mkdir()
    with pytest.raises(SeekingError, match=r"another recipe:\n  options: lr: 0.05 in the folder, 0.3 now\nName"):
        claim(read(tiny(tmp_path), "quick", {"lr": 0.3}), root)
    with pytest.raises(SeekingError, match=r"scale: 'quick' in the folder, 'by-cost' now"):
        claim(read(tiny(tmp_path), "by-cost", {}), root)
    (root / "recipe.json").write_text(before.replace('"format": 2', '"format": 1'))
    with pytest.raises(SeekingError, match="format: 1 in the folder, 2 now"):
        claim(recipe, root)
    assert sorted(path.name for path in root.iterdir()) == [".lock", "arms", "recipe.json"]


def test_an_experiment_is_run_by_one_program_at_a_time(tmp_path: Path) -> None:
    recipe, root = read(tiny(tmp_path), "quick", {}), tmp_path / "out"
    with claimed(recipe, root), pytest.raises(SeekingError, match="another program is running an experiment"):
        claim(recipe, root)
    claim(recipe, root)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ablatio"], "unknown recipe 'ablatio'; did you mean ablation"),
        (["ablation", "--scale", "large"], "unknown scale of recipe ablation 'large'; known: full, quick, small"),
        (["cifar100-vit", "--data", "digits"], "recipe cifar100-vit needs data with 100 classes, digits has 10"),
        (["pareto", "--data", "digits", "--set", "warmup_epochs=3"], "warmup_epochs is 3.0 of 2 epochs"),
        (["ablation", "--set", "epoch=3"], "epoch'; did you mean epochs"),
        (["ablation", "--seeds", "0"], "seeds is 0"),
        (["pareto", "--set", "epochs=3"], "recipe pareto sets epochs itself"),
        (["ablation", "--scale", "small", "--set", "lr=3"], "recipe ablation sets lr itself"),
        (["ablation", "--source", "digits"], "recipe ablation has no pretraining, whose data --source names"),
        (["ablation", "--data", "digits", "--output", "/dev/null/x"], "cannot be used as an output folder"),
        (["ablation", "--jobs", "0", "--data", "digits"], "jobs is 0"),
        (["ablation", "--data", "digits", "--set", "optimizer=adamv"], "unknown optimizer 'adamv'; did you mean"),
        (
            ["ablation", "--data", "digits", "--set", "base_condition=evry:2"],
            "base_condition: unknown condition 'evry'",
        ),
        (["nowhere.yaml"], "nowhere.yaml: cannot be read"),
    ],
)
def test_bad_input(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {"x": {"method": "magic"}}, "reference": "x"}, "unknown method of x in recipe tiny 'magic'"),
        ({"reference": "nobody"}, "unknown reference in .* 'nobody'"),
        ({"arm": {}}, "unknown key in .* 'arm'; did you mean arms"),
        ({"arms": [1]}, r"arms is \[1\]; it must be a mapping of names to options"),
        ({"scales": {}}, r"scales is {}; name at least one, such as `scales: {quick: {}}`"),
        ({"scales": {"quick": {"pairs": []}}}, r"pairs is \[\]; it must be a list of lists of two models"),
        ({"scales": {"quick": {"pairs": ["resnet8", "resnet14"]}}}, "pairs is .*'resnet8', 'resnet14'.*; it must be"),
        (
            {"scales": {"quick": {"pairs": [["resnet8", "resnet14"]], "seeds": "three"}}},
            "seeds is 'three'; it must be a whole number",
        ),
        ({"without": "growth"}, "without is 'growth'; it must be a list of names of arms"),
        ({"without": ["grwth"]}, "unknown arm in without of .* 'grwth'; did you mean growth"),
        ({"options": {"seed": 3}}, "options: seed cannot be set here; models go by pairs, the rest by --seeds"),
        ({"arms": {"ordinary": {"method": "ordinary"}, "x": {"base": "resnet20"}}}, "x: base cannot be set here"),
        ({"search": {"seed": [0, 1]}}, "ordinary: search: seed cannot be set here"),
        ({"search": {"lr": 0.1}}, r"search: lr is 0.1; it must be a list of values"),
        ({"search": {"lr": []}}, r"search: lr is \[\]; it must be a list of values"),
        ({"arms": {}}, r"arms is {}; name at least one"),
        ({"jobs": "two"}, "jobs is 'two'; it must be a whole number"),
        ({"classes": "ten"}, "classes is 'ten'; it must be a whole number"),
        ({"pretraining": [1]}, r"pretraining is \[1\]; it must be a mapping of options to values"),
        ({"budgets": [1, "two"]}, r"budgets is \[1, 'two'\]; it must be a list of numbers above 0"),
        ({"budgets": [0]}, r"budgets is \[0\]; it must be a list of numbers above 0"),
        (
            {"scales": {"quick": TINY["scales"]["by-cost"]}, "arms": {"ordinary": {"max-steps": 3}}},
            "ordinary: max_steps cannot be set where budgets say how long a run is",
        ),
        ({"arms": {"ordinary": {"method": "ordinary", "each": {"bse": {"lr": 0.2}}}}}, "each 'bse'; did you mean base"),
        ({"arms": {"ordinary": {"each": {"base": {"lr": 0.2}}}}}, "unknown run of motivated in .*each 'base'"),
        ({"search": {"rl": [0.1]}}, "unknown option in .*'rl'"),
        ({"scales": {"quick": {}}}, "a recipe needs pairs; add it, at the top or in the scale quick"),
        ({"scales": {"quick": 5}}, "scale quick is 5; it must be a mapping"),
        ({"options": {"temperature": 2}}, "unknown option in .*'temperature'"),
        ({"options": {"recipe": "bset"}}, "unknown recipe 'bset'; did you mean best"),
        ({"options": {"recipe": ["best"]}}, r"recipe is \['best'\]; give the name of one"),
        ({"options": {"recipe": 3}}, "recipe is 3; give the name of one"),
        (
            {"search": {"lr": [0.1]}, "arms": {"ordinary": {"method": "ordinary", "each": {"base": {"lr": 0.2}}}}},
            "ordinary: lr is both set by each and searched",
        ),
        ({"pretraining": {"epochs": 1}}, "growth cannot be combined with pretraining"),
    ],
)
def test_a_file_that_is_no_recipe(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SeekingError, match=message):
        read(tiny(tmp_path, **changes), "quick", {})


def test_images_in_a_folder_and_what_is_trained_before(tmp_path: Path) -> None:
    """The recipes for data that a user brings, on made images."""
    folder = str(image_folder(tmp_path / "images", sizes=[40, 48], per_class=8))
    options = {"epochs": 1, "batch_size": 8, "workers": 0, "verify": False, "image_size": 8}
    small = (("resnet8", "resnet14"),)
    recipe = dataclasses.replace(read("imagenet", "quick", {"data": folder, **options}), pairs=small)
    reproduce(recipe, tmp_path / "imagenet", range(1), 1, quietly)
    assert len(results(tmp_path / "imagenet")["records"]) == 2
    recipe = read("transfer", "quick", {"data": "digits", **options}, source=folder)
    recipe = dataclasses.replace(recipe, pretraining={**recipe.pretraining, "epochs": 1})
    recipe = dataclasses.replace(recipe, options={**recipe.options, "max_train_samples": 64, "lr": 0.0})
    reproduce(recipe, tmp_path / "transfer", range(1), 1, quietly)
    records = results(tmp_path / "transfer")["records"]
    assert all(record["runs"][0].startswith("pretraining/") for record in records)
    # Without a learning rate everything but the head is what was trained before.
    for arm, name, which in (
        ("motivated", "resnet8-resnet14", "motivated"),
        ("ordinary", "resnet8-resnet14-base", "base"),
    ):
        after = load_file(tmp_path / f"transfer/arms/{arm}/{name}/seed0/{which}.last.safetensors")
        before = load_file(tmp_path / f"transfer/pretraining/resnet8-resnet14/seed0/{which}.last.safetensors")
        for key, tensor in before.items():
            fits = not key.startswith(("conv1", "fc"))
            assert torch.equal(tensor, after[key]) == fits or "running" in key or "num_batches" in key, key


def step(loss: float, motivated: bool = False) -> dict[str, Any]:
    return {"kind": "step", "loss": loss, **({"motivated_loss": 0.0} if motivated else {})}


def steps(losses: list[float], condition: str) -> list[dict[str, Any]]:
    decide = parse(condition)
    return [step(loss, decide.update(loss)) for loss in losses]


@given(st.integers(1, 3), st.integers(0, 99))
@settings(max_examples=4)
def test_losses_without_a_trend_hold_as_often_as_their_shuffles(n: int, seed: int) -> None:
    losses = torch.rand(900, generator=torch.Generator().manual_seed(seed)).tolist()
    stages = evidence(steps(losses, f"decrease:{n}"), f"decrease:{n}", 0)
    for stage in stages.values():
        assert stage["shuffled"] == pytest.approx(1 / math.factorial(n + 1), abs=0.02)
        assert abs(stage["rate"] - stage["shuffled"]) < 6 * stage["deviation"]
        assert n == 1 or stage["loss"] < 1  # By construction: what has fallen is low.


def test_the_mean_of_several_seeds_is_less_noisy() -> None:
    losses = torch.rand(300, generator=torch.Generator().manual_seed(1)).tolist()
    single = evidence(steps(losses, "decrease:1"), "decrease:1", 0)
    mean = mean_evidence([single] * 3)
    for stage in single:
        assert mean[stage]["deviation"] == pytest.approx(single[stage]["deviation"] / 3**0.5)
        assert all(mean[stage][name] == pytest.approx(single[stage][name]) for name in ("rate", "shuffled", "loss"))
    assert mean_evidence([]) == {}


def test_a_trend_is_seen() -> None:
    falling = [10 - 0.001 * number for number in range(300)]
    stage = evidence(steps(falling, "decrease:2"), "decrease:2", 0)["midway"]
    assert stage["rate"] == 1
    assert stage["shuffled"] < 0.3
    zigzag = [10 - 0.001 * number + 0.01 * (number % 2) for number in range(300)]
    assert evidence(steps(zigzag, "decrease:2"), "decrease:2", 0)["late"]["rate"] == 0


def test_a_condition_on_what_is_not_recorded_is_not_compared_with_chance() -> None:
    rows = [{"kind": "step", "loss": 1.0, "grad_norm": norm, "motivated_loss": 1.0} for norm in (3.0, 1.0, 2.0) * 40]
    assert evidence(rows, "grad_norm:0", 0)["late"]["shuffled"] == pytest.approx(0.5, abs=0.1)
    for unknown in ("held_out:2 & grad_norm:0", "affordable:0,0.5"):
        stages = evidence(rows, unknown, 0)
        assert all((stage["rate"], stage["shuffled"]) == (1, None) for stage in stages.values())
        row = {"arm": unknown, "evidence": mean_evidence([stages])}
        assert "| 1.000 | 1.000 |" in experiment.evidence([row])


@pytest.mark.parametrize("on", ["same", "next"])
def test_the_evidence_is_of_the_batches_that_were_motivated(on: Any) -> None:
    config = dataclasses.replace(PLAIN, epochs=3, condition="decrease:1 | random:0.2", seed=3, on=on)
    result = Trainer(*two_models(), **batches(), config=config).fit()
    stage = evidence(result.history, config.condition, config.seed)["late"]
    rows = [row for row in result.history if row["kind"] == "step"][12:]
    motivated = [row["loss"] for row in rows if "motivated_loss" in row]
    assert stage["rate"] == len(motivated) / len(rows)
    mean = sum(row["loss"] for row in rows) / len(rows)
    assert stage["loss"] == pytest.approx(sum(motivated) / len(motivated) / mean)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8).filter(lambda values: max(values) - min(values) > 1e-3))
def test_intervals_are_students(values: list[float]) -> None:
    estimated = estimate(values)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert estimated["mean"] - estimated["interval"] == pytest.approx(low)
    assert estimated["mean"] + estimated["interval"] == pytest.approx(high)


def test_curves_count_what_went_before_and_tell_when_an_accuracy_is_reached() -> None:
    rows = [step(1.0), {"kind": "eval", "epoch": 1, "flops": 90.0, "base": {"accuracy": 0.2}}]
    rows += [{"kind": "eval", "epoch": 2, "flops": 180.0, "base": {"accuracy": 0.6}}]
    points = curve(rows, "base", {"epochs": 3, "flops": 100.0}, ACCURACY)
    assert points == [[4, 190.0, 0.2], [5, 280.0, 0.6]]
    assert first_reaching(points, 0.55, ACCURACY) == (5, 280.0)
    assert first_reaching(points, 0.7, ACCURACY) is None


def test_a_mean_curve_is_of_the_epochs_that_all_seeds_have() -> None:
    often, seldom = [[n, 90.0 * n, 0.1 * n] for n in (1, 2, 3)], [[n, 100.0 * n, 0.2 * n] for n in (2, 3)]
    points = mean_curve([often, seldom])
    assert [(point["flops"], point["values"]) for point in points] == [(190.0, [0.2, 0.4]), (285.0, [0.1 * 3, 0.2 * 3])]
    assert [point["values"] for point in mean_curve([often])] == [[accuracy] for _, _, accuracy in often]


@pytest.mark.parametrize(
    ("pair", "arm", "message"),
    [
        (["resnet14", "resnet8"], {}, r"^resnet14 in resnet8: layer1: the base has 2 blocks"),
        (["resnet8", "resnet14"], {"condition": "alway"}, r"^arms/x/resnet8-resnet14/seed0: .* 'alway'; did you mean"),
        (["resnet8", "resnet14", {"base_kwargs": {"width": 8}}], {}, r"^arms/x/resnet8-resnet14/seed0: .*is smaller"),
    ],
)
def test_what_cannot_be_trained_is_named(pair: list[Any], arm: dict[str, Any], message: str, tmp_path: Path) -> None:
    scales = {"quick": {"pairs": [pair]}}
    recipe = read(tiny(tmp_path, arms={"x": arm}, reference="x", scales=scales), "quick", {})
    with pytest.raises(SeekingError, match=message):
        reproduce(recipe, tmp_path / "out", range(1), 1, quietly)


def test_a_candidate_that_fails_is_not_chosen(tmp_path: Path) -> None:
    arms = {"condition": {"search": {"lr": [1e30, 0.05]}}}
    recipe = read(tiny(tmp_path, arms=arms, reference="condition"), "by-cost", {})
    reproduce(recipe, tmp_path / "out", range(1), 1, quietly)
    assert json.loads((tmp_path / "out" / "search.json").read_text())["condition"]["best"] == {"lr": 0.05}


def test_candidates_are_checked_before_the_first_is_trained(tmp_path: Path) -> None:
    arms = {"x": {"search": {"condition": ["always", "nvr"]}}}
    recipe = read(tiny(tmp_path, arms=arms, reference="x"), "quick", {})
    with pytest.raises(SeekingError, match=r"^search/.*nvr.*: .*unknown condition 'nvr'"):
        reproduce(recipe, tmp_path / "out", range(1), 1, quietly)
    assert not [*(tmp_path / "out").rglob("config.json")]


def test_a_search_that_fails_for_another_reason_has_found_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = {"condition": {"search": {"lr": [0.01, 0.05]}}}
    recipe = read(tiny(tmp_path, arms=arms, reference="condition"), "by-cost", {})
    train_run = parallel.train_run

    def fail_at_one_rate(run: Any, *arguments: Any) -> None:
        if run.config.lr == 0.05:
            raise torch.OutOfMemoryError("no memory is left")
        train_run(run, *arguments)

    monkeypatch.setattr(parallel, "train_run", fail_at_one_rate)
    with pytest.raises(RunError, match=r"search/lr=0.05/.*: no memory is left$"):
        reproduce(recipe, tmp_path / "out", range(1), 1, quietly)
    assert not (tmp_path / "out" / "search.json").exists()


def test_a_search_that_cannot_be_written_down_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = read(tiny(tmp_path, arms={"condition": {"search": {"lr": [0.05]}}}, reference="condition"), "by-cost", {})
    write_json = searching.write_json

    def full(path: Path, content: Any) -> None:
        if path.name == "search.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        write_json(path, content)

    monkeypatch.setattr(searching, "write_json", full)
    with pytest.raises(RunError, match=r"search\.json: cannot be written \(No space left on device\)"):
        reproduce(recipe, tmp_path / "out", range(1), 1, quietly)


def test_a_search_keeps_what_an_arm_says_of_each_model(tmp_path: Path) -> None:
    arms = {"ordinary": {"method": "ordinary", "each": {"base": {"weight_decay": 0.125}}}}
    recipe = read(tiny(tmp_path, arms=arms), "by-cost", {})
    searched = searching.search(recipe, tmp_path, {recipe.pairs[0]: 2.0}, 1, quietly)
    assert searched.arms["ordinary"]["each"]["base"].keys() == {"weight_decay", "lr"}
    assert searched.arms["ordinary"]["each"]["motivated"].keys() == {"lr"}


@pytest.mark.parametrize("before", [{}, {"pretraining": {"epochs": 1}}])
def test_pairs_that_have_a_model_in_common(before: dict[str, Any], tmp_path: Path) -> None:
    """Trained alone it is one run, unless the pair decides how."""
    pairs = [["resnet8", "resnet14", {} if before else {"lr": 0.1}], ["resnet8", "resnet20"], ["resnet8", "resnet32"]]
    arms = {"ordinary": {"method": "ordinary"}}
    recipe = read(tiny(tmp_path, arms=arms, scales={"quick": {"pairs": pairs}}, **before), "quick", {})
    runs = parallel.runs_by_folder(recipe.trials(range(1), dict.fromkeys(recipe.pairs, 2.0)))
    assert len([run for run in runs.values() if run.stage.name == "base"]) == (3 if before else 2)


def test_two_widths_of_one_model_are_two_runs(tmp_path: Path) -> None:
    arms, scales = {"ordinary": {"method": "ordinary"}}, {"quick": {"pairs": [["resnet8", "resnet8"]]}}
    name = tiny(tmp_path, arms=arms, scales=scales, options={"motivated_kwargs": {"width": 24}})
    recipe = read(name, "quick", {})
    runs = parallel.runs_by_folder(recipe.trials([0], dict.fromkeys(recipe.pairs, 2.0)))
    assert [run.stage.name for run in runs.values()] == ["base", "motivated"]


def test_runs_that_would_share_a_folder_are_refused(tmp_path: Path) -> None:
    recipe = read(tiny(tmp_path, arms={"n < 1": {}, "n > 1": {"lr": 0.1}}, reference="n < 1"), "quick", {})
    with pytest.raises(SeekingError, match="two different runs of this recipe have the folder arms/n-1/"):
        reproduce(recipe, tmp_path / "out", range(1), 1, quietly)
    assert not (tmp_path / "out").exists()


OPTIONS = {"budget": [0.7, 0.9], "condition": ["always", "every:3"], "finish": ["tied", "private"], "decay": [0.1, 0.3]}
SOME_OPTIONS = st.fixed_dictionaries({}, optional={name: st.sampled_from(OPTIONS[name]) for name in OPTIONS})
WITH_RECIPE = st.tuples(st.sampled_from([{}, {"recipe": "best"}, {"recipe": "paper"}]), SOME_OPTIONS).map(
    lambda parts: {**parts[0], **parts[1]}
)


@given(WITH_RECIPE, WITH_RECIPE, SOME_OPTIONS)
@settings(max_examples=30)
def test_an_arm_with_a_training_recipe_is_the_run_of_the_command_line(
    shared: dict[str, Any], arm: dict[str, Any], pair: dict[str, Any]
) -> None:
    """The recipe's options under all others, wherever these are given; an experiment has no default recipe."""
    explicit = {"recipe": None, **shared, **pair, **arm}
    with tempfile.TemporaryDirectory() as folder:
        scales = {"quick": {"pairs": [["resnet8", "resnet14", pair]]}}
        path = tiny(Path(folder), options=shared, arms={"x": arm}, reference="x", scales=scales)
        recipe = read(path, "quick", {})
        config = Path(folder) / "config.yaml"
        config.write_text(yaml.safe_dump(explicit))
        args = with_files(["--config", str(config)], Train)[0]
    expected = parse_options(Train, args, "seeking train").recorded()
    (run,) = recipe.trial("x", ("resnet8", "resnet14"), None, 0, 2.0).runs
    assert run.config.recorded().items() <= expected.items()


@pytest.mark.parametrize("place", ["options", "arms"])
def test_an_experiment_records_the_options_of_a_training_recipe(place: str, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    by_recipe = {"recipe": str(own)}
    changes: dict[str, Any] = {"reference": "x", "arms": {"x": by_recipe if place == "arms" else {}}}
    changes |= {"options": by_recipe} if place == "options" else {}
    root = tmp_path / "out"
    own.write_text("condition: always\n")
    claim(read(tiny(tmp_path, **changes), "quick", {}), root)
    recorded = json.loads((root / "recipe.json").read_text())
    resolved = recorded["options"] if place == "options" else recorded["arms"]["x"]
    assert resolved["recipe"] == {"condition": "always"}
    (root / "arms").mkdir()
    claim(read(tiny(tmp_path, **changes), "quick", {}), root)
    own.write_text("condition: never\n")
    with pytest.raises(
        SeekingError, match=r"another recipe:\n.*: recipe: condition: 'always' in the folder, 'never' now"
    ):
        claim(read(tiny(tmp_path, **changes), "quick", {}), root)


def test_arms_and_pairs_may_be_added_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "out"
    scales = {"quick": {**TINY["scales"]["quick"]}}

    def with_arms(*, of_all: Mapping[str, Any] = {}, pairs: int = 1, **arms: dict[str, Any]) -> Recipe:
        scales["quick"]["pairs"] = [["resnet8", "resnet14"], ["resnet8", "resnet20"]][:pairs]
        options = {**TINY["options"], **of_all}
        arms = {"ordinary": TINY["arms"]["ordinary"], **arms}
        return read(tiny(tmp_path, arms=arms, options=options, scales=scales), "quick", {})

    claim(with_arms(a={}), root)
    (root / "arms").mkdir()
    claim(with_arms(a={}, b={"condition": "every:2"}, of_all={"workers": 1}), root)
    recorded = json.loads((root / "recipe.json").read_text())
    assert list(recorded["arms"]) == ["ordinary", "a", "b"]
    assert recorded["options"]["workers"] == 1
    claim(with_arms(a={}, b={"condition": "every:2"}, pairs=2), root)
    with pytest.raises(
        SeekingError, match=r"another recipe:\n  arms: b: {'condition': 'every:2'} in the folder, None now\nName"
    ):
        claim(with_arms(a={}, pairs=2), root)
    for other in (
        with_arms(a={}, b={"condition": "every:2"}),
        with_arms(a={}, b={"condition": "every:3"}, pairs=2),
        with_arms(a={}, b={"condition": "every:2"}, c={}, pairs=2, of_all={"lr": 0.3}),
    ):
        with pytest.raises(SeekingError, match="another recipe"):
            claim(other, root)


def test_an_arm_that_is_added_later_joins_the_seeds_that_there_are(tmp_path: Path) -> None:
    root, arms = tmp_path / "out", {name: TINY["arms"][name] for name in ("ordinary", "condition")}
    reproduce(read(tiny(tmp_path, arms=arms), "quick", {}), root, [0, 1], 1, quietly)
    before = results(root)
    arms["always"] = {"condition": "always"}
    reproduce(read(tiny(tmp_path, arms=arms), "quick", {}), root, [1], 1, quietly)
    after = results(root)
    assert {row["arm"]: row["seeds"] for row in after["rows"]} == {"ordinary": 2, "condition": 2, "always": 1}
    assert [record for record in after["records"] if record["arm"] != "always"] == before["records"]


def test_a_pair_that_is_added_later_joins_the_seeds_that_there_are(tmp_path: Path) -> None:
    root, arms = tmp_path / "out", {name: TINY["arms"][name] for name in ("condition", "ordinary")}
    pairs = [["resnet8", "resnet14"]]
    scales = {"quick": {"pairs": pairs, "options": {"epochs": 1}}}
    reproduce(read(tiny(tmp_path, arms=arms, scales=scales), "quick", {}), root, [0, 1], 1, quietly)
    before = results(root)
    pairs.append(["resnet8", "resnet20"])
    reproduce(read(tiny(tmp_path, arms=arms, scales=scales), "quick", {}), root, [0], 1, quietly)
    after = results(root)
    assert [record for record in after["records"] if record["pair"] == pairs[0]] == before["records"]
    seeds = {(row["pair"][1], row["arm"]): row["seeds"] for row in after["rows"]}
    assert [seeds["resnet14", arm] for arm in arms] == [2, 2]
    assert [seeds["resnet20", arm] for arm in arms] == [1, 1]


@pytest.mark.parametrize("written", ["1e-3", 0.001])
def test_options_of_one_run_of_an_arm_are_read_as_all_others(written: Any, tmp_path: Path) -> None:
    """YAML takes 1e-3 for text."""
    arms = {"ordinary": {"method": "ordinary", "each": {"base": {"lr": written, "weight-decay": 0}}}}
    recipe = read(tiny(tmp_path, arms=arms), "quick", {})
    base, motivated = (run.config for run in recipe.trial("ordinary", recipe.pairs[0], None, 0, 2.0).runs)
    assert (base.lr, base.weight_decay, motivated.lr) == (0.001, 0.0, 0.05)


@settings(max_examples=15)
@given(st.sampled_from(["options", "pairs", "arms"]), SOME_OPTIONS.filter(bool), st.booleans())
def test_a_recipe_written_in_another_way_goes_on(place: str, moved: dict[str, Any], changed: bool) -> None:
    """The same options of the same runs, whether they are those of all runs, of the pair or of the arm."""

    def written(place: str, options: dict[str, Any], folder: Path) -> Recipe:
        given = {name: options if name == place else {} for name in ("options", "pairs", "arms")}
        scales = {"quick": {"pairs": [["resnet8", "resnet14", given["pairs"]]]}}
        return read(
            tiny(folder, options=given["options"], arms={"x": given["arms"]}, reference="x", scales=scales), "quick", {}
        )

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        claim(written("arms", moved, folder), folder / "out")
        (folder / "out" / "arms").mkdir()
        again = written(place, {**moved, **({"lr": 0.3} if changed else {})}, folder)
        with pytest.raises(SeekingError, match="another recipe") if changed else contextlib.nullcontext():
            claim(again, folder / "out")
