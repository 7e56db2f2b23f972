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
import shlex
from inspect import signature
from pathlib import Path
from typing import Annotated, Literal

from mlxlab import terminal
from mlxlab.cli.app import Subcommand, build_main
from mlxlab.cli.print_json import print_json
from mlxlab.cli.trial.setup import Options, prepare_trial, read_budget, split_args
from mlxlab.config.schema.root import Metric
from mlxlab.constraints import Ge, Le, NonNegative
from mlxlab.experiment.experiment import run_experiment

logger = logging.getLogger("mlxlab.cli.trial")


def _trial(
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
    *,
    args: list[str],
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
    given = {name: value for name, value in locals().items() if name != "args"}
    from mlxlab.analysis.trial.page import trial_page
    from mlxlab.analysis.trial.record import EXIT_CODES, describe, read_record
    from mlxlab.analysis.trial.sequential import MIN_PAIRS
    from mlxlab.cli.train.multirun import sweep
    from mlxlab.experiment.run_report.write import FILE as REPORT
    from mlxlab.html.page import write_page

    command = _command(given, args)
    limits, looks = (
        read_budget(budget),
        [seeds, seeds] if isinstance(seeds, int) else [MIN_PAIRS, max_seeds],
    )
    options = Options(limits, looks, metric, evaluation, min_gain, folder, jobs)
    trial = prepare_trial(baseline, split_args(args, limits), options, command)
    is_decided = read_record(trial.folder)["verdict"] in ("keep", "discard")
    code = 0 if is_decided else sweep(trial.composer, trial.config, run_experiment)
    record = read_record(trial.folder)
    write_page(trial_page(record, trial.folder), trial.folder / REPORT)
    if code:
        logger.info(record["reason"])
        return code
    assert record["verdict"] is not None
    if json:
        print_json({"folder": str(trial.folder), **record})
    else:
        terminal.show(describe(record, trial.folder))
    return EXIT_CODES[record["verdict"]]


def _command(given: dict[str, object], args: list[str]) -> str:
    """The command line with these options, as far as they are not the defaults."""
    defaults = {name: parameter.default for name, parameter in signature(_trial).parameters.items()}
    options = [
        f"{name}={value}"
        for name, value in given.items()
        if value != defaults[name] and name != "json"
    ]
    return f"mlxlab trial {shlex.join([*options[:1], *args, *options[1:]])}"


main = build_main(__doc__, Subcommand(_trial, forwards_overrides=True))
