"""A trial as a page: the change, the verdict, and the gain of each pair of runs."""

import re
from contextlib import suppress
from pathlib import Path
from statistics import fmean

from mlxlab.analysis.comparison_cards import no_better_than_weakest
from mlxlab.analysis.comparison_numbers import MIN_DECIMALS, decimals_of, fixed
from mlxlab.analysis.comparison_subject import mean_baselines
from mlxlab.analysis.trial.record import (
    ARMS,
    PAIR_COLUMNS,
    Arm,
    RunRecord,
    TrialRecord,
    last_look,
    pair_rows,
    pairs_of,
)
from mlxlab.dotted_keys import override_name, value_at
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.experiment.collect_record import collect_record
from mlxlab.metric_names import VALID, better_direction, plain_key, plain_name, sign_of
from mlxlab.stats.sequential import MIN_PAIRS
from mlxlab.views.blocks import Block, Card, Commands, Page, Paragraph, Plots, Section, Tone
from mlxlab.views.metrics import baseline_title
from mlxlab.views.pages import block_page
from mlxlab.views.plots import Row, RowPlot, short_label
from mlxlab.views.render import phrase, run_facts
from mlxlab.views.run_view import RunView
from mlxlab.views.tables import Table, numeric
from mlxlab.wording import counted, one_line, percent

_MAX_BASELINES = 4
_MAX_NAMED = 30  # seeds in the plot
_FACTS = {"Task": "Task", "Data": "Data", "Each run": "Training"}
_ANSWERS = {
    "keep": "Yes: keep it",
    "discard": "No: discard it",
    "undecided": "Undecided",
    None: "Not decided yet",
}
_TONES: dict[str | None, Tone] = {"keep": "good", "discard": "bad", "undecided": "warning"}


def trial_page(record: TrialRecord, folder: Path) -> str:
    return block_page(trial_blocks(record, folder))


def trial_blocks(record: TrialRecord, folder: Path) -> Page:
    question = record["question"]
    change = " ".join(question["change"])
    verdict = record["verdict"]
    pairs: list[Block] = [Table(numeric(*PAIR_COLUMNS), pair_rows(record))]
    pairs_drawn = pair_plots(record)
    if pairs_drawn:
        pairs.insert(0, Plots(pairs_drawn))
    if any(run["reused"] for run in record["runs"]):
        pairs.append(Paragraph("* a finished run that was used again", is_note=True))
    command = Commands({"continues, or prints the verdict": record["command"]})
    return Page(
        title=f"Trial: {change}"[:120],
        subtitle=f"Baseline {question['baseline']}; trial in {folder.absolute()}",
        status=verdict or "running or interrupted",
        tone=_TONES.get(verdict, ""),
        cards=[
            _change(record, folder),
            _answer(record),
            _size(record),
            *_baselines(record, folder),
            _certainty(record),
        ],
        sections=[Section("Pairs of runs", pairs), Section("Command", [command])],
    )


def pair_plots(record: TrialRecord) -> list[RowPlot]:
    """Both values of each pair of runs, and the gains; empty without a finished pair."""
    pairs = pairs_of(record)
    if not pairs:
        return []
    metric = record["question"]["metric"]
    sign = sign_of(metric)
    rows = []
    for seed, (old, new) in pairs.items():
        name = ""
        if len(pairs) <= _MAX_NAMED:
            name = f"seed {seed}"
        style = "good" if sign * (new - old) > 0 else "bad"
        rows.append(Row(name, [new], hollow=[old], span=(old, new), style=style))
    title = "Pairs, from the baseline (hollow) to the change: green is better, red is worse"
    x_label = f"{short_label(plain_key(metric))} ({better_direction(metric)} is better)"
    return [RowPlot(title, x_label, rows), _gain_plot(record)]


def _gain_plot(record: TrialRecord) -> RowPlot:
    """A dot per pair; below, the mean and its interval, if there is one around it."""
    rows = [Row("pairs", record["gains"])]
    mean, low, high = last_look(record)
    if mean is not None and low is not None and high is not None and low <= mean <= high:
        rows.append(Row("mean and 95 % interval", mean=mean, span=(low, high)))
    x_label = "gain: right of 0 the change is better"
    return RowPlot("Gain of each pair, and their mean", x_label, rows, guide=0.0)


def _change(record: TrialRecord, folder: Path) -> Card:
    """The change, without the path of its key if it is of one, which the title has, and what it replaces."""
    question = record["question"]
    change = " ".join(question["change"])
    plain = re.fullmatch(r"[\w.]+\.(\w+=\S*)", change)
    view = _first_run(record, folder)
    typed = {}
    for text in question["overrides"]["baseline"]:
        typed[override_name(text)] = text.partition("=")[2]
    replaced = []
    for key in map(override_name, question["change"]):
        value: object = typed.get(key)
        if value is None and view is not None:
            value = value_at(view.record.config, key)
        if value is not None:
            replaced.append(f"{key}={value}")
    facts = {}
    if replaced:
        facts["Instead of"] = one_line(" ".join(replaced), 160)
    if view is not None:
        known = run_facts(view)
        facts["Trained"] = phrase("answer", view)
        for name, key in _FACTS.items():
            if key in known:
                facts[name] = known[key]
    judged = f"Judged by the {question['evaluation']} {plain_key(question['metric'])}."
    answer = plain[1] if plain else change or "nothing"
    return Card("What was changed?", answer, [judged], facts)


def _first_run(record: TrialRecord, folder: Path) -> RunView | None:
    """The first of the runs in the folder of the trial that can be read, a baseline if there is one."""
    for run in sorted(_own_runs(record), key=lambda run: run["arm"]):
        with suppress(InputNotFoundError, DataError):
            path = folder / run["folder"]
            return RunView(collect_record(path), path)
    return None


def _own_runs(record: TrialRecord) -> list[RunRecord]:
    """The runs in the folder of the trial."""
    return [run for run in record["runs"] if run["folder"].isdecimal()]


def _means(record: TrialRecord) -> dict[Arm, float]:
    """The means of the finished runs, by arm."""
    means = {}
    for arm in ARMS:
        values = [run["value"] for run in record["runs"] if run["arm"] == arm]
        finished = [value for value in values if value is not None]
        if finished:
            means[arm] = fmean(finished)
    return means


def _answer(record: TrialRecord) -> Card:
    verdict = record["verdict"]
    gains = record["gains"]
    reason = record["reason"].removesuffix(".")
    lines = [f"{reason[:1].upper()}{reason[1:]}."] if reason else []
    answer = _ANSWERS[verdict]
    signs = {gain > 0 for gain in gains if gain != 0}
    if len(gains) >= MIN_PAIRS and len(signs) == 1 and 0 not in gains:
        agreement = "better" if True in signs else "worse"
        lines.append(f"{len(gains)} of {len(gains)} pairs are {agreement}.")
        if verdict == "undecided":
            answer += f", probably {agreement}"
    return Card("Is the change a gain?", answer, lines, tone=_TONES.get(verdict, ""))


def _size(record: TrialRecord) -> Card:
    metric = record["question"]["metric"]
    mean, low, high = last_look(record)
    means = _means(record)
    places = decimals_of([mean, *means.values()])
    answer = "Not known" if mean is None else "None"
    if mean:
        direction = "better" if mean > 0 else "worse"
        answer = f"{fixed(abs(mean), places)} {direction}"
    lines = []
    if len(means) > 1:
        shown = ", ".join(f"{arm} {fixed(value, places)}" for arm, value in means.items())
        lines.append(f"Mean {plain_key(metric)}: {shown}; {better_direction(metric)} is better.")
    if low is not None and high is not None:
        bounds = " to ".join(fixed(value, places, signed=True) for value in (low, high))
        lines.append(f"95 % interval of the gain {bounds}; below 0 is worse.")
    return Card("How large is the difference?", answer, lines)


def _baselines(record: TrialRecord, folder: Path) -> list[Card]:
    """What the better arm is compared with, as the runs in the folder of the trial say."""
    metric = record["question"]["metric"]
    means = _means(record)
    baselines = mean_baselines([folder / run["folder"] for run in _own_runs(record)], metric)
    if not baselines or not means:
        return []
    name = metric.removeprefix(VALID)
    sign = sign_of(metric)
    best = max(means.values(), key=lambda value: sign * value)
    who = "Neither" if len(means) > 1 else "The run"
    text = no_better_than_weakest(who, name, best, baselines)
    lines = []
    for each, value in sorted(baselines.items(), key=lambda item: -sign * item[1]):
        lines.append(
            f"{baseline_title(each, name)}: {plain_name(name)} {fixed(value, MIN_DECIMALS)}"
        )
    question = "Compared with what?"
    answer = text.removesuffix(".") or "Better than the weakest baseline"
    return [Card(question, answer, lines[:_MAX_BASELINES], tone="bad" if text else "")]


def _certainty(record: TrialRecord) -> Card:
    """Whether the difference may be chance, and what was compared to know it."""
    question = "Is it more than chance?"
    _, low, high = last_look(record)
    pairs = counted(len(record["gains"]), "pair")
    lines = [
        f"{pairs} of runs: both runs of a pair have the same seed, data order and initial weights.",
        f"A change without effect is kept in {percent(record['error'])} of trials.",
    ]
    if low is None or high is None:
        return Card(question, "Not known", lines)
    interval = "The 95 % interval {} 0, which is no difference."
    if low <= 0 <= high:
        lines.insert(0, interval.format("includes"))
        return Card(question, "It may be chance", lines, tone="warning")
    lines.insert(0, interval.format("excludes"))
    return Card(question, "Unlikely to be chance", lines)
