"""The commands that follow a sweep: what to do with its best run, and what would settle which setting is the best."""

from collections.abc import Sequence
from math import prod

from mlxlab.analysis.sweeps.best_configuration import BestConfiguration
from mlxlab.analysis.sweeps.ranking import Ranking
from mlxlab.analysis.sweeps.sweep_jobs import Configuration, Sweep
from mlxlab.data.instruct.chat_template import generate_options
from mlxlab.program import join, quoted

_MAX_SEEDS = 30  # of each configuration: more are not worth a command


def next_commands(
    sweep: Sweep, configurations: Sequence[Configuration], ranking: Ranking, best: BestConfiguration | None
) -> dict[str, str]:
    """Command lines by what they are for."""
    commands = {}
    if best is not None:
        run = quoted(f"run={best.files.folder.absolute()}")
        if best.files.is_labelled:
            commands["predict with the first run of the best setting"] = (
                f"mlxlab predict {run} input=FILE output=predictions.csv"
            )
        else:
            commands["generate with the first run of the best setting"] = (
                f"mlxlab generate {run}{generate_options(best.files.folder)}"
            )
        commands["evaluate it"] = f"mlxlab evaluate {run}"
    if more := _more_seeds(sweep, [configurations[each.index] for each in ranking.contenders], ranking):
        commands["more seeds of those that may be the best"] = more
    return commands


def _more_seeds(sweep: Sweep, contenders: list[Configuration], ranking: Ranking) -> str:
    """The sweep that settles it; "" where none does, or where the contenders are no grid of values."""
    if ranking.seeds_needed is None or sweep.repetitions != "seeds":
        return ""
    count = ranking.seeds_needed + max(each.count for each in ranking.entries)
    values = {key: list(dict.fromkeys(each.point[key] for each in contenders)) for key in sweep.swept}
    if count > _MAX_SEEDS or len(contenders) < 2 or prod(map(len, values.values())) != len(contenders):
        return ""
    swept = [f"{key}={','.join(each)}" for key, each in values.items()]
    return f"mlxlab train -m {join([*sweep.fixed, *swept, f'seed=range({count})'])}"
