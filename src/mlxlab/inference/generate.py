"""Generates text with a causal language model: batched, with a key-value cache."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Annotated, Literal, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxlab.backend import blas_threads, one_blas_thread
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.errors import ConfigError, DataError
from mlxlab.models.backbone import CausalBackbone, DecodingCache
from mlxlab.models.model import CausalHead, Classifier, Model
from mlxlab.schema.constraints import Count, Ge, Gt, Le, Lt, Positive, Seed, Size

UNFINISHED = "\ufffd"  # decoders return it for an incomplete or invalid UTF-8 sequence
End = Literal["", "end token", "stop", "length"]


@dataclass(frozen=True)
class GenerationConfig:
    """Options of generation. The repetition penalty applies first, then temperature, top_k, top_p and min_p.

    Args:
        max_tokens: max new tokens per prompt.
        stop: strings at which generation ends; they are not part of the result.
        seed: the same seed gives the same text.
        new_document: the prompt begins a document; false if it continues one.
        context_length: max tokens of the context window; null for the length used in training.
        batch_size: prompts per batch; the text does not depend on it.
        temperature: divides the logits: below 1 sharpens the distribution; 0 is greedy decoding.
        top_k: samples from the `top_k` most probable tokens; 0 from all.
        top_p: samples from the smallest set of tokens whose probability is >= top_p (Holtzman et al. 2020); 1 from all.
        min_p: drops tokens less probable than min_p times the most probable one (Nguyen et al. 2024); 0 drops none.
        repetition_penalty: divides positive logits of tokens that the text has already, and multiplies negative ones
            (Keskar et al. 2019); 1 for none.
    """

    max_tokens: Size = 100
    stop: list[str] = field(default_factory=list)
    seed: Seed = 0
    new_document: bool = True
    context_length: Annotated[int, Ge(2), Le(10**9)] | None = None
    batch_size: Size = 8
    temperature: Annotated[float, Ge(0)] = 0.8
    top_k: Count = 50
    top_p: Annotated[float, Gt(0), Le(1)] = 1.0
    min_p: Annotated[float, Ge(0), Lt(1)] = 0.0
    repetition_penalty: Positive = 1.0

    def sample(self, logits: np.ndarray, seen: Sequence[int], u: float) -> int:
        """The token id by inversion of the cumulative distribution at `u`, a number in [0, 1).

        On the host, in float64: the same `u` gives the same token on every device.
        """
        tokens, probs = self.candidates(logits, seen)
        index = np.searchsorted(np.cumsum(probs), u * probs.sum(), side="right")
        return int(tokens[min(int(index), len(tokens) - 1)])

    def candidates(self, logits: np.ndarray, seen: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """The tokens that may come next and their probabilities, which sum to 1; of equal logits the lower id is first.

        `seen` are the tokens that the text has so far. Raises DataError if no logit (V,) is finite.
        """
        x = np.where(np.isnan(logits), -np.inf, logits).astype(np.float64)
        if not np.isfinite(x.max()):
            raise DataError("the model's logits are not finite numbers: its weights are damaged")
        if (penalty := self.repetition_penalty) != 1:
            repeated = np.asarray(seen, np.int64)
            x[repeated] = np.where(x[repeated] > 0, x[repeated] / penalty, x[repeated] * penalty)
        if self.temperature == 0:
            return np.array([x.argmax()]), np.ones(1)
        x = (x - x.max()) / self.temperature
        tokens = self._most_probable(x)
        probs = np.exp(x[tokens])
        probs /= probs.sum()
        if self.top_p < 1:  # a token stays while the more probable ones sum to less than top_p
            nucleus = np.cumsum(probs) - probs < self.top_p
            tokens = tokens[nucleus]
            probs = probs[nucleus]
        likely = (probs >= self.min_p * probs.max()) & (probs > 0)  # a logit may be -inf
        return tokens[likely], probs[likely] / probs[likely].sum()

    def _most_probable(self, x: np.ndarray) -> np.ndarray:
        """Ids of the top_k tokens, sorted if top_p needs it: sorting a vocabulary costs more than a small model."""
        count = min(self.top_k or len(x), len(x))
        if count == len(x) and self.top_p == 1:
            return np.arange(len(x))
        threshold = np.partition(x, len(x) - count)[len(x) - count]
        tokens = np.flatnonzero(x >= threshold)
        return tokens[np.argsort(-x[tokens], kind="stable")][:count]


@dataclass(frozen=True)
class TextChunk:
    """Further text of one row. `end`: why the row ended, or empty; `tokens`: tokens sampled for it so far."""

    row: int
    text: str
    end: End
    tokens: int


def generate(
    model: Model,
    tokenizer: Tokenizer,
    prompts: Sequence[list[int]],
    request: GenerationConfig,
    end_ids: Collection[int] | None = None,
) -> Iterator[TextChunk]:
    """Continues each prompt (at least one token id), `batch_size` of them at a time; yields text as it is generated.

    A row ends at one of `end_ids`; None is the end token of the tokenizer.

    What is sampled depends on the seed, the row number and the position alone.
    When the window of `context` tokens is full, its older half is dropped. Raises as `check_generates` and
    `check_context`.
    """
    check_generates(model)
    context = check_context(model, request.context_length)
    ends = (tokenizer.eos_id,) if end_ids is None else end_ids
    for first in range(0, len(prompts), request.batch_size):
        numbered = enumerate(prompts[first : first + request.batch_size], first)
        rows = [
            _Row(i, list(prompt), StreamingDetokenizer(tokenizer, request.stop))
            for i, prompt in numbered
        ]
        window = _ContextWindow(model, rows, context)
        while window.rows:
            for row, logits in zip(window.rows, window.logits(), strict=True):
                key = request.seed, row.number, row.generated
                u = np.random.default_rng(key).random() if request.temperature else 0.0
                token = request.sample(logits, row.tokens, u)
                chunk = row.append(token, token in ends, request.max_tokens)
                if chunk.text or chunk.end:
                    yield chunk
            window.drop_ended()


def check_generates(model: nn.Module) -> None:
    """ConfigError unless it is a single causal language model."""
    is_causal = isinstance(model, Model) and model.backbone.causal
    if not is_causal or isinstance(model.head, Classifier):
        raise ConfigError(
            "the model cannot generate: expected one of model=transformer for texts, neither a classifier nor masked"
            " nor an ensemble"
        )


def check_context(model: Model, expected: int | None) -> int:
    """The context length in tokens: `expected` (ConfigError beyond the learned positions), or that of the model."""
    limit = model.backbone.position_limit
    if expected is not None and limit is not None and expected > limit:
        raise ConfigError(f"context_length={expected}: the model has positions for {limit}")
    return expected or model.backbone.max_position_embeddings


def window_start(start: int, length: int, context: int) -> int:
    """First token of the context window of a text of `length` tokens: `start`, or half a window back if full."""
    return start if length - start <= context else length - context // 2


class StreamingDetokenizer:
    """Decodes the tokens of one row into text.

    A token may be part of a character, and with some tokenizers its text depends on the token before it: so tokens are
    decoded after those of the previous chunk. `ended` is set at a stop string; the text ends before it.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self.tokenizer = tokenizer
        self.stop = [text for text in stop if text]
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
        self._before = self._new or self._before
        self._new = []
        if self.ended:
            return ""
        text = self._held + text
        if ends := [index for stop in self.stop if (index := text.find(stop)) >= 0]:
            self.ended = True
            self._held = ""
            return text[: min(ends)]
        final = len(text) - max((_overlap(text, stop) for stop in self.stop), default=0)
        self._held = text[final:]
        return text[:final]


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that begins `stop`."""
    return next(
        (n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0
    )


@dataclass
class _Row:
    """One text: its tokens, and the first token of its context window."""

    number: int
    tokens: list[int]
    text: StreamingDetokenizer
    start: int = 0
    generated: int = 0
    end: End = ""

    def append(self, token: int, is_end: bool, max_tokens: int) -> TextChunk:
        """Appends a token; returns the text that it completes, often empty."""
        self.generated += 1
        self.tokens.append(token)
        text = "" if is_end else self.text.push(token)
        if is_end:
            self.end = "end token"
        elif self.generated == max_tokens:
            self.end = "length"
        if self.end or self.text.ended:
            text += self.text.finish()
            self.end = "stop" if self.text.ended else self.end
        return TextChunk(self.number, text, self.end, self.generated)


class _ContextWindow:
    """The unfinished rows and their key-value cache."""

    def __init__(self, model: Model, rows: list[_Row], context: int) -> None:
        self.rows = rows
        self.context = context
        # `check_generates` has checked both:
        self.backbone = cast(CausalBackbone, model.backbone)
        self.head = cast(CausalHead, model.head)
        self.cache: DecodingCache | None = None
        for row in rows:
            row.start = max(0, len(row.tokens) - context)

    def logits(self) -> np.ndarray:
        """Logits of the next token of each row, (B, V) float32."""
        starts = [window_start(row.start, len(row.tokens), self.context) for row in self.rows]
        if self.cache is not None and starts == [row.start for row in self.rows]:
            tokens = [row.tokens[-1:] for row in self.rows]
        else:  # all tokens of the windows, padded on the left
            for row, start in zip(self.rows, starts, strict=True):
                row.start = start
            windows = [row.tokens[row.start :] for row in self.rows]
            T = max(map(len, windows))
            self.cache = self.backbone.new_cache([T - len(window) for window in windows])
            tokens = [[0] * (T - len(window)) + window for window in windows]
        # Two OpenBLAS threads spin longer than they compute on the products of one token.
        with one_blas_thread() if len(tokens[0]) == 1 and blas_threads() <= 2 else nullcontext():
            states = self.backbone.extend(mx.array(tokens), self.cache)[:, -1:]
            return np.array(self.head(states, self.backbone.embedding)[:, 0].astype(mx.float32))

    def drop_ended(self) -> None:
        active = [i for i, row in enumerate(self.rows) if not row.end]
        if self.cache is not None and 0 < len(active) < len(self.rows):
            self.cache.keep(active)
        self.rows = [self.rows[i] for i in active]
