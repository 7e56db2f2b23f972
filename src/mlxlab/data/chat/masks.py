"""Conversations as tokens, of which the answers are targets, within a maximum length.

With `{% generation %}` blocks the template says what the assistant writes, and the mask is that of
transformers' `apply_chat_template(return_assistant_tokens_mask=True)`. Without, an answer begins
after its header, and includes what ends its turn: for one answer this is the rule of mlx-lm's
`--mask-prompt`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import tokenizers

from mlxlab.data.chat.chat_tokenizer import ChatTokenizer
from mlxlab.data.chat.conversation import Conversation, find_answers

LossOn = Literal["assistant", "completion", "all"]
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
        loss_on: `assistant` for all answers, `completion` for the last one, `all` for the whole
            text.
        max_length: tokens of a conversation.
        truncation: of longer ones: `drop` leaves them out, `left` keeps their last tokens, `right`
            the first; one that keeps no target is dropped.
    """

    chat: ChatTokenizer
    loss_on: LossOn
    max_length: int
    truncation: Truncation

    def encode(
        self, conversations: Sequence[Conversation]
    ) -> list[EncodedConversation | ValueError]:
        """One result for each, in order; an error for one that cannot be encoded.

        Raises TemplateError if the template takes more time or memory than it may.
        """
        results: dict[int, EncodedConversation | ValueError] = {}
        requests: dict[int, dict[str, object]] = {}
        for index, conversation in enumerate(conversations):
            try:
                if "text" in conversation:
                    results[index] = self._truncate(*self._plain_text(conversation["text"]))
                else:
                    answers = self._learned(conversation)
                    requests[index] = self.chat.request(conversation, answers)
            except ValueError as error:
                results[index] = error
        rendered: dict[int, dict[str, Any]] = {}
        replies = self.chat.template.process.render(list(requests.values()))
        for index, reply in zip(requests, replies, strict=True):
            if "error" in reply:
                results[index] = ValueError(reply["error"])
            else:
                rendered[index] = reply
        texts = [reply["text"] for reply in rendered.values()]
        encodings = self.chat.inner.encode_batch(texts, add_special_tokens=False)
        for index, encoding in zip(rendered, encodings, strict=True):
            try:
                mask = self._mask(conversations[index], rendered[index], encoding)
                results[index] = self._truncate(encoding.ids, mask)
            except ValueError as error:
                results[index] = error
        return [results[index] for index in range(len(conversations))]

    def _learned(self, conversation: Conversation) -> list[int]:
        """The indices of the answers that are targets."""
        messages = conversation["messages"]
        considered = find_answers(conversation)
        learned = [index for index in considered if "weight" not in messages[index]]
        if self.loss_on == "all":
            if learned != considered:
                raise ValueError("an answer of weight 0, expected none with data.loss_on=all")
            return []
        return [
            index for index in learned if self.loss_on == "assistant" or index == considered[-1]
        ]

    def _mask(
        self, conversation: Conversation, reply: dict[str, Any], encoding: tokenizers.Encoding
    ) -> np.ndarray:
        """Which tokens are targets (T,) bool."""
        if self.loss_on == "all":
            return np.ones(len(encoding.ids), bool)
        spans = reply["spans"]
        if reply["marked"]:
            answers = find_answers(conversation)
            if len(spans) != len(answers):
                name = self.chat.template.name
                counts = f"{len(spans)} answers of {len(answers)}"
                raise ValueError(f"{name}: marks {counts} by generation blocks")
            span_of = dict(zip(answers, spans, strict=True))
            spans = [span_of[index] for index in self._learned(conversation)]
        mask = np.zeros(len(encoding.ids), bool)
        for begin, end in spans:
            first = _token_of(encoding, range(begin, end))
            last = _token_of(encoding, range(end - 1, begin - 1, -1))
            if first is None or last is None:
                continue
            characters = encoding.token_to_chars(first)
            reaches_back = characters is not None and characters[0] < begin
            if reaches_back and not reply["marked"]:
                first += (
                    1  # A prompt ends with another token than one that reaches into the answer.
                )
            mask[first : last + 1] = True
        return mask

    def _plain_text(self, text: str) -> tuple[list[int], np.ndarray]:
        """A text with the tokens that the tokenizer puts around it, and at least the end token."""
        tokenizer = self.chat.tokenizer
        encoding = self.chat.inner.encode(text, add_special_tokens=False)
        if tokenizer.inner.post_processor is not None:
            encoding = tokenizer.inner.post_processor.process(encoding)
        tokens = encoding.ids
        if tokens[-1:] != [tokenizer.end_id]:
            tokens = [*tokens, tokenizer.end_id]
        return tokens, np.ones(len(tokens), bool)

    def _truncate(self, ids: list[int], is_target: np.ndarray) -> EncodedConversation:
        tokens = np.array(ids, np.int32)
        length = len(tokens)
        used = slice(None)
        if length > self.max_length:
            used = slice(0)
            if self.truncation == "left":
                used = slice(length - self.max_length, None)
            elif self.truncation == "right":
                used = slice(self.max_length)
        tokens = tokens[used]
        is_target = is_target[used]
        is_target[:1] = False  # Nothing predicts the first token.
        if not is_target.any():
            return EncodedConversation(tokens[:0], is_target[:0], length)
        return EncodedConversation(tokens, is_target, length)


def _token_of(encoding: tokenizers.Encoding, characters: Iterable[int]) -> int | None:
    """The token of the first of these characters that has one: a tokenizer may drop spaces."""
    tokens = map(encoding.char_to_token, characters)
    return next((token for token in tokens if token is not None), None)
