"""`instantiate`: the only place where a `_target_` becomes an object, and the targets that a config may build.

A target calls what it names, so only those of conf/, of plugins and of `MLXLAB_ALLOWED_TARGETS` are imported.
Hydra's own `instantiate` turns runtime arguments into config nodes (an MLX module is a dict), and its blocklist is easy
to avoid.
"""

import importlib
import os
import re
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from mlxlab.config.paths import conf_dir, plugins
from mlxlab.config.schema.signature import read_signature
from mlxlab.errors import ConfigError, NotAllowedError
from mlxlab.terminal.wording import one_line

_TARGET = re.compile(r"\b_target_: *([\w.]+)")
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def instantiate(node: dict[str, Any], kind: type[object] = object, /, **runtime: object) -> Any:
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
    call = import_target(value["_target_"])
    known = read_signature(value["_target_"])
    assert known is not None  # It would not be allowed.
    for name in runtime:
        if name in known.runtime or name in known.keys:
            arguments.setdefault(name, runtime[name])
    if value.get("_partial_"):
        return partial(call, **arguments)
    return call(**arguments)


def import_target(target: str) -> Callable[..., Any]:
    """The class or function that `target` names; NotAllowedError unless it is allowed and was defined there."""
    if why := why_disallowed(target):
        raise NotAllowedError(f"_target_: {why}")
    module, _, name = target.rpartition(".")
    definition = getattr(importlib.import_module(module), name)
    names = [getattr(definition, key, "") for key in ("__module__", "__qualname__")]
    if names != [module, name]:
        raise NotAllowedError(f"_target_: refused: {target} is another object under that name")
    return definition


def allowed_targets() -> dict[str, frozenset[str]]:
    """Each target of conf/, of plugins, and of `MLXLAB_ALLOWED_TARGETS=my.Callback,my.Loss`, with its config groups."""
    targets: dict[str, frozenset[str]] = {}
    for package, conf in {"mlxlab": conf_dir(), **plugins()}.items():
        targets |= _targets_in(conf, package)
    for name in os.environ.get("MLXLAB_ALLOWED_TARGETS", "").split(","):
        if name.strip():
            targets[name.strip()] = frozenset()
    return targets


@cache
def _targets_in(conf: Path, package: str) -> dict[str, frozenset[str]]:
    """The targets of a package that the files of `conf` name, with the groups of these files."""
    targets: dict[str, frozenset[str]] = {}
    for file in conf.rglob("*.yaml"):
        group = file.parent.relative_to(conf).as_posix()
        for target in _TARGET.findall(file.read_text(encoding="utf-8", errors="replace")):
            if target.startswith(f"{package}."):
                targets[target] = targets.get(target, frozenset()) | ({group} - {"."})
    return targets


def serves_as(target: str, path: str) -> bool:
    """Whether conf/ has a target in the config group of a path, the deepest one above it, or in no group at all."""
    own = allowed_targets().get(target)
    return not own or group_of(path) in own


def group_of(path: str) -> str:
    """The deepest config group with targets that a path lies in; "" for none."""
    node = f"{path.replace('.', '/')}/"
    groups = set().union(*allowed_targets().values())
    return max((group for group in groups if node.startswith(f"{group}/")), key=len, default="")


def why_disallowed(target: object) -> str | None:
    """Why `target` may not be built, or None. Imports nothing."""
    if not isinstance(target, str) or not _DOTTED.fullmatch(target):
        return f"refused: {one_line(str(target), 80)} is not the dotted name of a class or function"
    if target not in allowed_targets():
        return f"refused: {target} is not an allowed target; MLXLAB_ALLOWED_TARGETS names your own"
    if read_signature(target) is None:
        return f"refused: {target} is not a class or function defined at the top of its module"
    return None
