"""Moves MLflow stores of any release, files or SQLite, into the central store.

    mlxlab migrate FILE|FOLDER [dry_run=true] [--json]

Sources are only read. A second run adds what they have got since, and nothing twice.

Example
    mlxlab migrate ~/old_projects dry_run=true
"""

from dataclasses import asdict
from pathlib import Path

from mlxlab.cli.app import print_json
from mlxlab.config.paths import project_root
from mlxlab.errors import ConfigError, DataError
from mlxlab.tracking.mlflow.address import resolve


def migrate(
    source: Path,
    dry_run: bool = False,
    uri: str | None = None,
    artifacts: str | None = None,
    json: bool = False,
) -> None:
    """Moves stores.

    Args:
        source: an SQLite file, or a folder that holds stores (`mlruns/`, too).
        dry_run: only reports what would be moved.
        uri: the central store, instead of MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
        artifacts: where that keeps artifacts, instead of MLFLOW_ARTIFACT_ROOT.
        json: prints JSON instead of lines.
    """
    from mlxlab.extensions.store_migration import migration  # slow to import

    address = resolve(uri, artifacts, project_root())
    if address.database is None or not (address.artifacts or "").startswith("/"):
        expected = "expected an SQLite store with a local folder for artifacts"
        raise ConfigError(f"uri={address.shown}: {expected}, got {address.shown_artifacts}")
    sources = migration.find_stores(source, address.database)
    results, copy = migration.migrate(sources, address, dry_run=dry_run)
    if json:
        print_json([{**asdict(result), "store": str(result.store)} for result in results])
    else:
        for result in results:
            counts = [f"{count} {table}" for table, count in result.rows.items()]
            moved = ", ".join([*counts, f"{result.files} files"])
            for line in [moved, *(f"not moved: {each}" for each in result.left_out)]:
                print(f"{result.store}: {line}")
        if copy:
            print(f"{copy}: the central store as it was before")
    errors = [result.error for result in results if result.error]
    if errors:
        raise DataError("\n".join(errors))
