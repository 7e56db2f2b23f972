"""How fast text becomes batches: tokens a second by the clock and by CPU, with what each part of the way costs."""

import json
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.alternate import table
from benchmarks.stream import VOCABULARY, new_stream
from mlxlab.data.batch import Batch
from mlxlab.data.loaders.collate import check_ids
from mlxlab.data.text.cursor import DocumentCursor
from mlxlab.data.text.packed_batches import PackedBatchIterator
from mlxlab.data.text.token_stream import TokenStream
from mlxlab.errors import ConfigError


def loader(source: str | None = None, rounds: int = 5) -> str:
    """An epoch of `source` a round, every variant in turn; the first round, with empty caches, is told apart."""
    if source is None:
        raise ConfigError("suite=loader: expected source=<file, folder or glob of text, or a data set of the hub>")
    with tempfile.TemporaryDirectory() as folder:
        streams = {
            "inline": new_stream(source, Path(folder), prefetch=0),
            "background thread": new_stream(source, Path(folder), prefetch=2),
            "background thread, masked": new_stream(source, Path(folder), masked=True, prefetch=2),
            "in memory, inline": new_stream(source, Path(folder), prefetch=0, streaming=False),
        }
        plain = streams["inline"]
        variants: dict[str, Callable[[], int]] = {name: _epoch_of(data.train) for name, data in streams.items()}
        variants["documents to tokens alone, words looked up"] = _tokens_of(plain.train)
        variants["documents to tokens alone, tokenizer itself"] = _tokens_of(plain.train, plain.tokenizer)
        measured = {name: [_timed(work) for _ in range(rounds + 1)] for name, work in variants.items()}
        rows: list[tuple[str, ...]] = [("way", "tokens/s", "tokens per CPU s", "the first time")]
        for name, (first, *others) in measured.items():
            wall, busy = (median(one[n] for one in others) / 1e6 for n in (0, 1))
            rows.append((name, f"{wall:.2f} M", f"{busy:.2f} M", f"{first[0] / 1e6:.2f} M"))
        size = f"{plain.train.tokens_per_batch} tokens a batch, vocabulary {VOCABULARY}"
        return f"{table(f'{source}: {size}, medians of {rounds} epochs', rows)}\n\n{_places(plain.train)}"


def _epoch_of(batches: Any) -> Callable[[], int]:
    return lambda: int(sum(_tokens(batch) for batch in batches))


def _tokens(batch: Batch) -> int:
    return int(np.count_nonzero(batch.segment_ids))


def _tokens_of(batches: Any, encoder: Any = None) -> Callable[[], int]:
    stream: TokenStream = batches.chunks
    if encoder is not None:
        stream = TokenStream(stream.source, encoder, stream.end_id, stream.seed)
    return lambda: sum(len(chunk.tokens) for chunk in stream(0, DocumentCursor()))


def _timed(work: Callable[[], int]) -> tuple[float, float]:
    """Tokens a second by the clock and by the CPU of all threads."""
    clock, busy = time.perf_counter(), time.process_time()
    tokens = work()
    return tokens / (time.perf_counter() - clock), tokens / (time.process_time() - busy)


def _places(batches: Any) -> str:
    """How long it takes to reach a place, how large its state is, and what the check of ids costs."""
    seconds, sizes, checks = [], [], []
    for state in _some_states(batches):
        batches.load_state_dict(json.loads(json.dumps(state)))
        start = time.perf_counter()
        batch = next(iter(batches))
        seconds.append(time.perf_counter() - start)
        sizes.append(len(json.dumps(state)))
        start = time.perf_counter()
        check_ids(batch, VOCABULARY, VOCABULARY)
        checks.append(time.perf_counter() - start)
    return (
        f"First batch after going to one of {len(seconds)} places: {median(seconds):.3f} s, {max(seconds):.3f} at most;"
        f" state {max(sizes)} bytes at most; check of all ids of a batch {1e6 * median(checks):.0f} us."
    )


def _some_states(batches: PackedBatchIterator) -> Iterable[dict[str, Any]]:
    states = [batches.state_dict() for _ in batches]
    return states[:: max(1, len(states) // 20)]
