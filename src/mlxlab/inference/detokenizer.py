"""Incremental detokenizer: yields whole characters only, and withholds text that may begin a stop string."""

from collections.abc import Sequence
from typing import Protocol

UNFINISHED = "\ufffd"  # what a decoder makes of bytes that are no character, or not yet


class Decoder(Protocol):
    def decode(self, ids: Sequence[int]) -> str: ...


class StreamingDetokenizer:
    """The text of one row.

    A token may be part of a character, and with some tokenizers its text depends on the token before it: so tokens are
    decoded after those of the previous chunk. `ended` is set at a stop string; the text ends before it.
    """

    def __init__(self, tokenizer: Decoder, stop: Sequence[str] = ()) -> None:
        self.tokenizer, self.stop = tokenizer, [text for text in stop if text]
        self.ended = False
        self._before: list[int] = []  # tokens whose text is out
        self._new: list[int] = []  # tokens whose text is not
        self._held = ""  # text that may be the beginning of a stop string

    def push(self, token: int) -> str:
        """Appends a token; returns the text that is final now, often empty."""
        self._new.append(token)
        text = self._text()
        return "" if not text or text.endswith(UNFINISHED) else self._release(text)

    def finish(self) -> str:
        """The withheld text, when no token follows."""
        text = self._release(self._text()) + self._held
        self._held = ""
        return text

    def _text(self) -> str:
        """The text of the new tokens."""
        before = self.tokenizer.decode(self._before)
        return self.tokenizer.decode([*self._before, *self._new])[len(before) :]

    def _release(self, text: str) -> str:
        self._before, self._new = self._new or self._before, []
        if self.ended:
            return ""
        text = self._held + text
        places = [place for stop in self.stop if (place := text.find(stop)) >= 0]
        if places:
            self.ended, self._held = True, ""
            return text[: min(places)]
        keep = max((_overlap(text, stop) for stop in self.stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
