"""Prints what a run needs or was; checks rows of your own; sizes of models; frequencies of tokens.

    mlxlab info [model=transformer] [data=...] [any other key of train]
    mlxlab info run=RUN_FOLDER
    mlxlab info data data.source=FILE [data.text_column=TEXT data.target=LABEL]
    mlxlab info presets [vocab_size=16000] [classes=2]
    mlxlab info tokens [count=20] data=streaming data.source=FILE ...

Without a subcommand, for the run that the arguments compose as for train: parameters, operations per token, and the
seconds and the memory of its first step, which is taken in a process of its own. Nothing is saved. A step that does not
fit in memory is reported in one line, with exit code 2. --json prints JSON.

run=     what was trained on which data, from which commit, by which command; how it ended, or where it stands; its
         best metrics, its checkpoints, and the commands that continue or use it
data     counts labelled rows without training: columns and what they hold, rows that would be left out, classes, the
         split, and equal rows on both sides of it; arguments as for train. Without the names of the columns it lists
         those of the file
presets  exact parameter counts of every family at every size: as a classifier, and as a language model (masked for
         the encoders, causal with a tied head for the decoder)
tokens   how often each token occurs in the training text of an experiment, which all further arguments compose as for
         train: the outliers at both ends. Outliers lie more than 1.5 interquartile ranges above
         the upper or below the lower quartile of the logarithms of the counts of tokens that occur (Tukey 1977)
"""

import os
import tempfile
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from mlxlab import terminal
from mlxlab.analysis import own_data
from mlxlab.cli.app import print_json, print_result
from mlxlab.config.paths import conf_dir, project_root
from mlxlab.errors import ConfigError
from mlxlab.files.untrusted import refuse_links
from mlxlab.files.yaml_file import read_yaml
from mlxlab.schema.constraints import Ge, Le, Size
from mlxlab.terminal.tables import markdown_table
from mlxlab.terminal.wording import percent

if TYPE_CHECKING:
    from mlxlab.data.tokenizers.tokenizer import Tokenizer

ACTIONS = {
    "": "info",
    "data": "data",
    "presets": "presets",
    "tokens": "tokens",
}
DATA_OPTIONS = ("text_classification", "table")
FAMILIES = ("bert", "cnn_hybrid", "transformer")
SIZES = ("nano", "tiny", "small", "medium", "large", "xlarge")
Kind = Literal["classification", "language_modelling"]
KINDS: dict[str, Kind] = {"classifier": "classification", "LM": "language_modelling"}


def info(*overrides: str, run: Path | None = None, json: bool = False) -> None:
    """Takes one training step and prints what it needs, or prints what a run was.

    Args:
        run: a run folder.
        json: prints JSON instead; memory in bytes.
    """
    if run is None and overrides and os.path.isdir(overrides[0]):
        run = Path(overrides[0])
        overrides = overrides[1:]
    if run is not None and overrides:
        raise ConfigError(f"{overrides[0]}: expected no override with run=")
    from mlxlab import backend

    backend.prepare()
    if run is not None:
        from mlxlab.past_runs.collect_record import read_info

        refuse_links(run)
        facts = read_info(run)
        if json:
            print(facts.as_json())
        else:
            terminal.show(facts.as_text())
        return
    from mlxlab.config.hydra.compose import compose_checked
    from mlxlab.run.first_step import measure_first_step

    config = compose_checked(overrides)
    if config["resume"] is not None:
        raise ConfigError("resume=...: info measures a new run; info run=FOLDER describes one")
    step = measure_first_step(config)
    print_result(asdict(step), step.as_text(), json)


def data(*overrides: str, json: bool = False) -> None:
    """Counts labelled rows, and what a run would do with them.

    Args:
        json: prints a JSON object instead.
    """
    from mlxlab.config.hydra.compose import compose_checked
    from mlxlab.config.hydra.job import typed_values
    from mlxlab.data.labelled.rows import Rows

    args = list(overrides)
    typed = typed_values(args)
    are_columns_typed = "data.target" in typed or "data.text_column" in typed
    option = typed.get("data")
    if option is None:
        is_table = "data.target" in typed and "data.text_column" not in typed
        option = "table" if is_table else "text_classification"
        args.append(f"data={option}")
    if option == "table" and not are_columns_typed:
        args.append("data.target=COLUMN")
    config = compose_checked(args)
    if option not in DATA_OPTIONS:
        raise ConfigError(f"data={option}: expected data=text_classification or data=table")
    part = own_data.read_rows(config["data"])
    described = {}
    types = {}
    if are_columns_typed:
        dataset = own_data.build_dataset(config)
        encoder = dataset.encoder
        types = {**dataset.types, encoder.label_column: encoder.labels.type}
        described = own_data.describe_dataset(dataset)
    rows = Rows([part])
    columns = own_data.summarize(rows, types)
    if json:
        print_json(
            {"columns": [each._asdict() for each in columns], "rows": len(rows), **described}
        )
        return
    lines = [own_data.column_table(columns, part)]
    if described:
        lines += ["", *described["messages"]]
    terminal.show("\n".join(lines))


def presets(
    vocab_size: Annotated[int, Ge(1), Le(100_000_000)] = 16_000,
    classes: Annotated[int, Ge(1), Le(1_000_000)] = 2,
    json: bool = False,
) -> None:
    """Prints the parameter counts as a Markdown table.

    Args:
        vocab_size: tokens of the vocabulary.
        classes: classes of the classifier.
        json: prints JSON instead of a table.
    """
    models = list(product(FAMILIES, KINDS))
    names = [f"{family} {kind}" for family, kind in models]
    parameters = {}
    by_size = []
    for size in SIZES:
        counts = [count(family, KINDS[kind], size, vocab_size, classes) for family, kind in models]
        parameters[size] = dict(zip(names, counts, strict=True))
        by_size.append([size, *(f"{number:,}" for number in counts)])
    if json:
        print_json({"parameters": parameters})
    else:
        terminal.show(markdown_table(["size", *names], by_size))


def count(family: str, kind: Kind, size: str, vocab_size: int, classes: int = 0) -> int:
    """Parameters of one model; its arrays are never allocated."""
    from mlxlab.models.build import build_model
    from mlxlab.models.model import count_parameters

    node: dict[str, object] = {}
    for option in (family, f"size/{size}"):
        node |= read_yaml(conf_dir() / "model" / f"{option}.yaml").values
    return count_parameters(
        build_model(node, kind=kind, num_classes=classes, vocab_size=vocab_size)
    )


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
    outliers = []
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
