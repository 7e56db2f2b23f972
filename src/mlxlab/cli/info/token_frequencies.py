"""How often each token occurs in the training text of an experiment."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxlab import terminal
from mlxlab.cli.print_json import print_json
from mlxlab.config.paths import conf_dir
from mlxlab.constraints import Size
from mlxlab.errors import CannotCreateError, ConfigError, WriteError
from mlxlab.markdown import markdown_table
from mlxlab.wording import counted, percent

if TYPE_CHECKING:
    import numpy as np

    from mlxlab.cli.info.frequencies import TokenFrequencies
    from mlxlab.data.text.token_counts import TokenCounts
    from mlxlab.data.tokenizers.tokenizer import Tokenizer


def tokens(
    count: Size = 20,
    out: Path = Path("token_frequencies.png"),
    json: bool = False,
    *,
    args: list[str],
) -> None:
    """Prints the outliers among the tokens of a text as a Markdown table, and plots all frequencies.

    Args:
        count: outliers that are listed of each end.
        out: file of the plot, in a format of matplotlib (png, pdf, svg).
        json: prints JSON instead of a table.
    """
    if out.suffix not in (".png", ".pdf", ".svg"):
        raise ConfigError(f"out={out}: expected a name that ends in .png, .pdf or .svg")
    if not out.absolute().parent.is_dir():
        raise CannotCreateError(f"out={out}: there is no folder {out.absolute().parent}")
    from mlxlab.config.hydra.compose import Composer

    config = Composer(conf_dir(), args).checked_values(resolve=True)
    from mlxlab.cli.info.frequencies import plot_token_frequencies, token_frequencies
    from mlxlab.config.paths import project_root
    from mlxlab.data.text.dataset import StreamingTextDataset
    from mlxlab.experiment.build import build_data

    target = config["data"]["_target_"]
    if target != f"{StreamingTextDataset.__module__}.{StreamingTextDataset.__name__}":
        raise ConfigError(f"data._target_={target}: expected data=streaming")
    with tempfile.TemporaryDirectory() as folder:
        data = build_data(config, project_root(), None, Path(folder))
    assert isinstance(data, StreamingTextDataset)
    counts = data.count_tokens()
    frequencies = token_frequencies(counts.counts)
    rows = _outliers(frequencies, data.tokenizer, count)
    lines = _summary(frequencies)
    figure = plot_token_frequencies(frequencies)
    try:
        figure.savefig(out, dpi=120)
    except OSError as error:
        raise WriteError(f"out={out}: {error.strerror or error}") from None
    if json:
        print_json({"outliers": rows, "summary": lines, "plot": str(out)})
        return
    cells = []
    for row in rows:
        values = row | {"share": percent(row["share"], 4)}
        cells.append([str(value).replace("|", "\\|") for value in values.values()])
    table = markdown_table(["outlier", "token", "rank", "id", "count", "share"], cells, "llr")
    terminal.show("\n".join([_counted(counts), "", table, "", *lines, "", f"plot: {out}"]))


def _counted(corpus: "TokenCounts") -> str:
    extent = "all" if corpus.exact else "a sample"
    used = f"{(corpus.counts > 0).sum():,} of {len(corpus.counts):,} tokens"
    total = f"{corpus.counts.sum():,} tokens ({extent} of the training text)"
    return f"token counts: {total}; {used} of the vocabulary occur"


def _outliers(
    frequencies: "TokenFrequencies", tokenizer: "Tokenizer", count: int
) -> list[dict[str, Any]]:
    """The first outliers of both ends, with their share of all tokens."""
    total = int(frequencies.counts.sum())
    rows: list[dict[str, Any]] = []
    for name, ranks in (
        ("frequent", frequencies.frequent_outliers),
        ("rare", frequencies.rare_outliers[::-1]),
    ):
        for rank in ranks[:count].tolist():
            number, times = int(frequencies.ids[rank]), int(frequencies.counts[rank])
            row = {"outlier": name, "token": _shown(tokenizer, number), "rank": rank + 1}
            rows.append(row | {"id": number, "count": times, "share": times / total})
    return rows


def _summary(frequencies: "TokenFrequencies") -> list[str]:
    """A line on each group of tokens."""
    frequent, rare = frequencies.frequent_outliers, frequencies.rare_outliers
    limits = f"more than {frequencies.upper:.6g} times", f"fewer than {frequencies.lower:.6g} times"
    frequent_share, rare_share = _share(frequencies, frequent), _share(frequencies, rare)
    return [
        f"{counted(len(frequent), 'frequent outlier')} ({limits[0]}) make up {frequent_share}",
        f"{counted(len(rare), 'rare outlier')} ({limits[1]}) make up {rare_share}",
        f"{counted(frequencies.unused, 'token')} do not occur",
    ]


def _share(frequencies: "TokenFrequencies", ranks: "np.ndarray") -> str:
    share = frequencies.counts[ranks].sum() / frequencies.counts.sum()
    return f"{percent(share, 2)} of all tokens"


def _shown(tokenizer: "Tokenizer", number: int) -> str:
    """A token as text, or as the vocabulary writes it if it is special or only part of a character."""
    text = tokenizer.decode([number])
    if text and "\ufffd" not in text:
        return repr(text)
    return ascii(tokenizer.inner.id_to_token(number))
