"""How often the report of a sweep names a winner, on simulated sweeps with and without a better configuration."""

from collections.abc import Callable
from typing import Annotated, NamedTuple

import numpy as np

from benchmarks.alternate import table
from benchmarks.report import UnexpectedResults
from mlxlab.schema.constraints import Ge, Size
from mlxlab.stats.ranking import rank
from mlxlab.terminal.wording import percent

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
    sweeps: Size = 200,
    configurations: Annotated[int, Ge(2)] = 20,
    effect: float = 2.0,
    seeds: int | None = None,
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
    rows: list[tuple[str, ...]] = [(*heads, *found)]
    false_winners = list[float]()
    for name, noise in NOISE.items():
        for number in numbers:
            equal, better = (
                _both(noise, sweeps, configurations, number, shift) for shift in (0.0, effect)
            )
            false_winners += [each.any for each in equal]
            cells = (
                [each.any for each in equal]
                + [each.first for each in better]
                + [better[1].first_on_top]
            )
            rows.append((name, str(number), *map(percent, cells)))
    title = f"{sweeps:,} sweeps of {configurations} equal configurations per cell; a plain ranking always has a winner"
    text = f"{table(title, rows)}\n\n{_two_equal(5 * sweeps, configurations, numbers)}"
    text += f"\n\nof equal configurations a winner is named in at most {percent(max(false_winners))} of the sweeps"
    if max(false_winners) > MAX_FALSE_WINNERS:
        message = f"a winner in {percent(max(false_winners))} of the sweeps of equal configurations; expected at most 5 %"
        raise UnexpectedResults(message, text)
    return text


def _two_equal(sweeps: int, configurations: int, numbers: tuple[int, ...]) -> str:
    """The case in which a false winner is most likely."""

    def noise(random: np.random.Generator, shape: Shape) -> np.ndarray:
        values = random.standard_normal(shape)
        values[2:] -= 8
        return values

    rows: list[tuple[str, ...]] = [("seeds", "winner, paired", "winner, other seeds")]
    for number in numbers:
        rows.append(
            (
                str(number),
                *(percent(each.any) for each in _both(noise, sweeps, configurations, number, 0.0)),
            )
        )
    return table(
        f"{sweeps:,} sweeps of two equal ones and {configurations - 2} that are 8 sd worse", rows
    )


def _both(
    noise: Noise, sweeps: int, configurations: int, seeds: int, effect: float
) -> list[Shares]:
    """On common seeds, and on others."""
    return [
        simulate(noise, sweeps, configurations, seeds, paired, effect) for paired in (True, False)
    ]


def simulate(
    noise: Noise, sweeps: int, configurations: int, seeds: int, paired: bool, effect: float
) -> Shares:
    """Sweeps whose configuration 0 is better by `effect`. On common seeds half of the variance is that of the seeds."""
    random = np.random.default_rng([seeds, paired, round(1000 * effect)])
    rankings = []
    for _ in range(sweeps):
        values = noise(random, (configurations, seeds))
        if paired:
            values = (values + random.standard_normal((1, seeds))) / np.sqrt(2)
        values[0] += effect
        rankings.append(rank(on_seeds(values, paired), minimised=False))
    winners = [ranking.winner.index for ranking in rankings if ranking.winner is not None]
    on_top = [ranking.entries[0].index for ranking in rankings]
    return Shares(len(winners) / sweeps, winners.count(0) / sweeps, on_top.count(0) / sweeps)


def on_seeds(values: np.ndarray, paired: bool) -> np.ndarray:
    """Results by seed: the same seeds in all rows if they are paired, else those of each row alone."""
    if paired:
        return values
    rows, width = values.shape
    table = np.full((rows, rows * width), np.nan)
    for row in range(rows):
        table[row, row * width : (row + 1) * width] = values[row]
    return table
