"""What else users of the Hugging Face Trainer do with a pair, and what is refused."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType

t = pytest.importorskip("transformers", reason="needs transformers: pip install 'seeking[transformers]'")
from language import Words, gpt2, trainer  # noqa: E402

from seeking import Pair, SeekingError  # noqa: E402
from seeking.integrations.transformers import MotivatedTrainer  # noqa: E402
from seeking.integrations.transformers_arguments import check_processes  # noqa: E402

pytestmark = [  # Most take a second or two, of which the Trainer's start is the most.
    pytest.mark.slow,
    pytest.mark.usefixtures("_quiet"),
]


def test_predictions_are_the_bases_and_metrics_of_both(tmp_path: Path) -> None:
    pair = Pair(gpt2(1), gpt2(2))
    args = trainer(tmp_path, pair).args
    seen: list[torch.Tensor] = []

    def metrics(result: Any) -> dict[str, float]:
        seen.append(result.predictions)
        return {"size": float(result.predictions.size)}

    run = MotivatedTrainer(pair, args, eval_dataset={"a": Words(4), "b": Words(8)}, compute_metrics=metrics)
    evaluated = run.evaluate()
    sizes = {"eval_a_size": 4 * 16 * 29, "eval_b_motivated_size": 8 * 16 * 29}
    assert {name: evaluated[name] for name in sizes} == sizes
    predicted = run.predict(Words(4)).predictions
    pair.base.eval()
    assert torch.allclose(torch.tensor(predicted), pair.base(Words(4).tokens).logits, atol=1e-5)


@pytest.mark.parametrize(
    "given",
    [
        {"gradient_checkpointing": True},
        {"auto_find_batch_size": True},
        {"optim": "lomo"},
        {"condition": "held_out:4"},
        {"bf16_full_eval": True},
        {"use_liger_kernel": True},
        {"debug": "underflow_overflow"},
    ],
    ids=str,
)
def test_what_would_be_done_to_one_model_alone_is_refused(tmp_path: Path, given: dict[str, Any]) -> None:
    with pytest.raises(SeekingError, match=f"{next(iter(given))} cannot be used"):
        trainer(tmp_path, **given)


class MotivatedSeq2SeqTrainer(MotivatedTrainer, t.Seq2SeqTrainer):
    pass


def test_both_models_generate_where_the_trainer_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 23, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_heads": 2, "decoder_start_token_id": 0}
    pair = Pair(*(t.T5ForConditionalGeneration(t.T5Config(**sizes, num_layers=layers)) for layers in (1, 2)))
    words = torch.randint(1, 23, (6, 5))
    data = [{"input_ids": row, "labels": row} for row in words]
    arguments = t.Seq2SeqTrainingArguments(
        str(tmp_path), max_steps=2, predict_with_generate=True, report_to="none", use_cpu=True, disable_tqdm=True
    )
    with pytest.raises(SeekingError, match=r"predict_with_generate .*MotivatedTrainer, Seq2SeqTrainer"):
        MotivatedTrainer(pair, arguments, train_dataset=data)
    generated: list[Any] = []
    run = MotivatedSeq2SeqTrainer(
        pair,
        arguments,
        condition="always",
        train_dataset=data,
        eval_dataset=data,
        compute_metrics=lambda given: {"sum": generated.append(given.predictions) or 0.0},
    )
    run.train()
    run.evaluate()
    with pair.motivated() as motivated:
        for model, tokens in zip((pair.base, motivated), generated, strict=True):
            own = model.eval().generate(words, max_new_tokens=19)
            assert torch.equal(torch.from_numpy(tokens)[:, : own.shape[1]], own)


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED", "MEGATRON_LM", "XLA"])
def test_a_configuration_of_accelerate_that_shards_the_base_alone_is_refused(kind: str) -> None:
    for_both = SimpleNamespace(distributed_type=DistributedType.MULTI_CPU, parallelism_config=None)
    check_processes(for_both)
    with pytest.raises(SeekingError, match=f"{kind} cannot be used with MotivatedTrainer.* torchrun"):
        check_processes(SimpleNamespace(distributed_type=DistributedType[kind], parallelism_config=None))
    for_both.parallelism_config = object()
    with pytest.raises(SeekingError, match="parallelism_config cannot be used"):
        check_processes(for_both)


def test_habits_of_the_trainer(tmp_path: Path) -> None:
    """A schedule and the best by a metric of the motivated model's predictions, few checkpoints, several data sets."""

    def share(result: Any) -> dict[str, float]:
        return {"right": float((result.predictions[:, :-1] == result.label_ids[:, 1:]).mean())}

    pair = Pair(gpt2(1), gpt2(2))
    for model in pair.base, pair.motivated_model:
        model.gradient_checkpointing_enable()
    steps = {"eval_strategy": "steps", "eval_steps": 3, "save_strategy": "steps", "save_steps": 3}
    run = trainer(
        tmp_path,
        pair,
        **steps,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="few_motivated_right",
        greater_is_better=True,
        lr_scheduler_type="reduce_lr_on_plateau",
        lr_scheduler_kwargs={"patience": 0, "threshold": 10.0},
    )
    run.compute_metrics, run.preprocess_logits_for_metrics = share, lambda logits, labels: logits.argmax(-1)
    run.eval_dataset = {"few": Words(4), "more": Words(8)}
    run.train()
    evaluations = [
        row["eval_few_motivated_right"] for row in run.state.log_history if "eval_few_motivated_right" in row
    ]
    assert len(evaluations) == 4 and run.state.best_metric == max(evaluations)
    predicted = run.predict(Words(4))
    assert predicted.predictions.shape == (4, 16) and predicted.metrics["test_motivated_right"] == max(evaluations)
    rates = run.optimizer.param_groups[0]["lr"], run._learner[1].param_groups[0]["lr"]
    assert rates[0] <= rates[1] < 3e-3


def test_a_search_would_need_a_pair_for_each_trial(tmp_path: Path) -> None:
    with pytest.raises(SeekingError, match="make both in a loop of your own"):
        trainer(tmp_path).hyperparameter_search(n_trials=1)


def test_early_stopping_by_the_motivated_model(tmp_path: Path) -> None:
    run = trainer(
        tmp_path,
        learning_rate=0.0,
        num_train_epochs=6,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="eval_motivated_loss",
    )
    run.add_callback(t.EarlyStoppingCallback(2))
    run.train()
    assert run.state.global_step == 18  # It gets no better after the first of six epochs.
