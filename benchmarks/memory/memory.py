"""Peak memory of a step: full batch and micro-batches, activations stored and recomputed."""

import gc
from typing import Any

import mlx.core as mx

from benchmarks.alternate import table
from benchmarks.config import read_config
from benchmarks.subject import language_model
from mlxlab.config.instantiate import instantiate
from mlxlab.models.model import Model
from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.losses.loss import CrossEntropyLoss
from mlxlab.training.optim.optimizers import flatten_arrays

ROWS, LENGTH, MICRO_BATCHES, HEAD_CHUNK = 8, 256, 8, 128


def memory(size: str = "small", rounds: int = 1, vocabulary: int = 4096) -> str:
    """Peak of steps of causal and masked language models, in MB; float32, dropout 0.1, AdamW, uncompiled.

    `activations` is the peak minus weights, optimizer state and gradients.
    """
    lines = []
    for family in ("transformer", "bert"):
        state_bytes, peaks = measure(family, size, rounds, vocabulary)
        rows: list[tuple[str, ...]] = [("step", "peak", "activations", "ratio")]
        full = peaks["full batch"] - state_bytes
        rows += [
            (
                name,
                f"{peak / 1e6:.0f}",
                f"{(peak - state_bytes) / 1e6:.0f}",
                f"{(peak - state_bytes) / full:.2f}",
            )
            for name, peak in peaks.items()
        ]
        title = f"{family}, model/size={size}, {ROWS} x {LENGTH} tokens, {vocabulary} classes; "
        title += f"weights, AdamW and gradients {state_bytes / 1e6:.0f} MB"
        gradients = state_bytes / 4
        micro_batch, accumulated = peaks["micro-batch"], peaks[f"accumulate={MICRO_BATCHES}"]
        ratio = f"accumulate={MICRO_BATCHES} relative to a micro-batch plus gradients: "
        ratio += f"{accumulated / (micro_batch + gradients):.2f}"
        lines.append(f"{table(title, rows)}\n\n{ratio}")
    return "\n\n".join(lines)


def measure(
    family: str, size: str, rounds: int = 1, vocabulary: int = 4096
) -> tuple[int, dict[str, int]]:
    """Bytes of weights, optimizer and gradients, and the peak of each variant of the step.

    Arrays of the process that exist before are not counted.
    """
    variants: dict[str, tuple[int, dict[str, Any]]] = {
        "full batch": (ROWS, {}),
        "micro-batch": (ROWS // MICRO_BATCHES, {}),
        f"accumulate={MICRO_BATCHES}": (ROWS, {"accumulate": MICRO_BATCHES}),
        "activation_checkpointing": (ROWS, {"activation_checkpointing": True}),
        f"accumulate={MICRO_BATCHES} activation_checkpointing": (
            ROWS,
            {"accumulate": MICRO_BATCHES, "activation_checkpointing": True},
        ),
        f"head_chunk={HEAD_CHUNK}": (ROWS, {"head_chunk": HEAD_CHUNK}),
        f"head_chunk={HEAD_CHUNK} activation_checkpointing": (
            ROWS,
            {"head_chunk": HEAD_CHUNK, "activation_checkpointing": True},
        ),
    }
    gc.collect()
    before = mx.get_active_memory()
    model = language_model(family, size, vocabulary, dropout=0.1)
    model.train()
    weights = sum(leaf.nbytes for leaf in flatten_arrays(model.parameters()).values())
    return 4 * weights, {
        name: _peak(model, rows, rounds, vocabulary, keys) - before
        for name, (rows, keys) in variants.items()
    }


def _peak(model: Model, rows: int, rounds: int, vocabulary: int, keys: dict[str, Any]) -> int:
    optimizer = instantiate(read_config("trainer/optimizer/adamw"))(learning_rate=1e-5)
    optimizer.init(model.trainable_parameters())
    node = read_config("trainer/step/optimized") | {"compile": "never"} | keys
    step = instantiate(node)(model=model, loss=CrossEntropyLoss(0.0), optimizer=optimizer)
    batch = _batch(rows, vocabulary)
    gc.collect()  # the previous step and its optimizer form a reference cycle
    for _ in range(1 + rounds):
        mx.eval(batch, model.parameters(), optimizer.state)
        mx.clear_cache()
        mx.reset_peak_memory()
        step(batch)
    return mx.get_peak_memory()


def _batch(rows: int, vocabulary: int) -> DeviceBatch:
    tokens = mx.random.randint(0, vocabulary, (rows, LENGTH), key=mx.random.key(1)).astype(mx.int32)
    return DeviceBatch(
        tokens, mx.ones(tokens.shape, mx.bool_), tokens, mx.ones(tokens.shape), mx.arange(rows)
    )
