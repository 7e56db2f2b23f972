"""Resident memory of the text loader while it streams, each variant in its own process."""

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

from benchmarks.alternate import table
from benchmarks.data.stream import make_stream
from mlxlab.errors import ConfigError
from mlxlab.terminal.wording import percent

UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss


def streaming_memory(
    source: str | None = None, rounds: int = 1, min_bytes: int = 80_000_000
) -> str:
    """Resident memory after N and 10 N documents, streamed and in memory, each in `rounds` new processes.

    Args:
        min_bytes: size up to which the source is repeated.
    """
    if source is None or not Path(source).is_file():
        raise ConfigError("suite=streaming_memory: expected source=<a .txt or .jsonl file>")
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder, f"large{Path(source).suffix}")
        text = Path(source).read_bytes()
        with large.open("wb") as file:
            for _ in range(-(-min_bytes // len(text))):
                file.write(text)
        num_bytes = large.stat().st_size
        make_stream(source, Path(folder)).save(
            Path(folder)
        )  # measured processes load this tokenizer
        rows: list[tuple[str, ...]] = [
            ("variant", "after N", "after 10 N documents", "change", "peak", "above imports")
        ]
        variants = {
            "streamed, window 4,000": (True, 4000),
            "streamed, window 400": (True, 400),
            "in memory": (False, 4000),
        }
        for name, (streaming, window) in variants.items():
            samples = [_in_process(str(large), folder, streaming, window) for _ in range(rounds)]
            early, late, peak, imports = (
                sorted(sample[n] for sample in samples)[rounds // 2] / 1e6 for n in range(4)
            )
            change = percent(late / early - 1, signed=True)
            rows.append(
                (
                    name,
                    *(f"{x:.0f} MB" for x in (early, late)),
                    change,
                    f"{peak:.0f} MB",
                    f"{peak - imports:.0f} MB",
                )
            )
    return table(
        f"{num_bytes / 1e6:.0f} MB of text ({Path(source).name} repeated), resident memory of the loader",
        rows,
    )


def _in_process(source: str, folder: str, streaming: bool, window: int) -> list[int]:
    command = [sys.executable, "-m", __name__, source, folder, str(int(streaming)), str(window)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    sizes: list[int] = json.loads(done.stdout.splitlines()[-1])
    return sizes


def measure(source: str, folder: str, streaming: bool, window: int) -> list[int]:
    """Resident bytes after a tenth of an epoch, after an epoch, at the peak, and after the imports."""
    process = psutil.Process()
    imports = process.memory_info().rss
    cache = Path(folder)
    settings: dict[str, Any] = {"shuffle.window": window}
    data = make_stream(source, cache, pretrained=cache, streaming=streaming, **settings)
    tokens, early = 0, 0
    epoch_tokens = (data.train.batches_per_epoch or 0) * (data.train.tokens_per_batch or 0)
    for batch in data.train:
        tokens += batch.tokens.size
        if not early and tokens > epoch_tokens / 10:
            early = process.memory_info().rss
    late = process.memory_info().rss
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT
    return [early, late, peak, imports]


if __name__ == "__main__":
    file, cache_dir, streaming_flag, window_size = sys.argv[1:]
    print(json.dumps(measure(file, cache_dir, streaming_flag == "1", int(window_size))))
