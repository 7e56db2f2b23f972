"""Lists the groups, options and keys of config folders for `--help`, from the files alone, without Hydra."""

import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin

import yaml

from mlxlab.config.hydra.yaml_limits import read_yaml
from mlxlab.config.issues import shown
from mlxlab.config.plugins import plugins
from mlxlab.config.schema.root import TARGET, node_signature
from mlxlab.config.schema.signature import Component
from mlxlab.config.schema.validate import describe
from mlxlab.errors import ConfigError


class KeyHelp(NamedTuple):
    key: str
    default: str
    expected: str
    description: str


def folders(conf: Path, args: list[str]) -> list[Path]:
    """`conf`, the folders of `--config-dir` in `args`, and those of plugins."""
    words = [word for arg in args for word in (arg.split("=", 1) if arg.startswith("-") else [arg])]
    typed = [Path(word) for flag, word in pairwise(words) if flag in ("--config-dir", "-cd")]
    return [conf, *typed, *plugins().values()]


def groups(conf: list[Path]) -> dict[str, dict[str, str]]:
    """group -> option -> the first comment of its file, in the order of the primary config's defaults."""
    options: dict[str, dict[str, str]] = {}
    files = [(file, file.parent.relative_to(folder)) for folder in conf for file in sorted(folder.rglob("*.yaml"))]
    for file, group in ((file, folder.as_posix()) for file, folder in files):
        if group != "." and not group.startswith("hydra"):
            comments = (line for line in _header(file) if not line.startswith("@"))
            options.setdefault(group, {}).setdefault(file.stem, next(comments, ""))
    order = [group.split("/")[0] for group in [*chosen(conf), *sorted(options)]]
    names = sorted(options, key=lambda group: (order.index(group.split("/")[0]), group.count("/"), group))
    return {group: dict(sorted(options[group].items(), key=_hidden_size)) for group in names}


def chosen(conf: list[Path], overrides: list[str] | None = None) -> dict[str, str | None]:
    """group -> option, as the primary config and `overrides` (`model=cnn_hybrid`) choose; also of nested groups."""
    options = dict(_defaults(_find(conf, "train"), ""))
    for override in overrides or []:
        group, _, option = override.partition("=")
        if _find(conf, f"{group}/{option}").is_file():
            options[group] = option
    for group, choice in list(options.items()):
        for inner, default in _defaults(_find(conf, f"{group}/{choice}"), group):
            options.setdefault(inner, default)
    return options


def lines(conf: list[Path], options: dict[str, str | None]) -> list[KeyHelp]:
    """Every key of these options, with its default."""
    tree: dict[str, Any] = {}
    for group, option in options.items():
        if option is not None and group not in ("experiment", "sweep", "debug"):
            file = _find(conf, f"{group}/{option}")
            packages = (line.split()[-1] for line in _header(file) if line.startswith("@package"))
            node = tree
            for name in next(packages, group.replace("/", ".")).split("."):
                node = node.setdefault(name, {})
            node.update(_load(file))
    return list(_node({**tree, **_load(_find(conf, "train"))}, TARGET, ""))


def _find(conf: list[Path], name: str) -> Path:
    """The file of an option in the first folder that has it."""
    paths = [folder / f"{name}.yaml" for folder in conf]
    return next(filter(Path.is_file, paths), paths[0])


def _defaults(file: Path, group: str) -> Iterator[tuple[str, str | None]]:
    """(group, option) of each entry of the defaults list of an option of `group`."""
    with suppress(ConfigError):
        for name, option, _ in read_yaml(file).defaults():
            if not name.startswith("override "):
                yield name.lstrip("/") if name.startswith("/") or not group else f"{group}/{name}", option


def _node(tree: dict[str, Any], target: str, path: str) -> Iterator[KeyHelp]:
    """The keys of a node that `target` has; others, like `defaults`, are none."""
    known = node_signature(target, path)
    for name, key in known.keys.items() if known else ():
        if name in tree:
            yield from _key(tree[name], key.hint, key.doc, f"{path}.{name}".lstrip("."))


def _key(value: object, hint: object, description: str, path: str) -> Iterator[KeyHelp]:
    inner = get_args(hint)[1] if get_origin(hint) is dict else None
    if isinstance(value, dict) and "_target_" in value:
        yield from _node(value, str(value["_target_"]), path)
    elif isinstance(value, dict) and isinstance(inner, Component):
        for name, item in value.items():
            yield from _key(item, inner, "", f"{path}.{name}")
    elif not isinstance(hint, Component):
        yield KeyHelp(path, shown(value).replace("'", ""), describe(hint), description.rstrip("."))


def _hidden_size(option: tuple[str, str]) -> int:
    """Sizes go from small to large, other options keep the order of their names."""
    number = re.search(r"^Hidden size\D*(\d+)", option[1])
    return int(number[1]) if number else 0


def _load(file: Path) -> dict[str, Any]:
    """The values of a file as they are written: unlike OmegaConf, YAML takes `3e-4` for text."""
    try:
        return dict(yaml.load(read_yaml(file).text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except ConfigError:
        return {}  # help is for someone whose files are broken too


def _header(file: Path) -> list[str]:
    try:
        return [line.lstrip("#").strip() for line in read_yaml(file).text.splitlines()[:6] if line.startswith("#")]
    except ConfigError as error:
        return [str(error)]
