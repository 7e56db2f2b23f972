"""The first screen of a sweep's report: what was trained, which setting is best, how sure that is, and how good."""

from collections.abc import Sequence

from mlxlab.analysis.sweeps.best_configuration import BestConfiguration
from mlxlab.analysis.sweeps.sweep_jobs import Configuration, Sweep, short_names
from mlxlab.analysis.sweeps.verdict import PLUS_MINUS, rounded
from mlxlab.metric_names import better_direction, plain_key
from mlxlab.stats.ranking import MIN_SEEDS, Ranking
from mlxlab.views.blocks import Card, Tone, trust_card
from mlxlab.views.metrics import baseline_title, title
from mlxlab.views.numbers import interval, number, signed
from mlxlab.views.render import phrase, run_facts
from mlxlab.wording import counted

_FACTS = ("Data", "Model")  # They are the same for all runs, unless they are swept.
_MAX_BASELINES = 4


def all_cards(
    sweep: Sweep,
    configurations: Sequence[Configuration],
    ranking: Ranking,
    verdict: Sequence[str],
    best: BestConfiguration | None,
) -> list[Card]:
    """What only run folders say is left out where these cannot be read."""
    if not ranking.entries:
        return [Card("Which setting won?", "Not known", verdict)]
    cards = [
        _what_was_trained(sweep, ranking, best),
        _which_won(sweep, configurations, ranking, verdict),
        _how_good(sweep, ranking, best),
    ]
    if best is not None and best.judgement.ranked:
        cards.append(_compared(best))
    return [*cards, _trust(sweep, ranking, best)]


def _what_was_trained(sweep: Sweep, ranking: Ranking, best: BestConfiguration | None) -> Card:
    keys = ", ".join(short_names(sweep.swept).values()) or "nothing but repetitions"
    tried = counted(len(ranking.entries), "configuration")
    counts = sorted({entry.count for entry in ranking.entries})
    each = counted(counts[-1], sweep.repetition)
    if len(counts) > 1:
        each = f"{counts[0]} to {each}"
    lines = [f"{tried}: values of {keys}.", f"{each} of each."]
    if best is None:
        return Card("What was tried?", tried, lines)
    known = run_facts(best.view)
    answer = phrase("answer", best.view)
    facts = {name: known[name] for name in _FACTS if name in known}
    facts["One run"] = known["Training"]
    if sweep.differs_in("model", "data"):
        facts = {"The best one": answer, **facts}
        answer = tried
    return Card("What was trained?", answer, lines, facts)


def _which_won(
    sweep: Sweep,
    configurations: Sequence[Configuration],
    ranking: Ranking,
    verdict: Sequence[str],
) -> Card:
    """The setting only if it won, or if there is no other."""
    question = "Which setting won?"
    if ranking.winner is None and len(ranking.entries) > 1:
        return Card(question, "No clear winner", verdict, tone="warning")
    names = short_names(sweep.swept)
    labels = configurations[ranking.entries[0].index].labels
    setting = " ".join(f"{names[key]}={value}" for key, value in labels.items())
    return Card(question, setting or "the only one", verdict, tone="good" if ranking.winner else "")


def _how_good(sweep: Sweep, ranking: Ranking, best: BestConfiguration | None) -> Card:
    """The metric by which a run is judged, if it has one of its own, and the objective."""
    question = "How good is it?"
    first = ranking.entries[0]
    mean = f"{sweep.objective} {number(first.mean)}"
    spread = "one result, no interval"
    if first.margin == first.margin:
        spread = f"95 % interval {PLUS_MINUS}{rounded(first.margin)}"
    how = f"{better_direction(sweep.objective)} is better; {spread}"
    if best is None or best.judgement.value is None or best.key == sweep.objective:
        return Card(question, mean, [f"{how}."])
    judged = best.judgement
    over = "One result"
    if best.count > 1:
        over = f"Mean of {counted(best.count, sweep.repetition)}"
    which = better_direction(judged.metric)
    lines = [
        f"{over} on the {best.view.rows_name} rows; {which} is better.",
        f"Ranked by {mean} ({how}).",
    ]
    return Card(question, f"{plain_key(best.key)} {number(judged.value)}", lines)


def _compared(best: BestConfiguration) -> Card:
    """The best configuration among its baselines."""
    judged = best.judgement
    difference = f"Difference from {baseline_title(judged.best)}: {signed(judged.gain)}"
    if best.count == 1 and judged.gain_interval:
        difference = f"{difference}, 95 % interval {interval(judged.gain_interval)}"
    lines = [f"{difference} (+ is better)."]
    for name, value in judged.ranked[:_MAX_BASELINES]:
        lines.append(f"{baseline_title(name)}: {title(judged.metric)} {number(value)}")
    if best.count > 1:
        several = f"Means of {best.count} runs, each on the same rows as its baselines"
        lines.append(f"{several}; another seed may split them differently.")
    tone: Tone = "" if judged.verdict == "better" else "warning"
    if judged.is_bad:
        tone = "bad"
    return Card("Compared with what?", phrase("compared", judged), lines, tone=tone)


def _trust(sweep: Sweep, ranking: Ranking, best: BestConfiguration | None) -> Card:
    """Judges the repetitions, the jobs without a result, the baselines and the rows that chose the best setting."""
    count = min(entry.count for entry in ranking.entries)
    failed = sweep.count("failed")
    warnings: list[str] = []
    good: list[str] = []
    repetitions = f"{counted(count, sweep.repetition)} of each configuration"
    if count < MIN_SEEDS:
        warnings.append(f"{repetitions}, fewer than {MIN_SEEDS}")
    else:
        good.append(repetitions)
    if failed:
        warnings.append(f"{counted(failed, 'job')} failed")
    else:
        good.append("no job failed")
    if best is not None and best.result.split == "test":
        good.append("test rows chose nothing")
    else:
        warnings.append("no test data: what chose the setting also measures it, which flatters")
    if best is None or not best.judgement.ranked:
        return trust_card(warnings, good, unknown="baselines", is_bad=False)
    compared = phrase("compared", best.judgement)
    side = good if best.judgement.verdict == "better" else warnings
    side.append(f"{compared[0].lower()}{compared[1:]}")
    return trust_card(warnings, good, unknown="", is_bad=best.judgement.is_bad)
