"""The commands that follow a sweep: what to do with its best run, and what would settle which setting is the best."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from mlxlab.analysis.sweeps.best_configuration import BestConfiguration
from mlxlab.analysis.sweeps.ranking import Ranking
from mlxlab.analysis.sweeps.sweep_jobs import Configuration, Sweep
from mlxlab.experiment.run_report.details import use_commands
from mlxlab.program import join

_MAX_SEEDS = 30  # of each configuration: more are not worth a command


def next_commands(
    sweep: Sweep,
    configurations: Sequence[Configuration],
    ranking: Ranking,
    best: BestConfiguration | None,
) -> dict[str, str]:
    """Command lines by what they are for."""
    commands: dict[str, str] = {}
    if best is not None:
        files = replace(best.files, folder=best.files.folder.absolute())
        commands |= {
            f"{name} (first run of the best setting)": text
            for name, text in use_commands(files).items()
        }
    if more := _more_seeds(
        sweep, [configurations[each.index] for each in ranking.contenders], ranking
    ):
        commands["a new sweep of those that may be the best, with more seeds"] = more
    return commands


def _more_seeds(sweep: Sweep, contenders: list[Configuration], ranking: Ranking) -> str:
    """The sweep that settles it; "" where none does, or where the contenders are no grid of values."""
    if ranking.seeds_needed is None or sweep.repetitions != "seeds":
        return ""
    count = ranking.seeds_needed + max(each.count for each in ranking.entries)
    values = {
        key: list(dict.fromkeys(each.point[key] for each in contenders)) for key in sweep.swept
    }
    if (
        count > _MAX_SEEDS
        or len(contenders) < 2
        or prod(map(len, values.values())) != len(contenders)
    ):
        return ""
    swept = [f"{key}={','.join(each)}" for key, each in values.items()]
    return f"mlxlab train -m {join([*sweep.fixed, *swept, f'seed=range({count})'])}"
