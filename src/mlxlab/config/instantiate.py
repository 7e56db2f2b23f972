"""`instantiate`: the only place where a `_target_` becomes an object. Nothing else is imported than allowed targets.

Hydra's own turns runtime arguments into config nodes (an MLX module is a dict), and its blocklist is easy to avoid.
"""

import functools
import importlib
from collections.abc import Callable
from typing import Any, TypeVar, overload

from mlxlab.config.allowlist import why_disallowed
from mlxlab.config.schema.signature import signature
from mlxlab.errors import ConfigError, NotAllowedError

T = TypeVar("T")


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
        raise ConfigError(f"{name}: expected an instance of {kind.__name__}, got {type(built).__name__}")
    return built


def _build(value: object, runtime: dict[str, object]) -> object:
    if isinstance(value, list):
        return [_build(item, runtime) for item in value]
    if not isinstance(value, dict):
        return value
    arguments = {key: _build(item, runtime) for key, item in value.items() if key not in ("_target_", "_partial_")}
    if "_target_" not in value:
        return arguments
    call, known = import_target(value["_target_"]), signature(value["_target_"])
    accepted = {*known.keys, *known.runtime} if known else set()
    arguments |= {name: item for name, item in runtime.items() if name in accepted and name not in arguments}
    return functools.partial(call, **arguments) if value.get("_partial_") else call(**arguments)


def import_target(target: str) -> Callable[..., Any]:
    """The class or function that `target` names; NotAllowedError unless it is allowed and was defined there."""
    if why := why_disallowed(target):
        raise NotAllowedError(f"_target_: {why}")
    module, _, name = target.rpartition(".")
    definition = getattr(importlib.import_module(module), name)
    if (getattr(definition, "__module__", None), getattr(definition, "__qualname__", None)) != (module, name):
        raise NotAllowedError(f"_target_: refused: {target} is another object under that name")
    return definition
