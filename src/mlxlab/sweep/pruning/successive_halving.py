"""Asynchronous successive halving (ASHA, Li et al. 2020) and Hyperband over its brackets.

A trial that reaches a rung pauses there; the best 1 / reduction_factor of a rung continue from their checkpoints.
"""

import math
from collections.abc import Sequence

from mlxlab.sweep.pruning.pruner import Limits, Promotion
from mlxlab.sweep.search.optuna_sampler import Direction
from mlxlab.sweep.search.trial import Trial

Rungs = list[int | None]  # budgets in ascending order; the last is None, the end of the run


class SuccessiveHalving:
    """Promotes the best trial of the highest rung that has one, else a new trial starts (Algorithm 2 of ASHA).

    Trials that failed before a rung do not count there. Before a search ends it promotes, from the highest rung, as
    long as no trial has reached the end of its run.

    Args:
        budgets: of the rungs below the end of the run, ascending.
        num_brackets: bracket k skips the first k rungs; 1 is ASHA. Trials are distributed over several brackets as
            Hyperband (Li et al. 2018) does.
    """

    def __init__(
        self, budgets: list[int], reduction_factor: int, direction: Direction, num_brackets: int
    ) -> None:
        self.factor, self.sign = reduction_factor, 1 if direction == "minimize" else -1
        self.brackets: list[Rungs] = [[*budgets[start:], None] for start in range(num_brackets)]
        top = len(budgets)
        self.weights = [
            math.ceil((top + 1) / (top - start + 1) * reduction_factor ** (top - start))
            for start in range(num_brackets)
        ]
        self._bracket_of: list[int] = []

    def first_budget(self, number: int) -> int | None:
        return self.brackets[self.bracket(number)][0]

    def limits(self, trials: Sequence[Trial]) -> Limits:
        return []

    def promotion(self, trials: Sequence[Trial], *, is_last: bool) -> Promotion | None:
        brackets = [
            [
                trial
                for trial in trials
                if trial.same_as is None and self.bracket(trial.number) == number
            ]
            for number in range(len(self.brackets))
        ]
        for rungs, members in zip(self.brackets, brackets, strict=True):
            for level in reversed(range(len(rungs) - 1)):
                ranking = self._ranking(members, rungs, level)
                for trial in ranking[: len(ranking) // self.factor]:
                    if trial.state == "paused" and trial.budget == rungs[level]:
                        return Promotion(trial, rungs[level + 1])
        return self._last_promotion(trials) if is_last else None

    def bracket(self, number: int) -> int:
        """That of trial `number`: each has its share of the trials so far, as nearly as possible."""
        counts = [self._bracket_of.count(each) for each in range(len(self.weights))]
        while len(self._bracket_of) <= number:
            shares = [
                (count + 1) / weight for count, weight in zip(counts, self.weights, strict=True)
            ]
            chosen = shares.index(min(shares))
            counts[chosen] += 1
            self._bracket_of.append(chosen)
        return self._bracket_of[number]

    def _ranking(self, members: list[Trial], rungs: Rungs, level: int) -> list[Trial]:
        """The trials that reached a rung, the best first; of equal ones the earlier."""
        costs = {trial.number: self._cost(trial, rungs[level]) for trial in members}
        reached = [trial for trial in members if math.isfinite(costs[trial.number])]
        return sorted(reached, key=lambda trial: (costs[trial.number], trial.number))

    def _cost(self, trial: Trial, budget: int | None) -> float:
        """The value at a rung, better when lower; infinite if the trial has not reached it."""
        values = next((result.values for result in trial.results if result.budget == budget), None)
        if values is None and trial.state == "finished":  # its run ended before the rung
            values = trial.values
        return self.sign * values[0] if values else math.inf

    def _last_promotion(self, trials: Sequence[Trial]) -> Promotion | None:
        paused = [trial for trial in trials if trial.state == "paused" and trial.same_as is None]
        if any(trial.state == "finished" for trial in trials) or not paused:
            return None
        best = min(
            paused,
            key=lambda trial: (-(trial.budget or 0), self.sign * trial.values[0], trial.number),
        )
        rungs = self.brackets[self.bracket(best.number)]
        return Promotion(best, rungs[rungs.index(best.budget) + 1])
