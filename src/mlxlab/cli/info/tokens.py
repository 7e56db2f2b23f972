"""How often each token occurs in the training text of an experiment."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab import terminal
from mlxlab.cli.print_json import print_json
from mlxlab.config.paths import project_root
from mlxlab.errors import ConfigError
from mlxlab.schema.constraints import Size
from mlxlab.terminal.markdown import markdown_table
from mlxlab.terminal.wording import percent

if TYPE_CHECKING:
    from mlxlab.data.tokenizers.tokenizer import Tokenizer


def tokens(
    *overrides: str,
    count: Size = 20,
    json: bool = False,
) -> None:
    """Prints the outliers among the tokens of a text as a Markdown table.

    Args:
        count: outliers that are listed of each end.
        json: prints JSON instead of a table.
    """
    from mlxlab.config.hydra.compose import compose_checked

    config = compose_checked(overrides)
    from mlxlab.analysis.token_frequencies import token_outliers
    from mlxlab.data.text.dataset import StreamingTextDataset
    from mlxlab.evaluation.parts.data import build_data

    with tempfile.TemporaryDirectory() as folder:
        data = build_data(config, project_root(), None, Path(folder))
    if not isinstance(data, StreamingTextDataset):
        raise ConfigError(f"data._target_={config['data']['_target_']}: expected data=streaming")
    counts, is_exact = data.count_tokens()
    total = int(counts.sum())
    outliers: list[dict[str, str | int]] = []
    for end, ids in token_outliers(counts).items():
        for token in ids[:count].tolist():
            text = _shown(data.tokenizer, token)
            outliers.append(
                {"outlier": end, "token": text, "id": token, "count": int(counts[token])}
            )
    if json:
        print_json({"outliers": outliers, "tokens": total})
        return
    extent = "all" if is_exact else "a sample"
    print(f"token counts: {total:,} tokens ({extent} of the training text)\n")
    rows = []
    for row in outliers:
        share = percent(int(row["count"]) / total, 4)
        rows.append([str(value).replace("|", "\\|") for value in [*row.values(), share]])
    terminal.show(markdown_table(["outlier", "token", "id", "count", "share"], rows, "llr"))


def _shown(tokenizer: "Tokenizer", token: int) -> str:
    """A token as text, or as the vocabulary writes it if it is special or only part of a character."""
    text = tokenizer.decode([token])
    if text and "\ufffd" not in text:
        return repr(text)
    return ascii(tokenizer.inner.id_to_token(token))
