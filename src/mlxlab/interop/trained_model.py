"""A trained model with what other programs need of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlxlab.data.batch import Task
from mlxlab.data.instruct.chat_template import ChatTemplate
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.models.model import Model


@dataclass(frozen=True)
class TrainedModel:
    """A model in evaluation mode, its `model` node, its tokenizer and its task.

    Args:
        seq_len: tokens of the rows that it was trained on; None where they have no limit.
        start: tokens that it expects before the first one of a text, apart from those of the tokenizer.
        template: of a chat model.
        end_ids: tokens that end what it generates.
        thresholds: probability from which each label holds, where several may.
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
    def vocab_size(self) -> int:
        """Rows of the embedding: the tokens of the tokenizer, and perhaps more."""
        return int(self.model.backbone.embedding.weight.shape[0])
