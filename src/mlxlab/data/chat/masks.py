"""Conversations as tokens, of which the answers are targets, within a maximum length.

With `{% generation %}` blocks the template says what the assistant writes, and the mask is that of
transformers' `apply_chat_template(return_assistant_tokens_mask=True)`. Without, an answer begins
after its header, and includes what ends its turn: for one answer this is the rule of mlx-lm's
`--mask-prompt`.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import tokenizers

from mlxlab.data.chat.chat_template import ChatTokenizer
from mlxlab.data.chat.conversation import Conversation, find_answers
from mlxlab.data.chat.sandbox import Reply, Request
from mlxlab.data.text.documents import Document
from mlxlab.data.text.packing import Tokens

LossOn = Literal["assistant", "completion", "all"]
Truncation = Literal["drop", "left", "right"]
GROUP = 32  # conversations that are encoded together; more would take memory, and save little time
NOTHING = Tokens(np.zeros(0, np.int32), np.zeros(0, bool))


@dataclass(frozen=True)
class ConversationEncoder:
    """Encodes conversations; one that cannot be encoded has no tokens. Implements `Tokenize`.

    Args:
        loss_on: `assistant` for all answers, `completion` for the last one, `all` for the whole
            text.
        max_length: tokens of a conversation.
        truncation: of longer ones: `drop` leaves them out, `left` keeps their last tokens, `right`
            the first; one that keeps no target is dropped.
        skip: gets the id of a conversation that cannot be encoded, and the reason.
    """

    chat: ChatTokenizer
    loss_on: LossOn
    max_length: int
    truncation: Truncation
    skip: Callable[[int, ValueError], None]

    def __call__(self, documents: Sequence[Document]) -> list[Tokens]:
        """Raises TemplateError if the template takes more time or memory than it may."""
        tokens = []
        for start in range(0, len(documents), GROUP):
            tokens += self._encode(documents[start : start + GROUP])
        return tokens

    def _encode(self, group: Sequence[Document]) -> list[Tokens]:
        requests = {}
        for document in group:
            with self._skipping(document.id):
                requests[document.id] = self._request(json.loads(document.text))
        replies = self.chat.template.answer(list(requests.values()))
        texts = [reply.get("text", "") for reply in replies]
        encodings = self.chat.inner.encode_batch(texts, add_special_tokens=False)
        encoded = {}
        for number, reply, encoding in zip(requests, replies, encodings, strict=True):
            with self._skipping(number):
                encoded[number] = self._mask(reply, encoding)
        return [encoded.get(document.id, NOTHING) for document in group]

    @contextmanager
    def _skipping(self, number: int) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            self.skip(number, error)

    def _request(self, conversation: Conversation) -> Request:
        """What the template's process needs: the answers, and which of them are targets."""
        if "text" in conversation:
            return conversation
        messages = conversation["messages"]
        answers = find_answers(conversation)
        learned = [n for n, index in enumerate(answers) if "weight" not in messages[index]]
        if self.loss_on == "all":
            if len(learned) < len(answers):
                raise ValueError("an answer of weight 0, expected none with data.loss_on=all")
            learned = []  # They need not be located.
        elif self.loss_on == "completion":
            learned = [n for n in learned if n == len(answers) - 1]
        self.chat.check(conversation)
        return {**conversation, "answers": answers, "learned": learned}

    def _mask(self, reply: Reply, encoding: tokenizers.Encoding) -> Tokens:
        if "error" in reply:
            raise ValueError(reply["error"])
        if "spans" not in reply:
            tokens = self._add_special(encoding)
            return self._truncate(tokens, np.ones(len(tokens), bool))
        is_target = np.full(len(encoding.ids), self.loss_on == "all")
        for begin, end in reply["spans"]:
            first = _token_of(encoding, range(begin, end))
            last = _token_of(encoding, range(end - 1, begin - 1, -1))
            if first is None or last is None:
                continue
            characters = encoding.token_to_chars(first)
            if characters and characters[0] < begin and not reply["marked"]:
                # A prompt ends with another token than one that reaches into the answer.
                first += 1
            is_target[first : last + 1] = True
        return self._truncate(encoding.ids, is_target)

    def _add_special(self, encoding: tokenizers.Encoding) -> list[int]:
        """The tokens of a plain text with those around it, at least the end token."""
        tokenizer = self.chat.tokenizer
        if tokenizer.inner.post_processor is not None:
            encoding = tokenizer.inner.post_processor.process(encoding)
        tokens = encoding.ids
        return tokens if tokens[-1:] == [tokenizer.end_id] else [*tokens, tokenizer.end_id]

    def _truncate(self, ids: list[int], is_target: np.ndarray) -> Tokens:
        length = len(ids)
        used = slice(None)
        if length > self.max_length:
            parts = {
                "drop": slice(0),
                "left": slice(length - self.max_length, None),
                "right": slice(self.max_length),
            }
            used = parts[self.truncation]
        tokens = np.array(ids, np.int32)[used]
        is_target = is_target[used]
        is_target[:1] = False  # Nothing predicts the first token.
        if not is_target.any():
            return NOTHING._replace(full_length=length)
        return Tokens(tokens, is_target, length)


def _token_of(encoding: tokenizers.Encoding, characters: Iterable[int]) -> int | None:
    """The token of the first of these characters that has one: a tokenizer may drop spaces."""
    tokens = map(encoding.char_to_token, characters)
    return next((token for token in tokens if token is not None), None)
