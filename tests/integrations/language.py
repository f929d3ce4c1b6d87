"""A pair of tiny language models under the Hugging Face Trainer, alone or as one of several processes.

python tests/integrations/language.py FOLDER
torchrun --nproc-per-node 2 tests/integrations/language.py FOLDER
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch
import transformers as t
from torch import nn
from torch.utils.data import Dataset

from seeking import Condition, ConsecutiveDecrease, Pair
from seeking.integrations.transformers import MotivatedTrainer


def gpt2(layers: int, dropout: float = 0.1) -> t.GPT2LMHeadModel:
    sizes = {"n_embd": 16, "n_head": 2, "n_positions": 16, "vocab_size": 29}
    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    return t.GPT2LMHeadModel(t.GPT2Config(n_layer=layers, bos_token_id=0, eos_token_id=0, **sizes, **rates))


def llama(heads: int) -> t.LlamaForCausalLM:
    """Wider with grouped queries: two query heads for each key."""
    sizes = {"hidden_size": 8 * heads, "intermediate_size": 16 * heads, "num_attention_heads": heads, "head_dim": 8}
    rest = {"num_key_value_heads": heads // 2, "num_hidden_layers": 2, "vocab_size": 29, "max_position_embeddings": 16}
    return t.LlamaForCausalLM(t.LlamaConfig(**sizes, **rest, pad_token_id=0, bos_token_id=0, eos_token_id=0))


class Words(Dataset[dict[str, torch.Tensor]]):
    """A walk over the alphabet, 16 letters a sample."""

    def __init__(self, samples: int) -> None:
        steps = torch.randint(1, 4, (samples, 16), generator=torch.Generator().manual_seed(0))
        self.tokens = steps.cumsum(1) % 29

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.tokens[index], "labels": self.tokens[index]}


def trainer(
    folder: Path, pair: Pair | None = None, *, condition: Condition | str = "every:2", **given: Any
) -> MotivatedTrainer:
    torch.manual_seed(0)
    pair = pair or Pair(gpt2(1), gpt2(2))
    options: dict[str, Any] = {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 4,
        "learning_rate": 3e-3,
        "warmup_steps": 2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    args = t.TrainingArguments(str(folder), **{**options, **given})
    return MotivatedTrainer(pair, args, condition=condition, train_dataset=Words(24), eval_dataset=Words(8))


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def equal(ours: nn.Module | dict[str, torch.Tensor], theirs: nn.Module | dict[str, torch.Tensor]) -> bool:
    left, right = (weights(side) if isinstance(side, nn.Module) else side for side in (ours, theirs))
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def losses(run: Any) -> list[float]:
    return [row["loss"] for row in run.state.log_history if "loss" in row]


class InFirst(Condition):
    """Decides otherwise in the second process, as one that draws random numbers may."""

    def holds(self, loss: float, **signals: Any) -> bool:
        return os.environ.get("RANK", "0") == "0"


def main(folder: Path, processes: int) -> None:
    torch.set_num_threads(1)

    def trained(place: Path, resumed: str | None = None, **options: Any) -> MotivatedTrainer:
        torch.manual_seed(0)
        both = trainer(
            place,
            Pair(gpt2(1, dropout=0.0), gpt2(2, dropout=0.0)),
            condition=InFirst() & ConsecutiveDecrease(1),
            per_device_train_batch_size=2,
            gradient_accumulation_steps=4 // processes,  # One process accumulates what two take at once.
            max_grad_norm=0.5,
            **options,
        )
        both.train(resumed)
        assert both.motivated_steps > 0
        return both

    trained(folder, eval_strategy="epoch").save_model()
    low = {"bf16": True, "max_steps": 5}
    whole = trained(folder / "bf16", save_strategy="steps", save_steps=2, **low)
    whole.save_model()
    if processes > 1:  # Within the first epoch; of one process, test_transformers_checkpoints.py has more.
        resumed = trained(folder / "resumed", str(folder / "bf16" / "checkpoint-2"), **low)
        pairs = (whole.pair.base, resumed.pair.base), (whole.pair.motivated_model, resumed.pair.motivated_model)
        for model, other in pairs:
            for tensor, same in zip(model.parameters(), other.parameters(), strict=True):
                assert torch.equal(tensor, same)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(os.environ.get("WORLD_SIZE", "1")))
