"""A trial as a page: the change, the verdict, and the gain of each pair of runs."""

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any

from mlxlab import figures
from mlxlab.analysis.comparison_cards import no_better_than_weakest
from mlxlab.analysis.comparison_numbers import MIN_DECIMALS, decimals_of, fixed
from mlxlab.analysis.comparison_subject import mean_baselines
from mlxlab.analysis.trial.figure import CAPTION, draw_pairs
from mlxlab.analysis.trial.record import ARMS, ESTIMATE, RunRecord, TrialRecord, last_look
from mlxlab.analysis.trial.sequential import MIN_PAIRS
from mlxlab.config.issues import one_line, value_at
from mlxlab.config.resume_overrides import override_name
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.experiment.run_report.results import baseline_title
from mlxlab.experiment.run_report.run_files import read_run_files
from mlxlab.experiment.run_report.what_was_trained import training_card
from mlxlab.html.blocks import (
    Block,
    Card,
    Charts,
    Column,
    Commands,
    Image,
    Images,
    Page,
    Paragraph,
    Section,
    Table,
    Tone,
)
from mlxlab.html.line_chart import LineChart
from mlxlab.metric_names import VALID, lower_is_better, plain_key, plain_name
from mlxlab.wording import percent

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
        Section(
            "Pairs of runs",
            [
                *_figure(record),
                _pairs(record),
                *(reused if any(run["reused"] for run in record["runs"]) else []),
            ],
        ),
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
    """What the change replaces; model, data and length, as the first of the runs in the folder of the trial says."""
    before, facts = _typed_before(record), dict[str, str]()
    for run in (each for each in record["runs"] if each["folder"].isdecimal()):
        with suppress(InputNotFoundError, DataError):
            files = read_run_files(folder / run["folder"])
            facts = _facts_of_run(training_card(files))
            if run["arm"] == "baseline":
                before = {
                    key: value_at(files.config, key) if text is None else text
                    for key, text in before.items()
                }
            break
    replaced = " ".join(f"{key}={text}" for key, text in before.items() if text is not None)
    return {"Instead of": one_line(replaced, 160), **facts} if replaced else facts


def _typed_before(record: TrialRecord) -> dict[str, Any]:
    """By key of the change the text that the baseline was given; None where it has another one."""
    question = record["question"]
    baseline = {
        override_name(text): text.partition("=")[2] for text in question["overrides"]["baseline"]
    }
    return {key: baseline.get(key) for key in map(override_name, question["change"])}


def _facts_of_run(card: Card) -> dict[str, str]:
    names = {"Task": "Task", "Data": "Data", "Training": "Each run"}
    return {"Trained": card.answer} | {
        names[key]: card.facts[key] for key in names if key in card.facts
    }


def _values(record: TrialRecord) -> dict[str, list[float]]:
    """Of the finished runs, by arm."""
    values: dict[str, list[float]] = {}
    for run in record["runs"]:
        if run["value"] is not None:
            values.setdefault(run["arm"], []).append(run["value"])
    return values


def _cards(record: TrialRecord, change: str, folder: Path) -> list[Card]:
    metric, verdict, agreement = (
        record["question"]["metric"],
        record["verdict"],
        _agreement(record["gains"]),
    )
    pairs, reason = len(record["gains"]), record["reason"].removesuffix(".")
    because = [f"{reason[:1].upper()}{reason[1:]}."] if reason else []
    if agreement:
        because.append(f"{pairs} of {pairs} pairs are {agreement}.")
    answer = _ANSWERS[verdict] + (
        f", probably {agreement}" if verdict == "undecided" and agreement else ""
    )
    judged = f"Judged by the {record['question']['evaluation']} {plain_key(metric)}."
    return [
        Card("What was changed?", _short(change) or "nothing", [judged], _trained(record, folder)),
        Card("Is the change a gain?", answer, because, tone=_TONES.get(verdict, "")),
        _size(record),
        *_baselines(record, folder),
        _certainty(record),
    ]


def _short(change: str) -> str:
    """The plain override of one key without its path, which the title has."""
    plain = re.fullmatch(r"[\w.]+\.(\w+=\S*)", change)
    return plain[1] if plain else change


def _size(record: TrialRecord) -> Card:
    metric, values = record["question"]["metric"], _values(record)
    mean, low, high = last_look(record)
    means = {arm: fmean(values[arm]) for arm in ARMS if arm in values}
    places = decimals_of([mean, *means.values()])
    answer = "Not known" if mean is None else "None"
    if mean:
        answer = f"{fixed(abs(mean), places)} {'better' if mean > 0 else 'worse'}"
    better, title = "lower" if lower_is_better(metric) else "higher", plain_key(metric)
    shown = [f"{arm} {fixed(value, places)}" for arm, value in means.items()]
    lines = [f"Mean {title}: {', '.join(shown)}; {better} is better."] if len(shown) > 1 else []
    if low is not None and high is not None:
        bounds = " to ".join(fixed(value, places, signed=True) for value in (low, high))
        lines.append(f"95 % interval of the gain {bounds}; below 0 is worse.")
    return Card("How large is the difference?", answer, lines)


def _certainty(record: TrialRecord) -> Card:
    """Whether the difference may be chance, and what was compared to know it."""
    pairs, (_, low, high) = len(record["gains"]), last_look(record)
    count = f"{pairs} pair{'s' * (pairs != 1)} of runs"
    lines = [
        f"{count}: both runs of a pair have the same seed, data order and initial weights.",
        f"A change without effect is kept in {percent(record['error'])} of trials.",
    ]
    question = "Is it more than chance?"
    if low is None or high is None:
        return Card(question, "Not known", lines)
    if low <= 0 <= high:
        includes = "The 95 % interval includes 0, which is no difference."
        return Card(question, "It may be chance", [includes, *lines], tone="warning")
    return Card(
        question,
        "Unlikely to be chance",
        ["The 95 % interval excludes 0, which is no difference.", *lines],
    )


def _agreement(gains: Sequence[float]) -> str:
    """`better` or `worse` if all of three or more pairs are that."""
    if len(gains) < MIN_PAIRS:
        return ""
    return "better" if min(gains) > 0 else "worse" if max(gains) < 0 else ""


def _baselines(record: TrialRecord, folder: Path) -> list[Card]:
    """What the better arm is compared with, as the runs in the folder of the trial say."""
    metric, means = record["question"]["metric"], _values(record)
    name, folders = (
        metric.removeprefix(VALID),
        [run["folder"] for run in record["runs"] if run["folder"].isdecimal()],
    )
    baselines = mean_baselines([folder / each for each in folders], metric)
    if not baselines or not means:
        return []
    is_lower, arms = lower_is_better(metric), {arm: fmean(values) for arm, values in means.items()}
    best = min(arms.values()) if is_lower else max(arms.values())
    text = no_better_than_weakest("Neither" if len(arms) > 1 else "The run", name, best, baselines)
    ranked = sorted(baselines.items(), key=lambda item: item[1], reverse=not is_lower)
    lines = [
        f"{baseline_title(each, name)}: {plain_name(name)} {fixed(value, MIN_DECIMALS)}"
        for each, value in ranked
    ]
    question, answer = (
        "Compared with what?",
        text.removesuffix(".") or "Better than the weakest baseline",
    )
    return [Card(question, answer, lines[:_MAX_BASELINES], tone="bad" if text else "")]


def _figure(record: TrialRecord) -> list[Block]:
    figure = draw_pairs(record)
    if figure is None:
        return []
    return [Images([Image(figures.render_png(figure), CAPTION, figures.DPI)])]


def _pairs(record: TrialRecord) -> Table:
    by_seed: dict[int, dict[str, RunRecord]] = {}
    for run in record["runs"]:
        by_seed.setdefault(run["seed"], {})[run["arm"]] = run
    gains, rows = iter(record["gains"]), []
    for seed, runs in sorted(by_seed.items()):
        gain = next(gains, None) if len(runs) == 2 else None
        cells = [_value(runs.get(arm)) for arm in ("baseline", "changed")]
        rows.append([str(seed), *cells, "" if gain is None else f"{gain:+.6f}"])
    return Table(
        [Column(name, is_number=True) for name in ("seed", "baseline", "changed", "gain")], rows
    )


def _value(run: RunRecord | None) -> str:
    if run is None:
        return ""
    return "failed" if run["value"] is None else f"{run['value']:.6f}{'*' * run['reused']}"


def _looks(record: TrialRecord) -> list[Block]:
    lines: dict[str, list[tuple[float, float | None]]] = {}
    for look in record["looks"]:
        for name in ESTIMATE:
            if (value := look[name]) is not None:
                lines.setdefault(name, []).append((look["pairs"], value))
    chart = LineChart("Mean gain and its interval", lines, x_label="pairs")
    return [Charts([chart])] if len(record["looks"]) > 1 and chart.finite else []
