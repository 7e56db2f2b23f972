"""The first screen of a comparison: what differs between the methods, which is best, how good, and how sure that is."""

from collections.abc import Mapping

from mlxlab.analysis.comparison import EVALUATIONS, Comparison, MethodResults
from mlxlab.analysis.comparison_numbers import MIN_DECIMALS, fixed
from mlxlab.metric_names import VALID, better_direction, sign_of
from mlxlab.stats.ranking import MIN_SEEDS
from mlxlab.views.blocks import Card, Tone, trust_card
from mlxlab.views.metrics import baseline_title
from mlxlab.views.verdict import best_baseline, has_learned_nothing, weakest_baseline
from mlxlab.wording import counted, one_line

MAX_IN_CARD = 2  # settings that differ; more are a table of their own


def all_cards(comparison: Comparison) -> list[Card]:
    ranked = comparison.ranked
    cards = [_what(comparison), _best(comparison), _how_good(comparison)]
    compared = [each for each in ranked if each.gain is not None]
    if compared:
        cards.append(_chance(comparison, compared[0].name))
    return [*cards, _trust(comparison)]


def of_evaluation(comparison: Comparison) -> str:
    """The evaluation that the values are of."""
    return f" of the {EVALUATIONS[comparison.evaluation]}"


def no_better_than_weakest(
    who: str, metric: str, best: float, baselines: Mapping[str, float]
) -> str:
    """`No method is better than class frequencies, 0.6651.` if that is so, else ""."""
    if not has_learned_nothing(metric, best, baselines):
        return ""
    weakest = weakest_baseline(metric, baselines)
    return f"{who} is better than {baseline_title(weakest, metric)}, {fixed(baselines[weakest], MIN_DECIMALS)}."


def _what(comparison: Comparison) -> Card:
    methods = comparison.methods
    counts = sorted({len(each.values) for each in methods})
    runs = counted(counts[-1], "run")
    if len(counts) > 1:
        runs = f"{counts[0]} to {runs}"
    lines = [f'{runs} of each. Differences are to "{comparison.against}".']
    answer = f"{len(methods)} methods"
    subject = comparison.subject
    facts = {}
    if len({each.parameters for each in methods}) > 1 and all(each.parameters for each in methods):
        sizes = [f"{each.parameters:,.0f} ({each.name})" for each in comparison.ranked]
        facts["Parameters"] = ", ".join(sizes)
    differs = subject["differs"]
    if differs == {}:
        answer += " with the same settings"
        lines.append("No override differs, except for the seed.")
    elif differs:
        names = [key.rpartition(".")[2] for key in differs]
        which = names[0] if len(names) == 1 else counted(len(names), "setting")
        answer += f" that differ in {one_line(which, 40)}"
        if len(differs) > MAX_IN_CARD:
            lines.append("All settings that differ are below.")
        else:
            for key, values in differs.items():
                facts[key] = ", ".join(f"{value} ({name})" for name, value in values.items())
    if subject["trained"]:
        facts |= {"Trained": subject["trained"], **subject["facts"]}
    return Card("What was compared?", answer, lines, facts)


def _best(comparison: Comparison) -> Card:
    question = "Which is the best?"
    best, *others = comparison.ranked
    direction = better_direction(comparison.metric)
    decided = f"Decided by the mean {comparison.metric}; {direction} is better."
    name = one_line(best.name, 60)
    equal = [each.name for each in others if each.mean == best.mean]
    if equal:
        mean = fixed(best.mean, comparison.decimals)
        answer = one_line(f"A tie at {mean}: {', '.join([name, *equal])}", 80)
        return Card(question, answer, [decided], tone="warning")
    if not others:
        return Card(question, name, [decided])
    if _is_sure(best, others):
        return Card(question, name, [decided], tone="good")
    lines = [f"{name} has the best mean, which may be chance.", decided]
    return Card(question, "Not clear", lines, tone="warning")


def _is_sure(best: MethodResults, others: list[MethodResults]) -> bool:
    """Whether the best method is better than the reference, or, as the reference, than each of the others."""
    if best.gain is not None:
        return best.gain.verdict == "significant gain"
    return all(each.gain and each.gain.verdict == "significant loss" for each in others)


def _how_good(comparison: Comparison) -> Card:
    """The best mean, compared with the baselines of the data."""
    best = comparison.ranked[0]
    places = comparison.decimals
    error = "one run" if best.error is None else f"standard error {fixed(best.error, places)}"
    lines = [f"Mean{of_evaluation(comparison)}, {error}."]
    tone: Tone = ""
    baselines = comparison.subject["baselines"]
    if baselines and best.mean is not None:
        name = comparison.metric.removeprefix(VALID)
        nothing = no_better_than_weakest("No method", name, best.mean, baselines)
        if nothing:
            tone = "bad"
            lines.append(nothing)
        for title, find in {"Best": best_baseline, "Weakest": weakest_baseline}.items():
            each = find(name, baselines)
            value = fixed(baselines[each], places)
            lines.append(f"{title} baseline, {baseline_title(each, name)}: {value}.")
        # The methods may differ in their columns, and so in their baselines.
        lines.append(f'Baselines are those of the runs of "{comparison.against}".')
    mean = fixed(best.mean, places)
    return Card("How good is it?", f"{comparison.metric} {mean}", lines, tone=tone)


def _chance(comparison: Comparison, name: str) -> Card:
    question = "Is that more than chance?"
    gain = comparison.gains[name]
    lines = [comparison.sentence(name)]
    if gain.low is None:
        return Card(question, "Not known", lines, tone="warning")
    if gain.verdict == "no significant gain":
        lines.append("The interval includes 0.")
    return Card(question, gain.verdict.capitalize(), lines)


def _trust(comparison: Comparison) -> Card:
    """Judges the number of runs, the baselines, the rows that decide, and the warnings of the runs."""
    counts = [len(each.values) for each in comparison.methods]
    metric = comparison.metric
    warnings: list[str] = []
    good: list[str] = []
    which = "each" if min(counts) == max(counts) else "a"
    runs = f"{counted(min(counts), 'run')} of {which} method"
    if min(counts) < MIN_SEEDS:
        warnings.append(f"{runs}, fewer than {MIN_SEEDS}")
    else:
        good.append(runs)
    if metric.startswith(VALID):
        warnings.append(
            "decided by validation data, which may have chosen settings, which flatters"
        )
    name = metric.rpartition("/")[2]
    mean = comparison.ranked[0].mean
    baselines = comparison.subject["baselines"]
    is_bad = False
    if baselines and mean is not None:
        is_bad = has_learned_nothing(name, mean, baselines)
        best = best_baseline(name, baselines)
        better = f"better than {baseline_title(best, name)}, the best baseline"
        if sign_of(name) * (mean - baselines[best]) > 0:
            good.append(better)
        else:
            warnings.append(f"not {better}")
    if comparison.warnings:
        warnings.append(f"{counted(len(comparison.warnings), 'warning')} of the runs, below")
    return trust_card(warnings, good, unknown="" if baselines else "baselines", is_bad=is_bad)
