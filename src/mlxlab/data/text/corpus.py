"""The text of a run: what is trained on and what is validated on, without a document in common."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

from mlxlab.constraints import Gt, Lt, Size
from mlxlab.data.text.document import DocumentSource
from mlxlab.data.text.sources.error_budget import OnError
from mlxlab.data.text.sources.holdout import HoldoutSplit
from mlxlab.data.text.sources.mixture import Mixture
from mlxlab.data.text.sources.open import DocumentUnit, is_local, open_source
from mlxlab.errors import ConfigError

VALIDATION = "validation"


class Reading:
    """Options for reading sources.

    Args:
        config: configuration name of a Hugging Face data set.
        split: of the source to train on: a split of a Hugging Face data set; of local .txt and .jsonl a part such as
            [:90%].
        revision: branch, tag or commit of a Hugging Face data set.
        document_unit: what a document of a .txt file is.
    """

    def __init__(
        self,
        config: str | None,
        split: str | None,
        revision: str | None,
        document_unit: Literal["file", "paragraph", "line"],
    ) -> None:
        self.config, self.split, self.revision, self.document_unit = config, split, revision, document_unit


class Validation:
    """Options for the validation data.

    Args:
        source: text to validate on; null takes `split` of the training source, or holds out some of its documents.
        split: of `source`, or of the training source where that is null.
        fraction: fraction of the documents that is held out where neither is given.
        max_examples: maximum number of documents; they are kept in memory as tokens.
    """

    def __init__(
        self,
        source: str | None,
        split: str | None,
        fraction: Annotated[float, Gt(0), Lt(1)],
        max_examples: Size,
    ) -> None:
        self.source, self.split, self.fraction, self.max_examples = source, split, fraction, max_examples


@dataclass(frozen=True)
class SourceOptions:
    """Options for opening sources: see `open_source`."""

    config: str | None
    revision: str | None
    document_unit: DocumentUnit
    text_column: str
    on_error: OnError
    window: int

    def open(self, source: str, split: str | None) -> DocumentSource:
        return open_source(
            source,
            split=split,
            config=self.config,
            revision=self.revision,
            document_unit=self.document_unit,
            text_column=self.text_column,
            on_error=self.on_error,
            window=self.window,
        )


class Corpus(NamedTuple):
    """Training and validation text, and lines for the log."""

    train: DocumentSource
    valid: DocumentSource
    lines: list[str]


def open_corpus(
    sources: Mapping[str, float], split: str | None, validation: Validation, options: SourceOptions
) -> Corpus:
    """Opens training and validation text.

    Args:
        sources: the names of one or more, with their weights.
        split: of the sources, to train on.
        validation: where it names nothing, the split `validation` of a Hugging Face data set that has one is taken, or
            else documents of the training source are held out.

    Raises:
        InputNotFoundError, DataError, ConfigError, ServiceUnavailableError: as `open_source`.
    """
    opened = [options.open(source, split) for source in sources]
    train = opened[0] if len(opened) == 1 else Mixture(opened, list(sources.values()), options.window)
    lines = [f"{train.name}: {_size(train)}"]
    if validation.source is not None or validation.split is not None:
        valid = options.open(validation.source or next(iter(sources)), validation.split)
    elif (own_split := _own_split(list(sources), options)) is not None:
        valid = own_split
    else:
        fraction = validation.fraction
        lines.append(f"{train.name}: {fraction:.2%} of the documents are held out for validation")
        return Corpus(HoldoutSplit(train, fraction, "train"), HoldoutSplit(train, fraction, "valid"), lines)
    lines.append(f"{valid.name}: {_size(valid)}, for validation")
    if valid.fingerprint == train.fingerprint:
        lines.append(f"{valid.name}: warning: validation uses the training text")
    return Corpus(train, valid, lines)


def _own_split(sources: list[str], options: SourceOptions) -> DocumentSource | None:
    if len(sources) > 1 or is_local(sources[0]):
        return None
    try:
        return options.open(sources[0], VALIDATION)
    except ConfigError:  # it has no such split
        return None


def _size(source: DocumentSource) -> str:
    return "text of unknown size" if source.bytes is None else f"{source.bytes / 1e6:.1f} MB of text"
