"""Counts rows of your own without training: what a run would read, leave out and split."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlxlab import terminal
from mlxlab.analysis import own_data
from mlxlab.cli.print_json import print_json
from mlxlab.errors import ConfigError

if TYPE_CHECKING:
    from mlxlab.data.labelled.types import ColumnType

OPTIONS = ("text_classification", "table")


def data(*overrides: str, json: bool = False) -> None:
    """Counts labelled rows, and what a run would do with them.

    Args:
        json: prints a JSON object instead.
    """
    from mlxlab.config.hydra.compose import compose_checked
    from mlxlab.config.hydra.overrides import typed_values
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
    if option not in OPTIONS:
        raise ConfigError(f"data={option}: expected data=text_classification or data=table")
    part = own_data.read_rows(config["data"])
    described: dict[str, Any] = {}
    types: Mapping[str, ColumnType] = {}
    if are_columns_typed:
        dataset = own_data.build_dataset(config)
        encoder = dataset.encoder
        types = {**dataset.types, encoder.label_column: encoder.labels.type}
        described = own_data.describe_dataset(dataset)
    rows = Rows([part])
    columns = own_data.summarize(rows, types)
    if json:
        summaries = [each._asdict() for each in columns]
        print_json({"columns": summaries, "rows": len(rows)} | described)
        return
    lines = [own_data.column_table(columns, part)]
    if described:
        lines += ["", *described["messages"]]
    terminal.show("\n".join(lines))
