"""Does memory stay flat while text streams by? Processes of their own, of which the system says what they hold."""

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from benchmarks.alternate import table
from benchmarks.stream import new_stream
from mlxlab.errors import ConfigError

BYTES = 80_000_000  # the source is repeated to so much text
UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss


def streaming_memory(source: str | None = None, rounds: int = 1) -> str:
    """Resident memory after N and 10 N documents, streamed and in memory, each in `rounds` new processes."""
    if source is None or not Path(source).is_file():
        raise ConfigError("suite=streaming_memory: expected source=<a .txt or .jsonl file>")
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder, f"large{Path(source).suffix}")
        text = Path(source).read_bytes()
        with large.open("wb") as file:
            for _ in range(-(-BYTES // len(text))):
                file.write(text)
        size = large.stat().st_size
        new_stream(source, Path(folder)).save(Path(folder))  # so that no process measured trains a tokenizer
        rows: list[tuple[str, ...]] = [("way", "after N", "after 10 N documents", "change", "peak", "above imports")]
        ways = {"streamed, window 4,000": (True, 4000), "streamed, window 400": (True, 400), "in memory": (False, 4000)}
        for name, (streaming, window) in ways.items():
            found = [_in_process(str(large), folder, streaming, window) for _ in range(rounds)]
            early, late, peak, imports = (sorted(one[n] for one in found)[rounds // 2] / 1e6 for n in range(4))
            change = f"{late / early - 1:+.1%}"
            rows.append(
                (name, *(f"{x:.0f} MB" for x in (early, late)), change, f"{peak:.0f} MB", f"{peak - imports:.0f} MB")
            )
    return table(f"{size / 1e6:.0f} MB of text ({Path(source).name} repeated), resident memory of the loader", rows)


def _in_process(source: str, folder: str, streaming: bool, window: int) -> list[int]:
    words = [sys.executable, "-m", __name__, source, folder, str(int(streaming)), str(window)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found: list[int] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(source: str, folder: str, streaming: bool, window: int) -> list[int]:
    """Bytes resident after a tenth of an epoch, after a whole one, at the peak, and after the imports."""
    process = psutil.Process()
    imports = process.memory_info().rss
    kept = Path(folder)
    data = new_stream(source, kept, pretrained=kept, streaming=streaming, **{"shuffle.window": window})
    tokens, early = 0, 0
    whole = (data.train.batches_per_epoch or 0) * (data.train.tokens_per_batch or 0)
    for batch in data.train:
        tokens += batch.tokens.size
        if not early and tokens > whole / 10:
            early = process.memory_info().rss
    late = process.memory_info().rss
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT
    return [early, late, peak, imports]


if __name__ == "__main__":
    file, place, kept, documents = sys.argv[1:]
    print(json.dumps(measure(file, place, kept == "1", int(documents))))
