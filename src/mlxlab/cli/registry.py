"""Registered models: their versions, and which of them has an alias.

    mlxlab registry list [NAME]
    mlxlab registry promote NAME VERSION [alias=champion]
    mlxlab registry rollback NAME [alias=champion]

A VERSION is a number or an alias. `train tracking.register.name=NAME` registers the model of a run when it ends.
promote gives an alias to a version, rollback gives it back to the version that had it before the last move; each of
them twice is the same as once. --json prints JSON.

Example
    mlxlab predict run=models:/NAME@champion input=FILE output=predictions.csv
"""

from dataclasses import asdict
from datetime import UTC, datetime

from mlxlab import terminal
from mlxlab.cli.app import Subcommand, build_main
from mlxlab.cli.print_json import print_json
from mlxlab.config.paths import project_root
from mlxlab.errors import ConfigError
from mlxlab.markdown import markdown_table
from mlxlab.tracking.mlflow.address import Address, resolve
from mlxlab.tracking.mlflow.registry import ModelRegistry, Version, open_registry
from mlxlab.tracking.registration import ALIAS_RULE, is_alias

MAX_METRICS = 4  # columns of a list


def _list(json: bool = False, uri: str | None = None, *, args: list[str]) -> None:
    """Lists the registered models, or the versions of one.

    Args:
        json: prints JSON instead of a table.
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
    """
    with open_registry(_address(uri), writes=False) as registry:
        if args:
            _check_name(registry, args[0])
            _print_versions(registry.versions(args[0]), json)
        else:
            models = {name: registry.aliases(name) for name in registry.names()}
            _print_models(models, json)


def _promote(
    alias: str = "champion", uri: str | None = None, json: bool = False, *, args: list[str]
) -> None:
    """Gives an alias to a version.

    Args:
        alias: the one to move.
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
        json: prints JSON instead.
    """
    name, label = args
    _check_alias(alias)
    with open_registry(_address(uri), writes=True) as registry:
        _check_name(registry, name)
        version = registry.find_version(name, label)
        moved = registry.move(name, alias, version)
    _print_move(name, alias, version, moved, json)


def _rollback(
    alias: str = "champion", uri: str | None = None, json: bool = False, *, args: list[str]
) -> None:
    """Gives an alias back to the version that had it before.

    Args:
        alias: the one to move.
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
        json: prints JSON instead.
    """
    [name] = args
    _check_alias(alias)
    with open_registry(_address(uri), writes=True) as registry:
        _check_name(registry, name)
        version, moved = registry.rollback(name, alias)
    _print_move(name, alias, version, moved, json)


def _address(uri: str | None) -> Address:
    return resolve(uri, None, project_root())


def _check_name(registry: ModelRegistry, name: str) -> None:
    if name not in registry.names():
        raise ConfigError(f"{name}: no such registered model")


def _check_alias(alias: str) -> None:
    if not is_alias(alias):
        raise ConfigError(f"alias={alias}: expected {ALIAS_RULE}")


def _print_models(models: dict[str, dict[str, int]], json: bool) -> None:
    if json:
        print_json([{"name": name, "aliases": aliases} for name, aliases in models.items()])
        return
    rows = []
    for name, aliases in models.items():
        pairs = [f"{alias}={version}" for alias, version in aliases.items()]
        rows.append([name, ", ".join(pairs)])
    if rows:
        terminal.show(markdown_table(["model", "aliases"], rows, "l"))
    else:
        print("no registered models")


def _print_versions(versions: list[Version], json: bool) -> None:
    if json:
        print_json([asdict(version) for version in versions])
        return
    metrics = sorted({key for version in versions for key in version.metrics})
    main = [key for key in metrics if "loss" in key or "accuracy" in key]
    keys = (main or metrics)[:MAX_METRICS]
    rows = []
    for version in versions:
        created = datetime.fromtimestamp(version.created / 1000, UTC)
        cells = [
            str(version.number),
            ", ".join(version.aliases),
            f"{created:%Y-%m-%d %H:%M:%S}",
            version.run_id[:8],
            version.step,
            version.data[:8],
        ]
        for key in keys:
            value = version.metrics.get(key)
            cells.append("" if value is None else f"{value:.6g}")
        rows.append(cells)
    head = ["version", "aliases", "registered", "run", "step", "data", *keys]
    terminal.show(markdown_table(head, rows, "llllllr"))


def _print_move(name: str, alias: str, version: int, moved: bool, json: bool) -> None:
    if json:
        print_json({"model": name, "alias": alias, "version": version, "moved": moved})
    else:
        print(f"{name}: {alias} {'is' if moved else 'was already'} version {version}")


main = build_main(
    __doc__,
    {
        "list": Subcommand(_list, num_positional=(0, 1)),
        "promote": Subcommand(_promote, num_positional=(2, 2)),
        "rollback": Subcommand(_rollback, num_positional=(1, 1)),
    },
)
