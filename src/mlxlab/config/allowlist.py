"""The parts that may be built: every `_target_` in a shipped file of conf/, and what `MLXLAB_PARTS` names.

A `_target_` is a call of any code that can be imported, so there is a list of what is allowed, not of what is not.
"""

import os
import re
from functools import cache
from pathlib import Path

import yaml

from mlxlab.config.findings import ConfigIssue, one_line
from mlxlab.config.hydra.yaml_limits import read_yaml
from mlxlab.config.key_path import join_key
from mlxlab.config.paths import shipped_conf
from mlxlab.config.schema.signature import signature
from mlxlab.config.suggest import nearest
from mlxlab.errors import ConfigError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")

# The parts of Hydra that stand in its own node; nothing else of it may be built.
HYDRA_PARTS = frozenset(
    {
        "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
        "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
    }
)


def allowed_targets() -> dict[str, bool | None]:
    """target -> whether conf/ builds it partially (`_partial_: true`); None where that is free (a user's own part)."""
    own = [name.strip() for name in os.environ.get("MLXLAB_PARTS", "").split(",") if name.strip()]
    return {**_shipped(shipped_conf()), **dict.fromkeys(own)}


def why_disallowed(target: object) -> str | None:
    """Why `target` may not be built, or None. Imports nothing."""
    if not isinstance(target, str) or not _DOTTED.fullmatch(target):
        return f"refused: {one_line(str(target), 80)} is not the dotted name of a part"
    names = allowed_targets()
    if target not in names:
        near = nearest(target, names)
        return f"refused: {target} is not a part that may be built" + (f"; did you mean {near}?" if near else "")
    if signature(target) is None:
        return f"refused: {target} is not a class or function defined at the top of its module"
    return None


def find_disallowed(tree: object, path: str = "") -> list[ConfigIssue]:
    """Every `_target_` below `tree` that may not be built, and every `_args_`; wherever they stand."""
    found: list[ConfigIssue] = []
    if isinstance(tree, dict):
        if "_target_" in tree and (why := why_disallowed(tree["_target_"])):
            found.append(ConfigIssue(join_key(path, "_target_"), why))
        found += [
            ConfigIssue(join_key(path, key), f"refused: {key} is not used here; name the arguments")
            for key in ("_args_", "_recursive_", "_convert_", "_mode_")
            if key in tree
        ]
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in pairs:
        found += find_disallowed(value, join_key(path, key))
    return found


@cache
def _shipped(conf: Path) -> dict[str, bool | None]:
    targets: dict[str, bool | None] = {}
    for file in sorted(conf.rglob("*.yaml")):
        try:
            _collect(yaml.load(read_yaml(file).text, Loader=_LOADER), targets)
        except ConfigError:
            continue  # a broken file gives no parts; whoever chooses it is told
    return targets


def _collect(tree: object, targets: dict[str, bool | None]) -> None:
    if isinstance(tree, dict):
        target = tree.get("_target_")
        if isinstance(target, str) and target.startswith("mlxlab."):
            targets[target] = tree.get("_partial_") is True
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        _collect(value, targets)
