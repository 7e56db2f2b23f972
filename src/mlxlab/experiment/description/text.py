"""The description of a run as text and as JSON. Whatever comes from files is printed without control characters."""

import json
from datetime import datetime

from mlxlab.config.issues import one_line, shown
from mlxlab.experiment.description.run import RunDescription
from mlxlab.experiment.facts.attempts import Attempt, deciding_attempt, seconds_of, trained_attempts
from mlxlab.experiment.run_metrics import number
from mlxlab.files.atomic import without_nonfinite
from mlxlab.markdown import markdown_table
from mlxlab.progress import duration
from mlxlab.redact import redact
from mlxlab.wording import counted, percent

STOPS = {
    130: "by Ctrl-C (SIGINT)",
    143: "by SIGTERM",
    129: "by SIGHUP",
    0: "by its sweep",
}  # by exit code
ENDS = {
    "RUNNING": "is running",
    "DONE": "ended",
    "FAILED": "failed",
    "PREEMPTED": "was stopped",
    "DEAD": "ended without saving: killed, or ended at once by a second Ctrl-C",
}


def as_json(run: RunDescription) -> str:
    """Without credentials; null for numbers that are not finite."""
    return redact(json.dumps(without_nonfinite(run), indent=1))


def as_text(run: RunDescription) -> str:
    """Paragraphs and Markdown tables."""
    facts = [
        ("run", f"{run['name']} ({run['id']})"),
        ("status", _status(run)),
        ("position", _position(run)),
        (
            "data",
            ", ".join(f"{key.strip('_')} {shown(value)}" for key, value in run["data"].items()),
        ),
        ("parameters", _parameters(run)),
        *(("changed", f"the model {text}") for text in run["model_changes"]),
        ("command", run["command"]),
        *(
            ("continued", f"{each['at']}: {each['command']}".removeprefix(": "))
            for each in run["continued"]
        ),
        ("commit", _commit(run)),
        ("kernels", run["kernels"] or ""),
        ("options", _options(run)),
    ]
    width = max(len(name) for name, _ in facts)
    lines = [f"{name:{width}}  {_clean(text, 4000)}" for name, text in facts if text]
    tables = [_settings(run), _metrics(run), _checkpoints(run)]
    commands = "\n".join(f"next: {_clean(line, 4000)}" for line in run["next"])
    return "\n\n".join(filter(None, ["\n".join(lines), *tables, commands]))


def _status(run: RunDescription) -> str:
    last = deciding_attempt(run["attempts"], run["status"])
    error = f": {last['error']}" if "error" in last else ""
    began = f"began {_time(run['attempts'][0]['start'])}{_took(run['attempts'])}"
    return f"{run['status']}: {ENDS[run['status']]}{_stopped_by(run)} ({began}){error}"


def _stopped_by(run: RunDescription) -> str:
    if run["status"] != "PREEMPTED":
        return ""
    codes = [each.get("exit_code", -1) for each in run["attempts"] if each["status"] == "PREEMPTED"]
    in_store = "; in MLflow it is KILLED" if run["is_in_mlflow"] else ""
    return f" {STOPS.get(codes[-1] if codes else -1, 'by a signal')}{in_store}"


def _took(attempts: list[Attempt]) -> str:
    """From the start of the first attempt that trained to the end of the last, and how long they worked."""
    trained = trained_attempts(attempts)
    count = len(trained)
    if "end" not in attempts[-1]:
        number = sum(each is not attempts[-1] for each in trained) + 1
        return f", attempt {number}" if number > 1 else ""
    took = f", took {_duration(trained[-1].get('end', trained[-1]['start']) - trained[0]['start'])}"
    return (
        took
        if count == 1
        else f"{took}: {count} attempts, {_duration(seconds_of(trained))} of work"
    )


def _duration(seconds: float) -> str:
    try:
        return duration(max(0.0, seconds))
    except (ValueError, OverflowError):  # of a manifest that anyone wrote
        return f"{seconds:.4g} s"


def _time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds).isoformat(" ", "seconds")
    except (ValueError, OverflowError, OSError):
        return f"at {seconds:.4g} s"


def _parameters(run: RunDescription) -> str:
    if not (total := run["parameters"]):
        return ""
    trained = run["trained_parameters"]
    share = (
        f"{trained:,} of them trained ({percent(trained / total)})"
        if trained and trained < total
        else ""
    )
    return ", ".join(filter(None, [f"{total:,.0f}", share, run["adapter"]]))


def _position(run: RunDescription) -> str:
    if (at := run["position"]) is None:
        return ""
    plan = [f"{shown(value)} {key.removeprefix('max_')}" for key, value in at["limits"].items()]
    limit = at["limits"].get("max_steps")
    of = f" of at most {' or '.join(plan)}" if plan else ""
    if isinstance(limit, int) and limit < at["step"]:
        of = f", past the limit of {counted(limit, 'step')}"
    examples = "" if at["samples"] is None else f", {at['samples']:,} examples"
    return f"step {at['step']:,}{of}{examples}, {at['tokens']:,} tokens"


def _commit(run: RunDescription) -> str:
    if run["commit"] is None:
        return ""
    changes = {"true": " with uncommitted changes", "false": ""}
    return run["commit"] + changes.get(
        run["uncommitted_changes"] or "", " (uncommitted changes unknown)"
    )


def _options(run: RunDescription) -> str:
    """The options that differ; that of the tokenizer not where a pretrained model brings its own."""
    is_pretrained = run["changed"]["keys"].get("model.pretrained", (None, None))[1] is not None
    options = run["changed"]["options"].items()
    used = [
        f"{group}={option}"
        for group, option in options
        if not (is_pretrained and group == "data/tokenizer")
    ]
    return " ".join([*used, *(["(tokenizer: that of model.pretrained)"] if is_pretrained else [])])


def _settings(run: RunDescription) -> str:
    changed = run["changed"]
    if changed["fault"]:
        return f"settings that differ from the defaults: unknown ({_clean(changed['fault'], 200)})"
    if not changed["keys"]:
        return "no setting differs from the defaults of these options"
    rows = [[key, shown(old), shown(new)] for key, (old, new) in changed["keys"].items()]
    return markdown_table(
        ["setting", "default", "value"], [[_cell(cell) for cell in row] for row in rows], "lll"
    )


def _metrics(run: RunDescription) -> str:
    values = {"best": run["metrics"], "test": run["test"]}
    rows = [
        [_cell(name), _number(value)]
        for metrics in values.values()
        for name, value in metrics.items()
    ]
    return (
        markdown_table([f"best, at step {run['best_step']:,}", "value"], rows)
        if rows and run["best_step"]
        else ""
    )


def _number(value: float | None) -> str:
    return "not finite" if value is None else number(value)


def _checkpoints(run: RunDescription) -> str:
    if not run["checkpoints"]:
        return "no checkpoint"
    best = next((each["best_step"] for each in run["checkpoints"] if not each["fault"]), 0)
    rows = []
    for each in run["checkpoints"]:
        notes = ["emergency"] * bool(each["is_emergency"]) + ["best"] * (each["step"] == best)
        notes += [f"damaged: {each['fault']}"] if each["fault"] else []
        megabytes = each["nbytes"] / 1e6  # type: ignore[operator]
        rows.append([_cell(str(each["path"])), f"{megabytes:,.1f}", _cell(", ".join(notes))])
    table = markdown_table(["checkpoint", "MB", "note"], rows, "lrl")
    frozen = run["frozen_weights"]
    return table + (f"\n\nfrozen weights that they share: {frozen / 1e6:,.1f} MB" if frozen else "")


def _cell(text: str) -> str:
    return _clean(text, 120).replace("|", "\\|")


def _clean(text: str, max_length: int) -> str:
    return redact(one_line(text, max_length))
