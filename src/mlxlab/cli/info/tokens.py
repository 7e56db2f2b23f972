"""How often each token occurs in the training text of an experiment."""

import tempfile
from pathlib import Path

from mlxlab import terminal
from mlxlab.cli.print_json import print_json
from mlxlab.config.paths import project_root
from mlxlab.constraints import Size
from mlxlab.errors import ConfigError


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
    from mlxlab.analysis.token_frequencies import outlier_table, token_frequencies
    from mlxlab.data.text.dataset import StreamingTextDataset
    from mlxlab.experiment.build import build_data

    with tempfile.TemporaryDirectory() as folder:
        data = build_data(config, project_root(), None, Path(folder))
    if not isinstance(data, StreamingTextDataset):
        raise ConfigError(f"data._target_={config['data']['_target_']}: expected data=streaming")
    counts, is_exact = data.count_tokens()
    frequencies = token_frequencies(counts)
    rows = frequencies.outliers(data.tokenizer, count)
    if json:
        print_json({"outliers": rows, "summary": frequencies.summary()})
    else:
        extent = "all" if is_exact else "a sample"
        print(f"token counts: {counts.sum():,} tokens ({extent} of the training text)\n")
        terminal.show("\n".join([outlier_table(rows), "", *frequencies.summary()]))
