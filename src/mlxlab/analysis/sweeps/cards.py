"""The first screen of a sweep's report: what was trained, which setting is best, how sure that is, and how good."""

from collections.abc import Mapping, Sequence

from mlxlab.analysis.sweeps.best_configuration import BestConfiguration
from mlxlab.analysis.sweeps.ranking import RankedConfiguration, Ranking
from mlxlab.analysis.sweeps.sweep_jobs import Configuration, Sweep, short_names
from mlxlab.analysis.sweeps.verdict import PLUS_MINUS, number, rounded
from mlxlab.experiment.run_report.cards import baselines_card
from mlxlab.experiment.run_report.results import ROWS, shown
from mlxlab.experiment.run_report.what_was_trained import training_card
from mlxlab.html.blocks import Card
from mlxlab.metric_names import lower_is_better

_FACTS = ("Data", "Model")  # of the card of a run: the same for all runs, unless they are swept


def all_cards(
    sweep: Sweep, configurations: Sequence[Configuration], ranking: Ranking, best: BestConfiguration | None
) -> list[Card]:
    """None without a result. What only run folders say is left out where these cannot be read."""
    if not ranking.entries:
        return []
    first, names = ranking.entries[0], short_names(sweep.swept)
    labels = configurations[first.index].labels
    setting = " ".join(f"{names[key]}={value}" for key, value in labels.items()) or "the only one"
    question = "Which setting won?" if ranking.winner else "Which is the best so far?"
    cards = [
        _what_was_trained(sweep, ranking, best),
        Card(question, setting, _lead(configurations, ranking, names)),
        _how_good(sweep, first, best),
    ]
    if best is not None and best.results.baselines:
        cards.append(baselines_card(best.results))
    return cards


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
    if any(key.partition(".")[0].partition("/")[0] in ("model", "data") for key in sweep.swept):
        return Card("What was trained?", tried, lines, {"The best one": trained.answer, **facts})
    return Card("What was trained?", trained.answer, lines, facts)


def _how_good(sweep: Sweep, first: RankedConfiguration, best: BestConfiguration | None) -> Card:
    """The metric by which a run is judged, if it has one of its own, and the objective."""
    question, mean = "How good is it?", f"{sweep.objective} {number(first.mean)}"
    direction = "lower is better" if sweep.minimised else "higher is better"
    has_interval = first.margin == first.margin
    interval = f"95 % interval {PLUS_MINUS}{rounded(first.margin)}" if has_interval else "one result, no interval"
    results = best.results if best else None
    if best is None or results is None or results.value is None:
        return Card(question, mean, [f"{direction}; {interval}."])
    if f"{results.split}/{results.metric}" == sweep.objective:
        return Card(question, mean, [f"{direction}; {interval}."])
    kind = ROWS[results.split]
    which = "lower is better" if lower_is_better(results.metric) else "higher is better"
    over = f"Mean of {best.count} {sweep.repetitions}" if best.count > 1 else "One result"
    lines = [f"{over} on the {kind} rows; {which}.", f"Ranked by {mean} ({direction}; {interval})."]
    return Card(question, f"{kind} {results.metric.replace('_', ' ')} {shown(results.value)}", lines)


def _lead(configurations: Sequence[Configuration], ranking: Ranking, names: Mapping[str, str]) -> list[str]:
    """How far ahead the best one is, and how sure that is; nothing with one configuration."""
    if (closest := ranking.closest) is not None:
        rival = " ".join(f"{names[key]}={value}" for key, value in configurations[closest.index].labels.items())
        chance = "more than chance" if ranking.winner else "may be chance"
        return [f"{rounded(closest.lead)} ahead of {rival}: {chance} (p {closest.p:.2g})."]
    return ["Each configuration ran once: the lead may be chance."] if len(ranking.entries) > 1 else []
