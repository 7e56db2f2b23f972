"""Seconds to train a byte-level BPE: `data.tokenizer` and Hugging Face tokenizers as its documentation shows it."""

from collections.abc import Iterator
from pathlib import Path

from tokenizers import ByteLevelBPETokenizer

from benchmarks.alternate import alternate, table
from mlxlab.data.tokenizers.bpe import train_bpe
from mlxlab.errors import ConfigError, DataError
from mlxlab.schema.constraints import Size


def tokenizer_training(source: str | None = None, vocab_size: Size = 8192, rounds: Size = 5) -> str:
    """Both read the lines of the file `source`, and merge pairs that occur twice or more."""
    if source is None:
        raise ConfigError("suite=tokenizer_training: expected source=<text file>")
    try:
        lines = (
            Path(source)
            .expanduser()
            .read_text(encoding="utf-8", errors="replace")
            .splitlines(keepends=True)
        )
    except OSError as error:
        raise DataError(f"source={source}: {error.strerror or error}") from None

    def texts() -> Iterator[str]:
        return iter(lines)

    sizes: dict[str, int] = {}

    def own() -> None:
        sizes["mlxlab"] = train_bpe(texts(), vocab_size, 2).vocab_size

    def peer() -> None:
        tokenizer = ByteLevelBPETokenizer()
        tokenizer.train_from_iterator(texts(), vocab_size, min_frequency=2, show_progress=False)
        sizes["tokenizers"] = tokenizer.get_vocab_size()

    trials = alternate({"mlxlab": own, "tokenizers": peer}, rounds)
    rows: list[tuple[str, ...]] = [("trainer", "seconds", "CPU s", "tokens", "mlxlab / it")]
    for trial in trials:
        ratio = f"{trials[0].median / trial.median:.2f}"
        rows.append(
            (
                trial.name,
                f"{trial.median:.2f}",
                f"{trial.cpu_median:.2f}",
                str(sizes[trial.name]),
                ratio,
            )
        )
    size = sum(len(line.encode()) for line in lines)
    return table(
        f"{size / 1e6:.1f} MB of text, at most {vocab_size} tokens; medians of {rounds}", rows
    )
