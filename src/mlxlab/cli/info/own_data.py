"""Counts rows of your own without training: what a run would read, leave out, split and learn."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxlab import terminal
from mlxlab.cli.info.columns import column_table, summarize
from mlxlab.cli.info.own_conversations import are_conversations, show_conversations
from mlxlab.cli.print_json import print_json
from mlxlab.config.paths import conf_dir, project_root
from mlxlab.errors import ConfigError, UserError
from mlxlab.wording import counted

if TYPE_CHECKING:
    from mlxlab.data.labelled.dataset import LabelledDataset
    from mlxlab.data.labelled.rows import Part
    from mlxlab.data.labelled.types import ColumnType

# The keys of the columns that a data set cannot do without.
NEEDED = {"text_classification": ("text_column", "target"), "table": ("target",)}


def data(json: bool = False, *, args: list[str]) -> None:
    """Counts labelled rows or conversations, and what a run would do with them.

    Args:
        json: prints a JSON object instead.
    """
    from mlxlab.config.hydra.compose import Composer
    from mlxlab.config.hydra.overrides import typed_values

    typed = typed_values(args)
    if "data.source" not in typed:
        raise ConfigError("data.source=...: missing; expected the file or folder of your rows")
    if are_conversations(args, typed["data.source"]):
        show_conversations(args, json)
        return
    is_text = "data.text_column" in typed or "data.target" not in typed
    option = typed.get("data", "text_classification" if is_text else "table")
    if option not in NEEDED:
        raise ConfigError(
            f"data={option}: expected data=text_classification, data=table or data=instruct"
        )
    columns_are_typed = any(f"data.{key}" in typed for key in NEEDED[option])
    required = [] if columns_are_typed or option != "table" else ["data.target=COLUMN"]
    composer = Composer(conf_dir(), [*args, f"data={option}", *required])
    config = composer.checked_values(resolve=True)

    from mlxlab.data.labelled.rows import Rows

    part = _open_rows(config["data"])
    rows = Rows([part])
    needed = {str(config["data"][key]) for key in NEEDED[option]}
    checked: dict[str, Any] = {}
    types: Mapping[str, ColumnType] = {}
    fault: UserError | None = None
    if columns_are_typed or needed <= set(rows.columns):
        try:
            dataset = _build(config)
            encoder = dataset.encoder
            types = {**dataset.types, encoder.label_column: encoder.labels.type}
            checked = _describe(dataset, config["trainer"])
        except UserError as error:  # It is raised below the table of columns, which may explain it.
            fault = error
    columns = summarize(rows, types)
    if json and fault is None:
        print_json({"columns": [each._asdict() for each in columns], "rows": len(rows)} | checked)
        return
    if not json:
        terminal.show(f"{column_table(columns, part)}\n")
    if fault is not None:
        raise fault
    if checked:
        terminal.show("\n".join([*checked["messages"], *_length(checked)]))


def _open_rows(node: dict[str, Any]) -> "Part":
    from mlxlab.config.instantiate import instantiate
    from mlxlab.data.labelled.rows import open_rows
    from mlxlab.data.sources.open import Reading

    reading = instantiate(node["reading"], Reading)
    return open_rows(
        node["source"], reading, project_root() / ".cache", "skip", None, node["max_left_out"]
    )


def _build(config: dict[str, Any]) -> "LabelledDataset":
    """The data as a run of the config has it, but for rows that cannot be used, which are counted and left out."""
    from mlxlab import backend

    backend.prepare()
    from mlxlab.experiment.build import build_data

    lenient = {"on_error": "skip", "max_left_out": 0.99, "prefetch": 0, "baselines": False}
    node = config["data"] | lenient
    with tempfile.TemporaryDirectory() as folder:
        dataset: Any = build_data(config | {"data": node}, project_root(), None, Path(folder))
    return dataset


def _describe(dataset: "LabelledDataset", trainer: dict[str, Any]) -> dict[str, Any]:
    """What a run would read, leave out, split and learn."""
    from mlxlab.data.dataset import RunLength, auto_epochs

    batches = dataset.train.batches_per_epoch
    epochs = auto_epochs(dataset, batches) if trainer["epochs"] == "auto" else trainer["epochs"]
    length = RunLength(trainer["max_steps"], epochs, trainer["max_tokens"])
    lengths = dataset.row_lengths
    return {
        "task": dataset.task.kind,
        "rows": dataset.num_examples,
        "left_out": lengths.left_out,
        "truncated": lengths.too_long,
        "classes": dict(zip(dataset.task.labels, dataset.class_counts, strict=False)),
        "epochs": epochs,
        "steps_per_epoch": batches,
        "steps": length.steps(batches, dataset.train.tokens_per_batch),
        "max_tokens": length.max_tokens,
        "messages": [*dataset.sources, *([lengths.describe()] if lengths.too_long else [])],
    }


def _length(checked: Mapping[str, Any]) -> list[str]:
    """How long a run would train, where that is known."""
    lines = []
    if checked["steps_per_epoch"]:
        lines.append(f"an epoch is {counted(checked['steps_per_epoch'], 'step')}")
        if checked["steps"] is not None:
            lines.append(f"a run is {counted(checked['steps'], 'step')}")
    if checked["max_tokens"]:
        lines.append(f"a run ends after {checked['max_tokens']:,} tokens")
    return lines
