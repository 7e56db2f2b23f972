"""The command lines of a run, as its manifest records them."""

from typing import TYPE_CHECKING, NamedTuple

from mlxlab.config.resume_overrides import add_overrides, override_name

if TYPE_CHECKING:
    from mlxlab.experiment.manifest import Inputs


class CommandLine(NamedTuple):
    """What was typed for a run: the overrides of all its attempts, and those that began it.

    `choices` (config group -> option) are those of all attempts; `first` has `hydra.run.dir` as well.
    """

    overrides: list[str]
    choices: dict[str, str]
    first: list[str]

    def after(self, overrides: list[str], choices: dict[str, str]) -> "CommandLine":
        """The same for a run with those before it, which keeps the options that are not typed again."""
        typed = {override_name(text) for text in self.overrides} & self.choices.keys()
        changed = {group: self.choices[group] for group in typed}
        return self._replace(overrides=add_overrides(overrides, self.overrides), choices=choices | changed)


def current_command() -> CommandLine:
    """That of the running job; empty outside of a job."""
    from mlxlab.config.hydra.overrides import cli_overrides, group_choices, typed_run_dir

    overrides, run_dir = cli_overrides(), typed_run_dir()
    first = [*overrides, *([f"hydra.run.dir={run_dir}"] if run_dir else [])]
    return CommandLine(overrides, group_choices(), first)


def command_lines(inputs: "Inputs") -> tuple[list[str], list[str]]:
    """The overrides that began a run, and those with which it was continued, `resume` left out."""
    typed = inputs.get("overrides", [])
    first = inputs.get("first", typed)
    return first, [text for text in typed if text not in first and override_name(text) != "resume"]
