"""How often the report of a sweep names a winner, on simulated sweeps with and without a better configuration."""

from collections.abc import Callable
from typing import Annotated, NamedTuple

import numpy as np

from benchmarks.alternate import table
from benchmarks.report import UnexpectedResults
from mlxlab.analysis.sweeps.ranking import Results, rank
from mlxlab.constraints import Ge, Size

MAX_FALSE_WINNERS = 0.05
SEEDS = (3, 5, 10)
Shape = tuple[int, int]  # configurations, seeds
Noise = Callable[[np.random.Generator, Shape], np.ndarray]

NOISE: dict[str, Noise] = {  # values of equal configurations, of variance 1
    "normal": lambda random, shape: random.standard_normal(shape),
    "accuracies of 100 rows": lambda random, shape: (random.binomial(100, 0.8, shape) - 80) / 4,
    "heavy tails (t, 3 degrees)": lambda random, shape: random.standard_t(3, shape) / np.sqrt(3),
    "one run in 20 fails to learn": lambda random, shape: (
        random.standard_normal(shape) * np.where(random.random(shape) < 0.05, 10, 1) / 2.44
    ),
}


class Shares(NamedTuple):
    """Of the simulated sweeps: those with any winner, and those with configuration 0 as the winner, or on top."""

    any: float
    first: float
    first_on_top: float


def sweep_winner(
    sweeps: Size = 200, configurations: Annotated[int, Ge(2)] = 20, effect: float = 2.0, seeds: int | None = None
) -> str:
    """Shares of sweeps with a winner, by noise and number of seeds, on common seeds (paired) and on others.

    Args:
        effect: of the better configuration, in standard deviations of a result.
        seeds: only this number of seeds.

    Raises UnexpectedResults if a winner is named in more than 5 % of the sweeps of equal configurations.
    """
    numbers = SEEDS if seeds is None else (seeds,)
    heads = ("noise", "seeds", "winner, paired", "winner, other seeds")
    found = (f"{effect:g} sd better one named, paired", "other seeds", "on top of a plain ranking")
    rows, false_winners = [(*heads, *found)], []
    for name, noise in NOISE.items():
        for number in numbers:
            equal = [simulate(noise, sweeps, configurations, number, paired, 0.0) for paired in (True, False)]
            better = [simulate(noise, sweeps, configurations, number, paired, effect) for paired in (True, False)]
            false_winners += [each.any for each in equal]
            cells = [f"{each.any:.1%}" for each in equal] + [f"{each.first:.1%}" for each in better]
            rows.append((name, str(number), *cells, f"{better[1].first_on_top:.1%}"))
    ties = [("seeds", "winner, paired", "winner, other seeds")]
    for number in numbers:
        two = [simulate(_two_best, 5 * sweeps, configurations, number, paired, 0.0) for paired in (True, False)]
        ties.append((str(number), *(f"{each.any:.1%}" for each in two)))
    title = f"{sweeps:,} sweeps of {configurations} equal configurations per cell; a plain ranking always has a winner"
    text = table(title, rows)
    text += "\n\n" + table(
        f"{5 * sweeps:,} sweeps of two equal ones and {configurations - 2} that are 8 sd worse", ties
    )
    text += f"\n\nof equal configurations a winner is named in at most {max(false_winners):.1%} of the sweeps"
    if max(false_winners) > MAX_FALSE_WINNERS:
        message = f"a winner in {max(false_winners):.1%} of the sweeps of equal configurations; expected at most 5 %"
        raise UnexpectedResults(message, text)
    return text


def simulate(noise: Noise, sweeps: int, configurations: int, seeds: int, paired: bool, effect: float) -> Shares:
    """Sweeps whose configuration 0 is better by `effect`. On common seeds half of the variance is that of the seeds."""
    random = np.random.default_rng([seeds, paired, round(1000 * effect)])
    rankings = []
    for _ in range(sweeps):
        values = noise(random, (configurations, seeds))
        if paired:
            values = (values + random.standard_normal((1, seeds))) / np.sqrt(2)
        values[0] += effect
        rankings.append(rank(as_results(values, paired), minimised=False))
    winners = [ranking.winner.index for ranking in rankings if ranking.winner is not None]
    on_top = [ranking.entries[0].index for ranking in rankings]
    return Shares(len(winners) / sweeps, winners.count(0) / sweeps, on_top.count(0) / sweeps)


def as_results(values: np.ndarray, paired: bool) -> list[Results]:
    """Results by seed, which is the same in all rows if they are paired."""
    width = values.shape[1]
    return [
        {f"seed {seed if paired else row * width + seed}": float(value) for seed, value in enumerate(line)}
        for row, line in enumerate(values)
    ]


def _two_best(random: np.random.Generator, shape: Shape) -> np.ndarray:
    """The case in which a false winner is most likely."""
    values = random.standard_normal(shape)
    values[2:] -= 8
    return values
