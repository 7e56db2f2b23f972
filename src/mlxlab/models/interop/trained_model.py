"""A trained model with what other programs need of it, and its weights under published names."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxlab.checkpoint.arrays import FLOATS, Arrays, nonfinite_paths
from mlxlab.data.batch import Task
from mlxlab.data.chat.chat_template import ChatTemplate
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.errors import ConfigError, WriteError
from mlxlab.models.adapters.lora import merged_parameters
from mlxlab.models.model import Model

DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}


@dataclass(frozen=True)
class TrainedModel:
    """A model in evaluation mode, its `model` node, its tokenizer and its task.

    Args:
        seq_len: tokens of the rows that it was trained on; None where they have no limit.
        start: tokens that it expects before the first one of a text, apart from those of the tokenizer.
        template: of a chat model.
        end_ids: tokens that end what it generates.
        thresholds: probability from which each of `task.decided_labels` holds; none if the most probable class counts.
    """

    model: Model
    node: Mapping[str, Any]
    tokenizer: Tokenizer
    task: Task
    seq_len: int | None = None
    start: tuple[int, ...] = ()
    template: ChatTemplate | None = None
    end_ids: tuple[int, ...] = ()
    thresholds: tuple[float, ...] = ()

    @property
    def generates(self) -> bool:
        """Whether it is a causal language model."""
        return self.model.backbone.causal and self.task.kind == "language_modelling"

    @property
    def start_id(self) -> int | None:
        """The token that begins a text, by which every export names it."""
        if self.start:
            return self.start[0]
        if self.template is not None:
            token: int | None = self.tokenizer.inner.token_to_id(self.template.bos_token)
            if token is not None:
                return token
        return self.tokenizer.bos_id

    @property
    def has_token_types(self) -> bool:
        """Whether it tells the texts of a pair apart: an encoder with two token types."""
        return not self.model.backbone.causal and self.node.get("num_token_types", 2) == 2

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding: the tokens of the tokenizer, and perhaps more."""
        return int(self.model.backbone.embedding.weight.shape[0])


def plain_weights(trained: TrainedModel, *, with_adapters: bool = True) -> Arrays:
    """The float32 weights by path, adapters folded in; a regression gives its numbers as they stand in the data."""
    weights = merged_parameters(trained.model, with_adapters=with_adapters)
    task = trained.task
    if task.kind == "regression":
        weights["head.out.weight"] = weights["head.out.weight"] * task.target_deviation
        weights["head.out.bias"] = (
            weights["head.out.bias"] * task.target_deviation + task.target_mean
        )
    return weights


def publish(
    weights: Mapping[str, mx.array],
    rename: Callable[[str], str],
    dtype: str,
    casts: Callable[[str], bool],
) -> Arrays:
    """The arrays under their published names; ConfigError if a number of one is too large for the type.

    Args:
        casts: whether the array of a published name gets the type; others keep theirs.
    """
    published = {}
    for path, array in weights.items():
        name = rename(path)
        if array.dtype in FLOATS and casts(name):
            array = array.astype(DTYPES[dtype])
        published[name] = array
    if too_large := nonfinite_paths(published):
        raise ConfigError(
            f"dtype={dtype}: {too_large[0]} has numbers that are too large for it; expected float32"
        )
    return published


@contextmanager
def refuse_unwritable(out: Path) -> Iterator[None]:
    """Raises WriteError for an output that cannot be written inside."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # MLX has no exception of its own for a full disk.
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise WriteError(f"out={out}: {reason}") from None
