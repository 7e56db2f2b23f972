"""The commands that a view of a run names: what to type next."""

from collections.abc import Iterable
from itertools import groupby

from mlxlab.checkpoint.names import whole_run
from mlxlab.record.run_record import Continuation
from mlxlab.schema.dotted_keys import override_name
from mlxlab.terminal.program import join, resume_overrides, run_dir_override
from mlxlab.terminal.wording import counted
from mlxlab.views.run_view import RunView

# What a distilled run was given and its control is not.
_OF_TEACHERS = (
    "trainer.teachers",
    "trainer.distillation",
    "hydra.run.dir",
)


def next_commands(view: RunView) -> dict[str, str]:
    """Commands by their purpose, the likely ones first."""
    record = view.record
    run = f"run={view.folder}"
    if record.status == "running":
        return {"evaluate": typed("evaluate", run, "checkpoint=last")}
    commands = {}
    if not record.can_resume and record.status != "finished":
        return {"train": typed("train", *record.command.first)}
    if record.status != "finished":
        commands["resume"] = typed("train", *resume_overrides(whole_run(view.folder)))
    if not view.results:
        return commands
    commands |= use_commands(view)
    commands["evaluate"] = typed("evaluate", run)
    if record.status == "finished" and not record.rounds:
        limit = f"trainer.{record.training.limit}=N"
        commands["train longer"] = typed("train", *resume_overrides(view.folder), limit)
    if not record.rounds:
        commands["verify"] = typed("verify", run)
    if record.code.is_locked:
        commands["reproduce"] = typed("reproduce", str(view.folder))
    if view.teachers:
        commands |= control_commands(view)
    return commands


def use_commands(view: RunView) -> dict[str, str]:
    """What the model is for: predictions or text; a masked language model has neither."""
    run = f"run={view.folder}"
    data = view.record.data
    if not view.is_text:
        return {"predict": typed("predict", run, "input=FILE", "output=predictions.csv")}
    if data.masked:
        return {}
    args = [run]
    if data.has_chat_template:
        args.append("chat=true")
    return {"generate": typed("generate", *args)}


def control_commands(view: RunView) -> dict[str, str]:
    """Trains the same model without its teachers, and compares both."""
    control = f"{view.folder}_control"
    first = view.record.command.first
    kept = [text for text in first if not override_name(text).startswith(_OF_TEACHERS)]
    train = typed("train", *kept, "trainer.teachers=[]", run_dir_override(control))
    pair = (f"distilled={view.folder}", f"control={control}")
    return {"train the control": train, "compare": typed("compare", *pair, "baseline=control")}


def typed_commands(view: RunView) -> dict[str, str]:
    """The command lines that made the run."""
    command = view.record.command
    commands = {"original command": typed("train", *command.first)}
    for number, (place, overrides) in enumerate(continuing_lines(command.continued), 1):
        commands[f"resumed ({number}) {place}".strip()] = typed("train", *overrides)
    return commands


def continuing_lines(continued: Iterable[Continuation]) -> list[tuple[str, list[str]]]:
    """(where, its overrides) of each command line that continued a run; repeated ones are one."""
    own = [each for each in continued if not each.forked]
    groups = groupby(own, key=lambda each: each.overrides)
    return [(_place([*group]), overrides) for overrides, group in groups]


def _place(group: list[Continuation]) -> str:
    """Where one command line continued a run for the first time, and how often: `at step 40 (3 times)`."""
    first = group[0]
    words = []
    if first.rounds is not None:
        words.append(f"after {counted(first.rounds, 'round')}")
    elif first.step is not None:
        words.append(f"at step {first.step:,}")
    if len(group) > 1:
        words.append(f"({len(group):,} times)")
    return " ".join(words)


def typed(verb: str, *args: str) -> str:
    return f"mlxlab {verb} {join(args)}".strip()
