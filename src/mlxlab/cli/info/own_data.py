"""Counts rows of your own without training: what a run would read, leave out, split and learn."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlxlab import terminal
from mlxlab.analysis import own_data
from mlxlab.cli.print_json import print_json, print_result
from mlxlab.config.option_files import chosen
from mlxlab.config.plugins import search_folders
from mlxlab.errors import ConfigError, UserError

if TYPE_CHECKING:
    from mlxlab.data.labelled.types import ColumnType

# The keys of the columns that a data set cannot do without.
NEEDED = {"text_classification": ("text_column", "target"), "table": ("target",)}


def data(*overrides: str, json: bool = False) -> None:
    """Counts labelled rows or conversations, and what a run would do with them.

    Args:
        json: prints a JSON object instead.
    """
    from mlxlab.config.hydra.compose import compose_checked
    from mlxlab.config.hydra.overrides import typed_values

    args = list(overrides)
    typed = typed_values(args)
    if "data.source" not in typed:
        raise ConfigError("data.source=...: missing; expected the file or folder of your rows")
    option = _choose_option(args, typed)
    if option == "instruct":
        counts = own_data.count_conversations(compose_checked([*args, "data=instruct"])["data"])
        print_result(counts, "\n".join(own_data.conversation_lines(counts)), json)
        return
    if option not in NEEDED:
        raise ConfigError(
            f"data={option}: expected data=text_classification, data=table or data=instruct"
        )
    columns_are_typed = any(f"data.{key}" in typed for key in NEEDED[option])
    args.append(f"data={option}")
    if option == "table" and not columns_are_typed:
        args.append("data.target=COLUMN")
    _count_rows(compose_checked(args), option, columns_are_typed, json)


def _choose_option(args: list[str], typed: dict[str, str]) -> str:
    """The typed data set, or the one that the names of columns and the source ask for."""
    if chosen(search_folders().values(), args).get("data") == "instruct":
        return "instruct"
    if "data" in typed:
        return typed["data"]
    if "data.text_column" in typed:
        return "text_classification"
    if "data.target" in typed:
        return "table"
    if own_data.has_conversations(typed["data.source"]):
        return "instruct"
    return "text_classification"


def _count_rows(config: dict[str, Any], option: str, columns_are_typed: bool, json: bool) -> None:
    from mlxlab.data.labelled.rows import Rows

    part = own_data.read_rows(config["data"])
    rows = Rows([part])
    needed = {str(config["data"][key]) for key in NEEDED[option]}
    described: dict[str, Any] = {}
    types: Mapping[str, ColumnType] = {}
    fault: UserError | None = None
    if columns_are_typed or needed <= set(rows.columns):
        try:
            dataset = own_data.build_dataset(config)
            encoder = dataset.encoder
            types = {**dataset.types, encoder.label_column: encoder.labels.type}
            described = own_data.describe_dataset(dataset, config["trainer"])
        except UserError as error:  # It is raised below the table of columns, which may explain it.
            fault = error
    columns = own_data.summarize(rows, types)
    if not json:
        terminal.show(f"{own_data.column_table(columns, part)}\n")
    if fault is not None:
        raise fault
    if json:
        summaries = [each._asdict() for each in columns]
        print_json({"columns": summaries, "rows": len(rows)} | described)
    elif described:
        terminal.show("\n".join([*described["messages"], *own_data.length_lines(described)]))
