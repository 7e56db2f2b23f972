"""The text of a run: what is trained on and what is validated on, without a document in common."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

from mlxlab.data.text.document import DocumentSource
from mlxlab.data.text.sources.holdout import HoldoutSplit
from mlxlab.data.text.sources.mixture import Mixture
from mlxlab.data.text.sources.open import is_local, open_source
from mlxlab.errors import ConfigError

VALIDATION = "validation"


@dataclass(frozen=True)
class SourceOptions:
    """How sources are opened: see `open_source`."""

    config: str | None
    revision: str | None
    text_column: str
    documents: Literal["file", "paragraph", "line"]
    on_error: Literal["strict", "skip"]
    window: int

    def open(self, source: str, split: str | None) -> DocumentSource:
        return open_source(source, split=split, **asdict(self))


class Corpus(NamedTuple):
    """Two sources, and what the user should know of them."""

    train: DocumentSource
    valid: DocumentSource
    lines: list[str]


def open_corpus(
    sources: Mapping[str, float],
    split: str | None,
    valid_source: str | None,
    valid_split: str | None,
    fraction: float,
    opening: SourceOptions,
) -> Corpus:
    """Training and validation text.

    Args:
        sources: the names of one or more, with their weights.
        split: of the sources, to train on.
        valid_source, valid_split: what to validate on; without either, the split `validation` of a hub data set that
            has one, or else a `fraction` of the documents, held out.
    """
    opened = [opening.open(source, split) for source in sources]
    train: DocumentSource = opened[0] if len(opened) == 1 else Mixture(opened, list(sources.values()), opening.window)
    lines = [f"{train.name}: {_size(train)}"]
    if valid_source is not None or valid_split is not None:
        valid = opening.open(valid_source or next(iter(sources)), valid_split)
    elif (found := _own_split(list(sources), opening)) is not None:
        valid = found
    else:
        sides = HoldoutSplit(train, fraction, "train"), HoldoutSplit(train, fraction, "valid")
        return Corpus(*sides, [*lines, f"{train.name}: {fraction:.2%} of the documents are held out to validate"])
    lines.append(f"{valid.name}: {_size(valid)}, to validate")
    if valid.fingerprint == train.fingerprint:
        lines.append(f"{valid.name}: this is the very text that is trained on; validation tells nothing new")
    return Corpus(train, valid, lines)


def _own_split(sources: list[str], opening: SourceOptions) -> DocumentSource | None:
    if len(sources) > 1 or is_local(sources[0]):
        return None
    try:
        return opening.open(sources[0], VALIDATION)
    except ConfigError:  # it has no such split
        return None


def _size(source: DocumentSource) -> str:
    return "text of unknown size" if source.bytes is None else f"{source.bytes / 1e6:.1f} MB of text"
