"""What the files of config groups say, read without Hydra: for `--help`, and for a resume with another option."""

import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mlxlab.config.schema.root import TARGET, node_signature
from mlxlab.config.schema.signature import Component, find_classes, is_mapping
from mlxlab.config.schema.validate import describe
from mlxlab.files.yaml_file import YamlFile, read_yaml
from mlxlab.schema.dotted_keys import join_key
from mlxlab.terminal.wording import shown

# Options of these groups set keys of all other groups.
GLOBAL_GROUPS = ("experiment", "sweep", "debug")

_COMMENT = re.compile(r"(?:# *@.*\n)*# *(.*)")
_PACKAGE = re.compile(r"^# *@package +(\S+)", re.MULTILINE)

Choices = dict[str, str | None]  # group -> option


class KeyHelp(NamedTuple):
    """A key as `--help` lists it; `hint` is the type that `expected` describes."""

    key: str
    default: str
    hint: object
    expected: str
    description: str


class Option(NamedTuple):
    """An option of a config group, with the options of the group that it extends.

    `package` is the node that it is, "" for the whole config. `values` are those of the whole config. `choices` are
    the options of its defaults list.
    """

    package: str
    values: dict[str, Any]
    choices: Choices


def read_option(folders: Iterable[Path], group: str, name: str | None) -> Option:
    """An option from the first folder that has it; one of no values where none has."""
    file = _read(folders, posixpath.join(group, str(name)))
    own = dict(file.values)
    values: dict[str, Any] = {}
    choices = {}
    for entry in own.pop("defaults", ()):
        if isinstance(entry, dict):
            for key, choice in entry.items():
                path = posixpath.join("/", group, key.removeprefix("override "))
                choices[path[1:]] = choice
        elif entry != "_self_":
            path = posixpath.join("/", group, entry)
            base = read_option(folders, *posixpath.split(path[1:]))
            values = _merge(values, base.values)
            choices |= base.choices
    header = _PACKAGE.search(file.text)
    package = header[1] if header else group.replace("/", ".")
    package = package.removeprefix("_global_")
    for part in filter(None, reversed(package.split("."))):
        own = {part: own}
    return Option(package, _merge(values, own), choices)


def is_group(folders: Iterable[Path], name: str) -> bool:
    """Whether a name is that of a config group."""
    return any((folder / name).is_dir() for folder in folders)


def groups(folders: Iterable[Path]) -> dict[str, dict[str, str]]:
    """group -> option -> the first comment of its file."""
    options: dict[str, dict[str, str]] = {}
    for folder in folders:
        for file in sorted(folder.glob("*/**/*.yaml")):
            group = file.parent.relative_to(folder).as_posix()
            comment = _COMMENT.match(file.read_text(encoding="utf-8", errors="replace"))
            if not group.startswith("hydra"):
                options.setdefault(group, {})[file.stem] = comment[1] if comment else ""
    return dict(sorted(options.items()))


def chosen(folders: Iterable[Path], overrides: Sequence[str] = ()) -> Choices:
    """group -> option, as the primary config and `overrides` (`model=cnn_hybrid`) choose; also of nested groups.

    An experiment brings the options that it overrides, unless others are typed.
    """
    typed = {}
    for text in overrides:
        group, _, option = text.partition("=")
        if is_group(folders, group):
            typed[group] = option
    choices = read_option(folders, "", "train").choices
    for group in GLOBAL_GROUPS:
        choices |= read_option(folders, group, typed.get(group)).choices
    choices |= typed
    for group, choice in list(choices.items()):
        for inner, default in read_option(folders, group, choice).choices.items():
            choices.setdefault(inner, default)
    return choices


def lines(folders: Iterable[Path], choices: Choices) -> list[KeyHelp]:
    """Every key of these options, with its default."""
    tree = read_option(folders, "", "train").values
    for group, name in sorted(choices.items(), key=lambda item: item[0] in GLOBAL_GROUPS):
        tree = _merge(tree, read_option(folders, group, name).values)
    return list(node_lines({**tree, "_target_": TARGET}, ""))


def node_lines(node: dict[str, Any], path: str) -> Iterator[KeyHelp]:
    """The keys of a component, and of those in it."""
    known = node_signature(node["_target_"], path)
    if known is None:
        return
    for name, key in known.keys.items():
        if name not in node:
            continue
        value = node[name]
        full = join_key(path, name)
        inner = {full: value}
        if isinstance(value, dict) and is_mapping(key.hint) and find_classes(key.hint):
            inner = {join_key(full, each): value[each] for each in value}  # Named components.
        for inner_path, item in inner.items():
            if isinstance(item, dict) and "_target_" in item:
                yield from node_lines(item, inner_path)
            elif not isinstance(key.hint, Component):
                default = shown(item).replace("'", "")
                expected = describe(key.hint)
                yield KeyHelp(inner_path, default, key.hint, expected, key.doc.rstrip("."))


def _read(folders: Iterable[Path], name: str) -> YamlFile:
    """A config file of the first folder that has it; an empty one where none has."""
    for folder in folders:
        file = folder / f"{name}.yaml"
        if file.is_file():
            return read_yaml(file)
    return YamlFile("", {})


def _merge(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Both, the values of `second` where both have one; mappings are merged, but a new component replaces."""
    merged = dict(first)
    for key, value in second.items():
        old = first.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and "_target_" not in value:
            value = _merge(old, value)
        merged[key] = value
    return merged
