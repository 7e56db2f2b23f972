"""A trial as a page: the change, the verdict, and the gain of each pair of runs."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean

from mlxlab.analysis.comparison_cards import no_better_than_weakest
from mlxlab.analysis.comparison_subject import mean_baselines
from mlxlab.analysis.trial.record import RunRecord, TrialRecord
from mlxlab.analysis.trial.sequential import MIN_PAIRS
from mlxlab.config.issues import one_line
from mlxlab.config.resume_overrides import override_name
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.experiment.run_report.results import baseline_title
from mlxlab.experiment.run_report.run_files import read_run_files
from mlxlab.experiment.run_report.what_was_trained import training_card
from mlxlab.html.blocks import Block, Card, Charts, Column, Commands, Page, Paragraph, Section, Table, Tone
from mlxlab.html.line_chart import LineChart
from mlxlab.metric_names import VALID, lower_is_better

_MAX_BASELINES = 4
_ANSWERS = {
    "keep": "Yes: keep it",
    "discard": "No: discard it",
    "undecided": "Undecided",
    None: "Not decided yet",
}
_TONES: dict[str | None, Tone] = {"keep": "good", "discard": "bad", "undecided": "warning"}


def trial_page(record: TrialRecord, folder: Path) -> Page:
    question, change = record["question"], " ".join(record["question"]["change"])
    verdict = record["verdict"]
    reused = [Paragraph("* a finished run that was used again", is_note=True)]
    sections = [
        Section("Pairs of runs", [_pairs(record), *(reused if any(run["reused"] for run in record["runs"]) else [])]),
        Section("Gain by the number of pairs", _looks(record)),
        Section("Command", [Commands({"continues, or prints the verdict": record["command"]})]),
    ]
    return Page(
        title=f"Trial: {change}"[:120],
        subtitle=f"Baseline {question['baseline']}; trial in {folder.absolute()}",
        status=verdict or "running or interrupted",
        tone=_TONES.get(verdict, ""),
        cards=_cards(record, change, folder),
        sections=[section for section in sections if section.blocks],
    )


def _trained(record: TrialRecord, folder: Path) -> dict[str, str]:
    """What the change replaces; model and data, as the first of the runs in the folder of the trial says."""
    facts, overrides = dict[str, str](), record["question"]["overrides"]
    for run in (each for each in record["runs"] if each["folder"].isdecimal()):
        with suppress(InputNotFoundError, DataError):
            card = training_card(read_run_files(folder / run["folder"]))
            facts = {"Trained": card.answer} | {key: card.facts[key] for key in ("Task", "Data") if key in card.facts}
            break
    baseline = {override_name(text): text.partition("=")[2] for text in overrides["baseline"]}
    before = [f"{key}={baseline[key]}" for key in map(override_name, record["question"]["change"]) if key in baseline]
    return {"Instead of": one_line(" ".join(before), 160), **facts} if before else facts


def _values(record: TrialRecord) -> dict[str, list[float]]:
    """Of the finished runs, by arm."""
    values: dict[str, list[float]] = {}
    for run in record["runs"]:
        if run["value"] is not None:
            values.setdefault(run["arm"], []).append(run["value"])
    return values


def _means(record: TrialRecord) -> list[str]:
    """The mean of either arm, over the pairs."""
    values = _values(record)
    shown = [f"{arm} {fmean(values[arm]):.4g}" for arm in ("baseline", "changed") if arm in values]
    return [f"Mean: {', '.join(shown)}."] if len(shown) > 1 else []


def _cards(record: TrialRecord, change: str, folder: Path) -> list[Card]:
    question, pairs = record["question"], len(record["gains"])
    better = "lower" if lower_is_better(question["metric"]) else "higher"
    last = record["looks"][-1] if record["looks"] else {}
    mean, low, high = (last.get(key) for key in ("mean", "low", "high"))
    bounds = f"95 % interval {low:+.4g} to {high:+.4g}" if _are_numbers(low, high) else ""
    interval = [f"{bounds}, which allows for a test after each pair."] if bounds else []
    gain = f"{mean:+.4g}" if isinstance(mean, float | int) else "Not known"
    evidence = f"{pairs} pair{'s' * (pairs != 1)} of runs"
    verdict, agreement = record["verdict"], _agreement(record["gains"])
    seeds = "Both runs of a pair have the same seed, data order and initial weights."
    error = f"A change that is no gain is kept with a probability of {record['error']:.1%}."
    reason = record["reason"].removesuffix(".")
    because = [f"{reason[:1].upper()}{reason[1:]}."] if reason else []
    spans_zero = isinstance(low, float | int) and isinstance(high, float | int) and low <= 0 <= high
    if agreement:
        because.append(f"{pairs} of {pairs} pairs are {agreement}.")
    if verdict == "undecided" and spans_zero:
        because.append("The interval includes 0: the difference may be chance.")
    answer = _ANSWERS[verdict] + (f", probably {agreement}" if verdict == "undecided" and agreement else "")
    judged = f"Judged by the {question['evaluation']} {question['metric']}."
    direction = f"In {question['metric']}, {better} is better; a gain is positive."
    return [
        Card("What was changed?", change or "nothing", [judged], _trained(record, folder)),
        Card("Is the change a gain?", answer, because, tone=_TONES.get(verdict, "")),
        Card("How large is it?", gain, [*_means(record), direction, *interval]),
        *_baselines(record, folder),
        Card("How sure is that?", evidence, [seeds, error]),
    ]


def _agreement(gains: Sequence[float]) -> str:
    """`better` or `worse` if all of three or more pairs are that."""
    if len(gains) < MIN_PAIRS:
        return ""
    return "better" if min(gains) > 0 else "worse" if max(gains) < 0 else ""


def _baselines(record: TrialRecord, folder: Path) -> list[Card]:
    """What the better arm is compared with, as the runs in the folder of the trial say."""
    metric, means = record["question"]["metric"], _values(record)
    name, folders = metric.removeprefix(VALID), [run["folder"] for run in record["runs"] if run["folder"].isdecimal()]
    baselines = mean_baselines([folder / each for each in folders], metric)
    if not baselines or not means:
        return []
    is_lower, arms = lower_is_better(metric), {arm: fmean(values) for arm, values in means.items()}
    best = min(arms.values()) if is_lower else max(arms.values())
    text = no_better_than_weakest("Neither" if len(arms) > 1 else "The run", name, best, baselines)
    ranked = sorted(baselines.items(), key=lambda item: item[1], reverse=not is_lower)
    lines = [f"{baseline_title(each, name)}: {name.replace('_', ' ')} {value:.4g}" for each, value in ranked]
    question, answer = "Compared with what?", text.removesuffix(".") or "Better than the weakest baseline"
    return [Card(question, answer, lines[:_MAX_BASELINES], tone="bad" if text else "")]


def _are_numbers(*values: object) -> bool:
    return all(isinstance(value, float | int) for value in values)


def _pairs(record: TrialRecord) -> Table:
    by_seed: dict[int, dict[str, RunRecord]] = {}
    for run in record["runs"]:
        by_seed.setdefault(run["seed"], {})[run["arm"]] = run
    gains, rows = iter(record["gains"]), []
    for seed, runs in sorted(by_seed.items()):
        gain = next(gains, None) if len(runs) == 2 else None
        cells = [_value(runs.get(arm)) for arm in ("baseline", "changed")]
        rows.append([str(seed), *cells, "" if gain is None else f"{gain:+.6f}"])
    return Table([Column(name, is_number=True) for name in ("seed", "baseline", "changed", "gain")], rows)


def _value(run: RunRecord | None) -> str:
    if run is None:
        return ""
    return "failed" if run["value"] is None else f"{run['value']:.6f}{'*' * run['reused']}"


def _looks(record: TrialRecord) -> list[Block]:
    lines: dict[str, list[tuple[float, float | None]]] = {}
    for look in record["looks"]:
        pairs = look.get("pairs")
        for name in ("mean", "low", "high"):
            value = look.get(name)
            if isinstance(pairs, int) and isinstance(value, float | int):
                lines.setdefault(name, []).append((pairs, value))
    chart = LineChart("Mean gain and its interval", lines, x_label="pairs")
    return [Charts([chart])] if len(record["looks"]) > 1 and chart.finite else []
