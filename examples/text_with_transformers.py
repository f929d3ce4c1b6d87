"""Language models over the bytes of a text, two pairs of them, with the Trainer of Hugging Face transformers.

GPT-2 with more layers, and Llama with more width and grouped queries: two heads share each key. What motivated training
adds is marked with "seeking".

    python examples/text_with_transformers.py                # the sources of Python's standard library
    python examples/text_with_transformers.py --text FILE    # a text of your own
"""

import argparse
import math
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.utils.data import Dataset

import seeking
from seeking.data.text import read_text
from seeking.integrations.transformers import MotivatedTrainer

BYTES = 256
HEAD = 32
"""Channels of an attention head."""
SPECIAL: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


class Windows(Dataset[dict[str, Tensor]]):
    """Windows of a text, side by side. Each begins with the last byte of the one before, which predicts its first."""

    def __init__(self, text: Tensor, length: int) -> None:
        self.text, self.length = text, length

    def __len__(self) -> int:
        return (len(self.text) - 1) // self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        window = self.text[index * self.length : (index + 1) * self.length + 1].long()
        # The models shift the labels, so the first one is not predicted. transformers counts it nevertheless for models
        # such as GPT-2, and would divide the loss by one byte too many.
        labels = window.clone()
        labels[0] = -100
        return {"input_ids": window, "labels": labels}


def gpt2(layers: int, width: int, length: int) -> transformers.PreTrainedModel:
    """GPT-2 without dropout."""
    sizes: dict[str, Any] = {"n_layer": layers, "n_embd": width, "n_head": width // HEAD, "n_positions": length + 1}
    rates: dict[str, Any] = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **rates, **SPECIAL, vocab_size=BYTES))


def llama(layers: int, width: int, length: int) -> transformers.PreTrainedModel:
    """Llama; each two heads share their keys and values."""
    heads: dict[str, Any] = {"num_attention_heads": width // HEAD, "num_key_value_heads": width // HEAD // 2}
    sizes: dict[str, Any] = {"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": 3 * width}
    config = transformers.LlamaConfig(**heads, **sizes, **SPECIAL, vocab_size=BYTES, max_position_embeddings=length + 1)
    return transformers.LlamaForCausalLM(config)


def train(pair: seeking.Pair, text: Tensor, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Train a pair on all but the last tenth of a text; returns the bits per byte of both models on that tenth."""
    place = len(text) - len(text) // 10
    arguments = transformers.TrainingArguments(
        str(folder),
        max_steps=options.steps,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=4 * options.batch_size,
        learning_rate=options.lr,
        weight_decay=0.1,
        warmup_steps=options.steps // 20,
        lr_scheduler_type="cosine",
        eval_strategy="epoch",
        save_strategy="no",
        logging_steps=max(1, options.steps // 10),
        report_to="none",
        disable_tqdm=True,
    )
    trainer = MotivatedTrainer(  # seeking: in place of transformers.Trainer.
        pair,
        arguments,
        condition=options.condition,
        train_dataset=Windows(text[:place], options.length),
        eval_dataset=Windows(text[place:], options.length),
    )
    trainer.train()
    metrics = trainer.evaluate()
    trainer.save_model()  # seeking: the base, and in its folder "motivated" the motivated model.
    share = trainer.motivated_steps / max(1, trainer.state.global_step)
    names = {"base": "eval_loss", "motivated": "eval_motivated_loss"}
    return {**{name: metrics[key] / math.log(2) for name, key in names.items()}, "motivated share": share}


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Train both pairs; print and return the bits per byte of each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", default="python")
    parser.add_argument("--length", type=int, default=128, help="bytes in a window")
    parser.add_argument("--width", type=int, default=128, help="of the larger models; a multiple of 128")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--condition", default="decrease:2")
    parser.add_argument("--output", type=Path, default=Path("runs/text_with_transformers"))
    options = parser.parse_args(arguments)
    text, width, length = read_text(options.text), options.width, options.length
    kinds = {
        "gpt2": lambda: (gpt2(1, width, length), gpt2(4, width, length)),
        "llama": lambda: (llama(4, width // 2, length), llama(4, width, length)),
    }
    results = {}
    for name, models in kinds.items():
        torch.manual_seed(0)
        pair = seeking.Pair(*models())  # seeking: two models, and which part of the larger one is the smaller one.
        results[name] = train(pair, text, options.output / name, options)
        print(f"{name}: bits per byte", ", ".join(f"{key} {value:.3f}" for key, value in results[name].items()))
        print(f"{name}: {options.output / name} and {options.output / name / 'motivated'} load by from_pretrained")
    return results


if __name__ == "__main__":
    main()
