"""What the Hugging Face Trainer would do to one model of a pair alone, which is refused."""

import warnings
from typing import TYPE_CHECKING, Any

from seeking.conditions import Condition
from seeking.errors import RunWarning, SeekingError
from seeking.integrations import check_pair
from seeking.integrations.transformers_models import has_adapters
from seeking.pair import Pair

if TYPE_CHECKING:  # Where it is missing, the integration says so.
    import transformers


def check_arguments(
    pair: Pair,
    args: "transformers.TrainingArguments",
    condition: Condition,
    options: dict[str, Any],
    *,
    generates: bool = False,
) -> None:
    """Refuse what would be done to one model alone, or not at all.

    Args:
        pair: the pair.
        args: the arguments.
        condition: the condition.
        options: further ones of the trainer.
        generates: whether the trainer is one that generates for its evaluations.

    Raises:
        SeekingError: names it, and what to do.
    """
    check_pair(pair, "MotivatedTrainer")
    both = "it would apply to the base alone; "
    optim = str(getattr(args.optim, "value", args.optim))
    refused = {
        "model": (options.get("model") is not None, "the pair has the models"),
        "model_init": (options.get("model_init") is not None, "make the models and their pair first"),
        "optimizers": (
            any(options.get("optimizers") or ()),
            "it is one optimizer for two models; give optimizer_cls_and_kwargs, or override create_optimizer",
        ),
        "fsdp": (bool(args.fsdp), "use seeking.Trainer with shard=True"),
        "deepspeed": (bool(args.deepspeed), "it trains one model; use several processes without it"),
        "gradient_checkpointing": (
            any(getattr(args, f"{what}_checkpointing", False) for what in ("gradient", "activation")),
            f"{both}call gradient_checkpointing_enable() of both models",
        ),
        "use_liger_kernel": (
            args.use_liger_kernel,
            f"{both}call transformers.integrations.liger.apply_liger_kernel(model, None) for both models",
        ),
        "debug": ("underflow_overflow" in args.debug, f"{both}leave it out"),
        "auto_find_batch_size": (
            args.auto_find_batch_size,
            "it would begin anew after half a step of one model; set per_device_train_batch_size to what a step of the "
            "motivated model has memory for, and gradient_accumulation_steps for larger batches",
        ),
        "predict_with_generate": (
            getattr(args, "predict_with_generate", False) and not generates,
            "the Trainer itself does not generate; make a class of both, "
            "class MotivatedSeq2SeqTrainer(MotivatedTrainer, Seq2SeqTrainer): pass",
        ),
        "fp16_full_eval": (args.fp16_full_eval, f"{both}use fp16"),
        "bf16_full_eval": (args.bf16_full_eval, f"{both}use bf16"),
        "optim": (
            any(word in optim for word in ("lomo", "layerwise", "schedule_free")),
            f"{optim} does not take its steps apart from the model's passes; take another, such as adamw_torch",
        ),
        "condition": (
            condition.needs_held_out or condition.uses_budget,
            f"{condition} needs held-out data or a budget, which only seeking.Trainer has",
        ),
    }
    for name, (given, remedy) in refused.items():
        if given:
            raise SeekingError(f"{name} cannot be used with MotivatedTrainer: {remedy}")
    if args.n_gpu > 1:
        raise SeekingError(
            f"this process sees {args.n_gpu} GPUs; start one process for each with torchrun, or show it one with "
            "CUDA_VISIBLE_DEVICES"
        )
    if pair.separated:
        raise SeekingError("the pair was separated: each model has weights of its own; make a new Pair")
    if has_adapters(pair.motivated_model):
        warnings.warn(
            "save_model saves the adapters alone, and pairing puts frozen weights of one model into the other; the "
            "adapters belong to models that were saved after seeking.embed(base, motivated), before get_peft_model",
            RunWarning,
            stacklevel=3,
        )


def check_processes(accelerator: Any) -> None:
    """Refuse what the configuration of accelerate, rather than the arguments, would do to one model alone.

    Raises:
        SeekingError: the processes share out a model.
    """
    kind = str(accelerator.distributed_type.value)
    if getattr(accelerator, "parallelism_config", None):
        kind = "parallelism_config"
    if kind != "NO" and not kind.startswith("MULTI_"):
        raise SeekingError(
            f"{kind} cannot be used with MotivatedTrainer: it would apply to the base alone; start the processes with "
            "torchrun, or with accelerate launch --multi_gpu; for FSDP use seeking.Trainer with shard=True"
        )
