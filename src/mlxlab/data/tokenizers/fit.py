"""A tokenizer for a corpus: one that was given, one kept from before, or a new one."""

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

SAMPLE_BYTES = 64_000_000  # characters of a sample at most: documents may be books
MAX_CACHE_BYTES = 2**28

T = TypeVar("T")
log = logging.getLogger(__name__)


class FittedTokenizer(NamedTuple):
    """A tokenizer, what the user should know of it, and where its size was chosen, how."""

    tokenizer: Tokenizer
    lines: list[str]
    curve: VocabSizeCurve | None = None


def existing_tokenizer(path: str | None, pretrained: Path | None) -> FittedTokenizer | None:
    """The tokenizer that the config names, or that the weights were trained with; None if there is neither.

    Raises:
        InputNotFoundError, DataError: there is no tokenizer at the path.
        NotAllowedError: both are given and they differ.
    """
    if path is None and pretrained is None:
        return None
    named = _at(Path(path)) if path is not None else None
    trained = load_tokenizer(pretrained) if pretrained is not None else None
    if named is not None and trained is not None and named.fingerprint != trained.fingerprint:
        raise NotAllowedError(
            f"data.tokenizer.path={path}: another tokenizer ({named.fingerprint[:12]}) than that of the weights"
            f" ({trained.fingerprint[:12]} in {pretrained})"
        )
    found = named or trained
    assert found is not None
    return FittedTokenizer(
        found, [f"tokenizer of {path or pretrained}: {found.vocab_size} tokens, {found.fingerprint[:12]}"]
    )


def _at(path: Path) -> Tokenizer:
    if path.is_file() and path.name != "tokenizer.json":
        raise InputNotFoundError(f"data.tokenizer.path={path}: expected a tokenizer.json or a folder with one")
    return load_tokenizer(path.parent if path.name == "tokenizer.json" else path)


def sample_texts(texts: Iterable[str], count: int) -> list[str]:
    """The first `count` texts that are not blank, of 64 million characters at most in all.

    Raises:
        DataError: there is none.
    """
    found, size = [], 0
    for text in islice((text for text in texts if text.strip()), count):
        found.append(text[: SAMPLE_BYTES - size])
        size += len(text)
        if size >= SAMPLE_BYTES:
            break
    if not found:
        raise DataError("the corpus has no text to make a tokenizer of")
    return found


def cached_json(
    path: Path, force_retrain: bool, shape: type[T], train: Callable[[], T], check: Callable[[T], None]
) -> tuple[T, str]:
    """The cached content at `path`, or trained and cached there; and a word for the log.

    A damaged file is replaced with a warning; a folder that cannot be written costs a warning, never the run.

    Args:
        shape: a `TypedDict` that the content must have.
        check: raises DataError unless the content is one that `train` could have given. A file whose digest is right
            may still come from anyone.
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
