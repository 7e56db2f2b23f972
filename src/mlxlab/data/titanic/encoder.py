"""Passengers as sentences, tokens and batches: all that inference needs, fitted on the training rows alone."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlxlab.data.array_cache import Arrays, content_key
from mlxlab.data.batch import Batch, Task
from mlxlab.data.loaders.collate import check_ids, concat_ragged, pad
from mlxlab.data.rng import Stream, counter_hash
from mlxlab.data.titanic.group_stats import GroupStatistics, fit_statistics, load_statistics
from mlxlab.data.titanic.passenger import Passenger
from mlxlab.data.titanic.templates import TEMPLATES, USES_LABELS, VERSION, render_sentence
from mlxlab.data.tokenizers.tokenizer import ByteLevelBPE, Tokenizer, load_tokenizer
from mlxlab.errors import DataError, InputNotFoundError

LABELS = ("died", "survived")
FORMAT = "mlxlab.titanic/1"


class PassengerEncoder:
    """Writes each row by one of `templates` (name -> text), chosen by the row's id and the seed, and encodes it."""

    def __init__(
        self, templates: dict[str, str], statistics: GroupStatistics, tokenizer: Tokenizer, max_length: int, seed: int
    ) -> None:
        self.templates, self.statistics, self.tokenizer = templates, statistics, tokenizer
        self.max_length, self.seed = max_length, seed
        self.task = Task("classification", len(LABELS), LABELS)

    def choose(self, ids: np.ndarray, epoch: int = 0, copy: int | np.ndarray = 0) -> np.ndarray:
        """The number of each row's template: a function of (id, seed, epoch, copy). Copy 0 is that for evaluation."""
        return (counter_hash(self.seed, Stream.TEMPLATE, epoch, copy, ids) % np.uint64(len(self.templates))).astype(
            np.int64
        )

    def texts(self, rows: Sequence[Passenger]) -> list[str]:
        """The sentence by which each row is judged."""
        chosen = self.choose(np.array([row.id for row in rows], np.int64))
        names = list(self.templates)
        return [self.text(row, names[template]) for row, template in zip(rows, chosen, strict=True)]

    def all_texts(self, rows: Sequence[Passenger]) -> list[str]:
        """Every sentence of every row: row after row, a template after the other."""
        return [self.text(row, name) for row in rows for name in self.templates]

    def text(self, row: Passenger, template: str) -> str:
        return render_sentence(row, self.templates[template], self.statistics)

    def encode_rows(self, rows: Sequence[Passenger]) -> Batch:
        """One batch of rows; a row without a label has weight 0."""
        return self.collate(rows, self.tokenizer.encode_batch(self.texts(rows), self.max_length))

    def collate(self, rows: Sequence[Passenger], sequences: Sequence[np.ndarray], length: int | None = None) -> Batch:
        """A checked batch of rows that are tokens already, padded to `length` or to the longest."""
        tokens, mask = pad(sequences, self.tokenizer.pad_id, self.max_length, length)
        targets = np.array([row.survived or 0 for row in rows], np.int32)
        weights = np.array([row.survived is not None for row in rows], np.float32)
        batch = Batch(tokens, mask, targets, weights, np.array([row.id for row in rows], np.int64))
        return check_ids(batch, self.tokenizer.vocab_size, len(LABELS))

    def arrays(self, train: Sequence[Passenger], valid: Sequence[Passenger]) -> Arrays:
        """Tokens for the cache: all sentences of the training rows, one of each validation row."""
        train_tokens, train_lengths = concat_ragged(self.tokenizer.encode_batch(self.all_texts(train), self.max_length))
        valid_tokens, valid_lengths = concat_ragged(self.tokenizer.encode_batch(self.texts(valid), self.max_length))
        return {
            "train": train_tokens,
            "train_lengths": train_lengths,
            "valid": valid_tokens,
            "valid_lengths": valid_lengths,
        }

    def key(self, *parts: Any) -> str:
        """The name of what was made from `parts` (rows, digests, numbers) with this encoder: changes with any of it."""
        digest = hashlib.sha256(repr(parts).encode()).hexdigest()
        return content_key(parts=digest, **self.state_dict())

    def state_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "words": VERSION,
            "labels": list(LABELS),
            "templates": self.templates,
            "max_length": self.max_length,
            "seed": self.seed,
            "tokenizer": self.tokenizer.fingerprint,
            "statistics": self.statistics.state_dict(),
        }

    def save(self, folder: Path, **more: Any) -> None:
        """Writes tokenizer.json and data.json."""
        self.tokenizer.save(folder)
        text = json.dumps(self.state_dict() | more, indent=1)
        (folder / "data.json").write_text(text + "\n", encoding="utf-8")


def fit_passenger_encoder(
    rows: Sequence[Passenger],
    templates: Sequence[str],
    tokenizer: ByteLevelBPE,
    max_length: int,
    seed: int,
    pretrained: Path | None,
) -> PassengerEncoder:
    """An encoder whose statistics and tokenizer are those of `rows`, or with `pretrained` that folder's tokenizer."""
    texts = {name: TEMPLATES[name] for name in dict.fromkeys(templates)}
    statistics = fit_statistics(rows, labels=bool(set(texts) & set(USES_LABELS)))
    sentences = (render_sentence(row, text, statistics) for row in rows for text in texts.values())
    trained = load_tokenizer(pretrained) if pretrained else tokenizer.train(sentences)
    return PassengerEncoder(texts, statistics, trained, max_length, seed)


def restore(folder: Path) -> PassengerEncoder:
    """The encoder that `save` wrote.

    Raises:
        InputNotFoundError: a file is not there.
        DataError: one is damaged or of another format, or the two do not belong together.
    """
    path = folder / "data.json"
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        if (state["format"], state["words"]) != (FORMAT, VERSION):
            raise DataError(f"{path}:1:1: {state['format']}, words {state['words']}; expected {FORMAT}, {VERSION}")
        tokenizer = load_tokenizer(folder)
        if tokenizer.fingerprint != state["tokenizer"]:
            raise DataError(f"{path}:1:1: tokenizer.json beside it is not the one it was saved with")
        statistics = load_statistics(state["statistics"])
        return PassengerEncoder(
            dict(state["templates"]), statistics, tokenizer, int(state["max_length"]), int(state["seed"])
        )
    except OSError as error:
        raise InputNotFoundError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}:1:1: is damaged ({type(error).__name__}: {str(error)[:100]})") from None
