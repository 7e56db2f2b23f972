"""The command lines of a run, as its record and its checkpoints have them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from mlxlab.checkpoint.continuation import Continuation
from mlxlab.checkpoint.state import RunMetadata
from mlxlab.config.admission import TRUST
from mlxlab.past_runs.changes import Changes, add_overrides, key_class
from mlxlab.record import run_record as records
from mlxlab.schema.dotted_keys import override_name, value_at
from mlxlab.terminal.wording import shown


class CommandLine(NamedTuple):
    """What was typed for a run: the overrides of all its attempts, those that began it, and those of this process.

    `choices` (config group -> option) are those of all attempts; `first` and `typed` have `hydra.run.dir` as well.
    """

    overrides: list[str]
    choices: dict[str, str]
    first: list[str]
    typed: Sequence[str] = ()

    def after(self, overrides: list[str], choices: dict[str, str]) -> "CommandLine":
        """The command line of a run that adds these to earlier ones; options not typed again stay."""
        typed = {override_name(text) for text in self.overrides} & self.choices.keys()
        changed = {group: self.choices[group] for group in typed}
        return self._replace(
            overrides=add_overrides(overrides, self.overrides), choices=choices | changed
        )


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
    at: tuple[int, Mapping[str, object]],
    changes: Changes,
    continues: bool,
) -> list[Continuation]:
    """The continuations of a run that starts from a checkpoint with the metadata `before`.

    Args:
        at: step of the checkpoint, and the `model` node of its weights, which operations of growth may have changed.
        changes: keys of the config -> (before, after).
        continues: whether it is the same run; of another one only the changes of the model matter.
    """
    model = {}
    for key, (old, new) in changes.items():
        if key_class(key) == "structural":
            actual = value_at({"model": at[1]}, key)
            if actual is None:
                actual = old
            model[key] = (actual, new)
    last: Continuation = {"step": at[0], "overrides": [], "model": model, "forked": True}
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
