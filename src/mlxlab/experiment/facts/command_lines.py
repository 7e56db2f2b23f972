"""The command lines of a run, as its manifest and its checkpoints record them."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mlxlab.checkpoint.continuation import Continuation
from mlxlab.checkpoint.state import RunMetadata
from mlxlab.config.admission import TRUST
from mlxlab.dotted_keys import override_name, value_at
from mlxlab.experiment.resume.changes import Changes, add_overrides, key_class
from mlxlab.program import resume_overrides
from mlxlab.wording import counted, shown

if TYPE_CHECKING:
    from mlxlab.experiment.manifest import Inputs


class CommandLine(NamedTuple):
    """What was typed for a run: the overrides of all its attempts, those that began it, and those of this process.

    `choices` (config group -> option) are those of all attempts; `first` and `typed` have `hydra.run.dir` as well.
    """

    overrides: list[str]
    choices: dict[str, str]
    first: list[str]
    typed: Sequence[str] = ()

    def after(self, overrides: list[str], choices: dict[str, str]) -> "CommandLine":
        """The same for a run with those before it, which keeps the options that are not typed again."""
        typed = {override_name(text) for text in self.overrides} & self.choices.keys()
        changed = {group: self.choices[group] for group in typed}
        return self._replace(
            overrides=add_overrides(overrides, self.overrides), choices=choices | changed
        )


def current_command() -> CommandLine:
    """That of the running job; empty outside of a job."""
    from mlxlab.config.hydra.overrides import cli_overrides, group_choices, typed_run_dir

    run_dir = typed_run_dir()
    overrides = [text for text in cli_overrides() if override_name(text) != TRUST]
    folder = [f"hydra.run.dir={run_dir}"] if run_dir else []
    return CommandLine(overrides, group_choices(), [*overrides, *folder], [*folder, *overrides])


def continuations(
    command: CommandLine,
    before: RunMetadata,
    at: tuple[int, Mapping[str, object]],
    changes: Changes,
    continues: bool,
) -> list[Continuation]:
    """Those of a run that starts from a checkpoint with the metadata `before`.

    Args:
        at: step of the checkpoint, and the `model` node of its weights, which operations of growth may have changed.
        changes: keys of the config -> (before, after).
        continues: whether it is the same run; of another one only the changes of the model matter.
    """
    model, earlier, overrides = {}, before.get("continued", []), [*command.typed]
    for key, (old, new) in changes.items():
        if key_class(key) == "structural":
            actual = value_at({"model": at[1]}, key)
            model[key] = (old if actual is None else actual, new)
    if not continues:
        earlier, overrides = (
            [{**each, "overrides": [], "forked": True} for each in earlier if each["model"]],
            [],
        )
    return [
        *earlier,
        {"step": at[0], "overrides": overrides, "model": model, "forked": not continues},
    ]


class ContinuationLine(NamedTuple):
    """A command line that continued a run: its overrides, and where (`at step 50`, "" if that was not recorded)."""

    at: str
    overrides: list[str]


def command_lines(inputs: "Inputs", folder: Path) -> tuple[list[str], list[ContinuationLine]]:
    """The overrides that began the run in a folder, and those of each command line that continued it."""
    typed = inputs.get("overrides", [])
    first, record = inputs.get("first", typed), inputs.get("continued", [])
    known = {text for each in [first, *(each["overrides"] for each in record)] for text in each}
    # Of a run that an earlier version continued: the last override of each key, without their steps.
    is_fork = any(map(_is_forked, record))  # which has those of the other run as well
    unrecorded = [
        text
        for text in typed
        if text not in known and override_name(text) != "resume" and not is_fork
    ]
    groups = groupby(
        (each for each in record if not _is_forked(each)), key=lambda each: each["overrides"]
    )
    later = [ContinuationLine(_positions([*group]), overrides) for overrides, group in groups]
    merged = [ContinuationLine("", [*resume_overrides(folder), *unrecorded])] if unrecorded else []
    return first, [*merged, *later]


def model_changes(inputs: "Inputs") -> list[tuple[int, str]]:
    """(step, what changed) for each continuation that changed the model."""
    return [
        (
            each["step"],
            ", ".join(
                f"{key} {shown(old)} -> {shown(new)}" for key, (old, new) in each["model"].items()
            ),
        )
        for each in inputs.get("continued", [])
        if "step" in each and each["model"]
    ]


def _is_forked(record: Continuation) -> bool:
    return record.get("forked", not record["overrides"])


def _positions(group: Sequence[Continuation]) -> str:
    """Where one command line continued a run, also if it was repeated; nothing of what was not recorded."""
    times = f"({len(group):,} times)" if len(group) > 1 else ""
    rounds, steps = ([each[key] for each in group if key in each] for key in ("rounds", "step"))
    if rounds:
        low, high = min(rounds), max(rounds)
        place = (
            f"after {counted(high, 'round')}"
            if low == high
            else f"after {low:,} to {counted(high, 'round')}"
        )
    elif steps:
        low, high = min(steps), max(steps)
        place = f"at step {low:,}" if low == high else f"at steps {low:,} to {high:,}"
    else:
        place = ""
    return f"{place} {times}".strip()
