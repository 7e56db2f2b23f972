"""Conversations as tokens, of which the answers are targets, within a maximum length."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import tokenizers

from mlxlab.data.instruct.chat_template import ChatTemplate
from mlxlab.data.instruct.conversations import Conversation, Message, contents, load
from mlxlab.data.instruct.masks import LossOn, answer_spans, token_mask
from mlxlab.data.tokenizers.tokenizer import Tokenizer

Truncation = Literal["drop", "left", "right"]


class EncodedConversation(NamedTuple):
    """T tokens; none if the conversation was dropped."""

    tokens: np.ndarray  # (T,) int32
    is_target: np.ndarray  # (T,) bool
    full_length: int  # tokens before truncation


@dataclass(frozen=True)
class ChatTokenizer:
    """Tokenises what a chat template renders; its special tokens are recognised in the text."""

    template: ChatTemplate
    tokenizer: Tokenizer

    @cached_property
    def inner(self) -> tokenizers.Tokenizer:
        """A copy, since `Tokenizer` takes special tokens in a text for text."""
        return tokenizers.Tokenizer.from_str(self.tokenizer.inner.to_str())

    @cached_property
    def special(self) -> dict[str, int]:
        """The special tokens by their text."""
        added = self.tokenizer.inner.get_added_tokens_decoder()
        return {token.content: number for number, token in added.items() if token.special}

    def refuse_special_tokens(self, text: str) -> None:
        """Raises ValueError if `text` holds a special token: it could end its turn and begin another."""
        if found := [piece for piece in self.special if piece in text]:
            raise ValueError(f"a message contains the special token {min(found, key=text.index)}")

    def prompt(self, messages: list[Message]) -> list[int]:
        """The tokens of a conversation up to the header of the next answer; ValueError if the template fails."""
        text = self.template.render(messages, add_generation_prompt=True)
        return self.inner.encode(text, add_special_tokens=False).ids

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """The tokens that end an answer: the end token, and the first special one that the template puts after it."""
        answer = "answer"
        messages = [
            Message(role="user", content="question"),
            Message(role="assistant", content=answer),
        ]
        after = self.template.render(messages).rpartition(answer)[2]
        following = [
            token
            for token in self.inner.encode(after, add_special_tokens=False).ids
            if token in self._ids
        ]
        ends = [*following[:1], self.tokenizer.eos_id]
        return frozenset(token for token in ends if token is not None)

    @cached_property
    def _ids(self) -> frozenset[int]:
        return frozenset(self.special.values())


@dataclass(frozen=True)
class ConversationEncoder:
    """Encodes conversations.

    Args:
        max_length: tokens of a conversation.
        truncation: of longer ones: `drop` leaves them out, `left` keeps their last tokens, `right` the first; one that
            keeps no target is dropped.
    """

    chat: ChatTokenizer
    loss_on: LossOn
    max_length: int
    truncation: Truncation

    def encode(self, text: str) -> EncodedConversation:
        """The tokens of a conversation in its normal form; raises ValueError if the template or the mask fails."""
        tokens, is_target = self.tokens_and_mask(load(text))
        length = len(tokens)
        if length > self.max_length:
            kept = {
                "drop": slice(0),
                "left": slice(length - self.max_length, None),
                "right": slice(self.max_length),
            }
            tokens, is_target = (
                tokens[kept[self.truncation]],
                is_target[kept[self.truncation]].copy(),
            )
            is_target[:1] = False
        if not is_target.any():
            tokens, is_target = tokens[:0], is_target[:0]
        return EncodedConversation(tokens, is_target, length)

    def tokens_and_mask(self, conversation: Conversation) -> tuple[np.ndarray, np.ndarray]:
        """All tokens, and which of them are targets; raises ValueError as `encode`.

        A text gets the start and end tokens of the tokenizer, and at least the end token; all of it is a target.
        """
        if isinstance(conversation, str):
            tokens, is_target = token_mask(
                self.chat.inner, conversation, [(0, len(conversation))], special=True
            )
            end_id = self.chat.tokenizer.end_id
            if tokens[-1] != end_id:
                tokens, is_target = np.append(tokens, np.int32(end_id)), np.append(is_target, True)
            return tokens, is_target
        self.chat.refuse_special_tokens(contents(conversation))
        text, spans = answer_spans(self.chat.template, conversation, self.loss_on)
        return token_mask(self.chat.inner, text, spans)
