"""Incremental detokenizer: yields whole characters only, and withholds text that may begin a stop string."""

from collections.abc import Sequence

from mlxlab.data.tokenizers.tokenizer import Tokenizer

UNFINISHED = "\ufffd"  # decoders return it for an incomplete or invalid UTF-8 sequence


class StreamingDetokenizer:
    """Decodes the tokens of one row into text.

    A token may be part of a character, and with some tokenizers its text depends on the token before it: so tokens are
    decoded after those of the previous chunk. `ended` is set at a stop string; the text ends before it.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self.tokenizer, self.stop = tokenizer, [text for text in stop if text]
        self.ended = False
        self._before: list[int] = []  # tokens of the last chunk returned
        self._new: list[int] = []  # tokens whose text was not returned yet
        self._held = ""  # withheld text: it may begin a stop string

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
        if ends := [index for stop in self.stop if (index := text.find(stop)) >= 0]:
            self.ended, self._held = True, ""
            return text[: min(ends)]
        final = len(text) - max((_overlap(text, stop) for stop in self.stop), default=0)
        self._held = text[final:]
        return text[:final]


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
