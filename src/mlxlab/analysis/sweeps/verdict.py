"""What a sweep shows, in sentences: a winner, or how many more seeds would settle it."""

from collections.abc import Sequence

from mlxlab.analysis.sweeps.sweep_jobs import Configuration
from mlxlab.stats import LEVEL
from mlxlab.stats.ranking import MAX_SEEDS, MIN_SEEDS, RankedConfiguration, Ranking
from mlxlab.views.numbers import number
from mlxlab.wording import counted, percent

PLUS_MINUS = "\N{PLUS-MINUS SIGN}"


def describe_ranking(
    ranking: Ranking,
    configurations: Sequence[Configuration],
    objective: str,
    repetition: str = "seed",
    finding: str = "",
) -> list[str]:
    """Sentences; the first one is the verdict.

    Args:
        repetition: what a result of a configuration is: a seed, a fold or a run.
        finding: what is wrong with the best configuration; it is said first, and further seeds are not recommended.
    """
    sentences = _describe(ranking, configurations, objective, repetition)
    return [finding, sentences[0]] if finding else sentences


def _describe(
    ranking: Ranking,
    configurations: Sequence[Configuration],
    objective: str,
    repetition: str,
) -> list[str]:
    if not ranking.entries:
        return ["No job has finished: there is nothing to rank."]
    best = ranking.entries[0]
    names = [each.name for each in configurations]
    value = f"{objective} {_mean(best, repetition)}"
    if len(names) == 1:
        name = f" ({names[0]})" if names[0] else ""
        return [f"One configuration has finished, there is nothing to compare{name}: {value}."]
    closest = _closest(ranking, names)
    if ranking.winner:
        others = "the other one" if len(names) == 2 else f"each of the {len(names) - 1} others"
        return [f"Winner: {names[best.index]}, {value}, better than {others}. {closest}"]
    verdict = f"No winner: {len(ranking.contenders)} of {len(names)} configurations may be the best"
    if ranking.short:
        verdict = _too_few(ranking, repetition)
    kind = "value" if best.count == 1 else "mean"
    first = f"The best {kind} is that of {names[best.index]}: {value}."
    return [f"{verdict}. {first} {closest}".rstrip(), _seeds_needed(ranking, repetition)]


def _too_few(ranking: Ranking, repetition: str) -> str:
    """That some configurations ran too rarely."""
    short = len(ranking.short)
    what = "results" if repetition == "fold" else f"{repetition}s"
    verdict = f"No winner is named with fewer than {MIN_SEEDS} {what} of each configuration"
    if short < len(ranking.entries):
        verb = "have" if short > 1 else "has"
        return f"{verdict}; {short} of {len(ranking.entries)} {verb} fewer"
    if ranking.closest is None:
        return f"{verdict}; each ran once, and a difference may be chance"
    return verdict


def _seeds_needed(ranking: Ranking, repetition: str) -> str:
    """How many more results of each configuration would settle which one is the best."""
    needed = ranking.seeds_needed
    if needed is None:
        return f"More than {MAX_SEEDS} further {repetition}s of each would be needed to settle it."
    more = counted(needed, f"more {repetition}")
    if ranking.closest is None:
        return f"It takes at least {more} of each."
    return f"If the difference is what it seems, {more} of each would settle it (power 0.8)."


def describe_intervals(ranking: Ranking) -> str:
    """What the intervals of means are; "" if there are none."""
    if all(each.margin != each.margin for each in ranking.entries):
        return ""
    text = f"Intervals are {percent(LEVEL, 0)} confidence intervals of means; {PLUS_MINUS} is half their width."
    if ranking.closest is not None:
        text += " Few results say little about a variance, so that of each setting is drawn towards that of all."
    return text


def describe_method(ranking: Ranking, test_ratio: float, repetition: str) -> str:
    """How the verdict came about; "" without a comparison."""
    if ranking.closest is None:
        return ""
    compared = "as independent samples"
    if ranking.paired:
        compared = f"on common {repetition}s (paired)"
    sentences = [
        f"Configurations are compared {compared} by Student's t. Variances are moderated (Smyth 2004): an interval",
        f"is not that of its own dots alone. A winner has {MIN_SEEDS} results or more, as all others have, and is better",
        "than each of them by a two-sided t-test at 5 %, which accounts for its having been selected, from any number",
        "of them (Gutmann & Maymin 1987). 'Worse' has p < 0.05 after multiplication by the number of pairs (Bonferroni).",
    ]
    if test_ratio:
        sentences.append(
            "Folds share training rows; the variances are corrected for it (Nadeau & Bengio 2003)."
        )
    return " ".join(sentences)


def _mean(entry: RankedConfiguration, repetition: str) -> str:
    """The mean with half the width of its interval, and what that is; of one seed the value."""
    if entry.count == 1:
        return f"{number(entry.mean)} (one {repetition})"
    count = counted(entry.count, repetition)
    explanation = f"{PLUS_MINUS} is half the width of the {percent(LEVEL, 0)} interval"
    return f"{number(entry.mean)} {PLUS_MINUS} {rounded(entry.margin)} ({count}; {explanation})"


def _closest(ranking: Ranking, names: Sequence[str]) -> str:
    closest = ranking.closest
    if closest is None:
        return ""
    return (
        f"The closest rival, {names[closest.index]}, is {rounded(closest.lead)} behind "
        f"(p {closest.p:.2g}: the probability of such a difference if both were equally good)."
    )


def rounded(value: float) -> str:
    """Two significant digits, of what is uncertain itself; all digits before the point."""
    return f"{value:.2g}" if abs(value) < 99.5 else f"{value:.0f}"
