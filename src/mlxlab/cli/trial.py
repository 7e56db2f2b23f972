"""Says whether a change is a gain: trains it and a baseline in pairs until a sequential test decides.

    mlxlab trial baseline=RUN [key=value ...] [seeds=auto] [budget=200steps,10m] [max_seeds=12]

RUN is a past run: its folder, or its id or name in the store. The other arguments are the change, as for train; those
of tracking, cloud, tags and hydra.launcher are for both. Prints keep, discard or undecided (exit codes 0, 10 and 11)
and the gain of each seed; --json for programs. The same command continues an interrupted trial, and prints the verdict
of a finished one.

Examples
    mlxlab trial baseline=outputs/mine trainer.learning_rate=3e-4
    mlxlab trial baseline=outputs/mine model.dropout=0 budget=100steps jobs=2 --json
    mlxlab trial baseline=outputs/mine trainer/schedule=linear metric=valid/accuracy budget=2h
"""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from mlxlab.cli.app import print_result
from mlxlab.schema.constraints import Ge, Le, NonNegative
from mlxlab.schema.metric_names import Metric
from mlxlab.sweep.trial.setup import Options, prepare_trial, read_budget, split_args
from mlxlab.terminal.program import command_line

logger = logging.getLogger("mlxlab.cli.trial")


def trial(
    *overrides: str,
    baseline: str,
    seeds: Literal["auto"] | Annotated[int, Ge(2), Le(100)] = "auto",
    budget: str | None = None,
    max_seeds: Annotated[int, Ge(3), Le(100)] = 12,
    metric: Metric | None = None,
    evaluation: Literal["best", "last"] = "best",
    min_gain: NonNegative | None = None,
    folder: Path | None = None,
    jobs: Annotated[int, Ge(1), Le(64)] = 1,
    json: bool = False,
) -> int:
    """Trains pairs of runs until their gains decide.

    Args:
        baseline: a past run: its folder, or its id or name in the store.
        seeds: auto looks at the gains after every pair from the third on, and stops when they decide; a number trains
            as many pairs and looks once.
        budget: of each run in optimizer steps, 200steps, or of the whole trial in time, 30s, 10m or 2h; or both,
            separated by a comma. Without steps each run is as long as its config says.
        max_seeds: pairs after which the verdict is undecided, with seeds=auto.
        metric: by which runs are compared; the objective of the baseline if not given.
        evaluation: whether a run counts by its best or by its last evaluation.
        min_gain: smallest gain worth keeping; a tenth of the standard deviation between baseline runs if not given.
        folder: of the trial; one below outputs/trials, named by its settings, if not given.
        jobs: runs at a time.
        json: prints JSON instead.
    """
    from mlxlab.cli import train
    from mlxlab.stats.sequential import MIN_PAIRS
    from mlxlab.sweep.trial.record import EXIT_CODES, read_record
    from mlxlab.sweep.trial.view import describe

    limits = read_budget(budget)
    looks = [seeds, seeds] if isinstance(seeds, int) else [MIN_PAIRS, max_seeds]
    options = Options(limits, looks, metric, evaluation, min_gain, folder, jobs)
    texts = split_args(list(overrides), limits)
    folder, sweep = prepare_trial(baseline, texts, options, command_line())
    code = 0
    if read_record(folder).verdict not in ("keep", "discard"):
        code = train.main(["-m", *sweep])
    record = read_record(folder)
    if code:
        if record.reason:
            logger.info(record.reason)
        return code
    assert record.verdict is not None
    print_result({"folder": str(folder), **asdict(record)}, describe(record, folder), json)
    return EXIT_CODES[record.verdict]
