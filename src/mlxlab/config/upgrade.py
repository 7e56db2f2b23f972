"""A config that an earlier version saved, with the keys that it did not have yet."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mlxlab.config.paths import shipped_conf
from mlxlab.config.schema.signature import signature

Tree = dict[str, Any]


def fill_missing_keys(saved: Any, composed: Any = None) -> Any:
    """The same tree; a node of a target lacks no key that a node of that target has in `composed` or in conf/.

    A run of last month can so be judged, resumed and taught from by today's program.

    Args:
        composed: a config of today, which also knows parts that are not shipped.
    """
    known: dict[str, Tree] = {}
    _gather(composed, known)
    return _filled(saved, known)


def _filled(saved: Any, known: dict[str, Tree]) -> Any:
    if isinstance(saved, list):
        return [_filled(item, known) for item in saved]
    if not isinstance(saved, dict):
        return saved
    whole = {key: _filled(value, known) for key, value in saved.items()}
    target = str(saved.get("_target_", ""))
    found = signature(target) if target else None
    required = [key for key, kind in found.keys.items() if kind.required] if found else []
    if any(key not in saved for key in required):
        shipped = _nodes().get(target, {})
        whole = {key: shipped[key] for key in required if key in shipped} | whole
    return known.get(target, {}) | whole


@cache
def _nodes() -> dict[str, Tree]:
    """Target -> a node of it, from the files of the shipped conf/."""
    nodes: dict[str, Tree] = {}
    for file in sorted(shipped_conf().rglob("*.yaml")):
        _gather(_option(file), nodes)
    return nodes


def _option(file: Path) -> Tree:
    """What a file says, with the parts that its list of defaults names."""
    content: Tree = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    parts: Tree = {}
    for entry in content.pop("defaults", []):
        for group, option in entry.items() if isinstance(entry, dict) else ():
            chosen = file.parent / str(group) / f"{option}.yaml"
            parts |= {group: _option(chosen)} if chosen.is_file() else {}
    return parts | content


def _gather(value: Any, nodes: dict[str, Tree]) -> None:
    if not isinstance(value, dict):
        return
    for item in value.values():
        _gather(item, nodes)
    if "_target_" in value:
        known = nodes.setdefault(str(value["_target_"]), {})
        for key, item in value.items():
            if "${" not in str(item):
                known.setdefault(key, item)
