"""Generation speed of a decoder in tokens/s, with the key-value cache and with full recomputation for each token."""

from collections.abc import Sequence
from typing import cast

import mlx.core as mx
import numpy as np

from benchmarks.alternate import Trial, alternate, table
from benchmarks.subject import language_model
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.inference.generate import GenerationConfig, generate
from mlxlab.models.model import Model

VOCABULARY, PROMPT, TOKENS = 16_000, 32, 64


def generation(size: str = "nano", rounds: int = 5) -> str:
    """Greedy decoding of 64 tokens after prompts of 32 random tokens."""
    model = language_model("transformer", size, VOCABULARY)
    model.eval()
    prompts = np.random.default_rng(0).integers(4, VOCABULARY, (8, PROMPT)).tolist()
    variants = {
        "cache, 1 row": lambda: _cached(model, prompts[:1]),
        "no cache, 1 row": lambda: _recomputed(model, prompts[:1]),
        "cache, 8 rows": lambda: _cached(model, prompts),
        "no cache, 8 rows": lambda: _recomputed(model, prompts),
    }
    trials = alternate(variants, rounds)
    rows: list[tuple[str, ...]] = [("variant", "seconds", "tokens/s", "speedup")]
    for fast, slow in ((trials[0], trials[1]), (trials[2], trials[3])):
        rows += [_row(fast, slow), _row(slow, slow)]
    title = f"{TOKENS} new tokens per row at model/size={size}, V = {VOCABULARY:,}, on {mx.default_device()}, medians"
    return table(f"{title} of {rounds}", rows)


def _row(trial: Trial, slow: Trial) -> tuple[str, ...]:
    tokens = TOKENS * (8 if "8" in trial.name else 1)
    return (
        trial.name,
        f"{trial.median:.2f}",
        f"{tokens / trial.median:.0f}",
        f"{slow.median / trial.median:.1f}",
    )


class NoText:
    """A tokenizer without end token: only the number of tokens matters."""

    eos_id = vocabulary = None

    @staticmethod
    def decode(ids: Sequence[int]) -> str:
        return "x" * len(ids)


def _cached(model: Model, prompts: list[list[int]]) -> None:
    for _ in generate(
        model,
        cast(Tokenizer, NoText()),
        prompts,
        GenerationConfig(max_tokens=TOKENS, temperature=0.0),
    ):
        pass


def _recomputed(model: Model, prompts: list[list[int]]) -> None:
    tokens = mx.array(prompts)
    for _ in range(TOKENS):
        states = model.backbone(tokens, mx.ones(tokens.shape, dtype=mx.bool_))[:, -1:]
        best = model.logits(states).argmax(axis=-1)  # (B, 1)
        tokens = mx.concatenate([tokens, best.astype(tokens.dtype)], axis=1)
        mx.eval(tokens)
