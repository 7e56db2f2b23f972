"""Moves MLflow stores of any release, files or SQLite, into the central store.

    mlxlab migrate FILE|FOLDER|GLOB [dry_run=true] [--json]

Sources are only read. A second run adds what they have got since, and nothing twice.

Example
    mlxlab migrate ~/old_projects dry_run=true
"""

from dataclasses import asdict
from typing import TYPE_CHECKING

from mlxlab import terminal
from mlxlab.cli.app import Subcommand, build_main
from mlxlab.cli.print_json import print_json
from mlxlab.config.paths import project_root
from mlxlab.errors import ConfigError, DataError
from mlxlab.markdown import markdown_table
from mlxlab.tracking.mlflow.address import resolve

if TYPE_CHECKING:
    from mlxlab.tracking.mlflow.migration.migrate import Result

# Tables whose numbers of new rows are shown; --json has all.
COLUMNS = ("runs", "metrics", "params", "tags", "datasets", "logged_models", "model_versions")


def _migrate(
    source: str,
    dry_run: bool = False,
    backup: bool = True,
    uri: str | None = None,
    artifacts: str | None = None,
    json: bool = False,
) -> None:
    """Moves stores.

    Args:
        source: an SQLite file, a folder that holds stores (`mlruns/`, too), or a glob in quotes.
        dry_run: only reports what would be moved.
        backup: copies the central store before it is changed.
        uri: the central store, instead of MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
        artifacts: where that keeps artifacts, instead of MLFLOW_ARTIFACT_ROOT.
        json: prints JSON instead of a table.
    """
    from mlxlab.tracking.mlflow.migration.migrate import migrate
    from mlxlab.tracking.mlflow.migration.sources import find_sources

    address = resolve(uri, artifacts, project_root())
    if address.database is None or not (address.artifacts or "").startswith("/"):
        expected = "expected an SQLite store with a local folder for artifacts"
        raise ConfigError(f"uri={address.shown}: {expected}, got {address.shown_artifacts}")
    sources = find_sources(source, address.database)
    results, copy = migrate(sources, address, dry_run=dry_run, backup=backup)
    if json:
        print_json([_as_json(result) for result in results])
    else:
        _print(results)
        if copy:
            print(f"{copy}: the central store as it was before")
    if errors := [str(result.error) for result in results if result.error]:
        raise DataError("\n".join(errors))


def _print(results: "list[Result]") -> None:
    moved = [result for result in results if not result.error]
    rows = []
    for result in moved:
        counts = [str(result.rows.get(table, 0)) for table in COLUMNS]
        rows.append([str(result.store), *counts, str(result.files)])
    if rows:
        terminal.show(markdown_table(["store", *COLUMNS, "files"], rows))
    for result in moved:
        lines = [f"{count} rows of {table}" for table, count in result.left_out.items()]
        for line in [*result.skipped, *lines]:
            print(f"{result.store}: not moved: {line}")


def _as_json(result: "Result") -> dict[str, object]:
    error = str(result.error) if result.error else None
    return asdict(result) | {"store": str(result.store), "error": error}


main = build_main(__doc__, Subcommand(_migrate, first="source"))
