"""What a resumed run changes: the checkpoint's config is the base, and only what was typed now is put on top.

Every key is of one class. Free ones may change. Structural ones would change the shape of the model. Frozen ones would
make another experiment of it: the data and its order, the tokenizer, the objective.
"""

import json
from pathlib import Path
from typing import Any

import yaml

from mlxlab.config.upgrade import fill_missing_keys
from mlxlab.errors import ConfigError

FREE_PARTS = (
    *("model.dropout", "model.branch_dropout"),
    *("data.prefetch", "data.batch_size", "data.eval_batch_size", "data.streaming", "data.on_error"),
)
FROZEN = ("seed", "objective", "data")
STRUCTURAL = ("model",)
OVERLAYS = ("experiment", "debug")  # these choose keys of every group
IGNORED = ("resume", "resume_policy", "name")


def merge_for_resume(
    saved: dict[str, Any],
    composed: dict[str, Any],
    typed: list[str],
    chosen: tuple[dict[str, str], dict[str, str]],
    conf: Path,
) -> tuple[dict[str, Any], dict[str, tuple[Any, Any]]]:
    """The config to go on with, and the keys that change: key -> (old, new).

    Args:
        saved: the resolved config of the checkpoint.
        composed: the resolved config of the present command line.
        typed: the overrides of the present command line.
        chosen: group -> option, then and now.
        conf: the folder of config files, for what an option sets.

    Raises:
        ConfigError: a frozen or structural key would change; names each.
    """
    saved = fill_missing_keys(saved, composed)  # by an earlier version
    old = flatten({key: value for key, value in composed.items() if key not in saved} | saved)
    new = dict(old)
    now = flatten(composed)
    for path in _typed_paths(typed, *chosen, conf):
        inside = [key for key in {*now, *old} if key == path or key.startswith(f"{path}.")]
        for key in inside:
            if key in now:
                new[key] = now[key]
            else:
                new.pop(key, None)
    gone = object()
    changes = {
        key: (old.get(key), new.get(key))
        for key in sorted({*old, *new})
        if old.get(key, gone) != new.get(key, gone) and key.split(".")[0] not in IGNORED
    }
    _refuse(changes)
    return _unflat(new) | {key: composed[key] for key in IGNORED if key in composed}, changes


def record_changes(folder: Path, step: int, changes: dict[str, tuple[Any, Any]]) -> tuple[Path, int]:
    """Adds them to `resume_changes.json`: the file, and how many resumes with changes it now holds."""
    file = folder / "resume_changes.json"
    before = json.loads(file.read_text()) if file.is_file() else []
    now = {key: {"old": old, "new": new} for key, (old, new) in changes.items()}
    file.write_text(json.dumps([*before, {"step": step, "changes": now}], indent=1))
    return file, len(before) + 1


def key_class(key: str) -> str:
    """free, structural or frozen."""
    if key in FREE_PARTS:
        return "free"
    first = key.split(".")[0]
    return "frozen" if first in FROZEN else "structural" if first in STRUCTURAL else "free"


def _refuse(changes: dict[str, tuple[Any, Any]]) -> None:
    words = {
        "frozen": "may not change on resume; start afresh in another run folder",
        "structural": "would change the shape of the model, which a resume cannot do yet; start afresh",
    }
    lines = [
        f"{key}={new}: was {old} when the checkpoint was saved; {words[key_class(key)]}"
        for key, (old, new) in changes.items()
        if key_class(key) != "free"
    ]
    if lines:
        raise ConfigError("\n".join(lines[:10]))


def _typed_paths(typed: list[str], then: dict[str, str], now: dict[str, str], conf: Path) -> list[str]:
    """The keys that the overrides mean. A group whose option is the one it was then means nothing."""
    paths = []
    for override in typed:
        name = override.lstrip("+~").split("=", 1)[0].split("@")[0]
        if not (conf / name).is_dir():
            paths.append(name)
        elif then.get(name) != now.get(name):
            paths += _paths_of(name, now.get(name, ""), conf)
    return paths


def _paths_of(group: str, option: str, conf: Path) -> list[str]:
    """What an option of a group sets: its package, or the single keys where it is laid over others."""
    file = conf / group / f"{option}.yaml"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    if group not in OVERLAYS and "@package" not in text:
        return [group.replace("/", ".")]
    content = yaml.safe_load(text) or {}
    prefix = group.split("/")[0] + "." if group not in OVERLAYS else ""
    keys = [prefix + key for key in flatten({k: v for k, v in content.items() if k != "defaults"})]
    for line in content.get("defaults", []):
        if isinstance(line, dict):
            (other, chosen), *_ = line.items()
            keys += _paths_of(other.removeprefix("override ").lstrip("/"), str(chosen), conf)
    return keys


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves by dotted path; lists and empty dicts are leaves."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            leaves |= flatten(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def _unflat(leaves: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in leaves.items():
        *parents, last = path.split(".")
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = value
    return tree
