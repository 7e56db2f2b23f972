"""What a sweep shows, in sentences: a winner, or how many more seeds would settle it."""

from collections.abc import Sequence

from mlxlab.analysis.comparison import LEVEL
from mlxlab.analysis.sweeps.ranking import MAX_SEEDS, RankedConfiguration, Ranking
from mlxlab.analysis.sweeps.sweep_jobs import Configuration


def describe_ranking(ranking: Ranking, configurations: Sequence[Configuration], objective: str) -> list[str]:
    """Sentences; the first one is the verdict."""
    if not ranking.entries:
        return ["No job has finished: there is nothing to rank."]
    best, names = ranking.entries[0], [each.name for each in configurations]
    value = f"{objective} {number(best.mean)}"
    if len(ranking.entries) == 1:
        return [f"One configuration has finished: {names[best.index]}, {value}{_margin(best)}."]
    if ranking.closest is None:
        unknown = "No winner can be named: no configuration ran with several seeds, so the noise is unknown."
        advice = "Repeat the best ones with several seeds, for example seed=range(1,6)."
        return [f"{unknown} The best value is that of {names[best.index]}: {value}.", advice]
    closest = ranking.closest
    lead = f"{number(closest.lead)} from {names[closest.index]} (p {closest.p:.2g})"
    if ranking.winner:
        others = "the other one" if len(names) == 2 else f"each of the {len(names) - 1} others"
        verdict = f"Winner: {names[best.index]}, {value}{_margin(best)}, better than {others}"
        return [f"{verdict}; the smallest difference is {lead}."]
    verdict = f"No winner: {len(ranking.contenders)} of {len(names)} configurations may be the best."
    mean = f"The best mean is that of {names[best.index]}: {value}{_margin(best)}; the smallest difference is {lead}."
    return [f"{verdict} {mean}", _advice(ranking, best)]


def _advice(ranking: Ranking, best: RankedConfiguration) -> str:
    if best.count < 2:
        return "The best mean is that of a single seed, which is not evidence: repeat it with several."
    if ranking.seeds_needed is None:
        return f"More than {MAX_SEEDS} further seeds of each would be needed to settle it: take either."
    seeds = f"{ranking.seeds_needed} more seed{'s' * (ranking.seeds_needed > 1)}"
    return f"If the difference is what it seems, {seeds} of each would settle it with a probability of 0.8."


def describe_method(ranking: Ranking, test_ratio: float) -> str:
    """How the intervals and the verdict came about."""
    compared = "on common seeds (paired)" if ranking.paired else "as independent samples"
    sentences = [
        f"Intervals of means: {LEVEL:.0%}, Student's t.",
        f"Configurations are compared {compared}; variances are moderated over all of them (Smyth 2004).",
        "A winner is better than every other configuration by a two-sided t-test at 5 %, which accounts for its having",
        "been selected, from any number of them (Gutmann & Maymin 1987).",
        "'Worse' has p < 0.05 after multiplication by the number of pairs (Bonferroni).",
    ]
    if test_ratio:
        sentences.append("Folds share training rows; the variances are corrected for it (Nadeau & Bengio 2003).")
    return " ".join(sentences)


def _margin(entry: RankedConfiguration) -> str:
    seeds = f"{entry.count} seed{'s' * (entry.count > 1)}"
    return f" +- {number(entry.margin)} ({seeds})" if entry.margin == entry.margin else f" ({seeds})"


def number(value: float) -> str:
    return f"{value:.4g}"
