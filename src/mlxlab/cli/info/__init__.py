"""Prints what a run needs or was; checks rows of your own; sizes of models; frequencies of tokens.

    mlxlab info [model=transformer] [data=...] [any other key of train]
    mlxlab info run=RUN_FOLDER
    mlxlab info data data.source=FILE [data.text_column=TEXT data.target=LABEL]
    mlxlab info presets [vocab_size=16000] [classes=2]
    mlxlab info tokens [count=20] data=streaming data.source=FILE ...

Without a subcommand, for the run that the arguments compose as for train: parameters, operations per token, and the
seconds and the memory of its first step, which is taken in a process of its own. Nothing is saved. A step that does not
fit in memory is reported in one line, with exit code 2. --json prints JSON.

run=     what was trained on which data, from which commit, by which command; how it ended, or where it stands; its
         best metrics, its checkpoints, and the commands that continue or use it
data     counts labelled rows without training: columns and what they hold, rows that would be left out, classes, the
         split, and equal rows on both sides of it; arguments as for train. Without the names of the columns it lists
         those of the file
presets  exact parameter counts of every family at every size: as a classifier, and as a language model (masked for
         the encoders, causal with a tied head for the decoder)
tokens   how often each token occurs in the training text of an experiment, which all further arguments compose as for
         train: the outliers at both ends. Outliers lie more than 1.5 interquartile ranges above
         the upper or below the lower quartile of the logarithms of the counts of tokens that occur (Tukey 1977)
"""

import os
from dataclasses import asdict
from pathlib import Path

from mlxlab import terminal
from mlxlab.cli.print_json import print_result
from mlxlab.errors import ConfigError
from mlxlab.files.untrusted import refuse_links

ACTIONS = {
    "": "info",
    "data": "own_data.data",
    "presets": "sizes.presets",
    "tokens": "tokens.tokens",
}


def info(*overrides: str, run: Path | None = None, json: bool = False) -> None:
    """Takes one training step and prints what it needs, or prints what a run was.

    Args:
        run: a run folder.
        json: prints JSON instead; memory in bytes.
    """
    if run is None and overrides and os.path.isdir(overrides[0]):
        run = Path(overrides[0])
        overrides = overrides[1:]
    if run is None:
        _measure_step(list(overrides), json)
    elif overrides:
        raise ConfigError(f"{overrides[0]}: expected no override with run=")
    else:
        _describe(run, json)


def _measure_step(args: list[str], json: bool) -> None:
    from mlxlab import backend

    backend.prepare()
    from mlxlab.config.hydra.compose import compose_checked
    from mlxlab.run.first_step import measure_first_step

    config = compose_checked(args)
    if config["resume"] is not None:
        raise ConfigError("resume=...: info measures a new run; info run=FOLDER describes one")
    step = measure_first_step(config)
    print_result(asdict(step), step.as_text(), json)


def _describe(run: Path, json: bool) -> None:
    from mlxlab import backend

    backend.prepare()
    from mlxlab.past_runs.collect_record import read_info

    refuse_links(run)
    info = read_info(run)
    if json:
        print(info.as_json())
    else:
        terminal.show(info.as_text())
