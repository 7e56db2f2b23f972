"""Small models with random weights, as they are after training."""

import mlx.core as mx
import pytest

from mlxlab.data.batch import Task
from mlxlab.data.tokenizers.bpe import train_bpe
from mlxlab.models.build import build_model
from mlxlab.models.interop.counterpart import TrainedModel
from mlxlab.models.layers import named_parameters


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["the cat sees the dog", "the dog sees the cat"], 280, 2)


@pytest.fixture
def trained(tokenizer):
    """A function of a `model` node and, where it is no language model, a task. Adapters are not 0."""

    def build(node, task=None, scale=1.0):
        task = task or Task(
            "language_modelling", tokenizer.vocab_size, masked="bert" in node["_target_"]
        )
        model = build_model(
            node,
            kind=task.kind,
            vocab_size=tokenizer.vocab_size,
            num_classes=task.num_classes,
            seed=1,
        )
        for path, array in named_parameters(model).items():
            if path.endswith("lora_b"):
                model.load_weights([(path, mx.full(array.shape, 0.05))], strict=False)
            elif array.ndim == 2 and mx.issubdtype(array.dtype, mx.floating) and scale != 1:
                model.load_weights([(path, scale * array)], strict=False)
        model.eval()
        return TrainedModel(model, node, tokenizer, task, seq_len=16)

    return build
