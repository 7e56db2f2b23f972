"""Reasons to trust the results of a run, or not to: each is a check with its state and one sentence."""

from math import isfinite

from mlxlab.config.issues import one_line, value_at
from mlxlab.data.labelled.left_out import LEFT_OUT
from mlxlab.data.labelled.split import DROPPED, SAME_INPUT
from mlxlab.data.row_lengths import MANY, TOO_LONG
from mlxlab.experiment.run_report.results import Results
from mlxlab.experiment.run_report.run_files import RunFiles
from mlxlab.experiment.run_report.value_checks import (
    check_bands,
    check_baselines,
    check_calibration,
    check_classes,
    check_teacher,
)
from mlxlab.html.blocks import Check
from mlxlab.metric_names import LOSS, VALID_LOSS
from mlxlab.wording import counted, percent

_RISE = 0.05  # of the validation loss after its minimum, as a share of it
_MAX_SHOWN = 3
_FEW_DOCUMENTS, _FEW_TOKENS = 10, 10_000  # of the validation text


def all_checks(files: RunFiles, results: Results) -> list[Check]:
    checks = [
        _complete(files),
        check_baselines(files, results),
        check_teacher(files, results),
        check_classes(files, results),
        check_bands(files, results),
        _held_out(files, results),
        _held_out_text(files),
        _overlap(files),
        _left_out(files),
        _truncated(files),
        _overfitting(files),
        check_calibration(results),
        _steps(files),
        _warnings(files),
        _seeds(files),
        _code(files),
        _verified(files),
        _reproduced(files),
    ]
    return [check for check in checks if check is not None]


def _complete(files: RunFiles) -> Check | None:
    if files.faults:
        shown = "; ".join(files.faults[:_MAX_SHOWN])
        more = (
            f" (and {len(files.faults) - _MAX_SHOWN} more)"
            if len(files.faults) > _MAX_SHOWN
            else ""
        )
        return Check(
            "warning", "Damaged files", f"{shown}{more}. This report lacks what they hold."
        )
    if files.status == "DONE":
        return None
    error = files.attempt.get("error")
    return Check(
        "warning",
        "Not finished",
        one_line(error, 300) if error else "The run has not ended on its own.",
    )


def _held_out(files: RunFiles, results: Results) -> Check | None:
    if results.value is None:
        return None
    if results.split == "test":
        return Check("good", "Test rows", "They chose neither weights nor thresholds of this run.")
    count = len(files.metrics.get("evaluations", [])) if files.metrics else 0
    if files.metrics is None and files.state:
        count = len(files.state["history"].evaluations)
    choice = f"chose the best of {count} evaluations" if count > 1 else "may have chosen settings"
    text = f"The same validation data {choice}, which flatters the figures"
    advice = "For other data, add data.source=FILE to the command evaluate below"
    return Check("warning", "No test data", f"{text}. {advice}.")


def _held_out_text(files: RunFiles) -> Check | None:
    """Of a language model: whether there is enough validation text."""
    documents, tokens = files.facts.get("text", {}).get("validation", (0, 0))
    if not tokens or (documents >= _FEW_DOCUMENTS and tokens >= _FEW_TOKENS):
        return None
    text = f"{tokens:,} tokens in {documents:,} document{'s' * (documents != 1)}: others may give other figures"
    more = "; raise data.valid_fraction" if value_at(files.config, "data.valid_fraction") else ""
    return Check("warning", "Little validation text", f"{text}{more}.")


def _overlap(files: RunFiles) -> Check | None:
    target = str(value_at(files.config, "data._target_") if files.config else "")
    messages = files.manifest.get("inputs", {}).get("messages")
    if messages is None:
        return None
    lines = [line for line in messages if SAME_INPUT in line]
    kept = [line for line in lines if not line.endswith(DROPPED)]
    if kept:
        advice = "figures on repeated rows flatter the model; data.on_overlap=drop leaves them out"
        return Check("warning", "Repeated rows", f"{'; '.join(kept)}: {advice}.")
    if lines:
        return Check("good", "Repeated rows", f"{'; '.join(lines)}.")
    if target.startswith("mlxlab.data.labelled."):
        return Check("good", "No repeated rows", "No row occurs in two splits.")
    if not files.is_labelled:
        return Check(
            "unknown",
            "Repeated text",
            "Not checked: whether the validation text occurs in the training text.",
        )
    return Check(
        "unknown",
        "Repeated rows",
        "Not checked: whether examples of training occur in the validation rows.",
    )


def _left_out(files: RunFiles) -> Check | None:
    """Rows without a label or text, and malformed ones."""
    inputs = files.manifest.get("inputs", {})
    if not (count := inputs.get("left_out_rows", 0)):
        return None
    lines = [line for line in inputs.get("messages", []) if LEFT_OUT in line]
    text = "; ".join(one_line(line, 300) for line in lines[:_MAX_SHOWN])
    return Check("good", "Rows left out", f"{text or f'{count:,} rows cannot be used'}.")


def _truncated(files: RunFiles) -> Check | None:
    """Of rows that are longer than `data.seq_len` the model does not read the end."""
    inputs = files.manifest.get("inputs", {})
    if not (rows := inputs.get("rows", 0)):
        return None
    truncated = inputs.get("truncated_rows", 0)
    limit = "data.seq_len"
    if "row_limit" in inputs:
        limit += f"={inputs['row_limit']}"
    share = truncated / rows
    if share > MANY:
        longer = f"{truncated:,} of {rows:,} rows ({percent(share)}) are longer than {limit}"
        text = f"{longer}: the model does not read their end"
        advice = next((line.partition("; ")[2] for line in _logged(files) if TOO_LONG in line), "")
        return Check(
            "warning",
            "Truncated rows",
            f"{'; '.join(filter(None, [text, one_line(advice, 200)]))}.",
        )
    few = f"{truncated:,} of {rows:,} rows are longer than {limit}."
    return Check("good", "Row length", few if truncated else f"No row is longer than {limit}.")


def _overfitting(files: RunFiles) -> Check | None:
    """By the validation loss, which may rise while the training loss falls."""
    curve = files.state["history"].curve if files.state else []
    valid = [
        (step, m[VALID_LOSS]) for step, m in curve if VALID_LOSS in m and isfinite(m[VALID_LOSS])
    ]
    if len(valid) < 2:
        return None
    step, lowest = min(valid, key=lambda point: point[1])
    last_step, last = valid[-1]
    train = next((m[LOSS] for _, m in reversed(curve) if LOSS in m and isfinite(m[LOSS])), None)
    has_teachers = bool(files.manifest.get("inputs", {}).get("teachers"))
    if train is not None and not has_teachers:
        gap = f" At the end {LOSS} is {train:.4g} and {VALID_LOSS} {last:.4g}."
    elif step < last_step:
        gap = f" It is {last:.4g} at the end, and {lowest:.4g} at step {step:,}."
    else:
        gap = f" It is {last:.4g} at the end."
    if last > lowest + _RISE * abs(lowest):
        rise = (last - lowest) / abs(lowest) if lowest else float("inf")
        text = f"{VALID_LOSS} rose by {percent(rise, 0)} from step {step:,} to step {last_step:,}.{gap}"
        return Check("warning", "Overfitting", f"{text}{_of_results(files, last_step)}")
    text = f"{VALID_LOSS} ends at its lowest value or near it.{gap}{_of_results(files, last_step)}"
    return Check("good", "No overfitting", text)


def _of_results(files: RunFiles, last_step: int) -> str:
    """The loss of the weights that the report is of, where these are not the last ones."""
    best = files.metrics["best_step"] if files.metrics else 0
    loss = files.metrics["metrics"].get(VALID_LOSS) if files.metrics else None
    if loss is None or best in (0, last_step):
        return ""
    return f" The results are of the weights of step {best:,}, with {VALID_LOSS} {loss:.4g}."


def _steps(files: RunFiles) -> Check | None:
    if files.state is None:
        return None
    progress = files.state["progress"]
    if progress.nonfinite_steps or progress.rollbacks:
        text = f"{progress.nonfinite_steps:,} of {progress.step:,} steps were skipped: loss or gradient not finite"
        back = (
            f"; {progress.rollbacks} returns to an earlier checkpoint" if progress.rollbacks else ""
        )
        return Check("warning", "Skipped steps", f"{text}{back}.")
    return Check(
        "good", "Finite steps", f"None of the {counted(progress.step, 'step')} was skipped."
    )


def _warnings(files: RunFiles) -> Check | None:
    lines = [line for line in _logged(files) if TOO_LONG not in line]  # `_truncated` shows that
    if not lines:
        return None
    more = f" (and {len(lines) - _MAX_SHOWN} more)" if len(lines) > _MAX_SHOWN else ""
    return Check(
        "warning",
        "Warnings of the run",
        "; ".join(one_line(line, 300) for line in lines[:_MAX_SHOWN]) + more,
    )


def _logged(files: RunFiles) -> list[str]:
    return [line for attempt in files.manifest["attempts"] for line in attempt.get("warnings", [])]


def _seeds(files: RunFiles) -> Check | None:
    seed = files.manifest.get("inputs", {}).get("seed")
    if seed is None:
        return None
    return Check(
        "unknown",
        "Other seeds",
        f"This is one run, with seed {seed}: it does not tell how much another differs.",
    )


def _code(files: RunFiles) -> Check | None:
    git = files.manifest.get("git", {})
    if not (commit := git.get("commit")):
        return Check("unknown", "Code", "The commit of the code is not known.")
    if git.get("dirty") == "false":
        return Check("good", "Code", f"Commit {commit[:12]}, without uncommitted changes.")
    return Check(
        "warning", "Uncommitted code", f"Commit {commit[:12]} with changes, which run.lock holds."
    )


def _verified(files: RunFiles) -> Check | None:
    verification = files.verification
    if verification is None:
        return Check(
            "unknown",
            "Verification",
            "Not verified yet: mlxlab verify trains between the checkpoints again.",
        )
    if verification["difference"]:
        return Check("warning", "Verification failed", one_line(verification["difference"], 300))
    last, newest = (
        max(verification["steps"], default=0),
        files.state["progress"].step if files.state else 0,
    )
    text = f"Training again gave the checkpoints bit for bit, up to step {last:,} of {newest:,}."
    return Check("good" if last >= newest else "unknown", "Verified", text)


def _reproduced(files: RunFiles) -> Check | None:
    outcome = files.reproduction
    if outcome is None:
        return None
    if outcome["result"] == "diverged":
        what = (
            ", ".join(each["what"] for each in outcome["differences"][:_MAX_SHOWN])
            or "nothing that is recorded"
        )
        return Check(
            "warning",
            "Not reproduced",
            f"It diverged from the run that it repeats; {what} differs.",
        )
    return Check(
        "good",
        "Reproduced",
        f"This run repeats another one: {outcome['result']}, {outcome['steps']:,} losses.",
    )
