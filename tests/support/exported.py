"""Small models, tasks and an origin that the tests of exports share."""

import mlx.core as mx

from mlxlab.data.batch import Task
from mlxlab.models.interop.model_card import Origin

SIZES = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "intermediate_size": 48}
LLAMA = {
    "_target_": "mlxlab.models.transformer.Transformer",
    **SIZES,
    "num_kv_heads": 2,
    "rope_theta": 5e4,
}
BERT = {"_target_": "mlxlab.models.bert.Bert", **SIZES, "dropout": 0.0}
LORA = {"_target_": "mlxlab.models.options.LoRA", "rank": 2}
CODES = {"_target_": "mlxlab.models.options.Quantization", "bits": 8, "group_size": 32}
SCALING = {
    "_target_": "mlxlab.models.rope.Llama3Scaling",
    "factor": 4.0,
    "original_max_position_embeddings": 8,
}
CLASSES = Task("classification", 3, ("red", "green", "blue"))
NUMBERS = Task("regression", 1, target_mean=2.0, target_deviation=3.0)
ORIGIN = Origin("tiny", "texts", 4)
TOKENS = mx.array([[5, 9, 77, 4, 6, 1]])
ALL_REAL = mx.ones((1, 6), mx.int32)
