"""A trained model with what other programs need of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlxlab.data.batch import Task
from mlxlab.data.chat.chat_template import ChatTemplate
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
