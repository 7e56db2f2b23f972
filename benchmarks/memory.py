"""What a step needs: the peak of MLX's memory, the batch whole and cut, activations kept and computed again."""

import gc
from typing import Any

import mlx.core as mx
from omegaconf import OmegaConf

from benchmarks.alternate import table
from mlxlab.config.instantiate import instantiate
from mlxlab.config.paths import conf_dir
from mlxlab.models.build import build_model
from mlxlab.models.model import Model
from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.losses.loss import CrossEntropyLoss
from mlxlab.training.optim.optimizers import flatten_arrays

ROWS, LENGTH, VOCABULARY, PARTS = 8, 256, 4096, 8


def memory(size: str = "small", rounds: int = 1) -> str:
    """Language models of both directions, float32, dropout 0.1, AdamW, uncompiled: the greatest peak of updates, in MB.

    `activations` is what the peak exceeds weights, optimizer and gradients by.
    """
    lines = []
    for family in ("transformer", "bert"):
        held, found = measure(family, size, rounds)
        rows: list[tuple[str, ...]] = [("step", "peak", "activations", "against the first")]
        first = found["whole batch"] - held
        rows += [
            (name, f"{peak / 1e6:.0f}", f"{(peak - held) / 1e6:.0f}", f"{(peak - held) / first:.2f}")
            for name, peak in found.items()
        ]
        title = (
            f"{family}, model/size={size}, {ROWS} x {LENGTH} tokens; weights, AdamW and gradients {held / 1e6:.0f} MB"
        )
        gradients = held / 4
        part, cut = found[f"1/{PARTS} of the batch"], found[f"accumulate={PARTS}"]
        ratio = f"accumulate={PARTS} against one part plus gradients: {cut / (part + gradients):.2f}"
        lines.append(f"{table(title, rows)}\n\n{ratio}")
    return "\n\n".join(lines)


def measure(family: str, size: str, rounds: int = 1) -> tuple[int, dict[str, int]]:
    """Bytes of weights, optimizer and gradients, and the peak of each variant of the step."""
    variants: dict[str, tuple[int, dict[str, Any]]] = {
        "whole batch": (ROWS, {}),
        f"1/{PARTS} of the batch": (ROWS // PARTS, {}),
        f"accumulate={PARTS}": (ROWS, {"accumulate": PARTS}),
        "activation_checkpointing": (ROWS, {"activation_checkpointing": True}),
        f"accumulate={PARTS} activation_checkpointing": (ROWS, {"accumulate": PARTS, "activation_checkpointing": True}),
    }
    model = _model(family, size)
    weights = sum(leaf.nbytes for leaf in flatten_arrays(model.parameters()).values())
    return 4 * weights, {name: _peak(model, rows, rounds, keys) for name, (rows, keys) in variants.items()}


def _peak(model: Model, rows: int, rounds: int, keys: dict[str, Any]) -> int:
    optimizer = instantiate(_read("trainer/optimizer/adamw"))(learning_rate=1e-5)
    optimizer.init(model.trainable_parameters())
    node = _read("trainer/step/optimized") | {"compile": "never"} | keys
    step = instantiate(node)(model=model, loss=CrossEntropyLoss(0.0), optimizer=optimizer)
    batch = _batch(rows)
    gc.collect()  # the step before holds its optimizer in a cycle
    for _ in range(1 + rounds):  # the first may compile; both count
        mx.eval(batch, model.parameters(), optimizer.state)
        mx.clear_cache()
        mx.reset_peak_memory()
        step(batch)
    return mx.get_peak_memory()


def _model(family: str, size: str) -> Model:
    mx.random.seed(0)
    node = _read(f"model/{family}") | _read(f"model/size/{size}") | {"dropout": 0.1}
    model = build_model(node, kind="language_modelling", vocab_size=VOCABULARY, seed=0)
    mx.eval(model.parameters())
    model.train()
    return model


def _batch(rows: int) -> DeviceBatch:
    tokens = mx.random.randint(0, VOCABULARY, (rows, LENGTH), key=mx.random.key(1)).astype(mx.int32)
    return DeviceBatch(tokens, mx.ones(tokens.shape, mx.bool_), tokens, mx.ones(tokens.shape), mx.arange(rows))


def _read(option: str) -> dict[str, Any]:
    node: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / f"{option}.yaml"), resolve=False)
    return node
