"""Steps shared by the tokenizer trainers: existing tokenizers, text samples, and the cache."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypedDict, TypeVar

from mlxlab.data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from mlxlab.data.tokenizers.vocab_size import VocabSizeCurve
from mlxlab.errors import DataError, InputNotFoundError, NotAllowedError
from mlxlab.files.atomic import write_atomic
from mlxlab.files.shape import ShapeError, validate
from mlxlab.files.untrusted import read_json

MAX_SAMPLE_CHARACTERS = 64_000_000  # documents may be books
MAX_CACHE_BYTES = 2**28

T = TypeVar("T")
log = logging.getLogger(__name__)


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
    if path is None and pretrained is None:
        return None
    named = _load(Path(path)) if path is not None else None
    trained = load_tokenizer(pretrained) if pretrained is not None else None
    if named is not None and trained is not None and named.fingerprint != trained.fingerprint:
        raise NotAllowedError(
            f"data.tokenizer.path={path}: expected the tokenizer of the weights"
            f" ({trained.fingerprint[:12]} in {pretrained}), got {named.fingerprint[:12]}"
        )
    tokenizer = named or trained
    assert tokenizer is not None
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
    path: Path, force_retrain: bool, shape: type[T], train: Callable[[], T], check: Callable[[T], None]
) -> tuple[T, str]:
    """The cached content at `path`, or newly trained and cached content; and its origin in a word.

    A malformed file is replaced with a warning; a folder that cannot be written only causes a warning.

    Args:
        shape: the `TypedDict` of the content.
        check: raises DataError unless `train` could have returned the content: a right digest proves no origin.
    """
    if not force_retrain:
        try:
            content = _read(path, shape)
            check(content)
        except InputNotFoundError:
            pass
        except DataError as error:
            log.warning("%s; the tokenizer is trained again", error)
        else:
            return content, "reused"
    content = train()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({"digest": _digest(content), "content": content}))
    except OSError as error:
        log.warning("the tokenizer could not be cached in %s (%s)", path, error)
    return content, "retrained" if force_retrain else "trained"


class _CacheFile(TypedDict):
    digest: str
    content: object


def _read(path: Path, shape: type[T]) -> T:
    file = read_json(path, _CacheFile, max_bytes=MAX_CACHE_BYTES, max_depth=64)
    if file["digest"] != _digest(file["content"]):
        raise DataError(f"{path}: the digest differs")
    try:
        content: T = validate(file["content"], shape)
    except ShapeError as error:
        raise DataError(f"{path}: {error}") from None
    return content


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
