"""Lists the groups, options and keys of conf/ for `--help`, from the files alone, without Hydra."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mlxlab.config.hydra.yaml_limits import read_yaml
from mlxlab.config.schema.root import TARGET
from mlxlab.config.schema.signature import signature
from mlxlab.config.schema.types import Component, Kind, Mapping, describe, shown
from mlxlab.errors import ConfigError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class KeyHelp:
    """Default, expected values and description of one key."""

    key: str
    default: str
    expected: str
    description: str


def groups(conf: Path) -> dict[str, dict[str, str]]:
    """group -> option -> the first comment of its file, in the order of the primary config's defaults."""
    options: dict[str, dict[str, str]] = {}
    for file in sorted(conf.rglob("*.yaml")):
        group = file.parent.relative_to(conf).as_posix()
        if group != "." and not group.startswith("hydra"):
            options.setdefault(group, {})[file.stem] = _first_comment(file)
    order = list(chosen(conf))
    ordered = sorted(options.items(), key=lambda item: (_rank(item[0], order), item[0]))
    return {group: dict(sorted(names.items(), key=lambda item: _size(item[1]))) for group, names in ordered}


def chosen(conf: Path, overrides: list[str] | None = None) -> dict[str, str | None]:
    """group -> option, as the primary config and `overrides` (`model=cnn_hybrid`) choose; also of nested groups."""
    options = _defaults(_load(conf / "train.yaml"), "")
    for override in overrides or []:
        group, _, option = override.partition("=")
        if (conf / group / f"{option}.yaml").is_file():
            options[group] = option
    for group, choice in list(options.items()):
        for inner, default in _defaults(_load(conf / group / f"{choice}.yaml"), group).items():
            options.setdefault(inner, default)
    return options


def lines(conf: Path, options: dict[str, str | None]) -> list[KeyHelp]:
    """Every key of these options, with its default."""
    tree: dict[str, Any] = {}
    for group, option in options.items():
        if option is not None and group not in ("experiment", "debug"):
            _merge(tree, conf, group, option)
    top = {key: value for key, value in _load(conf / "train.yaml").items() if key not in ("defaults", "hydra")}
    return list(_node({**tree, **top}, TARGET, ""))


def _merge(tree: dict[str, Any], conf: Path, group: str, option: str) -> None:
    """Merges one option into the tree at its package."""
    values = _load(conf / group / f"{option}.yaml")
    package = _package(conf / group / f"{option}.yaml") or group.replace("/", ".")
    node = tree
    for name in package.split("."):
        node = node.setdefault(name, {})
    node.update({key: value for key, value in values.items() if key != "defaults"})


def _defaults(values: dict[str, Any], group: str) -> dict[str, str | None]:
    defaults: dict[str, str | None] = {}
    for entry in values.get("defaults", []):
        if isinstance(entry, dict):
            [(name, option)] = entry.items()
            if not name.startswith("override "):
                defaults[name.lstrip("/") if name.startswith("/") or not group else f"{group}/{name}"] = option
    return defaults


def _node(tree: dict[str, Any], target: str, path: str) -> Iterator[KeyHelp]:
    known = signature(target)
    for name, key in known.keys.items() if known else ():
        if name in tree:
            yield from _key(tree[name], key.kind, key.doc, f"{path}.{name}".lstrip("."))


def _key(value: Any, kind: Kind, description: str, path: str) -> Iterator[KeyHelp]:
    if isinstance(value, dict) and "_target_" in value:
        yield from _node(value, value["_target_"], path)
    elif isinstance(value, dict) and isinstance(kind, Mapping) and isinstance(kind.value, Component):
        for name, item in value.items():
            yield from _key(item, kind.value, "", f"{path}.{name}")
    elif not isinstance(kind, Component):
        yield KeyHelp(path, shown(value).replace("'", ""), describe(kind), description.rstrip("."))


def _rank(group: str, order: list[str]) -> tuple[int, int]:
    head = group.split("/")[0]
    names = [name.split("/")[0] for name in order]
    return (names.index(head) if head in names else len(names), group.count("/"))


def _size(description: str) -> int:
    """The first number in a description: sizes go from small to large, other options keep the order of their names."""
    number = re.search(r"\d+", description)
    return int(number[0]) if number and description.startswith("Hidden size") else 0


def _load(file: Path) -> dict[str, Any]:
    try:
        values = yaml.load(read_yaml(file).text, Loader=_LOADER)
    except (ConfigError, OSError):
        return {}  # help is for someone whose files are broken too
    return values if isinstance(values, dict) else {}


def _header(file: Path) -> list[str]:
    try:
        return [line.lstrip("#").strip() for line in read_yaml(file).text.splitlines()[:6] if line.startswith("#")]
    except ConfigError as fault:
        return [str(fault)]


def _first_comment(file: Path) -> str:
    return next((line for line in _header(file) if not line.startswith("@")), "")


def _package(file: Path) -> str | None:
    return next((line.split()[1] for line in _header(file) if line.startswith("@package")), None)
