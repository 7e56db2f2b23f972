"""Registered models: their versions, and which of them has an alias.

    mlxlab registry list [NAME]
    mlxlab registry compare NAME VERSION VERSION
    mlxlab registry promote NAME VERSION [alias=champion]
    mlxlab registry rollback NAME [alias=champion]
    mlxlab registry history NAME [alias=champion]

A VERSION is a number or an alias. `train tracking.register.name=NAME` registers the model of a run when it ends.
promote gives an alias to a version, rollback gives it back to the version that had it before the last move; each of
them twice is the same as once. list, compare and history print JSON with --json.

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
from mlxlab.metric_names import is_better
from mlxlab.tracking.mlflow.address import Address, resolve
from mlxlab.tracking.mlflow.errors import printable
from mlxlab.tracking.mlflow.registry.model_registry import Version
from mlxlab.tracking.mlflow.registry.open_registry import read_registry, write_registry
from mlxlab.tracking.mlflow.registry.registry_reader import RegistryReader
from mlxlab.tracking.registration import ALIAS_RULE, is_alias

MAX_METRICS = 4  # columns of a list


def _list(json: bool = False, uri: str | None = None, *, args: list[str]) -> None:
    """Lists the registered models, or the versions of one.

    Args:
        json: prints JSON instead of a table.
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
    """
    with read_registry(_address(uri)) as registry:
        if args:
            _check_name(registry, args[0])
            versions = registry.versions(args[0])
            if json:
                print_json([asdict(version) for version in versions])
            else:
                terminal.show(_version_table(versions))
            return
        models = {name: registry.aliases(name) for name in registry.names()}
    if json:
        print_json([{"name": name, "aliases": aliases} for name, aliases in models.items()])
    else:
        pairs = {
            name: [f"{alias}={version}" for alias, version in aliases.items()]
            for name, aliases in models.items()
        }
        rows = [[name, ", ".join(texts)] for name, texts in pairs.items()]
        terminal.show(
            markdown_table(["model", "aliases"], rows, "l") if rows else "no registered models"
        )


def _compare(json: bool = False, uri: str | None = None, *, args: list[str]) -> None:
    """Compares the metrics of two versions, at the steps of their checkpoints.

    Args:
        json: prints JSON instead of a table.
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
    """
    name, *labels = args
    with read_registry(_address(uri)) as registry:
        _check_name(registry, name)
        first, second = (_find(registry, name, label) for label in labels)
        note = "" if json or first.data == second.data else _describe_data(registry, first, second)
    if json:
        print_json([asdict(first), asdict(second)])
        return
    head = [
        "metric",
        f"version {first.number}",
        f"version {second.number}",
        "difference",
        "percent",
        "better",
    ]
    keys = sorted(first.metrics.keys() | second.metrics.keys())
    terminal.show(markdown_table(head, [_comparison(key, first, second) for key in keys]))
    if note:
        print(note)


def _describe_data(registry: RegistryReader, first: Version, second: Version) -> str:
    """How the training data of two versions differ; their fingerprints include the split, which the seed may choose."""
    params = [registry.params(version.run_id) for version in (first, second)]
    settings = [{key: each[key] for key in each if key.startswith("data.")} for each in params]
    seeds = [printable(each.get("seed", "")) for each in params]
    if (
        first.data
        and second.data
        and settings[0]
        and settings[0] == settings[1]
        and seeds[0] != seeds[1]
    ):
        same = "the source and the settings of the data are the same"
        return f"trained on different splits: {same}, the seeds are {seeds[0]} and {seeds[1]}, or the files have changed"
    return f"trained on different data: {first.data or 'unknown'} and {second.data or 'unknown'}"


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
    with write_registry(_address(uri)) as registry:
        _check_name(registry, name)
        version = _find(registry, name, label).number
        moved = registry.move(name, alias, version, "promoted")
    _print_move(name, alias, version, moved, "was already", json)


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
    with write_registry(_address(uri)) as registry:
        _check_name(registry, name)
        version, moved = registry.rollback(name, alias)
    _print_move(name, alias, version, moved, "was already rolled back to", json)


def _print_move(
    name: str, alias: str, version: int, moved: bool, otherwise: str, json: bool
) -> None:
    if json:
        print_json({"model": name, "alias": alias, "version": version, "moved": moved})
    else:
        print(f"{name}: {alias} {'is' if moved else otherwise} version {version}")


def _history(
    alias: str | None = None, json: bool = False, uri: str | None = None, *, args: list[str]
) -> None:
    """Shows each move of an alias, oldest first. Moves by other programs are not recorded.

    Args:
        alias: only moves of this one.
        json: prints JSON instead of a table.
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
    """
    [name] = args
    with read_registry(_address(uri)) as registry:
        _check_name(registry, name)
        moves = [move for move in registry.moves(name) if alias in (None, move["alias"])]
        aliases = registry.aliases(name)
    if json:
        print_json(moves)
        return
    rows = [
        [
            *(_time(move["t"]), printable(move["alias"]), move["kind"]),
            *(str(move["previous"] or ""), str(move["version"]), printable(move["reason"])),
        ]
        for move in moves
    ]
    terminal.show(
        markdown_table(["time", "alias", "", "from", "to", "reason"], rows, "l")
        if rows
        else "no moves"
    )
    for each, last in {move["alias"]: move["version"] for move in moves}.items():
        if (now := aliases.get(each)) != last:
            where = "was deleted" if now is None else f"was moved to version {now}"
            print(f"{printable(each)} {where} by another program")


def _address(uri: str | None) -> Address:
    return resolve(uri, None, project_root())


def _check_name(registry: RegistryReader, name: str) -> None:
    if name not in registry.names():
        raise ConfigError(f"{name}: no such registered model")


def _check_alias(alias: str) -> None:
    if not is_alias(alias):
        raise ConfigError(f"alias={alias}: expected {ALIAS_RULE}")


def _find(registry: RegistryReader, name: str, label: str) -> Version:
    """The version of a number or an alias."""
    for version in registry.versions(name):
        if label == str(version.number) or label in version.aliases:
            return version
    raise ConfigError(f"{name}: no version or alias {label}")


def _version_table(versions: list[Version]) -> str:
    metrics = sorted({key for version in versions for key in version.metrics})
    keys = [key for key in metrics if "loss" in key or "accuracy" in key][:MAX_METRICS] or metrics[
        :MAX_METRICS
    ]
    rows = [
        [
            *(
                str(version.number),
                ", ".join(version.aliases),
                _time(version.created),
                version.run_id[:8],
            ),
            *(version.step, version.data[:8]),
            *(_number(version.metrics.get(key)) for key in keys),
        ]
        for version in versions
    ]
    return markdown_table(
        ["version", "aliases", "registered", "run", "step", "data", *keys], rows, "llllllr"
    )


def _comparison(key: str, first: Version, second: Version) -> list[str]:
    old, new = first.metrics.get(key), second.metrics.get(key)
    if old is None or new is None:
        return [key, _number(old), _number(new), "", "", ""]
    better = second if is_better(key, new, old) else first if is_better(key, old, new) else None
    percent = f"{100 * (new - old) / abs(old):+.2f}" if old else ""
    return [
        key,
        _number(old),
        _number(new),
        f"{new - old:+.6g}",
        percent,
        str(better.number) if better else "",
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _time(ms: int) -> str:
    return (
        datetime.fromtimestamp(ms / 1000, UTC)
        .isoformat(sep=" ", timespec="seconds")
        .removesuffix("+00:00")
    )


main = build_main(
    __doc__,
    {
        "list": Subcommand(_list, num_positional=(0, 1)),
        "compare": Subcommand(_compare, num_positional=(3, 3)),
        "promote": Subcommand(_promote, num_positional=(2, 2)),
        "rollback": Subcommand(_rollback, num_positional=(1, 1)),
        "history": Subcommand(_history, num_positional=(1, 1)),
    },
)
