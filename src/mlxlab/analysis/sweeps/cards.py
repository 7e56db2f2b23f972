"""The first screen of a sweep's report: what was trained, which setting is best, how sure that is, and how good."""

from collections.abc import Mapping, Sequence

from mlxlab.analysis.sweeps.best_configuration import BestConfiguration
from mlxlab.analysis.sweeps.ranking import MIN_SEEDS, RankedConfiguration, Ranking
from mlxlab.analysis.sweeps.sweep_jobs import Configuration, Sweep, short_names
from mlxlab.analysis.sweeps.verdict import PLUS_MINUS, rounded
from mlxlab.experiment.run_metrics import number
from mlxlab.experiment.run_report.cards import baselines_card, trust_card
from mlxlab.experiment.run_report.results import ROWS, compared_with_best, shown
from mlxlab.experiment.run_report.what_was_trained import training_card
from mlxlab.html.blocks import Card
from mlxlab.metric_names import lower_is_better

_FACTS = (
    "Data",
    "Model",
    "Shape",
)  # of the card of a run: the same for all runs, unless they are swept


def all_cards(
    sweep: Sweep,
    configurations: Sequence[Configuration],
    ranking: Ranking,
    best: BestConfiguration | None,
) -> list[Card]:
    """None without a result. What only run folders say is left out where these cannot be read."""
    if not ranking.entries:
        return []
    first, names = ranking.entries[0], short_names(sweep.swept)
    labels = configurations[first.index].labels
    setting = " ".join(f"{names[key]}={value}" for key, value in labels.items()) or "the only one"
    cards = [
        _what_was_trained(sweep, ranking, best),
        _which_won(sweep, ranking, setting, _lead(configurations, ranking, names)),
        _how_good(sweep, first, best),
    ]
    if best is not None and best.results.baselines:
        several = f"Means of {best.count} runs, each on the same rows as its baselines"
        means = [f"{several}; another seed may split them differently."] if best.count > 1 else []
        cards.append(baselines_card(best.results, after=means, is_mean=best.count > 1))
    return [*cards, _trust(sweep, ranking, best)]


def _which_won(sweep: Sweep, ranking: Ranking, setting: str, lead: Sequence[str]) -> Card:
    """The setting only if it won, or if there is no other."""
    if ranking.winner or len(ranking.entries) == 1:
        return Card("Which setting won?", setting, lead, tone="good" if ranking.winner else "")
    is_open = any(sweep.count(state) for state in ("unfinished", "paused"))
    kind = "mean" if ranking.entries[0].count > 1 else "value"
    best = f"{setting} has the best {kind}{' so far' * is_open}."
    return Card("Which setting won?", "No clear winner", [best, *lead], tone="warning")


def _trust(sweep: Sweep, ranking: Ranking, best: BestConfiguration | None) -> Card:
    """By the repetitions, the jobs without a result, the baselines and the rows that chose the best setting."""
    count, failed = min(entry.count for entry in ranking.entries), sweep.count("failed")
    results = best.results if best else None
    has_test = results is not None and results.split == "test"
    warnings, good = list[str](), list[str]()
    few = f"{count} {sweep.repetitions if count != 1 else sweep.repetitions.removesuffix('s')} of each configuration"
    (warnings if count < MIN_SEEDS else good).append(
        f"{few}{', fewer than 3' * (count < MIN_SEEDS)}"
    )
    (warnings if failed else good).append(f"{failed or 'no'} job{'s' * (failed > 1)} failed")
    (good if has_test else warnings).append(
        "test rows chose nothing"
        if has_test
        else "no test data: what chose the setting also measures it, which flatters"
    )
    if results is not None and (compared := compared_with_best(results)):
        (good if compared.startswith("Better") else warnings).append(
            f"{compared[0].lower()}{compared[1:]}"
        )
    is_bad = results is not None and (results.learned_nothing or results.is_clearly_worse)
    unknown = "" if results is not None and results.baselines else "baselines"
    return trust_card(warnings, good, unknown=unknown, is_bad=is_bad)


def _what_was_trained(sweep: Sweep, ranking: Ranking, best: BestConfiguration | None) -> Card:
    keys = ", ".join(short_names(sweep.swept).values()) or "nothing but repetitions"
    tried = f"{len(ranking.entries)} configuration{'s' * (len(ranking.entries) != 1)}"
    counts = sorted({entry.count for entry in ranking.entries})
    each = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    lines = [f"Values of {keys}.", f"{each} {sweep.repetitions} of each."]
    if best is None:
        return Card("What was tried?", tried, lines)
    lines[0] = f"{tried}: values of {keys}."
    trained = training_card(best.files)
    facts = {name: trained.facts[name] for name in _FACTS if name in trained.facts}
    if length := trained.facts.get("Training"):
        facts["One run"] = length
    if sweep.differs_in("model", "data"):
        return Card("What was trained?", tried, lines, {"The best one": trained.answer, **facts})
    return Card("What was trained?", trained.answer, lines, facts)


def _how_good(sweep: Sweep, first: RankedConfiguration, best: BestConfiguration | None) -> Card:
    """The metric by which a run is judged, if it has one of its own, and the objective."""
    question, mean = "How good is it?", f"{sweep.objective} {number(first.mean)}"
    direction = "lower is better" if sweep.minimised else "higher is better"
    has_interval = first.margin == first.margin
    interval = (
        f"95 % interval {PLUS_MINUS}{rounded(first.margin)}"
        if has_interval
        else "one result, no interval"
    )
    results = best.results if best else None
    if best is None or results is None or results.value is None:
        return Card(question, mean, [f"{direction}; {interval}."])
    if f"{results.split}/{results.metric}" == sweep.objective:
        return Card(question, mean, [f"{direction}; {interval}."])
    kind = ROWS[results.split]
    which = "lower is better" if lower_is_better(results.metric) else "higher is better"
    over = f"Mean of {best.count} {sweep.repetitions}" if best.count > 1 else "One result"
    lines = [f"{over} on the {kind} rows; {which}.", f"Ranked by {mean} ({direction}; {interval})."]
    return Card(
        question, f"{kind} {results.metric.replace('_', ' ')} {shown(results.value)}", lines
    )


def _lead(
    configurations: Sequence[Configuration], ranking: Ranking, names: Mapping[str, str]
) -> list[str]:
    """How far ahead the best one is, and how sure that is; nothing with one configuration."""
    if (closest := ranking.closest) is not None:
        rival = " ".join(
            f"{names[key]}={value}" for key, value in configurations[closest.index].labels.items()
        )
        chance = "more than chance" if ranking.winner else "may be chance"
        return [f"{rounded(closest.lead)} ahead of {rival}: {chance} (p {closest.p:.2g})."]
    return (
        ["Each configuration ran once: the lead may be chance."] if len(ranking.entries) > 1 else []
    )
