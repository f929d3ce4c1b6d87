"""Coverage: derive and verify maps for pairs of models of neighboring sizes, and write a table.

    python benchmarks/coverage.py --output results/coverage.md

covers timm, torchvision and, if it is installed, transformers. Each pair's map is derived on the meta device and
verified with random weights on a small input. ``--only TEXT`` selects the pairs whose name contains the text.
"""

import argparse
import collections
import dataclasses
import itertools
import multiprocessing
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import timm
import torch
from torch import nn

import seeking
from seeking.errors import NotContainedError
from seeking.matching.example_inputs import example_inputs
from seeking.matching.tracer import UntraceableError, trace

SIZES = re.compile(
    "zepto|atto|femto|pico|nano|xxxs|xxs|xs|tiny|ti|t|mini|micro|little|s|small|m|medium|l|base|b|large|xl|xlarge|"
    "xxlarge|huge|h|giant|g|gigantic|enormous|n|lite"
)
RESOLUTION = re.compile(r"_(1[0-9]{2}|2[0-9]{2}|3[0-9]{2}|4[0-9]{2}|5[0-9]{2}|1024)(to\d+)?$")
MAX_PARAMETERS = 150_000_000
"""Larger models are skipped."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A pair of models to test."""

    library: str
    family: str
    base: str
    motivated: str

    def __str__(self) -> str:
        return f"{self.library} {self.family}: {self.base} in {self.motivated}"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result for a pair."""

    pair: Candidate
    status: str
    """``exact``, ``not contained``, ``differs`` or ``error``."""
    reason: str
    parameters: tuple[int, int] = (0, 0)
    shared: float = 0.0
    seconds: float = 0.0


def count(model: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def on_meta_device(make: Callable[[str], nn.Module], name: str) -> nn.Module:
    """Create a model on the meta device."""
    try:
        with torch.device("meta"):
            return make(name)
    except (NotImplementedError, RuntimeError):  # Some constructors compute with their weights.
        return make(name).to("meta")


def neighboring_pairs(library: str, groups: dict[str, list[str]], pool: Pool) -> Iterator[Candidate]:
    """Pairs of models of the same family with neighboring sizes."""
    all_names = [name for names in groups.values() for name in names]
    size_of = dict(
        zip(all_names, pool.starmap(_size, [(library, name) for name in all_names], chunksize=8), strict=True)
    )
    for family, names in groups.items():
        sized = sorted((size_of[name], name) for name in names if size_of[name] <= MAX_PARAMETERS)
        for (small, base), (large, motivated) in itertools.pairwise(sized):
            if large > 1.02 * small:
                yield Candidate(library, family, base, motivated)


def _size(library: str, name: str) -> int:
    return count(on_meta_device(timm_model if library == "timm" else torchvision_model, name))


def timm_groups() -> dict[str, list[str]]:
    """timm's models, grouped by module and by name without size words."""

    def family(name: str) -> str:
        words = name.split("_")
        kept = [re.sub(r"\d+([a-z]{0,3})$", r"*\1", words[0])]
        for position, word in enumerate(words[1:], 1):
            size = (
                position < 3
                and not word.startswith("patch")
                and re.fullmatch(
                    r"[a-z]{1,2}\d{1,3}[a-z]?|\d{2,3}[a-z]{0,2}|x\d+|\d+x\d+d|w\d+|d\d+|\d+[wsx]\d+[wd]\d*s?", word
                )
            )
            kept.append("*" if SIZES.fullmatch(word) or size else word)
        return "_".join(kept)

    groups: dict[str, dict[str, str]] = collections.defaultdict(dict)
    for name in timm.list_models():
        module = timm.models._registry._model_to_module[name]
        # Keep one resolution of each model.
        groups[f"{module} {family(RESOLUTION.sub('', name))}"].setdefault(RESOLUTION.sub("", name), name)
    return {key: list(names.values()) for key, names in groups.items() if len(names) > 1}


TORCHVISION = {
    "vgg": ["vgg11", "vgg13", "vgg16", "vgg19"],
    "vgg_bn": ["vgg11_bn", "vgg13_bn", "vgg16_bn"],
    "resnet": ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"],
    "resnext": ["resnext50_32x4d", "resnext101_32x8d"],
    "densenet": ["densenet121", "densenet169", "densenet201"],
    "shufflenet_v2": ["shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0"],
    "mnasnet": ["mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3"],
    "efficientnet": [f"efficientnet_b{i}" for i in range(8)],
    "efficientnet_v2": ["efficientnet_v2_s", "efficientnet_v2_m"],
    "regnet_y": ["regnet_y_400mf", "regnet_y_800mf", "regnet_y_1_6gf", "regnet_y_3_2gf"],
    "regnet_x": ["regnet_x_400mf", "regnet_x_800mf", "regnet_x_1_6gf", "regnet_x_3_2gf"],
    "convnext": ["convnext_tiny", "convnext_small", "convnext_base"],
    "swin": ["swin_t", "swin_s", "swin_b"],
    "swin_v2": ["swin_v2_t", "swin_v2_s", "swin_v2_b"],
    "vit": ["vit_b_16", "vit_l_16"],
}


def timm_model(name: str) -> nn.Module:
    """A model of timm with ten classes."""
    model: nn.Module = timm.create_model(name, num_classes=10)
    return model


def torchvision_model(name: str) -> nn.Module:
    """A model of torchvision with ten classes."""
    import torchvision

    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=10)
    return model


def transformers_models() -> dict[str, dict[str, Callable[[], nn.Module]]]:
    """Small models of transformers, two to four sizes of each family."""
    try:
        import transformers as t
    except ImportError:
        return {}

    def text(cls: Any, config: Any, **common: Any) -> Callable[..., Callable[[], nn.Module]]:
        return lambda **own: lambda: cls(config(**common, **own))

    words = {"vocab_size": 99, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    gpt2 = text(t.GPT2LMHeadModel, t.GPT2Config, n_positions=64, vocab_size=99)
    decoder = {"vocab_size": 99, "max_position_embeddings": 64, "head_dim": 8}
    llama = text(t.LlamaForCausalLM, t.LlamaConfig, **decoder)
    qwen = text(t.Qwen2ForCausalLM, t.Qwen2Config, **{k: v for k, v in decoder.items() if k != "head_dim"})
    qwen3 = text(t.Qwen3ForCausalLM, t.Qwen3Config, **decoder)
    gemma = text(t.GemmaForCausalLM, t.GemmaConfig, **decoder)
    gemma3 = text(t.Gemma3ForCausalLM, t.Gemma3TextConfig, **decoder, query_pre_attn_scalar=8)
    mistral = text(t.MistralForCausalLM, t.MistralConfig, **decoder)
    phi3 = text(t.Phi3ForCausalLM, t.Phi3Config, max_position_embeddings=64, **words)
    bert = text(t.BertForMaskedLM, t.BertConfig, max_position_embeddings=64, vocab_size=99)
    roberta = text(t.RobertaForMaskedLM, t.RobertaConfig, max_position_embeddings=64, vocab_size=99)
    vit = text(t.ViTForImageClassification, t.ViTConfig, image_size=32, patch_size=8, num_labels=5)
    swin = text(t.SwinForImageClassification, t.SwinConfig, image_size=32, patch_size=2, window_size=4, num_labels=5)
    t5 = text(t.T5ForConditionalGeneration, t.T5Config, vocab_size=99, d_kv=8, decoder_start_token_id=0)
    t5_gated = text(
        t.T5ForConditionalGeneration, t.T5Config, vocab_size=99, d_kv=8, decoder_start_token_id=0,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False,
    )  # fmt: skip
    whisper = text(
        t.WhisperForConditionalGeneration, t.WhisperConfig, vocab_size=99, num_mel_bins=8, max_source_positions=16,
        max_target_positions=32, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip

    def clip(width: int, heads: int, layers: int) -> Callable[[], nn.Module]:
        sizes = {
            "hidden_size": width, "intermediate_size": 2 * width, "num_attention_heads": heads,
            "num_hidden_layers": layers, "projection_dim": 12,
        }  # fmt: skip
        return lambda: t.CLIPModel(
            t.CLIPConfig(
                text_config={**sizes, **words, "max_position_embeddings": 16},
                vision_config={**sizes, "image_size": 32, "patch_size": 8},
                projection_dim=12,
            )
        )

    def sized(width: int, heads: int, layers: int, keys: int | None = None, inner: int | None = None) -> dict[str, Any]:
        kv = {} if keys is None else {"num_key_value_heads": keys}
        return {
            "hidden_size": width, "num_attention_heads": heads, "num_hidden_layers": layers,
            "intermediate_size": inner or 2 * width, **kv,
        }  # fmt: skip

    return {
        "gpt2": {
            "2 heads": gpt2(n_embd=16, n_head=2, n_layer=2),
            "4 heads": gpt2(n_embd=32, n_head=4, n_layer=2),
            "6 heads, deeper": gpt2(n_embd=48, n_head=6, n_layer=4),
        },
        "llama (grouped queries)": {
            "4 heads on 2": llama(**sized(32, 4, 2, 2)),
            "8 heads on 4": llama(**sized(64, 8, 3, 4)),
            "16 heads on 4": llama(**sized(96, 16, 3, 4)),
        },
        "llama (one key in all)": {
            "3 heads on 1": llama(**sized(24, 3, 2, 1)),
            "8 heads on 2": llama(**sized(64, 8, 2, 2)),
        },
        "llama (multi-head)": {"4 heads": llama(**sized(32, 4, 2)), "6 heads": llama(**sized(48, 6, 4))},
        "qwen2 (grouped queries)": {
            "4 heads on 2": qwen(**sized(32, 4, 2, 2)),
            "6 heads on 2": qwen(**sized(48, 6, 3, 2)),
            "12 heads on 4": qwen(**sized(96, 12, 3, 4)),
        },
        "qwen3 (q and k norms)": {
            "4 heads on 2": qwen3(**sized(32, 4, 2, 2)),
            "8 heads on 4": qwen3(**sized(48, 8, 3, 4)),
        },
        "gemma": {"4 heads on 1": gemma(**sized(32, 4, 2, 1)), "8 heads on 1": gemma(**sized(64, 8, 3, 1))},
        "gemma3": {"4 heads on 2": gemma3(**sized(32, 4, 2, 2)), "8 heads on 4": gemma3(**sized(64, 8, 4, 4))},
        "mistral": {"4 heads on 2": mistral(**sized(32, 4, 2, 2)), "8 heads on 2": mistral(**sized(64, 8, 2, 2))},
        "phi3 (fused projections)": {
            "4 heads on 2": phi3(**sized(32, 4, 2, 2)),
            "8 heads on 2": phi3(**sized(64, 8, 3, 2)),
        },
        "bert": {"2 heads": bert(**sized(16, 2, 2)), "4 heads": bert(**sized(32, 4, 2))},
        "roberta": {"2 heads": roberta(**sized(16, 2, 2)), "4 heads": roberta(**sized(32, 4, 2))},
        "vit": {"2 heads": vit(**sized(16, 2, 2)), "4 heads, deeper": vit(**sized(32, 4, 4))},
        "swin": {
            "4 stages": swin(embed_dim=8, depths=[2, 2, 2], num_heads=[1, 2, 4]),
            "deeper": swin(embed_dim=8, depths=[2, 2, 6], num_heads=[1, 2, 4]),
            "wider": swin(embed_dim=16, depths=[2, 2, 6], num_heads=[2, 4, 8]),
        },
        "t5": {
            "2 heads": t5(d_model=16, num_heads=2, d_ff=32, num_layers=2),
            "4 heads, deeper": t5(d_model=32, num_heads=4, d_ff=48, num_layers=3),
        },
        "t5 (gated)": {
            "2 heads": t5_gated(d_model=16, num_heads=2, d_ff=32, num_layers=2),
            "4 heads, deeper": t5_gated(d_model=32, num_heads=4, d_ff=48, num_layers=3),
        },
        "whisper": {
            name: whisper(
                d_model=8 * heads, encoder_layers=layers, decoder_layers=layers, encoder_attention_heads=heads,
                decoder_attention_heads=heads, encoder_ffn_dim=16 * heads, decoder_ffn_dim=16 * heads,
            )
            for name, heads, layers in (("2 heads", 2, 2), ("4 heads, deeper", 4, 3))
        },
        "clip": {"2 heads": clip(16, 2, 2), "4 heads, deeper": clip(32, 4, 3)},
    }  # fmt: skip


def factories(pair: Candidate) -> Iterator[Callable[[str], nn.Module]]:
    """Functions that create the models of a pair by name, those for small inputs first."""
    if pair.library == "timm":
        for size in (64, 96, 112, 128, 192):
            yield lambda name, size=size: timm.create_model(name, num_classes=10, img_size=size)  # type: ignore[misc]
        yield timm_model
    elif pair.library == "torchvision":
        yield torchvision_model
    else:
        yield lambda name: transformers_models()[pair.family][name]()


def prepare(pair: Candidate) -> tuple[Callable[[str], nn.Module], Any]:
    """A working factory for both models, and a small input."""
    last_error: Exception | None = None
    for make in factories(pair):
        try:
            base = on_meta_device(make, pair.base)
            on_meta_device(make, pair.motivated)
        except Exception as error:
            last_error = error
            continue
        sizes = [64, 96, 128, 160, 192, 224, 256] if pair.library != "transformers" else [0]
        default_size = getattr(getattr(base, "patch_embed", None), "img_size", None) or (0,)
        for size in [default_size[0], *sizes] if default_size[0] else sizes:
            batch = torch.randn(2, 3, size, size) if size else next(example_inputs(base))
            try:
                trace(base, batch)
            except UntraceableError as error:
                last_error = error
                continue
            return make, batch
    raise RuntimeError(f"cannot create and run the models: {last_error}") from last_error


def attempt(pair: Candidate) -> Outcome:
    """Derive the map of a pair on the meta device and verify it."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    parameters = (0, 0)
    shared = seconds = 0.0
    try:
        make, batch = prepare(pair)
        base, motivated = on_meta_device(make, pair.base), on_meta_device(make, pair.motivated)
        parameters = count(base), count(motivated)
        start = time.perf_counter()
        weights_map = seeking.match(base, motivated, batch=batch)
        seconds = time.perf_counter() - start
        shared = 100 * parameters[0] / parameters[1]
        base, motivated = make(pair.base), make(pair.motivated)
        verdict = seeking.verify(base, motivated, weights_map, batch)
        status = "exact" if verdict else "not contained" if not verdict.contained else "differs"
        return Outcome(pair, status, verdict.reason, parameters, shared, seconds)
    except NotContainedError as error:
        return Outcome(pair, "not contained", str(error), parameters)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return Outcome(pair, "error", reason, parameters, shared, seconds)


def page(outcomes: list[Outcome]) -> str:
    """A summary and the table, in Markdown."""
    lines = []
    for library in ("timm", "torchvision", "transformers"):
        of_library = [o for o in outcomes if o.pair.library == library]
        tally = collections.Counter(o.status for o in of_library)
        containable = len(of_library) - tally["not contained"]
        families = len({o.pair.family.split()[0] for o in of_library})
        if of_library:
            lines.append(
                f"| {library} | {families} | {len(of_library)} | {tally['not contained']} | {tally['exact']} | "
                f"{tally['differs'] + tally['error']} | {100 * tally['exact'] / max(1, containable):.1f} % |"
            )
    head = (
        "| library | families | pairs | not contained | exact | fail | exact of containable |\n" + "| --- " * 7 + "|\n"
    )
    rows = [
        f"| {o.pair.family} | {o.pair.base} | {o.pair.motivated} | {o.parameters[0] / 1e6:.2f} | "
        f"{o.parameters[1] / 1e6:.2f} | {o.shared:.0f} % | {o.status} | "
        f"{'' if o.status == 'exact' else o.reason.replace('|', '/')} |"
        for o in outcomes
    ]
    table = (
        "| family | base | motivated | base, M parameters | motivated, M parameters | shared | result | why |\n"
        + "| --- " * 8
        + "|\n"
    )
    return head + "\n".join(lines) + "\n\n" + table + "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    before = ""
    if options.output and options.output.exists():
        before = options.output.read_text(encoding="utf-8").partition("| library |")[0]
    with multiprocessing.get_context("spawn").Pool(options.workers, maxtasksperchild=40) as pool:
        outcomes = run_pairs(pool, options.only)
    text = page(outcomes)
    print(text.partition("\n\n")[0])
    if options.output:
        options.output.write_text(before + text, encoding="utf-8")


def run_pairs(pool: Pool, only: str) -> list[Outcome]:
    """Test every pair whose name contains ``only``."""
    pairs = []
    for family, sizes in transformers_models().items():
        names = list(sizes)
        pairs += [Candidate("transformers", family, a, b) for a, b in itertools.pairwise(names)]
    if not only.startswith("transformers"):
        pairs += neighboring_pairs("torchvision", TORCHVISION, pool)
    if not only.startswith(("transformers", "torchvision")):
        pairs += neighboring_pairs("timm", timm_groups(), pool)
    pairs = [pair for pair in pairs if only in str(pair)]
    outcomes = []
    for done, outcome in enumerate(pool.imap(attempt, pairs), 1):
        outcomes.append(outcome)
        print(
            f"{done}/{len(pairs)} {outcome.pair}: {outcome.status}, {outcome.seconds:.2f} s: {outcome.reason}",
            flush=True,
        )
    return outcomes


if __name__ == "__main__":
    main()
