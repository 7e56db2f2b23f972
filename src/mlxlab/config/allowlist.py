"""The targets that may be built: every `_target_` in a shipped file of conf/, and those in `MLXLAB_ALLOWED_TARGETS`.

A `_target_` calls whatever can be imported, so this is a list of what is allowed, not of what is forbidden.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mlxlab.config.findings import ConfigIssue, one_line
from mlxlab.config.key_path import join_key
from mlxlab.config.paths import shipped_conf
from mlxlab.config.schema.root import TARGET
from mlxlab.config.schema.signature import signature
from mlxlab.config.schema.types import component_names
from mlxlab.config.suggest import nearest
from mlxlab.errors import ConfigError

VARIABLE = "MLXLAB_ALLOWED_TARGETS"

# The targets in Hydra's own node; nothing else of Hydra may be built.
HYDRA_TARGETS = frozenset(
    {
        "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
        "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
    }
)

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


Slot = tuple[str, str]  # (target of the owner, its parameter) that a component is passed to


@dataclass(frozen=True)
class AllowedTarget:
    """The use of a target in conf/; nothing is known of a user's own target.

    Args:
        partial: whether it stands with `_partial_: true`; None if unknown.
        slots: where conf/ uses it; empty if unknown.
    """

    partial: bool | None = None
    slots: frozenset[Slot] = frozenset()

    def roles(self) -> frozenset[str]:
        """The kinds of component that it serves as (`Loss`, `optimizer`); empty if unknown. Reads only its owners."""
        parameters = [(signature(owner), key) for owner, key in self.slots]
        kinds = [known.keys[key].kind for known, key in parameters if known is not None and key in known.keys]
        return frozenset().union(*map(component_names, kinds))


def allowed_targets() -> dict[str, AllowedTarget]:
    """Dotted name -> how it is used."""
    own = [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
    return {**_shipped(shipped_conf()), **dict.fromkeys(own, AllowedTarget())}


def why_disallowed(target: object) -> str | None:
    """Why `target` may not be built, or None. Imports nothing."""
    if not isinstance(target, str) or not _DOTTED.fullmatch(target):
        return f"refused: {one_line(str(target), 80)} is not the dotted name of a class or function"
    names = allowed_targets()
    if target not in names:
        near = nearest(target, names)
        return f"refused: {target} is not an allowed target" + (f"; did you mean {near}?" if near else "")
    if signature(target) is None:
        return f"refused: {target} is not a class or function defined at the top of its module"
    return None


def find_disallowed(tree: object, path: str = "") -> list[ConfigIssue]:
    """Every `_target_` below `tree` that may not be built, and every `_args_`, wherever they are."""
    issues: list[ConfigIssue] = []
    if isinstance(tree, dict):
        if "_target_" in tree and (why := why_disallowed(tree["_target_"])):
            issues.append(ConfigIssue(join_key(path, "_target_"), why))
        issues += [
            ConfigIssue(join_key(path, key), f"refused: {key} is not supported; name the arguments")
            for key in ("_args_", "_recursive_", "_convert_", "_mode_")
            if key in tree
        ]
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in pairs:
        issues += find_disallowed(value, join_key(path, key))
    return issues


@cache
def _shipped(conf: Path) -> dict[str, AllowedTarget]:
    files = {file.relative_to(conf).with_suffix("").as_posix(): _load(file) for file in sorted(conf.rglob("*.yaml"))}
    targets: dict[str, AllowedTarget] = {}
    for option, tree in files.items():
        group = option.rpartition("/")[0]
        parent, _, key = group.rpartition("/")
        slots = frozenset((owner, key) for owner in _group_targets(files, parent))
        # The keys of a file without a target belong to the target of another option of its group, if there is one.
        owners = [] if "_target_" in tree else _group_targets(files, group)
        for node in [{**tree, "_target_": owner} for owner in owners] or [tree]:
            for target, partial, used in _uses(node, slots):
                if target.startswith("mlxlab.") and target != TARGET and target not in owners:
                    known = targets.get(target, AllowedTarget(partial))
                    targets[target] = AllowedTarget(known.partial, known.slots | used)
    return targets


def _group_targets(files: dict[str, dict[str, object]], group: str) -> list[str]:
    if not group:
        return [TARGET]
    return [
        str(tree["_target_"])
        for option, tree in files.items()
        if option.rpartition("/")[0] == group and "_target_" in tree
    ]


def _uses(tree: object, slots: frozenset[Slot]) -> Iterator[tuple[str, bool, frozenset[Slot]]]:
    """(target, is partial, slots) of every node below a value that is passed to `slots`."""
    if isinstance(tree, list):
        for item in tree:
            yield from _uses(item, slots)
    elif isinstance(tree, dict):
        target = str(tree["_target_"]) if "_target_" in tree else None
        if target is not None:
            yield target, tree.get("_partial_") is True, slots
        for key, value in tree.items():
            yield from _uses(value, frozenset({(target, str(key))}) if target is not None else slots)


def _load(file: Path) -> dict[str, object]:
    import yaml  # slow to import, and most commands build no targets

    from mlxlab.config.hydra.yaml_limits import read_yaml

    try:
        tree = yaml.load(read_yaml(file).text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except ConfigError:
        return {}  # a broken file allows nothing; choosing it reports the error
    return tree if isinstance(tree, dict) else {}
