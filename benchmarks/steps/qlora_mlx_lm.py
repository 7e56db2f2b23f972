"""The step of mlx-lm's trainer with adapters on a base in 4 bits; its base is that of a model of mlxlab.

As a module it measures steps without mlxlab's BLAS. Arguments: model, rows, length, steps; prints a line of JSON.
"""

import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten

from mlxlab.data.batch import Batch
from mlxlab.models.layers import named_parameters
from mlxlab.models.model import Model

RANK, SCALE, RATE = 8, 2.0, 1e-4
WARM_UP = 8  # tokens of a first step, which builds the kernels
NAMES = [
    (r"\.base\.", "."),
    (r"^backbone\.", "model."),
    (r"\.embedding\.", ".embed_tokens."),
    (r"\.attention_norm\.", ".input_layernorm."),
    (r"\.feed_forward_norm\.", ".post_attention_layernorm."),
    (r"\.attention\.([qkvo])\w+\.", r".self_attn.\1_proj."),
    (r"\.feed_forward\.(\w+)\.", r".mlp.\1_proj."),
]


def main(model: str, rows: str, length: str, steps: str) -> None:
    from benchmarks.alternate import Trial
    from benchmarks.steps.adapted_model import adapted, random_batch
    from mlxlab.models.pretrained.config import read_config

    shape = dict(read_config(Path(model)))
    batch = random_batch(int(rows), int(length), int(str(shape["vocab_size"])))
    step, _ = mlx_lm_step(adapted(Path(model), 4), shape, batch)
    trial = Trial("")
    for _ in range(int(steps)):
        trial.run(step)
    print(json.dumps({"seconds": trial.seconds, "cpu": trial.cpu}), file=sys.__stdout__)


def mlx_lm_step(
    base: Model, shape: Mapping[str, Any], batch: Batch
) -> tuple[Callable[[], object], int]:
    """A step of mlx-lm's trainer on the weights of a QLoRA model, and the bytes of its frozen base."""
    from mlx_lm.models.llama import Model as Llama
    from mlx_lm.models.llama import ModelArgs
    from mlx_lm.tuner.utils import linear_to_lora_layers

    names = [
        "hidden_size",
        "num_hidden_layers",
        "intermediate_size",
        "num_attention_heads",
        "rms_norm_eps",
    ]
    names += ["vocab_size", "num_key_value_heads", "rope_theta", "tie_word_embeddings"]
    model = Llama(
        ModelArgs(model_type="llama", **{name: shape[name] for name in names if name in shape})
    )
    nn.quantize(model, 64, 4)
    frozen = {name: leaf for name, leaf in named_parameters(base).items() if "lora_" not in name}
    model.load_weights([(rename(name), leaf) for name, leaf in frozen.items()])
    model.freeze()
    linear_to_lora_layers(model, len(model.layers), {"rank": RANK, "scale": SCALE, "dropout": 0.0})
    mx.eval(model.parameters())
    mx.clear_cache()
    trained = dict(tree_flatten(model.trainable_parameters()))
    leaves = dict(tree_flatten(model.parameters()))
    size = sum(leaf.nbytes for name, leaf in leaves.items() if name not in trained)
    ids = np.concatenate([batch.tokens, batch.targets[:, -1:]], axis=1)
    optimizer = optim.AdamW(RATE)
    train_step(model, optimizer, ids[:, : WARM_UP + 1])
    return lambda: train_step(model, optimizer, ids), size


def rename(name: str) -> str:
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def train_step(model: Any, optimizer: optim.Optimizer, ids: np.ndarray) -> None:
    """One step of its loop, which fetches a batch before each of them."""
    from mlx_lm.tuner.trainer import TrainingArgs, train

    rows, length = ids.shape

    def batches(**ignored: Any) -> Iterator[tuple[mx.array, mx.array]]:
        yield mx.array(ids), mx.array([[0, length - 1]] * rows)

    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):  # it prints reports
        never: Any = dict.fromkeys(("steps_per_report", "steps_per_save", "steps_per_eval"), 10**9)
        args = TrainingArgs(
            batch_size=rows, iters=1, adapter_file=f"{folder}/adapters.safetensors", **never
        )
        train(model, optimizer, [0] * rows, args=args, iterate_batches=batches)


if __name__ == "__main__":
    main(*sys.argv[1:])
