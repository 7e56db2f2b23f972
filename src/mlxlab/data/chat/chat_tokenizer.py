"""A tokenizer with its chat template: requests to render, prompts, tokens that end an answer."""

from dataclasses import dataclass
from functools import cached_property

import tokenizers

from mlxlab.data.chat.chat_template import ChatTemplate
from mlxlab.data.chat.conversation import Conversation, contents
from mlxlab.data.chat.sandbox import ANSWER_END, ANSWER_START
from mlxlab.data.tokenizers.tokenizer import Tokenizer

# A template that does not name one of these keys would leave it out.
RENDERED = ("tools", "tool_calls", "reasoning_content", "reasoning", "thinking")


@dataclass(frozen=True)
class ChatTokenizer:
    """Recognises special tokens in what the template renders."""

    template: ChatTemplate
    tokenizer: Tokenizer

    @cached_property
    def inner(self) -> tokenizers.Tokenizer:
        """A copy, since `Tokenizer` takes special tokens in a text for text.

        It has no post-processor, which could cut spaces out of the offsets of tokens.
        """
        inner = tokenizers.Tokenizer.from_str(self.tokenizer.inner.to_str())
        inner.post_processor = None
        return inner

    @cached_property
    def special(self) -> dict[str, int]:
        """The special tokens by their text."""
        added = self.tokenizer.inner.get_added_tokens_decoder()
        return {token.content: number for number, token in added.items() if token.special}

    def check(self, conversation: Conversation) -> None:
        """Raises ValueError for a message that could end its turn, and for a key that the template
        would leave out.
        """
        self.check_text(contents(conversation))
        keys = conversation.keys() | set[str]().union(*conversation["messages"])
        for key in RENDERED:
            if key in keys and not self.template.names(key):
                raise ValueError(f"{self.template.name}: the template does not render {key}")

    def check_text(self, text: str) -> None:
        """Raises ValueError for a text that could end its turn and begin another."""
        held = [piece for piece in self.special if piece in text]
        if held:
            first = min(held, key=text.index)
            raise ValueError(f"a message contains the special token {first}")
        if ANSWER_START in text or ANSWER_END in text:
            raise ValueError("a message contains a noncharacter (U+FDD0 or U+FDD1)")

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.inner.encode(text, add_special_tokens=False).ids
        return ids

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """The tokens that end an answer: the end token, and the first special one after it."""
        answer = "answer"
        messages = [
            {"role": "user", "content": "question"},
            {"role": "assistant", "content": answer},
        ]
        after = self.template.render(messages).rpartition(answer)[2]
        special = set(self.special.values())
        following = [token for token in self.encode(after) if token in special]
        ends = {*following[:1], self.tokenizer.eos_id}
        return frozenset(token for token in ends if token is not None)
