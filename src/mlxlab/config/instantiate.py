"""`build`: the only place where a `_target_` becomes an object.

Hydra's `instantiate` is not used: it turns what is given at run time into config nodes (an MLX module is a dict), and
its list of what may not be called is not a boundary. Here only what is on the list of parts is ever imported.
"""

import functools
import importlib
from typing import Any

from omegaconf import DictConfig, ListConfig

from mlxlab.config.allowlist import why_disallowed
from mlxlab.config.hydra.resolve import plain
from mlxlab.config.schema.signature import signature
from mlxlab.errors import ConfigError, NotAllowedError


def instantiate(node: DictConfig | ListConfig | dict[str, Any], **runtime: Any) -> Any:
    """Calls the `_target_` of a node with its arguments, inner nodes first.

    Of the `runtime` values each target gets those that its signature names, also the targets of inner nodes. A node
    with `_partial_: true` becomes a `functools.partial`; one without `_target_` a dict or list of what is in it.

    Raises:
        NotAllowedError: a target that is not a part.
        ConfigError: an interpolation that cannot be resolved.
    """
    if isinstance(node, DictConfig | ListConfig):
        tree, faults = plain(node)
        if faults:
            raise ConfigError("\n".join(f"{fault.path}: {fault.message}" for fault in faults))
        return _built(tree, runtime)
    return _built(node, runtime)


def _built(value: Any, runtime: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_built(item, runtime) for item in value]
    if not isinstance(value, dict):
        return value
    arguments = {key: _built(item, runtime) for key, item in value.items() if key not in ("_target_", "_partial_")}
    if "_target_" not in value:
        return arguments
    target = value["_target_"]
    part = _import(target)
    known = signature(target)
    named = {*known.keys, *known.runtime} if known else set()
    arguments |= {name: given for name, given in runtime.items() if name in named and name not in arguments}
    return functools.partial(part, **arguments) if value.get("_partial_") else part(**arguments)


def _import(target: str) -> Any:
    """The object that `target` names, if it is on the list and really is defined there under that name."""
    why = why_disallowed(target)
    if why:
        raise NotAllowedError(f"_target_: {why}")
    module, _, name = target.rpartition(".")
    part = getattr(importlib.import_module(module), name)
    if (getattr(part, "__module__", None), getattr(part, "__qualname__", None)) != (module, name):
        raise NotAllowedError(f"_target_: refused: {target} is another object under that name")
    return part
