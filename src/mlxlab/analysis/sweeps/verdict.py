"""What a sweep shows, in sentences: a winner, or how many more seeds would settle it."""

from collections.abc import Sequence

from mlxlab.analysis.comparison import LEVEL
from mlxlab.analysis.sweeps.ranking import MAX_SEEDS, MIN_SEEDS, RankedConfiguration, Ranking
from mlxlab.analysis.sweeps.sweep_jobs import Configuration
from mlxlab.experiment.run_metrics import number
from mlxlab.wording import counted, percent

PLUS_MINUS = "\N{PLUS-MINUS SIGN}"


def describe_ranking(
    ranking: Ranking,
    configurations: Sequence[Configuration],
    objective: str,
    repetitions: str = "seeds",
    finding: str = "",
) -> list[str]:
    """Sentences; the first one is the verdict.

    Args:
        repetitions: what the results of a configuration are: seeds, folds or runs.
        finding: what is wrong with the best configuration; it is said first, and further seeds are not recommended.
    """
    sentences = _describe(ranking, configurations, objective, repetitions)
    return [finding, sentences[0]] if finding else sentences


def _describe(
    ranking: Ranking,
    configurations: Sequence[Configuration],
    objective: str,
    repetitions: str,
) -> list[str]:
    if not ranking.entries:
        return ["No job has finished: there is nothing to rank."]
    best, names = ranking.entries[0], [each.name for each in configurations]
    value = f"{objective} {_mean(best, repetitions)}"
    if len(ranking.entries) == 1:
        return [
            f"One configuration has finished, there is nothing to compare{_after_colon(names[0])}: {value}."
        ]
    if ranking.winner:
        others = "the other one" if len(names) == 2 else f"each of the {len(names) - 1} others"
        return [
            f"Winner: {names[best.index]}, {value}, better than {others}. {_closest(ranking, names)}"
        ]
    if ranking.short:
        return _describe_too_few(ranking, names, value, repetitions)
    verdict = (
        f"No winner: {len(ranking.contenders)} of {len(names)} configurations may be the best."
    )
    mean = f"The best mean is that of {names[best.index]}: {value}. {_closest(ranking, names)}"
    return [f"{verdict} {mean}", _seeds_needed(ranking, repetitions)]


def _describe_too_few(
    ranking: Ranking, names: Sequence[str], value: str, repetitions: str
) -> list[str]:
    """Sentences on configurations of which some ran too rarely."""
    best, short = ranking.entries[0], len(ranking.short)
    what = "results" if repetitions == "folds" else repetitions
    verdict = f"No winner is named with fewer than {MIN_SEEDS} {what} of each configuration"
    if short < len(names):
        verdict += f"; {short} of {len(names)} {'have' if short > 1 else 'has'} fewer"
    elif ranking.closest is None:
        verdict += "; each ran once, and a difference may be chance"
    first = f"The best {'value' if best.count == 1 else 'mean'} is that of {names[best.index]}: {value}."
    certainty = "" if ranking.closest is None else f" {_closest(ranking, names)}"
    return [f"{verdict}. {first}{certainty}", _seeds_needed(ranking, repetitions)]


def _seeds_needed(ranking: Ranking, repetitions: str) -> str:
    """How many more results of each configuration would settle which one is the best."""
    needed = ranking.seeds_needed
    if needed is None:
        return f"More than {MAX_SEEDS} further {repetitions} of each would be needed to settle it."
    more = counted(needed, f"more {repetitions.removesuffix('s')}")
    if ranking.closest is None:
        return f"It takes at least {more} of each."
    return f"If the difference is what it seems, {more} of each would settle it (power 0.8)."


def describe_method(ranking: Ranking, test_ratio: float, repetitions: str = "seeds") -> list[str]:
    """How the intervals came about, then how the verdict did, in sentences; none without any interval."""
    if all(each.margin != each.margin for each in ranking.entries):
        return []
    sentences = [
        f"Intervals are {percent(LEVEL, 0)} confidence intervals of means; {PLUS_MINUS} is half their width."
    ]
    if ranking.closest is not None:
        sentences[0] += (
            " Few results say little about a variance, so that of each setting is drawn towards that of all."
        )
        compared = (
            f"on common {repetitions} (paired)" if ranking.paired else "as independent samples"
        )
        sentences += [
            f"Configurations are compared {compared} by Student's t. Variances are moderated (Smyth 2004): an",
            "interval is not that of its own dots alone.",
            f"A winner has {MIN_SEEDS} results or more, as all others have, and is better than each of them by a",
            "two-sided t-test at 5 %, which accounts for its having been selected, from any number of them",
            "(Gutmann & Maymin 1987).",
            "'Worse' has p < 0.05 after multiplication by the number of pairs (Bonferroni).",
        ]
    if test_ratio:
        sentences.append(
            "Folds share training rows; the variances are corrected for it (Nadeau & Bengio 2003)."
        )
    return sentences


def _mean(entry: RankedConfiguration, repetitions: str) -> str:
    """The mean with half the width of its interval, and what that is; of one seed the value."""
    if entry.count == 1:
        return f"{number(entry.mean)} (one {repetitions.removesuffix('s')})"
    count = f"{entry.count} {repetitions}"
    explanation = f"{PLUS_MINUS} is half the width of the {percent(LEVEL, 0)} interval"
    return f"{number(entry.mean)} {PLUS_MINUS} {rounded(entry.margin)} ({count}; {explanation})"


def _closest(ranking: Ranking, names: Sequence[str]) -> str:
    closest = ranking.closest
    assert closest is not None
    return (
        f"The closest rival, {names[closest.index]}, is {rounded(closest.lead)} behind "
        f"(p {closest.p:.2g}: the probability of such a difference if both were equally good)."
    )


def _after_colon(name: str) -> str:
    return f" ({name})" if name else ""


def rounded(value: float) -> str:
    """Two significant digits, of what is uncertain itself; all digits before the point."""
    return f"{value:.2g}" if abs(value) < 99.5 else f"{value:.0f}"
