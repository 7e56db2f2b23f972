"""Generation speed compared with mlx-lm and transformers: greedy, with a key-value cache, Llama with random weights."""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.alternate import table
from benchmarks.config import read_config
from benchmarks.steps.peer_process import measure, peers, rows
from mlxlab.schema.constraints import Size

PROMPT, TOKENS = 32, 64
SMOLLM2 = {  # the shape of SmolLM2-135M
    "hidden_size": 576,
    "num_layers": 30,
    "num_heads": 9,
    "num_kv_heads": 3,
    "intermediate_size": 1536,
}


def decoding(shape: str = "nano,tiny,smollm2", compare_with: str = "", rounds: Size = 5) -> str:
    """64 new tokens after a prompt of 32 random tokens, one row."""
    names = peers(compare_with, ["mlx-lm", "transformers"])
    lines: list[tuple[str, ...]] = [
        ("model", "subject", "seconds", "tokens/s", "CPU s", "mlxlab / it", "peak MB")
    ]
    for option in shape.split(","):
        lines += rows(option, measure("models.decoding", names, (option,), rounds), TOKENS)
    return table(
        f"{TOKENS} new tokens after {PROMPT}, one row, greedy, float32; medians of {rounds} bursts",
        lines,
    )


def shape_of(name: str) -> dict[str, int]:
    """Sizes of a Llama, with those of the vocabulary and of all heads."""
    if name == "smollm2":
        return SMOLLM2 | {"vocab_size": 49_152}
    node = read_config(f"model/size/{name}")
    sizes = {name: node[name] for name in SMOLLM2 if name != "num_kv_heads"}
    return sizes | {"num_kv_heads": sizes["num_heads"], "vocab_size": 16_000}


def subject(name: str, option: str) -> Callable[[], list[int]]:
    """Generation by one of the peers: a function that returns the new tokens."""
    shape = shape_of(option)
    prompt = np.random.default_rng(0).integers(4, shape["vocab_size"], PROMPT).tolist()
    return {"mlx-lm": mlx_lm_tokens, "transformers": transformers_tokens}.get(name, mlxlab_tokens)(
        shape, prompt
    )


def mlxlab_tokens(shape: dict[str, int], prompt: list[int]) -> Callable[[], list[int]]:
    from benchmarks.models.generation import NoText
    from benchmarks.subject import language_model
    from mlxlab.inference.generate import GenerationConfig, generate

    keys = {name: value for name, value in shape.items() if name != "vocab_size"}
    model = language_model("transformer", "nano", shape["vocab_size"], dropout=0.0, **keys)
    model.eval()
    config = GenerationConfig(max_tokens=TOKENS, temperature=0.0)

    def tokens() -> list[int]:
        return [c.tokens for c in generate(model, NoText(), [prompt], config)]  # type: ignore[arg-type]

    return tokens


def mlx_lm_tokens(shape: dict[str, int], prompt: list[int]) -> Callable[[], list[int]]:
    import mlx.core as mx
    from mlx_lm.generate import generate_step
    from mlx_lm.models.llama import Model, ModelArgs

    model: Any = Model(
        ModelArgs(
            model_type="llama",
            hidden_size=shape["hidden_size"],
            num_hidden_layers=shape["num_layers"],
            intermediate_size=shape["intermediate_size"],
            num_attention_heads=shape["num_heads"],
            num_key_value_heads=shape["num_kv_heads"],
            rms_norm_eps=1e-5,
            vocab_size=shape["vocab_size"],
            tie_word_embeddings=True,
        )
    )
    mx.eval(model.parameters())
    return lambda: [token for token, _ in generate_step(mx.array(prompt), model, max_tokens=TOKENS)]


def transformers_tokens(shape: dict[str, int], prompt: list[int]) -> Callable[[], list[int]]:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=shape["hidden_size"],
        num_hidden_layers=shape["num_layers"],
        intermediate_size=shape["intermediate_size"],
        num_attention_heads=shape["num_heads"],
        num_key_value_heads=shape["num_kv_heads"],
        vocab_size=shape["vocab_size"],
        tie_word_embeddings=True,
    )
    model: Any = LlamaForCausalLM(config).eval()
    ids = torch.tensor([prompt])
    options = {
        "max_new_tokens": TOKENS,
        "min_new_tokens": TOKENS,
        "do_sample": False,
        "pad_token_id": 0,
    }

    def tokens() -> list[int]:
        with torch.inference_mode():
            out: list[int] = model.generate(ids, attention_mask=torch.ones_like(ids), **options)[
                0, PROMPT:
            ].tolist()
        return out

    return tokens
