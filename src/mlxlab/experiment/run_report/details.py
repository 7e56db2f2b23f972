"""The end of a report: the commands to type next, and what the run consisted of, folded."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from mlxlab.checkpoint.names import whole_run
from mlxlab.config.issues import one_line, value_at
from mlxlab.data.chat.chat_template import FILE
from mlxlab.experiment.facts.command_lines import command_lines
from mlxlab.experiment.facts.training_limit import limit_of
from mlxlab.experiment.run_report.run_files import RunFiles
from mlxlab.html.blocks import Block, Column, Commands, Facts, Listing, Section, Table
from mlxlab.program import join, quoted, resume_overrides

_OF_TEACHERS = (
    "trainer.teachers",
    "trainer.distillation",
    "trainer.loss.feature_matching",
    "hydra.run.dir",
)


def detail_sections(files: RunFiles) -> list[Section]:
    sections = [
        Section("Commands", [Commands(_commands(files))]),
        Section("Data", _data(files), is_folded=True),
        Section("Config", _config(files), is_folded=True),
        Section("Environment and attempts", _environment(files), is_folded=True),
    ]
    return [section for section in sections if section.blocks]


def _commands(files: RunFiles) -> dict[str, str]:
    folder = str(files.folder)
    run = quoted(f"run={folder}")
    usable, pretrained = (
        any(not each.fault for each in files.checkpoints),
        value_at(files.config, "model.pretrained"),
    )
    commands = {}
    if files.status != "DONE":
        commands["resume"] = f"mlxlab train {join(resume_overrides(whole_run(files.folder)))}"
    elif usable and not files.rounds:
        limit = limit_of(files.config, files.metrics and files.metrics["steps"])
        commands["train longer"] = (
            f"mlxlab train {join([*resume_overrides(files.folder), f'trainer.{limit}=N'])}"
        )
    if usable:
        commands |= use_commands(files)
        if pretrained and not files.is_labelled:
            commands["evaluate what it began with"] = (
                f"mlxlab evaluate {run} {quoted(f'pretrained={pretrained}')}"
            )
        commands["verify"] = f"mlxlab verify {run}"
    if files.lock is not None:
        commands["reproduce"] = f"mlxlab reproduce {quoted(folder)}"
    first, later = command_lines(files.manifest.get("inputs", {}), files.folder)
    commands["train again, as typed"] = f"mlxlab train {join(first)}".rstrip()
    for at, typed in later:
        title = f"then continued, as typed, {at}".removesuffix(", ")
        number = sum(each.startswith(title) for each in commands) + 1
        commands[f"{title} ({number})" if number > 1 else title] = (
            f"mlxlab train {join(typed)}".rstrip()
        )
    return commands


def use_commands(files: RunFiles) -> dict[str, str]:
    """What a trained model is for: predictions or text, except of a masked language model, and an evaluation."""
    run = quoted(f"run={files.folder}")
    commands = {"evaluate": f"mlxlab evaluate {run}"}
    if files.is_labelled:
        return {"predict": f"mlxlab predict {run} input=FILE output=predictions.csv"} | commands
    if files.facts.get("masked"):
        return commands
    generate = f"mlxlab generate {run}"
    if (files.folder / "inference" / FILE).is_file():
        generate += " chat=true"
    return {"generate": generate} | commands


def _data(files: RunFiles) -> list[Block]:
    inputs, node = files.manifest.get("inputs", {}), files.config.get("data")
    facts = {}
    if isinstance(node, dict):
        facts = {name: _value(value) for name, value in node.items() if value is not None}
        facts["class"] = facts.pop("_target_", "")
    facts |= {
        f"{name} fingerprint": inputs[name] for name in ("data", "tokenizer") if inputs.get(name)
    }
    messages = "\n".join(inputs.get("messages", []))
    blocks: list[Block] = [Listing(messages)] if messages else []
    return [*blocks, Facts(facts)] if facts else blocks


def _value(value: object) -> str:
    return one_line(json.dumps(value) if isinstance(value, dict | list) else str(value), 400)


def _config(files: RunFiles) -> list[Block]:
    if not files.config:
        return []
    import yaml

    inputs = files.manifest.get("inputs", {})
    choices = " ".join(f"{group}={option}" for group, option in inputs.get("choices", {}).items())
    facts = {"typed": join(inputs.get("overrides", [])), "options": choices}
    config, replaced = _with_actual_shape(files)
    if replaced:
        facts["not used"] = (
            f"{', '.join(replaced)}: below are the values of the model that was trained"
        )
    text = yaml.dump(config, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False)
    return [Facts({name: each for name, each in facts.items() if each}), Listing(text)]


def _with_actual_shape(files: RunFiles) -> tuple[dict[str, Any], list[str]]:
    """The config with the shape of the model, and what it replaces: pretrained weights have their own, growth too."""
    node = files.config.get("model")
    if files.state is None or not isinstance(node, dict):
        return files.config, []
    own = {
        key: value
        for key, value in files.state["architecture"].items()
        if isinstance(value, int | float | str)
    }
    replaced = [
        f"model.{key}={_value(node[key])}" for key in own if node.get(key) not in (None, own[key])
    ]
    return {**files.config, "model": node | own}, replaced


def _environment(files: RunFiles) -> list[Block]:
    git, facts = files.manifest.get("git", {}), dict[str, str]()
    if commit := git.get("commit"):
        changes = {"true": " with uncommitted changes", "false": ""}
        facts["commit"] = commit + changes.get(
            git.get("dirty") or "", " (uncommitted changes unknown)"
        )
    versions: Mapping[str, str] = files.manifest.get("inputs", {}).get("versions", {})
    if files.lock is not None:
        facts |= files.lock["machine"]
        versions = files.lock["versions"]
    facts["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    facts |= {
        "run": files.manifest["id"],
        "final state": files.manifest.get("outcome", {}).get("final_state", ""),
    }
    columns = [
        Column("attempt", True),
        Column("began"),
        Column("seconds", True),
        Column("status"),
        Column("host"),
    ]
    rows = []
    for number, each in enumerate(files.manifest["attempts"], 1):
        seconds = f"{each['end'] - each['start']:,.0f}" if "end" in each else ""
        error = f": {one_line(each['error'], 200)}" if "error" in each else ""
        ended = " before training" if "end" in each and not each.get("trained", True) else ""
        rows.append(
            [
                str(number),
                moment(each["start"]),
                seconds,
                f"{each['status']}{ended}{error}",
                each["host"],
            ]
        )
    return [Facts({name: text for name, text in facts.items() if text}), Table(columns, rows)]


def moment(seconds: float) -> str:
    """A time since 1970 as a date in UTC."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.4g} s"
