"""The targets that a config may build, those of conf/ and `MLXLAB_ALLOWED_TARGETS`, and what its `hydra:` node may set.

A target calls what it names, and Hydra acts on its `hydra:` node before our code runs, so all that is not listed is
refused.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import get_args

from mlxlab.config.issues import ConfigIssue, join_key, one_line, walk
from mlxlab.config.paths import shipped_conf
from mlxlab.config.schema.root import TARGET
from mlxlab.config.schema.signature import Component, signature
from mlxlab.config.suggest import did_you_mean, nearest
from mlxlab.errors import ConfigError

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_UNSUPPORTED = ("_args_", "_recursive_", "_convert_", "_mode_")

# Hydra's own node: the keys that Hydra instantiates, and its classes that are allowed there.
_HYDRA_COMPONENTS = ("callbacks", "launcher", "sweeper")
_HYDRA_TARGETS = (
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
)
_HANDLERS = ("logging.StreamHandler", "logging.FileHandler")
_LOG_FILE = "${hydra.runtime.output_dir}/${hydra.job.name}.log"
_REFERENCE = re.compile(r"(ext|cfg)://(?!sys\.(stdout|stderr)\Z)")
_SETTABLE = re.compile(r"(OMP|OPENBLAS|MKL|VECLIB|RAYON|TOKENIZERS)_[A-Z_]+|MLXLAB_(JOB|TRIAL)_[A-Z_]+")


Slot = tuple[str, str]  # (target of the owner, its parameter) that a component is passed to


@dataclass(frozen=True)
class AllowedTarget:
    """The use of a target in conf/: with `_partial_: true` or without, and where."""

    partial: bool
    slots: frozenset[Slot]

    def roles(self) -> frozenset[str]:
        """The kinds of component that it serves as (`Loss`, `optimizer`); empty if unknown."""
        owners = [(signature(owner), key) for owner, key in self.slots]
        hints = [known.keys[key].hint for known, key in owners if known is not None and key in known.keys]
        return frozenset().union(*map(_component_names, hints))


def _component_names(hint: object) -> frozenset[str]:
    """The kinds of component anywhere in a type hint."""
    if isinstance(hint, Component):
        return frozenset({hint.name})
    return frozenset().union(*map(_component_names, get_args(hint)))


def allowed_targets() -> dict[str, AllowedTarget | None]:
    """Dotted name -> how it is used; None for a user's own target."""
    own = [name.strip() for name in os.environ.get("MLXLAB_ALLOWED_TARGETS", "").split(",") if name.strip()]
    return {**_shipped(shipped_conf()), **dict.fromkeys(own)}


def serves_as(target: str, kind: str) -> bool:
    """False if conf/ uses `target` only as other kinds of component. A user's own target is checked when built."""
    shipped, name = allowed_targets().get(target), target.rpartition(".")[2]
    roles = shipped.roles() if shipped is not None else ()
    return name == kind or not roles or (kind in roles and name not in roles)


def why_disallowed(target: object) -> str | None:
    """Why `target` may not be built, or None. Imports nothing."""
    if not isinstance(target, str) or not _DOTTED.fullmatch(target):
        return f"refused: {one_line(str(target), 80)} is not the dotted name of a class or function"
    names = allowed_targets()
    if target not in names:
        return f"refused: {target} is not an allowed target" + did_you_mean(nearest(target, names))
    if signature(target) is None:
        return f"refused: {target} is not a class or function defined at the top of its module"
    return None


def find_disallowed(tree: object, path: str = "") -> list[ConfigIssue]:
    """Every `_target_` below `tree` that may not be built, and every `_args_`, wherever they are."""
    issues: list[ConfigIssue] = []
    for key, node in walk(tree, path):
        if isinstance(node, dict):
            if "_target_" in node and (why := why_disallowed(node["_target_"])):
                issues.append(ConfigIssue(join_key(key, "_target_"), why))
            for name in [name for name in _UNSUPPORTED if name in node]:
                issues.append(ConfigIssue(join_key(key, name), f"refused: {name} is not supported; name the arguments"))
    return issues


def find_disallowed_in_hydra(hydra: object) -> Iterator[ConfigIssue]:
    """Everything in the unresolved `hydra:` node that would run code, write elsewhere or change the environment."""
    assert isinstance(hydra, dict)  # Hydra's own schema
    for name in _HYDRA_COMPONENTS:
        node = hydra.get(name)
        if not isinstance(node, dict):
            yield ConfigIssue(f"hydra.{name}", "refused: expected a component")
        elif node.get("_target_") in _HYDRA_TARGETS:  # Hydra's own may be told not to recurse
            node = {key: node[key] for key in node if key not in ("_target_", "_recursive_", "_convert_")}
        yield from find_disallowed(node, f"hydra.{name}")
    for name in ("job_logging", "hydra_logging"):
        for path, node in walk(hydra.get(name), f"hydra.{name}"):
            yield from _disallowed_logging(node, path)
    job = hydra.get("job")
    variables = [*(job.get("env_set") or {}), *(job.get("env_copy") or [])] if isinstance(job, dict) else []
    for name in variables:
        if not _SETTABLE.fullmatch(str(name)):
            yield ConfigIssue(f"hydra.job.env_set.{name}", "refused: a config may not set this environment variable")
    folders = hydra.get("searchpath")
    for entry in folders if isinstance(folders, list) else ():
        if not isinstance(entry, str) or ("://" in entry and not entry.startswith("file://")):
            yield ConfigIssue("hydra.searchpath", f"refused: {entry} is code, not a folder of config files")
    checked = {key: value for key, value in hydra.items() if key not in _HYDRA_COMPONENTS}
    yield from (issue for issue in find_disallowed(checked, "hydra") if issue.path.endswith("._target_"))


def _disallowed_logging(node: object, path: str) -> Iterator[ConfigIssue]:
    """A logging config may name any callable: only handlers that write to the terminal or Hydra's own file pass."""
    if isinstance(node, str) and _REFERENCE.match(node):
        yield ConfigIssue(path, f"refused: {node}")
    if not isinstance(node, dict):
        return
    if "()" in node or ".()" in node:
        yield ConfigIssue(path, "refused: a logging config may not call anything")
    if "class" in node and node["class"] not in _HANDLERS:
        yield ConfigIssue(f"{path}.class", f"refused: {node['class']} is not a handler that may be used")
    if node.get("filename", _LOG_FILE) != _LOG_FILE:
        yield ConfigIssue(f"{path}.filename", "refused: the log file must be in the run folder")


@cache
def _shipped(conf: Path) -> dict[str, AllowedTarget]:
    from mlxlab.config.hydra.yaml_limits import read_yaml  # YAML is slow to import; most commands build no targets

    files: dict[str, dict[str, object]] = {}
    for file in sorted(conf.rglob("*.yaml")):
        with suppress(ConfigError):  # a broken file allows nothing; choosing it reports the error
            files[file.relative_to(conf).with_suffix("").as_posix()] = read_yaml(file).values
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
                    known = targets.get(target, AllowedTarget(partial, used))
                    targets[target] = AllowedTarget(known.partial, known.slots | used)
    return targets


def _group_targets(files: dict[str, dict[str, object]], group: str) -> list[str]:
    options = [tree for option, tree in files.items() if option.rpartition("/")[0] == group]
    return [str(tree["_target_"]) for tree in options if "_target_" in tree] if group else [TARGET]


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
            yield from _uses(value, slots if target is None else frozenset({(target, str(key))}))
