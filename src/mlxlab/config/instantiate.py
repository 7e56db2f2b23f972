"""`instantiate`: the only place where a `_target_` becomes an object, and the targets that a config may build.

A target calls what it names, so only those of conf/, of plugins and of `MLXLAB_ALLOWED_TARGETS` are imported.
Hydra's own `instantiate` turns runtime arguments into config nodes (an MLX module is a dict), and its blocklist is easy
to avoid.
"""

import importlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar, get_args, overload

from mlxlab.config.issues import ConfigIssue, join_key, one_line, walk
from mlxlab.config.paths import shipped_conf
from mlxlab.config.plugins import plugins
from mlxlab.config.schema.root import MODEL_OPTIONS, TARGET
from mlxlab.config.schema.signature import Component, signature
from mlxlab.errors import ConfigError, NotAllowedError

T = TypeVar("T")
Slot = tuple[str, str]  # (target of the owner, its parameter) that a component is passed to

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_UNSUPPORTED = {  # keys that Hydra knows in a node with a target
    "_args_": "name the arguments",
    "_recursive_": "inner nodes are always built",
    "_convert_": "lists and mappings are always those of Python",
    "_mode_": "a node is always called, or with _partial_ called later",
}


@overload
def instantiate(node: dict[str, Any], kind: type[T], /, **runtime: object) -> T: ...
@overload
def instantiate(node: dict[str, Any], /, **runtime: object) -> Any: ...
def instantiate(node: dict[str, Any], kind: type[object] = object, /, **runtime: object) -> object:
    """Calls the `_target_` of a node of a resolved config with its arguments, inner nodes first.

    Each target, also of an inner node, receives those `runtime` arguments that its signature names. A node with
    `_partial_: true` becomes a `functools.partial`; one without `_target_` a dict of its values.

    Args:
        kind: a class or a runtime-checkable `Protocol` that the result must be an instance of.

    Raises:
        NotAllowedError: a target is not allowed.
        ConfigError: the result is not a `kind`.
    """
    built = _build(node, runtime)
    if not isinstance(built, kind):
        name = node.get("_target_", "a config node")
        raise ConfigError(
            f"{name}: expected an instance of {kind.__name__}, got {type(built).__name__}"
        )
    return built


def _build(value: object, runtime: dict[str, object]) -> object:
    if isinstance(value, list):
        return [_build(item, runtime) for item in value]
    if not isinstance(value, dict):
        return value
    arguments = {
        key: _build(item, runtime)
        for key, item in value.items()
        if key not in ("_target_", "_partial_")
    }
    if "_target_" not in value:
        return arguments
    call, known = import_target(value["_target_"]), signature(value["_target_"])
    accepted = {*known.keys, *known.runtime} if known else set()
    arguments |= {
        name: item for name, item in runtime.items() if name in accepted and name not in arguments
    }
    return partial(call, **arguments) if value.get("_partial_") else call(**arguments)


def import_target(target: str) -> Callable[..., Any]:
    """The class or function that `target` names; NotAllowedError unless it is allowed and was defined there."""
    if why := why_disallowed(target):
        raise NotAllowedError(f"_target_: {why}")
    module, _, name = target.rpartition(".")
    definition = getattr(importlib.import_module(module), name)
    if (getattr(definition, "__module__", None), getattr(definition, "__qualname__", None)) != (
        module,
        name,
    ):
        raise NotAllowedError(f"_target_: refused: {target} is another object under that name")
    return definition


@dataclass(frozen=True)
class AllowedTarget:
    """The use of a target in conf/: with `_partial_: true` or without, and where."""

    partial: bool
    slots: frozenset[Slot]

    def roles(self) -> frozenset[str]:
        """The kinds of component that it serves as (`Loss`, `optimizer`); empty if unknown."""
        owners = [(signature(owner), key) for owner, key in self.slots]
        hints = [
            known.keys[key].hint for known, key in owners if known is not None and key in known.keys
        ]
        return frozenset().union(*map(_component_names, hints))


def _component_names(hint: object) -> frozenset[str]:
    """The kinds of component anywhere in a type hint."""
    if isinstance(hint, Component):
        return frozenset({hint.name})
    return frozenset().union(*map(_component_names, get_args(hint)))


def allowed_targets() -> dict[str, AllowedTarget | None]:
    """Dotted name -> how it is used; None for a target of the user or of a plugin."""
    own = [
        name.strip()
        for name in os.environ.get("MLXLAB_ALLOWED_TARGETS", "").split(",")
        if name.strip()
    ]
    added = [target for package, conf in plugins().items() for target in _targets(conf, package)]
    return {**_targets(shipped_conf(), "mlxlab"), **dict.fromkeys([*added, *own])}


def serves_as(target: str, kind: str) -> bool:
    """Whether `target` fits a hint of `kind`: its own class, or a kind that conf/ uses it as, if it uses it at all."""
    shipped, name = allowed_targets().get(target), target.rpartition(".")[2]
    roles = shipped.roles() if shipped is not None else frozenset()
    if name in (kind, *roles):  # hints name the class itself, for example in a union with `kind`
        return name == kind
    return (
        kind in roles or not roles
    )  # no roles: a user's own target, which is checked when it is built


def why_disallowed(target: object) -> str | None:
    """Why `target` may not be built, or None. Imports nothing."""
    if not isinstance(target, str) or not _DOTTED.fullmatch(target):
        return f"refused: {one_line(str(target), 80)} is not the dotted name of a class or function"
    if target not in allowed_targets():
        return f"refused: {target} is not an allowed target"
    if signature(target) is None:
        return f"refused: {target} is not a class or function defined at the top of its module"
    return None


def find_disallowed(tree: object, path: str = "") -> list[ConfigIssue]:
    """Every `_target_` below `tree` that may not be built, and every key that is not supported next to one."""
    issues: list[ConfigIssue] = []
    for key, node in walk(tree, path):
        if isinstance(node, dict):
            if "_target_" in node and (why := why_disallowed(node["_target_"])):
                issues.append(ConfigIssue(join_key(key, "_target_"), why))
            for name, hint in _UNSUPPORTED.items():
                if name in node:
                    issues.append(
                        ConfigIssue(
                            join_key(key, name), f"refused: {name} is not supported; {hint}"
                        )
                    )
    return issues


@cache
def _targets(conf: Path, package: str) -> dict[str, AllowedTarget]:
    """The targets of `package` in files of `conf`. The option `g/o.yaml` is the argument `g` of an option above it."""
    files = _read_files(conf)
    targets_of: dict[str, list[str]] = defaultdict(
        list, {"": [TARGET], "model": [MODEL_OPTIONS]}
    )  # group -> its targets
    for (group, _), tree in files.items():
        if "_target_" in tree:
            targets_of[group].append(str(tree["_target_"]))
    targets: dict[str, AllowedTarget] = {}
    for (group, _), tree in files.items():
        if (
            "_target_" not in tree and targets_of[group]
        ):  # its keys are arguments of the other options of its group
            arguments = [(value, targets_of[group], key) for key, value in tree.items()]
        else:
            parent, _, key = group.rpartition("/")
            arguments = [(tree, targets_of[parent], key)]
        for value, owners, key in arguments:
            for target, use in _uses(value, owners, key):
                if target.startswith(f"{package}."):
                    known = targets.get(target, use)
                    targets[target] = AllowedTarget(known.partial, known.slots | use.slots)
    return targets


def _read_files(conf: Path) -> dict[tuple[str, str], dict[str, object]]:
    """(group, option) -> the content of its file; `conf/train.yaml` is in the group ""."""
    from mlxlab.config.hydra.yaml_limits import (
        read_yaml,
    )  # YAML is slow to import; most commands build no targets

    files: dict[tuple[str, str], dict[str, object]] = {}
    for file in sorted(conf.rglob("*.yaml")):
        group = file.parent.relative_to(conf).as_posix().removeprefix(".")
        with suppress(ConfigError):  # a broken file allows nothing; choosing it reports the error
            files[group, file.stem] = read_yaml(file).values
    return files


def _uses(value: object, owners: list[str], key: str) -> Iterator[tuple[str, AllowedTarget]]:
    """Every target in a value that is the argument `key` of `owners`, and how it is used there."""
    if isinstance(value, dict) and "_target_" in value:
        target, slots = str(value["_target_"]), frozenset((owner, key) for owner in owners)
        yield target, AllowedTarget(value.get("_partial_") is True, slots)
        inner = [target, MODEL_OPTIONS] if (TARGET, "model") in slots else [target]
        for name, item in value.items():
            yield from _uses(item, inner, name)
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _uses(item, owners, key)
