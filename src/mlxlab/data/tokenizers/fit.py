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
from mlxlab.program import display_path

MAX_SAMPLE_CHARACTERS = 64_000_000  # documents may be books

T = TypeVar("T")


@dataclass(frozen=True)
class Corpus:
    """Texts that a tokenizer is fitted to, and the model it is for."""

    texts: Iterable[str]  # read only if no existing or cached tokenizer is used
    key: str  # identifies the texts
    cache: Path
    parameters: int  # of the model without its vocabulary
    width: int  # hidden size of the model
    planned_bytes: int | None = None  # of text that the run will see, if known
    pretrained: Path | None = None  # folder with the tokenizer.json of pretrained weights


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
    inherited = load_tokenizer(pretrained) if pretrained is not None else None
    if path is not None:
        tokenizer = load_tokenizer(tokenizer_folder(path))
    elif inherited is not None:
        tokenizer = inherited
    else:
        return None
    if inherited is not None and tokenizer.fingerprint != inherited.fingerprint:
        raise NotAllowedError(
            f"data.tokenizer.path={path}: expected the tokenizer of the weights"
            f" ({inherited.fingerprint[:12]} in {pretrained}), got {tokenizer.fingerprint[:12]}"
        )
    source = display_path(path or pretrained or "")
    return FittedTokenizer(tokenizer, [f"tokenizer of {source}: {tokenizer.vocab_size:,} tokens"])


def tokenizer_folder(path: str) -> Path:
    """The folder of `data.tokenizer.path`, a tokenizer.json or a folder with one."""
    file = Path(path)
    if file.is_file() and file.name != "tokenizer.json":
        raise InputNotFoundError(
            f"data.tokenizer.path={path}: expected a tokenizer.json or a folder with one"
        )
    return file.parent if file.name == "tokenizer.json" else file


def sample_texts(texts: Iterable[str], count: int) -> list[str]:
    """The first `count` texts that are not blank, at most 64 million characters; raises DataError if there is none."""
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
    """`cached` content of JSON, and `trained` or `reused`; `check` raises DataError for what `train` cannot return."""

    def decode(data: bytes) -> T:
        content = parse_json(data.decode("utf-8", "replace"), shape, path.name, max_depth=64)
        check(content)
        return content

    content, outcome = cached(
        path, train, lambda content: json.dumps(content).encode(), decode, read=read
    )
    return content, "reused" if outcome == "hit" else "trained"
