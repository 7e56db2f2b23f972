"""A pretrained model with adapters, and random tokens for it."""

from pathlib import Path

import mlx.core as mx
import numpy as np

from benchmarks.config import read_config
from mlxlab.data.batch import Batch
from mlxlab.models.build import build_model
from mlxlab.models.model import Model
from mlxlab.models.pretrained.config import read_config as read_shape
from mlxlab.models.pretrained.load import target_of


def random_batch(rows: int, length: int, vocab_size: int) -> Batch:
    ids = np.random.default_rng(0).integers(0, vocab_size, (rows, length + 1)).astype(np.int32)
    weights = np.ones((rows, length), np.float32)
    return Batch(ids[:, :-1], np.ones((rows, length), bool), ids[:, 1:], weights, np.arange(rows))


def adapted(path: Path, bits: int | None) -> Model:
    """The pretrained model with adapters of rank 8 in all projections, on a base of `bits`, or of float32."""
    node = {"_target_": target_of(path), "dropout": 0.0, "pretrained": str(path)}
    node |= {"adapter": read_config("model/adapter/lora")}
    node |= {"quantization": {"_target_": "mlxlab.models.options.Quantization", "bits": bits}}
    vocab_size = int(str(read_shape(path)["vocab_size"]))
    model = build_model(node, kind="language_modelling", vocab_size=vocab_size, seed=0)
    mx.eval(model.parameters())
    mx.clear_cache()
    model.train()
    return model
