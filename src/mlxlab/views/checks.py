"""The table of checks: reasons to trust a run, or not to.

The first rule of a topic that holds gives the check; a topic without one is not shown. Texts are
templates of the view `v`, its record `r` and its judgement `j`, such as `{{ v.value|number }}`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from mlxlab.record.run_record import Verification
from mlxlab.schema.metric_names import sign_of
from mlxlab.terminal.wording import counted
from mlxlab.views.render import sentence
from mlxlab.views.run_view import RISE, RunView

State: TypeAlias = Literal["bad", "warning", "unknown", "good"]
Predicate: TypeAlias = Callable[[RunView], object]
# A validation text needs more documents and tokens.
FEW_DOCUMENTS = 10
FEW_TOKENS = 10_000
MANY_TRUNCATED = 0.05
MISCALIBRATED = 0.1
MIN_CALIBRATION_ROWS = 200  # The error of fewer rows is noise.
MAX_SHOWN = 3  # lines
MAX_TEXT = 300  # characters of a line


@dataclass(frozen=True)
class Rule:
    """When a check has this state, and what is said then."""

    topic: str
    state: State
    title: str
    when: Predicate
    text: str = ""
    advice: str = ""


@dataclass(frozen=True)
class Check:
    """A rule that holds for a run, or for several."""

    topic: str
    state: State
    title: str
    text: str = ""


def beats_teacher(view: RunView, baseline: str) -> bool:
    """Whether a baseline is at least as good as the teacher, on the validation rows."""
    value = view.teacher_value
    reached = dict(view.judgement.ranked).get(baseline)
    if value is None or reached is None or view.result is not view.valid:
        return False
    return sign_of(view.metric) * (value - reached) <= 0


def teacher_ranks(view: RunView) -> bool:
    area = view.teacher.get("roc_auc")
    return area is not None and area > 0.5 and view.metric != "roc_auc"


def calibration(view: RunView) -> float:
    """The expected calibration error; -1 where it is not known or means nothing."""
    result = view.result
    judgement = view.judgement
    if result is None or not judgement.ranked or judgement.is_trivial:
        return -1.0
    error = result.metrics.get("calibration_error")
    if error is None or result.rows < MIN_CALIBRATION_ROWS:
        return -1.0
    return error


def has_little_text(view: RunView) -> bool:
    data = view.record.data
    tokens = data.tokens.get("validation", 0)
    is_short = tokens < FEW_TOKENS or data.rows.get("validation", 0) < FEW_DOCUMENTS
    return tokens > 0 and is_short


def of_kind(view: RunView, kind: str) -> list[Verification]:
    return [each for each in view.record.verifications if each.kind == kind]


def verified_step(view: RunView) -> int:
    return max((each.up_to_step for each in of_kind(view, "verify")), default=0)


RULES: Sequence[Rule] = (
    Rule(
        "files",
        "warning",
        "Damaged files",
        lambda v: v.record.faults,
        "{{ faults }}. This report lacks what they hold.",
    ),
    Rule(
        "end",
        "bad",
        "Failed",
        lambda v: v.record.status == "failed",
        "{{ v.deciding_attempt.error }}",
    ),
    Rule(
        "end",
        "bad",
        "All steps skipped",
        lambda v: 0 < v.record.training.steps == v.record.training.nonfinite_steps,
        "Loss or gradient was not finite in all {{ r.training.steps|count('step') }}.",
        "Lower trainer.learning_rate.",
    ),
    Rule(
        "end",
        "warning",
        "Not finished",
        lambda v: v.record.status != "finished",
        "Status: {{ r.status }}. {{ v.deciding_attempt.error }}",
    ),
    Rule(
        "baselines",
        "unknown",
        "Not compared",
        lambda v: v.value is not None and not v.record.is_evaluated and not v.is_text,
        "Baselines are measured when the run ends.",
    ),
    Rule(
        "baselines",
        "bad",
        "Learned nothing",
        lambda v: v.judgement.verdict == "learned nothing",
        "{{ v.metric|title }} {{ v.value|number }} is not better than that of"
        " {{ j.weakest|baseline }}, {{ j.weakest_value|number }}."
        " The training loss {{ v.advice.loss }}.",
        "{{ v.advice.action }}.",
    ),
    Rule(
        "baselines",
        "bad",
        "No better than a constant prediction",
        lambda v: v.judgement.verdict == "ranks only" and v.judgement.is_bad,
        "{{ v.metric|title }} {{ v.value|number }} is not better than that of"
        " {{ j.weakest|baseline }}, but the ROC AUC"
        " of the model is {{ v.result.metrics.roc_auc|number }}.",
        "{{ v.advice.action }}.",
    ),
    Rule(
        "baselines",
        "warning",
        "No better than a constant prediction",
        lambda v: v.judgement.verdict == "ranks only",
        "{{ v.metric|title }} {{ v.value|number }} is not better than that of"
        " {{ j.weakest|baseline }}, but the ROC AUC"
        " of the model is {{ v.result.metrics.roc_auc|number }}.",
        "{{ v.advice.action }}.",
    ),
    Rule(
        "baselines",
        "warning",
        "Lead over a constant may be chance",
        lambda v: v.judgement.verdict == "chance",
        "The 95 % interval of the difference from {{ j.weakest|baseline }} includes 0.",
        "{{ v.advice.action }}.",
    ),
    Rule(
        "baselines",
        "bad",
        "Worse than a baseline",
        lambda v: v.judgement.verdict == "worse",
        "{{ j.best|baseline }} reaches {{ v.metric|title }} {{ j.best_value|number }}, this"
        " model {{ v.value|number }}.",
        "{{ v.advice.action }}.",
    ),
    Rule(
        "baselines",
        "warning",
        "Not better than a baseline",
        lambda v: v.judgement.verdict == "unclear",
        "The 95 % interval of the difference from {{ j.best|baseline }} includes 0.",
    ),
    Rule(
        "baselines",
        "good",
        "Better than the baselines",
        lambda v: v.judgement.verdict == "better",
        "The best one, {{ j.best|baseline }}, reaches {{ v.metric|title }}"
        " {{ j.best_value|number }}.",
    ),
    Rule(
        "teacher",
        "bad",
        "The teacher learned nothing",
        lambda v: beats_teacher(v, v.judgement.weakest) and not teacher_ranks(v),
        "Its {{ v.metric|title }} {{ v.teacher_value|number }} is not better than that of"
        " {{ j.weakest|baseline }}.",
        "Train the teacher first.",
    ),
    Rule(
        "teacher",
        "warning",
        "The teacher is no better than a constant prediction",
        lambda v: beats_teacher(v, v.judgement.weakest),
        "Its {{ v.metric|title }} {{ v.teacher_value|number }} is not better than that of"
        " {{ j.weakest|baseline }}, but its"
        " ROC AUC is {{ v.teacher.roc_auc|number }}.",
    ),
    Rule(
        "teacher",
        "warning",
        "Weak teacher",
        lambda v: beats_teacher(v, v.judgement.best),
        "Its {{ v.metric|title }} {{ v.teacher_value|number }} is not better than that of"
        " {{ j.best|baseline }}.",
    ),
    Rule(
        "teacher",
        "good",
        "Teacher",
        lambda v: v.teacher_value is not None and v.result is v.valid and v.judgement.ranked,
        "Its {{ v.metric|title }} {{ v.teacher_value|number }} is better than that of"
        " {{ j.best|baseline }}.",
    ),
    Rule(
        "control",
        "unknown",
        "No control",
        lambda v: v.teacher,
        "To measure the effect of the teacher, train without it on several seeds.",
    ),
    Rule(
        "classes",
        "warning",
        "Classes never predicted",
        lambda v: v.result and v.result.never_predicted,
        "{{ missed }}.",
    ),
    Rule(
        "classes",
        "good",
        "All classes are predicted",
        lambda v: v.result and v.result.classes,
    ),
    Rule(
        "test",
        "warning",
        "No test data",
        lambda v: v.value is not None and v.result is v.valid,
        "Scores are optimistic if these rows selected the checkpoint or the settings.",
        "mlxlab evaluate with data.source=FILE takes other rows.",
    ),
    Rule(
        "test",
        "good",
        "Test rows",
        lambda v: v.value is not None,
        "Not used to select weights or thresholds.",
    ),
    Rule(
        "text size",
        "warning",
        "Little validation text",
        has_little_text,
        "{{ r.data.tokens.validation|count('token') }} in"
        " {{ r.data.rows.validation|count('document') }}: another sample may score differently.",
        "Raise data.valid_fraction.",
    ),
    Rule(
        "overlap",
        "warning",
        "Repeated rows",
        lambda v: any(not each.left_out for each in v.record.data.overlaps or []),
        "{{ repeated }}: scores are too optimistic.",
        "data.on_overlap=drop leaves them out.",
    ),
    Rule(
        "overlap",
        "unknown",
        "Repeated rows not checked",
        lambda v: v.record.data.overlaps is None,
        "Training rows may occur in the validation rows.",
    ),
    Rule(
        "overlap",
        "good",
        "No row in two splits",
        lambda v: True,
        "{{ repeated }}",
    ),
    Rule(
        "left out",
        "good",
        "Rows left out",
        lambda v: v.record.data.left_out_rows,
        "{{ r.data.left_out_rows|count('row') }} cannot be used; the reasons are under Data.",
    ),
    Rule(
        "length",
        "warning",
        "Truncated rows",
        lambda v: v.truncated_share > MANY_TRUNCATED,
        "{{ v.truncated_share|percent }} of the rows are longer than"
        " data.seq_len={{ r.data.seq_len }}; their end is not read.",
        "Raise data.seq_len.",
    ),
    Rule(
        "length",
        "good",
        "Row length",
        lambda v: v.record.data.measured_rows,
        "{{ r.data.truncated_rows|grouped }} of {{ r.data.measured_rows|grouped }} rows are"
        " longer than"
        " data.seq_len={{ r.data.seq_len }}.",
    ),
    Rule(
        "overfitting",
        "warning",
        "Overfitting",
        lambda v: v.valid_loss and v.valid_loss.rise > RISE,
        "The validation loss rose by {{ v.valid_loss.rise|percent }} after step"
        " {{ v.valid_loss.lowest_step|grouped }}; the best weights are of step"
        " {{ r.training.best_step|grouped }}.",
    ),
    Rule(
        "overfitting",
        "good",
        "No overfitting",
        lambda v: v.valid_loss,
        "The validation loss ends near its lowest value.",
    ),
    Rule(
        "calibration",
        "warning",
        "Badly calibrated",
        lambda v: calibration(v) > MISCALIBRATED,
        "Confidence and accuracy differ by"
        " {{ v.result.metrics.calibration_error|number }} on average.",
    ),
    Rule(
        "calibration",
        "good",
        "Calibrated",
        lambda v: calibration(v) >= 0,
        "Expected calibration error {{ v.result.metrics.calibration_error|number }}.",
    ),
    Rule(
        "steps",
        "warning",
        "Skipped steps",
        lambda v: v.record.training.nonfinite_steps or v.record.training.rollbacks,
        "Loss or gradient was not finite in {{ r.training.nonfinite_steps|grouped }} of"
        " {{ r.training.steps|count('step') }}; {{ r.training.rollbacks|count('rollback') }}.",
    ),
    Rule(
        "steps",
        "good",
        "No non-finite steps",
        lambda v: v.record.training.steps,
    ),
    Rule(
        "warnings",
        "warning",
        "Warnings",
        lambda v: v.warnings,
        "{{ warnings }}",
    ),
    Rule(
        "seeds",
        "unknown",
        "One seed",
        lambda v: v.record.seed is not None,
        "Only seed {{ r.seed }} was run: the variation between seeds is unknown.",
    ),
    Rule(
        "code",
        "unknown",
        "Unknown commit",
        lambda v: not v.record.code.commit,
    ),
    Rule(
        "code",
        "unknown",
        "Uncommitted changes unknown",
        lambda v: v.record.code.dirty is None,
        "Commit {{ r.code.commit[:12] }}.",
    ),
    Rule(
        "code",
        "warning",
        "Uncommitted code",
        lambda v: v.record.code.dirty,
        "Commit {{ r.code.commit[:12] }} with changes, which run.lock holds.",
    ),
    Rule(
        "code",
        "good",
        "Code committed",
        lambda v: True,
        "Commit {{ r.code.commit[:12] }}.",
    ),
    Rule(
        "verified",
        "bad",
        "Not reproducible",
        lambda v: any(each.difference for each in of_kind(v, "verify")),
        "{{ difference }}",
    ),
    Rule(
        "verified",
        "good",
        "Verified",
        lambda v: verified_step(v) >= v.record.training.steps > 0,
        "Training again gave the same weights up to step {{ verified_step|grouped }}.",
    ),
    Rule(
        "verified",
        "unknown",
        "Verified in part",
        lambda v: of_kind(v, "verify"),
        "Training again gave the same weights up to step {{ verified_step|grouped }} of"
        " {{ r.training.steps|grouped }}.",
    ),
    Rule(
        "verified",
        "unknown",
        "Not verified",
        lambda v: True,
        "mlxlab verify trains again from checkpoint to checkpoint and compares the weights.",
    ),
    Rule(
        "reproduced",
        "warning",
        "Not reproduced",
        lambda v: any(each.difference for each in of_kind(v, "reproduce")),
        "It diverged from the run that it repeats; different: {{ difference }}.",
    ),
    Rule(
        "reproduced",
        "good",
        "Reproduced",
        lambda v: of_kind(v, "reproduce"),
        "This run repeats another one.",
    ),
)


def check(view: RunView) -> list[Check]:
    """The first rule of each topic that holds, in the order of the table."""
    record = view.record
    missed = []
    if view.result:
        for name, rows in view.result.never_predicted.items():
            missed.append(f"{name} ({counted(rows, 'row')})")
    overlaps = record.data.overlaps or []
    words = {
        "v": view,
        "r": record,
        "j": view.judgement,
        "missed": _shortened(missed),
        "repeated": "; ".join(each.rows for each in overlaps),
        "warnings": _shortened(view.warnings),
        "faults": _shortened(record.faults),
        "difference": "; ".join(each.difference for each in record.verifications),
        "verified_step": verified_step(view),
    }
    checks: dict[str, Check] = {}
    for rule in RULES:
        if rule.topic not in checks and rule.when(view):
            text = sentence(f"{rule.text} {rule.advice}", words)
            checks[rule.topic] = Check(rule.topic, rule.state, rule.title, text)
    return list(checks.values())


def _shortened(lines: Sequence[str]) -> str:
    shown = "; ".join(line[:MAX_TEXT] for line in lines[:MAX_SHOWN])
    more = len(lines) - MAX_SHOWN
    if more > 0:
        return f"{shown} and {more} more"
    return shown
