"""The first screen of a comparison: what differs between the methods, which is best, how good, and how sure that is."""

from collections.abc import Mapping, Sequence

from mlxlab.analysis.comparison import EVALUATIONS
from mlxlab.analysis.comparison_fields import ComparisonFields, GainFields, MethodFields
from mlxlab.analysis.comparison_numbers import MIN_DECIMALS, decimals_of, fixed
from mlxlab.analysis.sweeps.ranking import MIN_SEEDS
from mlxlab.config.issues import one_line
from mlxlab.experiment.final_evaluation.findings import has_learned_nothing, weakest_baseline
from mlxlab.experiment.final_evaluation.verdict import best_baseline
from mlxlab.experiment.run_report.cards import trust_card
from mlxlab.experiment.run_report.results import baseline_title
from mlxlab.html.blocks import Card, Tone
from mlxlab.metric_names import VALID, lower_is_better
from mlxlab.wording import counted

MAX_IN_CARD = 2  # settings that differ; more are a table of their own


def all_cards(ranked: Sequence[MethodFields], fields: ComparisonFields) -> list[Card]:
    """Of one or more methods, the best one first."""
    compared = (
        ranked[0]
        if "gain" in ranked[0]
        else next((each for each in ranked if "gain" in each), None)
    )
    cards = [_what(ranked, fields), _best(ranked, compared, fields), _how_good(ranked[0], fields)]
    return [*cards, *([_chance(compared, fields)] if compared else []), _trust(ranked, fields)]


def of_evaluation(fields: ComparisonFields) -> str:
    """Which evaluation the values are of; nothing for files that do not say so."""
    return f" of the {EVALUATIONS[fields['evaluation']]}" if "evaluation" in fields else ""


def decimals(fields: ComparisonFields) -> int:
    """Of all values and differences of the comparison."""
    gains = [each["gain"]["mean"] for each in fields["methods"] if "gain" in each]
    return decimals_of([*(each["mean"] for each in fields["methods"]), *gains])


def gain_text(gain: GainFields, places: int) -> str:
    mean, low, high = (fixed(gain[key], places, signed=True) for key in ("mean", "low", "high"))
    return f"gain {mean}" + (f" ({low} to {high}, p {probability(gain['p'])})" if low else "")


def probability(p: float | None) -> str:
    return "" if p is None else f"{p:.2g}"


def no_better_than_weakest(
    who: str, metric: str, best: float, baselines: Mapping[str, float]
) -> str:
    """`No method is better than class frequencies, 0.6651.` if that is so, else ""."""
    if not has_learned_nothing(metric, best, baselines):
        return ""
    weakest = weakest_baseline(metric, baselines)
    return f"{who} is better than {baseline_title(weakest, metric)}, {fixed(baselines[weakest], MIN_DECIMALS)}."


def is_without_difference(gain: GainFields) -> bool:
    return gain["pairs"] > 1 and gain["low"] == gain["high"] == 0


def _what(ranked: Sequence[MethodFields], fields: ComparisonFields) -> Card:
    counts = sorted({len(each["values"]) for each in ranked})
    runs = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    lines = [
        f'{runs} run{"s" * (counts[-1] > 1)} of each. Differences are to "{fields["against"]}".'
    ]
    answer, subject = f"{len(ranked)} methods", fields.get("subject")
    if subject is None:
        return Card("What was compared?", answer, lines)
    differs = subject["differs"]
    settings = [*(differs or {}).items()]
    facts = {
        key: ", ".join(f"{value} ({name})" for name, value in values.items())
        for key, values in (settings if len(settings) <= MAX_IN_CARD else [])
    }
    if len({each["parameters"] for each in ranked}) > 1 and all(
        each["parameters"] for each in ranked
    ):
        facts = {
            "Parameters": ", ".join(
                f"{each['parameters']:,.0f} ({each['name']})" for each in ranked
            )
        } | facts
    if differs is not None:
        names = [key.rpartition(".")[2] for key in differs]
        which = names[0] if len(names) == 1 else f"{len(names)} settings"
        answer += f" that differ in {one_line(which, 40)}" if names else " with the same settings"
        if not differs:
            lines.append("No override differs, except for the seed.")
        elif len(differs) > MAX_IN_CARD:
            lines.append("All settings that differ are below.")
    facts |= {"Trained": subject["trained"], **subject["facts"]}
    return Card("What was compared?", answer, lines, facts)


def _best(
    ranked: Sequence[MethodFields], compared: MethodFields | None, fields: ComparisonFields
) -> Card:
    question, direction = (
        "Which is the best?",
        "lower" if lower_is_better(fields["metric"]) else "higher",
    )
    decided = f"Decided by the mean {fields['metric']}; {direction} is better."
    equal, rest = (
        [each["name"] for each in ranked if each["mean"] == ranked[0]["mean"]],
        len(ranked),
    )
    values = {value for each in ranked for value in each["values"].values()}
    if len(values) == 1 and rest > 1:
        each_run = "All runs have this value; they may differ in other metrics."
        return Card(
            question,
            f"A tie at {fixed(ranked[0]['mean'], decimals(fields))}",
            [decided, each_run],
            tone="warning",
        )
    if len(equal) > 1:
        return Card(question, f"A tie: {', '.join(equal)}", [decided], tone="warning")
    best = one_line(equal[0], 60)
    others = [each["gain"]["verdict"] for each in ranked if "gain" in each]
    is_sure = ranked[0]["gain"]["verdict"] == "significant gain" if "gain" in ranked[0] else False
    is_sure = is_sure or (
        "gain" not in ranked[0] and all(text == "significant loss" for text in others)
    )
    if is_sure or compared is None:
        return Card(question, best, [decided], tone="good" if is_sure else "")
    return Card(
        question,
        "Not clear",
        [f"{best} has the best mean, which may be chance.", decided],
        tone="warning",
    )


def _how_good(best: MethodFields, fields: ComparisonFields) -> Card:
    """Of the best mean, compared with the baselines of the data."""
    metric, mean, places = fields["metric"], best["mean"], decimals(fields)
    error = (
        f"standard error {fixed(best['error'], places)}" if best["error"] is not None else "one run"
    )
    lines = [f"Mean{of_evaluation(fields) or ' of its runs'}, {error}."]
    tone: Tone = ""
    baselines = fields["subject"]["baselines"] if "subject" in fields else {}
    if baselines and mean is not None:
        name = metric.removeprefix(VALID)
        shown = dict.fromkeys([best_baseline(name, baselines), weakest_baseline(name, baselines)])
        if text := no_better_than_weakest("No method", name, mean, baselines):
            tone = "bad"
            lines.append(text)
        for title, each in zip(("Best", "Weakest"), shown, strict=False):
            lines.append(
                f"{title} baseline, {baseline_title(each, name)}: {fixed(baselines[each], places)}."
            )
        if (
            len(fields["methods"]) > 1
        ):  # which may differ in their columns, and so in their baselines
            lines.append(f'Baselines are those of the runs of "{fields["against"]}".')
    return Card("How good is it?", f"{metric} {fixed(mean, places)}", lines, tone=tone)


def _chance(compared: MethodFields, fields: ComparisonFields) -> Card:
    gain, answer = compared["gain"], compared["gain"]["verdict"].capitalize()
    names = f"{compared['name']} against {fields['against']}"
    meaning = "The interval includes 0." if gain["verdict"] == "no significant gain" else ""
    pairs = counted(gain["pairs"], "pair")
    if gain["pairs"] < 2 or gain["low"] is None:
        kinds = {0: "no runs in common", 1: "one pair of runs, which gives no verdict"}
        have = kinds.get(gain["pairs"], "values that are not finite")
        return Card("Is that more than chance?", "Not known", [f"{names}: {have}."], tone="warning")
    if is_without_difference(gain):
        return Card("Is that more than chance?", answer, [f"{names}: equal in {pairs} of runs."])
    lines = [f"{names}: {gain_text(gain, decimals(fields))} over {pairs}.", meaning]
    return Card("Is that more than chance?", answer, [line for line in lines if line])


def _trust(ranked: Sequence[MethodFields], fields: ComparisonFields) -> Card:
    """By the number of runs, the baselines, the rows that decide, and the warnings of the runs."""
    counts, metric = [len(each["values"]) for each in ranked], fields["metric"]
    warnings, good = list[str](), list[str]()
    (warnings if min(counts) < MIN_SEEDS else good).append(
        f"{counted(min(counts), 'run')} of {'a' if min(counts) < max(counts) else 'each'} method"
        + f", fewer than {MIN_SEEDS}" * (min(counts) < MIN_SEEDS)
    )
    if metric.startswith(VALID):
        warnings.append(
            "decided by validation data, which may have chosen settings, which flatters"
        )
    name, mean = metric.rpartition("/")[2], ranked[0]["mean"]
    baselines = fields["subject"]["baselines"] if "subject" in fields else {}
    is_bad = False
    if baselines and mean is not None:
        is_bad = has_learned_nothing(name, mean, baselines)
        best, sign = best_baseline(name, baselines), -1 if lower_is_better(name) else 1
        is_better = sign * (mean - baselines[best]) > 0
        (good if is_better else warnings).append(
            f"{'' if is_better else 'not '}better than {baseline_title(best, name)}, the best baseline"
        )
    if count := len(fields.get("warnings", [])):
        warnings.append(f"{counted(count, 'warning')} of the runs, below")
    return trust_card(warnings, good, unknown="" if baselines else "baselines", is_bad=is_bad)
