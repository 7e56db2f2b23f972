"""Merges the overrides of a resumed run into the config of its checkpoint.

Only what was typed now is applied. Every key has a class: *free* keys may change; *structural* ones would change the
shape of the model; *frozen* ones (data and its order, tokenizer, objective) would make it another experiment.
"""

from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, TypedDict

import yaml

from mlxlab.config.issues import KeyPath, format_key
from mlxlab.errors import ConfigError
from mlxlab.files.atomic import write_json
from mlxlab.files.untrusted import read_json

Tree: TypeAlias = dict[str, Any]
Changes: TypeAlias = dict[str, tuple[Any, Any]]

FREE_KEYS: frozenset[KeyPath] = frozenset(
    {
        ("model", "dropout"),
        ("model", "branch_dropout"),
        ("data", "prefetch"),
        ("data", "batch_size"),
        ("data", "eval_batch_size"),
        ("data", "streaming"),
        ("data", "on_error"),
    }
)
FROZEN_GROUPS = ("seed", "objective", "data")
STRUCTURAL_GROUPS = ("model",)
OVERLAY_GROUPS = ("experiment", "debug")  # options that set keys of any group
UNCHECKED_KEYS = ("resume", "resume_policy", "name")
RESUME_KEYWORDS = ("auto", "last", "best", "emergency")


class GroupChoices(NamedTuple):
    """Group -> chosen option, when the checkpoint was saved and now."""

    saved: dict[str, str]
    current: dict[str, str]


class _ResumeRecord(TypedDict):
    step: int
    changes: dict[str, dict[str, Any]]


def find_resumed_run(resume: str | None) -> Path | None:
    """The run folder that a `resume` path belongs to; None for a keyword, or a checkpoint outside of any run.

    A resumed run continues in its own folder, and so in its own MLflow run.
    """
    if resume is None or resume in RESUME_KEYWORDS:
        return None
    path = Path(resume).expanduser().absolute()
    if path.name in RESUME_KEYWORDS:
        path = path.parent
    for folder in (path, path.parent, path.parent.parent):
        if (folder / "checkpoints").is_dir() or (folder / "rounds").is_dir():
            return folder
    return None


def merge_for_resume(
    saved: Tree, composed: Tree, typed: list[str], choices: tuple[dict[str, str], dict[str, str]], conf: Path
) -> tuple[Tree, Changes]:
    """The config to resume with, and the keys that change: key -> (old, new).

    Args:
        saved: the resolved config of the checkpoint.
        composed: the resolved config of the current command line.
        typed: the overrides of the current command line.
        choices: group -> option, when the checkpoint was saved and now.
        conf: the folder of config files, to know which keys an option sets.

    Raises:
        ConfigError: a frozen or structural key would change; each is named.
    """
    old, current = flatten(saved), flatten(composed)
    new = dict(old)
    for path in _typed_paths(typed, GroupChoices(*choices), conf):
        for key in [key for key in {**current, **old} if key[: len(path)] == path]:
            if key in current:
                new[key] = current[key]
            else:
                new.pop(key, None)
    absent = object()
    changed = [
        key
        for key in sorted({*old, *new})
        if old.get(key, absent) != new.get(key, absent) and key[0] not in UNCHECKED_KEYS
    ]
    changes = {key: (old.get(key), new.get(key)) for key in changed}
    _refuse(changes)
    merged = _unflatten(new) | {key: composed[key] for key in UNCHECKED_KEYS if key in composed}
    return merged, {format_key(key): change for key, change in changes.items()}


def record_changes(folder: Path, step: int, changes: Changes) -> tuple[Path, int]:
    """Appends to `resume_changes.json`; returns the file and the number of resumes with changes that it now lists."""
    file = folder / "resume_changes.json"
    records: list[Any] = list(read_json(file, list[_ResumeRecord])) if file.is_file() else []
    record: dict[str, Any] = {"step": step, "changes": {key: {"old": a, "new": b} for key, (a, b) in changes.items()}}
    write_json(file, [*records, record])
    return file, len(records) + 1


def key_class(key: KeyPath) -> Literal["free", "structural", "frozen"]:
    """Whether a resumed run may change this key."""
    if key in FREE_KEYS:
        return "free"
    return "frozen" if key[0] in FROZEN_GROUPS else "structural" if key[0] in STRUCTURAL_GROUPS else "free"


def _refuse(changes: dict[KeyPath, tuple[Any, Any]]) -> None:
    reasons = {
        "frozen": "cannot change on resume; start a new run in another folder",
        "structural": "would change the shape of the model; start a new run in another folder",
    }
    lines = [
        f"{format_key(key)}={new}: was {old} when the checkpoint was saved; {reasons[key_class(key)]}"
        for key, (old, new) in changes.items()
        if key_class(key) != "free"
    ]
    if lines:
        raise ConfigError("\n".join(lines[:10]))


def _typed_paths(typed: list[str], choices: GroupChoices, conf: Path) -> list[KeyPath]:
    """The keys that the overrides set. A group whose option is that of the checkpoint sets none."""
    paths: list[KeyPath] = []
    for override in typed:
        name = override.lstrip("+~").split("=", 1)[0].split("@")[0]
        if not (conf / name).is_dir():
            paths.append(tuple(name.split(".")))
        elif choices.saved.get(name) != choices.current.get(name):
            paths += _option_paths(name, choices.current.get(name, ""), conf)
    return paths


def _option_paths(group: str, option: str, conf: Path) -> list[KeyPath]:
    """The keys that an option sets: its whole package, or single keys if it is laid over other options."""
    file = conf / group / f"{option}.yaml"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    if group not in OVERLAY_GROUPS and "@package" not in text:
        return [tuple(group.split("/"))]
    content = yaml.safe_load(text) or {}
    prefix = () if group in OVERLAY_GROUPS else (group.split("/")[0],)
    keys = [prefix + key for key in flatten({k: v for k, v in content.items() if k != "defaults"})]
    for line in content.get("defaults", []):
        if isinstance(line, dict):
            (other, chosen), *_ = line.items()
            keys += _option_paths(other.removeprefix("override ").lstrip("/"), str(chosen), conf)
    return keys


def flatten(tree: Tree, prefix: KeyPath = ()) -> dict[KeyPath, Any]:
    """Leaves by the keys that lead to them; lists and empty mappings are leaves. Keys may hold dots."""
    leaves: dict[KeyPath, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            leaves |= flatten(value, (*prefix, key))
        else:
            leaves[*prefix, key] = value
    return leaves


def _unflatten(leaves: dict[KeyPath, Any]) -> Tree:
    tree: Tree = {}
    for (*parents, last), value in leaves.items():
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = value
    return tree
