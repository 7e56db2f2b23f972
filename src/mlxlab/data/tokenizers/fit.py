"""A tokenizer for a corpus: one that was given, one kept from before, or a new one."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from mlxlab.data.array_cache import write_whole
from mlxlab.data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from mlxlab.data.tokenizers.vocab_size import VocabSizeCurve
from mlxlab.errors import DataError, InputNotFoundError, NotAllowedError

SAMPLE_BYTES = 64_000_000  # characters of a sample at most: documents may be books
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


def cached_json(path: Path, retrain: bool, train: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], str]:
    """The JSON at `path`, verified, or made and kept there; and what happened, in a word.

    A damaged file is made anew with a warning; a folder that cannot be written costs a warning, never the run.
    """
    said = "trained anew" if retrain else "trained"
    if not retrain:
        try:
            return _read(path), "reused"
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s is damaged (%s); the tokenizer is trained anew", path, type(error).__name__)
    content = train()
    try:
        _write(path, content)
    except OSError as error:
        log.warning("the tokenizer could not be kept in %s (%s)", path, error)
    return content, said


def _read(path: Path) -> dict[str, Any]:
    file = json.loads(path.read_text(encoding="utf-8"))
    if file["digest"] != _digest(file["content"]):
        raise ValueError("another digest")
    return file["content"]


def _write(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps({"digest": _digest(content), "content": content})
    write_whole(path, lambda file: file.write(text.encode()))


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
