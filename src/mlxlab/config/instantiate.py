"""`instantiate`: the only place where a `_target_` becomes an object.

Hydra's `instantiate` is not used: it turns runtime arguments into config nodes (an MLX module is a dict), and its list
of forbidden calls is not a security boundary. Here nothing is imported that is not on the list of allowed targets.
"""

import functools
import importlib
from typing import Any, TypeVar, overload

from omegaconf import DictConfig, ListConfig

from mlxlab.config.allowlist import why_disallowed
from mlxlab.config.hydra.resolve import plain
from mlxlab.config.schema.signature import signature
from mlxlab.errors import ConfigError, NotAllowedError

T = TypeVar("T")
Node = DictConfig | ListConfig | dict[str, Any]


@overload
def instantiate(node: Node, kind: type[T], /, **runtime: object) -> T: ...
@overload
def instantiate(node: Node, /, **runtime: object) -> Any: ...
def instantiate(node: Node, kind: type[Any] = object, /, **runtime: object) -> Any:
    """Calls the `_target_` of a node with its arguments, inner nodes first.

    Each target, also of an inner node, receives those `runtime` arguments that its signature names. A node with
    `_partial_: true` becomes a `functools.partial`; one without `_target_` a dict or list of its values.

    Args:
        kind: a class or a runtime-checkable `Protocol` that the result must be an instance of.

    Raises:
        NotAllowedError: a target is not allowed.
        ConfigError: an interpolation cannot be resolved, or the result is not a `kind`.
    """
    tree: Any = node
    if isinstance(node, DictConfig | ListConfig):
        tree, issues = plain(node)
        if issues:
            raise ConfigError("\n".join(f"{issue.path}: {issue.message}" for issue in issues))
    built = _build(tree, runtime)
    if not isinstance(built, kind):
        target = tree.get("_target_") if isinstance(tree, dict) else None
        raise ConfigError(
            f"{target or 'a config node'}: expected an instance of {kind.__name__}, got {type(built).__name__}"
        )
    return built


def _build(value: Any, runtime: dict[str, object]) -> Any:
    if isinstance(value, list):
        return [_build(item, runtime) for item in value]
    if not isinstance(value, dict):
        return value
    arguments = {key: _build(item, runtime) for key, item in value.items() if key not in ("_target_", "_partial_")}
    if "_target_" not in value:
        return arguments
    target = value["_target_"]
    call = import_target(target)
    parameters = signature(target)
    accepted = {*parameters.keys, *parameters.runtime} if parameters else set()
    arguments |= {name: item for name, item in runtime.items() if name in accepted and name not in arguments}
    return functools.partial(call, **arguments) if value.get("_partial_") else call(**arguments)


def import_target(target: str) -> Any:
    """The object that `target` names, if it is allowed and was defined there under that name.

    Raises:
        NotAllowedError: it is not.
    """
    why = why_disallowed(target)
    if why:
        raise NotAllowedError(f"_target_: {why}")
    module, _, name = target.rpartition(".")
    definition = getattr(importlib.import_module(module), name)
    if (getattr(definition, "__module__", None), getattr(definition, "__qualname__", None)) != (module, name):
        raise NotAllowedError(f"_target_: refused: {target} is another object under that name")
    return definition
