"""Speed of the text loader: tokens/s by wall and CPU time, of the pipeline and its components."""

import json
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.alternate import table
from benchmarks.data.stream import VOCABULARY, make_stream
from mlxlab.data.batch import Batch, check_ids
from mlxlab.data.text.batches import PackedBatchIterator
from mlxlab.data.text.packing import EPOCH_START, TokenStream
from mlxlab.errors import ConfigError


def loader(source: str | None = None, rounds: int = 5) -> str:
    """Each round reads an epoch of `source` with every variant; the first (empty caches) is reported separately."""
    if source is None:
        raise ConfigError(
            "suite=loader: expected source=<file, folder or glob of text, or a data set of the Hugging Face Hub>"
        )
    with tempfile.TemporaryDirectory() as folder:
        streams = {
            "inline": make_stream(source, Path(folder), prefetch=0),
            "background thread": make_stream(source, Path(folder), prefetch=2),
            "background thread, masked": make_stream(source, Path(folder), masked=True, prefetch=2),
            "in memory, inline": make_stream(source, Path(folder), prefetch=0, streaming=False),
        }
        plain = streams["inline"]
        variants: dict[str, Callable[[], int]] = {
            name: _epoch_of(data.train) for name, data in streams.items()
        }
        variants["tokenization only"] = _tokens_of(plain.train)
        measured = {
            name: [_timed(function) for _ in range(rounds + 1)]
            for name, function in variants.items()
        }
        rows: list[tuple[str, ...]] = [("variant", "tokens/s", "tokens/CPU s", "first round")]
        for name, (first, *others) in measured.items():
            wall, busy = (median(rates[n] for rates in others) / 1e6 for n in (0, 1))
            rows.append((name, f"{wall:.2f} M", f"{busy:.2f} M", f"{first[0] / 1e6:.2f} M"))
        size = f"{plain.train.tokens_per_batch} tokens per batch, vocabulary {VOCABULARY}"
        return f"{table(f'{source}: {size}, medians of {rounds} epochs', rows)}\n\n{_seek_times(plain.train)}"


def _epoch_of(batches: Any) -> Callable[[], int]:
    return lambda: int(sum(_tokens(batch) for batch in batches))


def _tokens(batch: Batch) -> int:
    return int(np.count_nonzero(batch.segment_ids))


def _tokens_of(batches: Any) -> Callable[[], int]:
    stream: TokenStream = batches.chunks
    return lambda: sum(
        len(document.tokens) for chunk in stream(0, EPOCH_START) for document in chunk
    )


def _timed(function: Callable[[], int]) -> tuple[float, float]:
    """Tokens/s by wall time and by CPU time of all threads."""
    clock, busy = time.perf_counter(), time.process_time()
    tokens = function()
    return tokens / (time.perf_counter() - clock), tokens / (time.process_time() - busy)


def _seek_times(batches: Any) -> str:
    """Seconds to restore a position, bytes of its state, and cost of the token id check."""
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
        f"Seconds to the first batch after restoring one of {len(seconds)} positions: median {median(seconds):.3f}, "
        f"max {max(seconds):.3f}; state: max {max(sizes)} bytes; id check: {1e6 * median(checks):.0f} us per batch."
    )


def _some_states(batches: PackedBatchIterator) -> Iterable[dict[str, Any]]:
    states = [batches.state_dict() for _ in batches]
    return states[:: max(1, len(states) // 20)]
