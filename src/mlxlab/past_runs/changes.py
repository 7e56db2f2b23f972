"""The command lines of a run, and what a resume changes: the typed overrides, and only those, in the config of its checkpoint.

*Free* keys may change, and *structural* ones, the model, as far as weights can be carried over (`growth/resume`);
*frozen* ones are data, its order and the objective.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict

from mlxlab.checkpoint.state import Continuation, RunMetadata
from mlxlab.config.admission import TRUST
from mlxlab.config.option_files import is_group, read_option
from mlxlab.errors import ConfigError
from mlxlab.files.atomic import write_json
from mlxlab.files.untrusted import read_json
from mlxlab.record import run_record as records
from mlxlab.schema.dotted_keys import join_key, override_name, split_key, value_at, walk
from mlxlab.terminal.wording import shown

Tree = dict[str, object]
Changes = dict[str, tuple[object, object]]  # key -> (old, new)
Choices = dict[str, str]  # group -> chosen option

FREE_KEYS = {  # These are in groups that are structural or frozen.
    *("model.dropout", "model.branch_dropout", "model.adapter.dropout"),
    *("data.prefetch", "data.baselines", "data.batch_size", "data.eval_batch_size"),
    *("data.streaming", "data.on_error", "data.max_left_out"),
}
FROZEN_GROUPS = ("seed", "objective", "data")
FILE = "resume_changes.json"
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
    merged = deepcopy(saved)
    names = [override_name(text) for text in recorded if "=" in text and not text.startswith("~")]
    typed_before = [name for name in names if not is_group(folders, name)]
    for key in _changed_keys(typed, choices, folders):
        earlier = deepcopy(merged)
        copy_key(key, composed, merged)
        for repeated in typed_before:
            if repeated.startswith(f"{key}.") and _is_in_both(repeated, key, saved, composed):
                copy_key(repeated, earlier, merged)
    changes = {
        key: pair
        for key, pair in differences(saved, merged).items()
        if key.split(".")[0] not in UNCHECKED_KEYS
    }
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


def copy_key(key: str, source: Tree, target: Tree) -> None:
    """Gives a key the value that it has in another config; removes it if it has none there."""
    parent, _, name = key.rpartition(".")
    node = value_at(target, parent)
    if not has_key(source, key):
        if isinstance(node, dict):
            node.pop(name, None)
    elif isinstance(node, dict):
        node[name] = deepcopy(value_at(source, key))
    else:
        copy_key(parent, source, target)


def has_key(tree: Tree, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    node = value_at(tree, parent)
    return isinstance(node, dict) and name in node


def record_changes(folder: Path, step: int, changes: Changes) -> Path:
    """Appends to `resume_changes.json`; returns the file."""
    file = folder / FILE
    records = _read_records(folder)
    by_key = {key: {"old": old, "new": new} for key, (old, new) in changes.items()}
    records.append({"step": step, "changes": by_key})
    write_json(file, records)
    return file


def changed_steps(folder: Path) -> list[int]:
    """The steps at which a resume changed the config of the run in a folder."""
    return [record["step"] for record in _read_records(folder)]


def _read_records(folder: Path) -> list[_ResumeRecord]:
    file = folder / FILE
    if not file.is_file():
        return []
    return read_json(file, list[_ResumeRecord])


def key_class(key: str) -> Literal["free", "structural", "frozen"]:
    """What a resume may do with a dotted key."""
    group = split_key(key)[0]
    if key in FREE_KEYS:
        return "free"
    if group == "model" or key == "data.tokenizer.path":
        return "structural"
    if group in FROZEN_GROUPS:
        return "frozen"
    return "free"


def _changed_keys(
    typed: list[str], choices: tuple[Choices, Choices], folders: list[Path]
) -> Iterator[str]:
    """The keys that the overrides set. A group whose option is that of the checkpoint sets none."""
    saved, current = choices
    for name in map(override_name, typed):
        if not is_group(folders, name):
            yield name
        elif saved.get(name) != current.get(name):
            yield from _option_keys(name, current.get(name, ""), folders)


def _is_in_both(key: str, node: str, saved: Tree, composed: Tree) -> bool:
    """Whether both configs have a key of a node, in components of the same classes below it."""
    parent = key.rpartition(".")[0]
    while parent != node:
        target = f"{parent}._target_"
        if value_at(saved, target) != value_at(composed, target):
            return False
        parent = parent.rpartition(".")[0]
    return has_key(saved, key) and has_key(composed, key)


def _option_keys(group: str, name: str, folders: list[Path]) -> Iterator[str]:
    """The keys that an option sets: its whole group, or single ones if its `@package` is another."""
    option = read_option(folders, group, name)
    node = group.replace("/", ".")
    if option.package == node:
        yield node
        return
    for key, value in walk(option.values, lists=False):
        if key and not (isinstance(value, dict) and value):
            yield key
    for inner, choice in option.choices.items():
        yield from _option_keys(inner, str(choice), folders)


class CommandLine(NamedTuple):
    """What was typed for a run: the overrides of all its attempts, those that began it, and those of this process.

    `choices` (config group -> option) are those of all attempts; `first` and `typed` have `hydra.run.dir` as well.
    """

    overrides: list[str]
    choices: dict[str, str]
    first: list[str]
    typed: Sequence[str] = ()

    def after(self, overrides: list[str], choices: dict[str, str]) -> "CommandLine":
        """The command line of a run that adds these to earlier ones, and replaces those of the same key; options stay."""
        typed = {override_name(text) for text in self.overrides} & self.choices.keys()
        changed = {group: self.choices[group] for group in typed}
        last = {override_name(text): text for text in (*overrides, *self.overrides)}
        return self._replace(overrides=[*last.values()], choices=choices | changed)


def current_command() -> CommandLine:
    """The command line of the running job; empty outside of a job."""
    from mlxlab.config.hydra.job import cli_overrides, group_choices, typed_run_dir

    run_dir = typed_run_dir()
    overrides = [text for text in cli_overrides() if override_name(text) != TRUST]
    folder = [f"hydra.run.dir={run_dir}"] if run_dir else []
    return CommandLine(overrides, group_choices(), [*overrides, *folder], [*folder, *overrides])


def continuations(
    command: CommandLine,
    before: RunMetadata,
    step: int,
    node: Mapping[str, object],
    changes: Changes,
    continues: bool,
) -> list[Continuation]:
    """The continuations of a run that starts from a checkpoint with the metadata `before`.

    Args:
        step: that of the checkpoint.
        node: the `model` node of its weights, which operations of growth may have changed.
        changes: keys of the config -> (before, after).
        continues: whether it is the same run; of another one only the changes of the model matter.
    """
    model = {}
    for key, (old, new) in changes.items():
        if key_class(key) == "structural":
            actual = value_at({"model": node}, key)
            if actual is None:
                actual = old
            model[key] = (actual, new)
    last: Continuation = {"step": step, "overrides": [], "model": model, "forked": True}
    earlier = before.get("continued", [])
    if continues:
        return [*earlier, {**last, "overrides": [*command.typed], "forked": False}]
    forks: list[Continuation] = [
        {**each, "overrides": [], "forked": True} for each in earlier if each["model"]
    ]
    return [*forks, last]


def model_changes(continued: Iterable[records.Continuation]) -> list[tuple[int, str]]:
    """(step, what changed) for each continuation that changed the model."""
    changes = []
    for each in continued:
        texts = [f"{key} {shown(old)} -> {shown(new)}" for key, (old, new) in each.model.items()]
        if texts and each.step is not None:
            changes.append((each.step, f"by a resume: {', '.join(texts)}"))
    return changes
