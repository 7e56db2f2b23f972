"""Steps shared by the tokenizer trainers: existing tokenizers, text samples, and the cache."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from mlxlab.data.cache import cached
from mlxlab.data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from mlxlab.data.tokenizers.vocab_size import VocabSizeCurve
from mlxlab.errors import DataError, InputNotFoundError, NotAllowedError
from mlxlab.files.untrusted import parse_json

MAX_SAMPLE_CHARACTERS = 64_000_000  # documents may be books

T = TypeVar("T")


@dataclass(frozen=True)
class Corpus:
    """Texts that a tokenizer is fitted to, and the model it is for.

    Args:
        texts: read only if no existing or cached tokenizer is used.
        key: identifies the texts.
        cache: folder of caches.
        parameters: number of parameters of the model without its vocabulary.
        width: hidden size of the model.
        planned_bytes: bytes of text that the run will see; None if unknown.
        pretrained: folder with the tokenizer.json of pretrained weights; None without such weights.
    """

    texts: Iterable[str]
    key: str
    cache: Path
    parameters: int
    width: int
    planned_bytes: int | None = None
    pretrained: Path | None = None


class FittedTokenizer(NamedTuple):
    """A tokenizer, lines for the log, and the curve by which its size was chosen."""

    tokenizer: Tokenizer
    lines: list[str]
    curve: VocabSizeCurve | None = None


def existing_tokenizer(path: str | None, pretrained: Path | None) -> FittedTokenizer | None:
    """The tokenizer that the config names, or that of pretrained weights; None without both.

    Raises:
        InputNotFoundError, DataError: no valid tokenizer at the path.
        NotAllowedError: the two differ.
    """
    configured = _load(Path(path)) if path is not None else None
    inherited = load_tokenizer(pretrained) if pretrained is not None else None
    tokenizer = configured or inherited
    if tokenizer is None:
        return None
    if inherited is not None and tokenizer.fingerprint != inherited.fingerprint:
        raise NotAllowedError(
            f"data.tokenizer.path={path}: expected the tokenizer of the weights"
            f" ({inherited.fingerprint[:12]} in {pretrained}), got {tokenizer.fingerprint[:12]}"
        )
    line = f"tokenizer of {path or pretrained}: {tokenizer.vocab_size} tokens, {tokenizer.fingerprint[:12]}"
    return FittedTokenizer(tokenizer, [line])


def _load(path: Path) -> Tokenizer:
    if path.is_file() and path.name != "tokenizer.json":
        raise InputNotFoundError(f"data.tokenizer.path={path}: expected a tokenizer.json or a folder with one")
    return load_tokenizer(path.parent if path.name == "tokenizer.json" else path)


def sample_texts(texts: Iterable[str], count: int) -> list[str]:
    """The first `count` texts that are not blank, with at most 64 million characters in total.

    Raises:
        DataError: there is none.
    """
    sample, size = [], 0
    for text in islice((text for text in texts if text.strip()), count):
        sample.append(text[: MAX_SAMPLE_CHARACTERS - size])
        size += len(text)
        if size >= MAX_SAMPLE_CHARACTERS:
            break
    if not sample:
        raise DataError("the corpus has no text to train a tokenizer on")
    return sample


def cached_json(
    path: Path, shape: type[T], train: Callable[[], T], check: Callable[[T], None], *, read: bool
) -> tuple[T, str]:
    """`cached` content of JSON, with `trained` or `reused`.

    Args:
        shape: the `TypedDict` of the content.
        check: raises DataError unless `train` could have returned the content.
    """

    def decode(data: bytes) -> T:
        content = parse_json(data.decode("utf-8", "replace"), shape, path.name, max_depth=64)
        check(content)
        return content

    content, outcome = cached(path, train, lambda content: json.dumps(content).encode(), decode, read=read)
    return content, "reused" if outcome == "hit" else "trained"
