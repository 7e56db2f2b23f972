"""Conversations as tokens, of which the answers are targets, within a maximum length."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import tokenizers

from mlxlab.data.instruct.chat_template import ChatTemplate
from mlxlab.data.instruct.conversations import Conversation, contents, load
from mlxlab.data.instruct.masks import LossOn, answer_spans, token_mask
from mlxlab.data.tokenizers.tokenizer import Tokenizer

Truncation = Literal["drop", "left", "right"]


class EncodedConversation(NamedTuple):
    """T tokens; none if the conversation was dropped."""

    tokens: np.ndarray  # (T,) int32
    is_target: np.ndarray  # (T,) bool
    full_length: int  # tokens before truncation


@dataclass(frozen=True)
class ConversationEncoder:
    """Encodes conversations.

    Args:
        max_length: tokens of a conversation.
        truncation: of longer ones: `drop` leaves them out, `left` keeps their last tokens, `right` the first; one that
            keeps no target is dropped.
    """

    template: ChatTemplate
    tokenizer: Tokenizer
    loss_on: LossOn
    max_length: int
    truncation: Truncation

    def encode(self, text: str) -> EncodedConversation:
        """The tokens of a conversation in its normal form; raises ValueError if the template or the mask fails."""
        tokens, is_target = self.tokens_and_mask(load(text))
        length = len(tokens)
        if length > self.max_length:
            kept = {"drop": slice(0), "left": slice(length - self.max_length, None), "right": slice(self.max_length)}
            tokens, is_target = tokens[kept[self.truncation]], is_target[kept[self.truncation]].copy()
            is_target[:1] = False
        if not is_target.any():
            tokens, is_target = tokens[:0], is_target[:0]
        return EncodedConversation(tokens, is_target, length)

    def tokens_and_mask(self, conversation: Conversation) -> tuple[np.ndarray, np.ndarray]:
        """All tokens, and which of them are targets; raises ValueError as `encode`.

        A text gets the start and end tokens of the tokenizer, and at least the end token; all of it is a target.
        """
        if isinstance(conversation, str):
            tokens, is_target = token_mask(self._inner, conversation, [(0, len(conversation))], special=True)
            if tokens[-1] != self.tokenizer.end_id:
                tokens, is_target = np.append(tokens, np.int32(self.tokenizer.end_id)), np.append(is_target, True)
            return tokens, is_target
        self.refuse_special_tokens(conversation)
        text, spans = answer_spans(self.template, conversation, self.loss_on)
        return token_mask(self._inner, text, spans)

    def refuse_special_tokens(self, conversation: Conversation) -> None:
        """Raises ValueError if a message holds a special token: it could end its turn and begin another."""
        text = contents(conversation)
        if special := [piece for piece in self._special if piece in text]:
            raise ValueError(f"a message contains the special token {min(special, key=text.index)}")

    @cached_property
    def _inner(self) -> tokenizers.Tokenizer:
        """A copy that recognises special tokens in the text, as those that a template writes."""
        return tokenizers.Tokenizer.from_str(self.tokenizer.inner.to_str())

    @cached_property
    def _special(self) -> list[str]:
        added = self.tokenizer.inner.get_added_tokens_decoder().values()
        return [token.content for token in added if token.special]
