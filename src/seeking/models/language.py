"""Language models of transformers, by the number of their layers and their width."""

import re
from typing import Any

import torch
from torch import nn

from seeking.errors import SeekingError, unknown
from seeking.models.family import Family

HEAD = 32
"""Channels of an attention head."""
NAME = re.compile(r"(gpt2|llama)-([1-9]\d*)x([1-9]\d*)")
OTHER_NAMES = ("attn_implementation", "rope_scaling", "rope_theta")
"""Of configurations, which keep them by other names."""


def language_model(name: str, *, num_classes: int, sequence_length: int, **changes: Any) -> nn.Module:
    """A language model with random weights; nothing is downloaded.

    Maps numbers of tokens, int64 ``[batch, tokens]``, to an output with ``logits``, ``[batch, tokens, num_classes]``.
    Heads have 32 channels; in ``llama`` each two of them share keys and values (grouped queries). Without dropout.

    Args:
        name: such as ``gpt2-4x128``: 4 layers of 128 channels.
        num_classes: size of the vocabulary.
        sequence_length: greatest number of tokens.
        changes: to the configuration, by transformers' names.

    Raises:
        SeekingError: transformers is not installed, or its configuration has no option of such a name.
        ValueError: the width is not a multiple of a head's, or of two heads' for ``llama``.
    """
    try:
        import transformers
    except ImportError as error:
        raise SeekingError(
            f"{name} is a model of transformers; in the folder of seeking: pip install '.[transformers]'"
        ) from error
    match = NAME.fullmatch(name)
    assert match
    family, layers, width = match[1], int(match[2]), int(match[3])
    least = HEAD if family == "gpt2" else 2 * HEAD
    if width % least:
        raise ValueError(f"the width is {width}; it must be a multiple of {least}")
    kind: Any = transformers.GPT2Config if family == "gpt2" else transformers.LlamaConfig
    known = {*kind().to_dict(), *kind.attribute_map, *OTHER_NAMES}
    for change in changes.keys() - known:  # Transformers would keep it without a word.
        raise unknown(f"option of {kind.__name__}", change, known)
    common: dict[str, Any] = {"vocab_size": num_classes, "use_cache": False, "bos_token_id": None, "eos_token_id": None}
    if family == "gpt2":
        config = kind(
            n_layer=layers,
            n_embd=width,
            n_head=width // HEAD,
            n_positions=sequence_length,
            **{"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, **common, **changes},
        )
    else:
        config = kind(
            num_hidden_layers=layers,
            hidden_size=width,
            intermediate_size=3 * width,
            num_attention_heads=width // HEAD,
            num_key_value_heads=width // HEAD // 2,
            max_position_embeddings=sequence_length,
            **{**common, **changes},
        )
    model: nn.Module = transformers.AutoModelForCausalLM.from_config(config)
    return model


FAMILY = Family(
    pattern=NAME,
    names=("gpt2-LAYERSxWIDTH", "llama-LAYERSxWIDTH"),
    task="text",
    make=language_model,
    arguments=lambda num_classes, channels: {"num_classes": 256, "sequence_length": 64},  # Bytes.
    example=lambda channels, generator: torch.randint(256, (2, 16), generator=generator),
)
