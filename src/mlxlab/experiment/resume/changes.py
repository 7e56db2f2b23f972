"""Merges the overrides of a resumed run, and only those, into the config of its checkpoint.

*Free* keys may change, and *structural* ones, the model, as far as weights can be carried over (`growth/resume/plan`);
*frozen* ones are data, its order and the objective.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypedDict

from mlxlab.config.option_files import is_group, read_option
from mlxlab.dotted_keys import KeyPath, join_key, override_name, split_key
from mlxlab.errors import ConfigError
from mlxlab.files.atomic import write_json
from mlxlab.files.untrusted import read_json

Tree = dict[str, object]
Leaves = dict[KeyPath, object]
Changes = dict[str, tuple[object, object]]  # key -> (old, new)
Choices = dict[str, str]  # group -> chosen option

FREE_KEYS = {  # These are in groups that are structural or frozen.
    *("model.dropout", "model.branch_dropout", "model.adapter.dropout"),
    *("data.prefetch", "data.baselines", "data.batch_size", "data.eval_batch_size"),
    *("data.streaming", "data.on_error", "data.max_left_out"),
}
FROZEN_GROUPS = ("seed", "objective", "data")
FILE = "resume_changes.json"
ADAPTER = "model/adapter"
UNCHECKED_KEYS = ("resume", "resume_policy", "name")
_FROZEN = "cannot change on resume; start a new run in another folder"


class _ResumeRecord(TypedDict):
    step: int
    changes: dict[str, dict[str, object]]


def merge_for_resume(
    saved: Tree,
    composed: Tree,
    typed: list[str],
    choices: tuple[Choices, Choices],
    folders: list[Path],
    recorded: Sequence[str] = (),
) -> tuple[Tree, Changes]:
    """The config to resume with, and the keys that change.

    Another option of a group sets all keys of its node, but for those that were typed before and that it has too.
    An option with `# @package`, such as a size, sets all keys that it names: they are decided by the choice.

    Args:
        saved: the resolved config of the checkpoint; `composed` is that of the current command line.
        typed: the overrides of the current command line.
        choices: when the checkpoint was saved, and now.
        folders: those of config files, in the order of precedence, to know which keys an option sets.
        recorded: the overrides that the run had when the checkpoint was saved.

    Raises:
        ConfigError: a frozen key would change; each is named.
    """
    old = _flatten(saved)
    current = _flatten(composed)
    typed_before = _typed_keys(recorded, folders)
    new = dict(old)
    for path in _typed_paths(typed, choices, folders):
        repeated = [key for key in typed_before if len(key) > len(path)]
        for key in {**old, **current}:
            is_repeated = any(_is_below(key, each) for each in repeated)
            if not _is_below(key, path):
                continue
            if is_repeated and _is_in_both(key, len(path), old, current):
                continue
            if key in current:
                new[key] = current[key]
            else:
                new.pop(key, None)
    merged = _unflatten(new)
    changes = differences(_checked(saved), _checked(merged))
    refused = [
        f"{key}={value}: was {before} in the checkpoint; {_FROZEN}"
        for key, (before, value) in changes.items()
        if key_class(key) == "frozen"
    ]
    if refused:
        raise ConfigError("\n".join(refused[:10]))
    return merged | {key: composed[key] for key in UNCHECKED_KEYS if key in composed}, changes


def differences(old: Mapping[str, object], new: Mapping[str, object], path: str = "") -> Changes:
    """The uppermost keys at which two nodes differ; a key that one of them lacks has None there."""
    changes: Changes = {}
    for name in sorted({*old, *new}):
        key = join_key(path, name)
        first = old.get(name)
        second = new.get(name)
        if isinstance(first, dict) and isinstance(second, dict):
            changes |= differences(first, second, key)
        elif first != second:
            changes[key] = (first, second)
    return changes


def requested_keys(
    typed: list[str], before: list[str], choices: tuple[Choices, Choices], folders: list[Path]
) -> list[KeyPath]:
    """The keys that overrides set which the run has not had before: also to the value that they have in its config.

    An option of a group that is in its config sets none, for it may only be there so that keys of the group can be
    typed; except for `model/adapter`, which a growth schedule changes.

    Args:
        before: the overrides that the run had when the checkpoint was saved; others as in `merge_for_resume`.
    """
    saved, current = choices
    saved = {group: option for group, option in saved.items() if group != ADAPTER}
    known = {text.lstrip("+") for text in before}
    new = [text for text in typed if text.lstrip("+") not in known]
    return _typed_paths(new, (saved, current), folders)


def add_overrides(before: list[str], typed: list[str]) -> list[str]:
    """The overrides of a run after a resume with those `typed`, each of which replaces an earlier one of its key."""
    last = {override_name(text): text for text in (*before, *typed)}
    return list(last.values())


def record_changes(folder: Path, step: int, changes: Changes) -> tuple[Path, int]:
    """Appends to `resume_changes.json`; returns the file and the number of resumes with changes that it now lists."""
    file = folder / FILE
    records = _read_records(folder)
    by_key = {key: {"old": old, "new": new} for key, (old, new) in changes.items()}
    records.append({"step": step, "changes": by_key})
    write_json(file, records)
    return file, len(records)


def changed_steps(folder: Path) -> list[int]:
    """The steps at which a resume changed the config of the run in a folder."""
    return [record["step"] for record in _read_records(folder)]


def _read_records(folder: Path) -> list[_ResumeRecord]:
    file = folder / FILE
    return read_json(file, list[_ResumeRecord]) if file.is_file() else []


def key_class(key: str) -> Literal["free", "structural", "frozen"]:
    """What a resume may do with a dotted key."""
    group = split_key(key)[0]
    if key in FREE_KEYS:
        return "free"
    if group == "model" or key == "data.tokenizer.path":
        return "structural"
    return "frozen" if group in FROZEN_GROUPS else "free"


def _checked(config: Tree) -> Tree:
    return {key: value for key, value in config.items() if key not in UNCHECKED_KEYS}


def _typed_paths(
    typed: list[str], choices: tuple[Choices, Choices], folders: list[Path]
) -> list[KeyPath]:
    """The keys that the overrides set. A group whose option is that of the checkpoint sets none."""
    saved, current = choices
    paths: list[KeyPath] = []
    for name in map(override_name, typed):
        if not is_group(folders, name):
            paths.append(tuple(name.split(".")))
        elif saved.get(name) != current.get(name):
            paths += _option_paths(name, current.get(name, ""), folders)
    return paths


def _typed_keys(overrides: Sequence[str], folders: list[Path]) -> list[KeyPath]:
    """The keys that overrides give a value, without options of groups."""
    names = [override_name(text) for text in overrides if "=" in text and not text.startswith("~")]
    return [tuple(name.split(".")) for name in names if not is_group(folders, name)]


def _is_below(key: KeyPath, node: KeyPath) -> bool:
    return key[: len(node)] == node


def _is_in_both(key: KeyPath, depth: int, old: Leaves, new: Leaves) -> bool:
    """Whether both configs have a key, in components of the same classes below the node of `depth` names."""
    targets = [(*key[:count], "_target_") for count in range(depth + 1, len(key))]
    return key in old and key in new and all(old.get(each) == new.get(each) for each in targets)


def _option_paths(group: str, name: str, folders: list[Path]) -> list[KeyPath]:
    """The keys that an option sets: its whole group, or single ones if its `@package` is another."""
    option = read_option(folders, group, name)
    path = tuple(group.split("/"))
    if option.package == ".".join(path):
        return [path]
    keys = list(_flatten(option.values))
    for inner, choice in option.choices.items():
        keys += _option_paths(inner, str(choice), folders)
    return keys


def _flatten(tree: Tree, prefix: KeyPath = ()) -> Leaves:
    """Leaves by the keys that lead to them; lists and empty mappings are leaves. Keys may hold dots."""
    leaves: Leaves = {}
    for key, value in tree.items():
        path = (*prefix, key)
        if isinstance(value, dict) and value:
            leaves |= _flatten(value, path)
        else:
            leaves[path] = value
    return leaves


def _unflatten(leaves: Leaves) -> Tree:
    tree: Tree = {}
    for (*parents, last), value in leaves.items():
        node = tree
        for name in parents:
            node = node.setdefault(name, {})  # type: ignore[assignment]
        node[last] = value
    return tree
