"""The weights below the adapters of a trained model: whether they are those of the published model it began with."""

import warnings

import mlx.core as mx

from mlxlab.errors import UserError
from mlxlab.interop.base_model import read_base_model
from mlxlab.interop.trained_model import TrainedModel
from mlxlab.models.adapters.freeze import frozen_parameters
from mlxlab.models.adapters.quantized import QuantizedLayer
from mlxlab.models.build import build_model


def describe_frozen_weights(published: str | None, trained: TrainedModel) -> str:
    """What they are, for a model card: unchanged only where the published model still has the same numbers."""
    if published is None or not has_frozen_weights(published, trained):
        return "the weights that adapters were trained on"
    is_rounded = any(
        isinstance(layer, QuantizedLayer) for _, layer in trained.model.named_modules()
    )
    name = read_base_model(published).name
    return (
        f"the weights of {name}, rounded to few bits"
        if is_rounded
        else f"the unchanged weights of {name}"
    )


def has_frozen_weights(published: str, trained: TrainedModel) -> bool:
    """Whether a run that begins with a published model has the frozen weights of this one, which was resumed perhaps.

    Growth, other tokens, or training before the adapters change them, and so does who writes into the folder.
    """
    task, node = trained.task, {**trained.node, "pretrained": published}
    try:
        with warnings.catch_warnings(action="ignore"):  # the run has shown them
            model = build_model(
                node,
                kind=task.kind,
                vocab_size=trained.tokenizer.vocab_size,
                num_classes=task.num_classes,
                pair_separator=task.pair_separator,
                seed=0,
            )
    except UserError:  # the weights are missing, or are those of another architecture
        return False
    expected, frozen = frozen_parameters(model), frozen_parameters(trained.model)
    return expected.keys() == frozen.keys() and all(
        mx.array_equal(expected[path], frozen[path]) for path in frozen
    )
