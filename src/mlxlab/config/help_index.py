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

GLOBAL_GROUPS = ("experiment", "sweep", "debug")  # their options set keys of all other groups


class KeyHelp(NamedTuple):
    """A key as `--help` lists it; `value` is the default as the file has it, `hint` the type of what is expected."""

    key: str
    value: object
    hint: object
    description: str

    @property
    def default(self) -> str:
        return shown(self.value).replace("'", "")

    @property
    def expected(self) -> str:
        return describe(self.hint)


def folders(conf: Path, args: list[str]) -> list[Path]:
    """`conf`, the folders of `--config-dir` in `args`, and those of plugins."""
    words = [word for arg in args for word in (arg.split("=", 1) if arg.startswith("-") else [arg])]
    typed = [Path(word) for flag, word in pairwise(words) if flag in ("--config-dir", "-cd")]
    return [conf, *typed, *plugins().values()]


def groups(conf: list[Path]) -> dict[str, dict[str, str]]:
    """group -> option -> the first comment of its file, in the order of the primary config's defaults."""
    options: dict[str, dict[str, str]] = {}
    files = [
        (file, file.parent.relative_to(folder))
        for folder in conf
        for file in sorted(folder.rglob("*.yaml"))
    ]
    for file, group in ((file, folder.as_posix()) for file, folder in files):
        if group != "." and not group.startswith("hydra"):
            comments = (line for line in _header(file) if not line.startswith("@"))
            options.setdefault(group, {}).setdefault(file.stem, next(comments, ""))
    order = [group.split("/")[0] for group in [*chosen(conf), *sorted(options)]]
    names = sorted(
        options, key=lambda group: (order.index(group.split("/")[0]), group.count("/"), group)
    )
    return {group: dict(sorted(options[group].items(), key=_hidden_size)) for group in names}


def chosen(conf: list[Path], overrides: list[str] | None = None) -> dict[str, str | None]:
    """group -> option, as the primary config and `overrides` (`model=cnn_hybrid`) choose; also of nested groups.

    An experiment brings the options that it overrides, unless others are typed.
    """
    pairs = [override.partition("=")[::2] for override in overrides or []]
    typed = {group: option for group, option in pairs if _find(conf, f"{group}/{option}").is_file()}
    options = dict(_defaults(conf, "train", ""))
    for group in GLOBAL_GROUPS:
        options |= _overridden(conf, group, typed.get(group))
    options |= typed
    for group, choice in list(options.items()):
        for inner, default in dict(_defaults(conf, f"{group}/{choice}", group)).items():
            options.setdefault(inner, default)
    return options


def lines(conf: list[Path], options: dict[str, str | None]) -> list[KeyHelp]:
    """Every key of these options, with its default."""
    tree: dict[str, Any] = {}
    for group, option in options.items():
        if option is not None and group not in GLOBAL_GROUPS:
            node = tree
            for name in _package(conf, group, option).split("."):
                node = node.setdefault(name, {})
            node.update(_values(conf, group, option))
    tree |= _load(_find(conf, "train"))
    for group in GLOBAL_GROUPS:
        if (option := options.get(group)) is not None:
            tree = _merged(tree, _values(conf, group, option))
    return list(_node(tree, TARGET, ""))


def option_lines(conf: list[Path], group: str, option: str) -> list[KeyHelp]:
    """The keys that one option has, or sets."""
    values, path = _values(conf, group, option), _package(conf, group, option)
    if "_target_" in values:
        return list(_node(values, str(values["_target_"]), path))
    own = [f"{path}.{name}" for name in values]
    every = lines(conf, chosen(conf, [f"{group}={option}"]))
    return [line for line in every if any(f"{line.key}.".startswith(f"{key}.") for key in own)]


def sweep_lines(conf: list[Path]) -> list[KeyHelp]:
    """The keys of the callbacks of sweeps, in Hydra's own node of the primary config."""
    hydra = _load(_find(conf, "train")).get("hydra", {})
    callbacks = hydra.get("callbacks", {}).items()
    return [
        line for name, node in callbacks for line in _key(node, None, "", f"hydra.callbacks.{name}")
    ]


def _package(conf: list[Path], group: str, option: str) -> str:
    """The path of the node that an option is."""
    header = _header(_find(conf, f"{group}/{option}"))
    return next(
        (line.split()[-1] for line in header if line.startswith("@package")),
        group.replace("/", "."),
    )


def _values(conf: list[Path], group: str, option: str) -> dict[str, Any]:
    """The values of an option, with those of the options of its group that it extends."""
    values = _load(_find(conf, f"{group}/{option}"))
    for base in _bases(values):
        values = _merged(_values(conf, group, base), values)
    return values


def _bases(values: dict[str, Any]) -> list[str]:
    defaults = values.get("defaults")
    return [entry for entry in defaults or () if isinstance(entry, str) and entry != "_self_"]


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Both, the values of `second` where both have one; mappings are merged, but a new component replaces."""
    result = dict(first)
    for key, value in second.items():
        old = result.get(key)
        is_merged = isinstance(old, dict) and isinstance(value, dict) and "_target_" not in value
        result[key] = _merged(old, value) if is_merged and old is not None else value
    return result


def _find(conf: list[Path], name: str) -> Path:
    """The file of an option in the first folder that has it."""
    paths = [folder / f"{name}.yaml" for folder in conf]
    return next(filter(Path.is_file, paths), paths[0])


def _defaults(conf: list[Path], name: str, group: str) -> Iterator[tuple[str, str | None]]:
    """(group, option) of each entry of the defaults list of an option of `group`; a later one replaces an earlier."""
    with suppress(ConfigError):
        file = read_yaml(_find(conf, name))
        for base in _bases(file.values):
            yield from _defaults(conf, f"{group}/{base}", group)
        for entry, option, _ in file.defaults():
            inner = entry.removeprefix("override ")
            if inner == entry or (group and not inner.startswith("/")):
                yield (
                    inner.lstrip("/") if inner.startswith("/") or not group else f"{group}/{inner}",
                    option,
                )


def _overridden(conf: list[Path], group: str, option: str | None) -> dict[str, str | None]:
    """(group, option) of each `override /group: option` of an experiment, after those of experiments it extends."""
    options: dict[str, str | None] = {}
    with suppress(ConfigError):
        file = read_yaml(_find(conf, f"{group}/{option}"))
        for base in _bases(file.values):
            options |= _overridden(conf, group, base)
        entries = [(entry.removeprefix("override /"), name) for entry, name, _ in file.defaults()]
        options |= {inner: name for inner, name in entries if (conf[0] / inner).is_dir()}
    return options


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
        yield KeyHelp(path, value, hint, description.rstrip("."))


def _hidden_size(option: tuple[str, str]) -> int:
    """Sizes go from small to large, other options keep the order of their names."""
    number = re.search(r"^Hidden size\D*(\d+)", option[1])
    return int(number[1]) if number else 0


def _load(file: Path) -> dict[str, Any]:
    """The values of a file as they are written: unlike OmegaConf, YAML takes `3e-4` for text."""
    try:
        return dict(
            yaml.load(read_yaml(file).text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        )
    except ConfigError:
        return {}  # help is for someone whose files are broken too


def _header(file: Path) -> list[str]:
    try:
        return [
            line.lstrip("#").strip()
            for line in read_yaml(file).text.splitlines()[:6]
            if line.startswith("#")
        ]
    except ConfigError as error:
        return [str(error)]
