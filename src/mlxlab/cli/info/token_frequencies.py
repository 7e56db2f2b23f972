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
    from mlxlab.data.tokenizers.tokenizer import Tokenizer
    from mlxlab.data.vocabulary.token_counts import TokenFrequencies


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
    from mlxlab.callbacks.plots import plot_token_frequencies
    from mlxlab.config.paths import project_root
    from mlxlab.data.text.dataset import StreamingTextDataset
    from mlxlab.data.vocabulary.token_counts import token_frequencies
    from mlxlab.experiment.build import build_data

    target = config["data"]["_target_"]
    if target != f"{StreamingTextDataset.__module__}.{StreamingTextDataset.__name__}":
        raise ConfigError(f"data._target_={target}: expected data=streaming")
    with tempfile.TemporaryDirectory() as folder:
        data = build_data(config, project_root(), None, Path(folder))
    assert isinstance(data, StreamingTextDataset)
    counts = data.count_tokens()
    frequencies = token_frequencies(counts.counts)
    rows, lines = _outliers(frequencies, data.tokenizer.original, count), _summary(frequencies)
    figure = plot_token_frequencies(frequencies)
    try:
        figure.savefig(out, dpi=120)
    except OSError as error:
        raise WriteError(f"out={out}: {error.strerror or error}") from None
    if json:
        print_json({"outliers": rows, "summary": lines, "plot": str(out)})
        return
    cells = [
        [
            str(value).replace("|", "\\|")
            for value in (row | {"share": percent(row["share"], 4)}).values()
        ]
        for row in rows
    ]
    table = markdown_table(["outlier", "token", "rank", "id", "count", "share"], cells, "llr")
    terminal.show("\n".join([counts.line, "", table, "", *lines, "", f"plot: {out}"]))


def _outliers(
    frequencies: "TokenFrequencies", tokenizer: "Tokenizer", count: int
) -> list[dict[str, Any]]:
    """The first outliers of both ends, with their share of all tokens."""
    total = int(frequencies.counts.sum())
    groups = {"frequent": frequencies.frequent_outliers, "rare": frequencies.rare_outliers[::-1]}
    rows = list[dict[str, Any]]()
    for name, ranks in groups.items():
        for rank in ranks[:count]:
            number, times = int(frequencies.ids[rank]), int(frequencies.counts[rank])
            token = _shown(tokenizer, number)
            row = {
                "outlier": name,
                "token": token,
                "rank": int(rank) + 1,
                "id": number,
                "count": times,
            }
            rows.append(row | {"share": times / total})
    return rows


def _summary(frequencies: "TokenFrequencies") -> list[str]:
    """A line on each group of tokens."""
    total, lines = frequencies.counts.sum(), []
    groups = {"frequent": frequencies.frequent_outliers, "rare": frequencies.rare_outliers}
    limits = {
        "frequent": f"more than {frequencies.upper:.6g}",
        "rare": f"fewer than {frequencies.lower:.6g}",
    }
    for name, ranks in groups.items():
        share = frequencies.counts[ranks].sum() / total
        outliers = f"{counted(len(ranks), f'{name} outlier')} ({limits[name]} times)"
        lines.append(f"{outliers} make up {percent(share, 2)} of all tokens")
    rare, unused = (
        counted(len(frequencies.rare), "rare token"),
        counted(frequencies.unused, "token"),
    )
    lines.append(f"{rare} make up at most 1 %; without an occurrence: {unused}")
    return lines


def _shown(tokenizer: "Tokenizer", number: int) -> str:
    """A token as text, or as the vocabulary writes it if it is special or only part of a character."""
    text = tokenizer.decode([number])
    return (
        repr(text) if text and "\ufffd" not in text else ascii(tokenizer.inner.id_to_token(number))
    )
