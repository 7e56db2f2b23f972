"""Prints what a run needs or was; checks rows of your own; sizes of models; frequencies of tokens.

    mlxlab info [model=transformer] [data=...] [any other key of train]
    mlxlab info run=RUN_FOLDER
    mlxlab info data data.source=FILE [data.text_column=TEXT data.target=LABEL]
    mlxlab info presets [vocab_size=16000] [classes=2]
    mlxlab info tokens [count=20] [out=token_frequencies.png] data=streaming data.source=FILE ...

Without a subcommand, for the run that the arguments compose as for train: parameters, operations per token, and the
seconds and the memory of its first step, which is taken in a process of its own. Nothing is saved. A step that does not
fit in memory is reported in one line, with exit code 2. --json prints JSON.

run=     what was trained on which data, from which commit, with which settings that differ from the defaults; how it
         ended, or where it stands; its best metrics, its checkpoints, and the commands that continue or use it
data     counts labelled rows without training: columns and what they hold, rows that would be left out, classes, the
         split, equal rows on both sides of it, and the steps of a run; arguments as for train. Without the names of
         the columns it lists those of the file. Conversations (data=instruct, or recognised by their
         columns) are counted, and a row that holds none is named
presets  exact parameter counts of every family at every size: as a classifier, and as a language model (masked for
         the encoders, causal with a tied head for the decoder); recommended learning rates, batches by memory
tokens   how often each token occurs in the training text of an experiment, which all further arguments compose as for
         train: a plot by rank, and the outliers at both ends. Outliers lie more than 1.5 interquartile ranges above
         the upper or below the lower quartile of the logarithms of the counts of tokens that occur (Tukey 1977)
"""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab import terminal
from mlxlab.cli.app import Subcommand, build_main
from mlxlab.cli.info.own_data import data
from mlxlab.cli.info.sizes import presets
from mlxlab.cli.info.token_frequencies import tokens
from mlxlab.cli.print_json import print_json
from mlxlab.config.paths import conf_dir
from mlxlab.errors import ConfigError, UserError
from mlxlab.files.untrusted import refuse_links
from mlxlab.markdown import markdown_table
from mlxlab.nearest import nearest
from mlxlab.wording import counted

if TYPE_CHECKING:
    from mlxlab.experiment.first_step import FirstStep


def estimate(json: bool = False, *, args: list[str]) -> None:
    """Takes one training step and prints what it needs.

    Args:
        json: prints JSON instead of a table; memory in bytes.
    """
    from mlxlab import backend

    backend.prepare()
    from mlxlab.config.hydra.compose import Composer
    from mlxlab.experiment.first_step import measure_first_step

    config = Composer(conf_dir(), args).checked_values(resolve=True)
    if config["resume"] is not None:
        raise ConfigError("resume=...: info measures a new run; info run=FOLDER describes one")
    step = measure_first_step(config)
    if json:
        print_json(asdict(step))
    else:
        _show(step)


def _show(step: "FirstStep") -> None:
    parts = [[name, f"{count:,}"] for name, count in step.parameters.items()]
    total = sum(step.parameters.values())
    table = markdown_table(["part", "parameters"], [*parts, ["all", f"{total:,}"]])
    operations = f"{step.operations_per_token:.3g} operations per token"
    rows = counted(step.rows, "row")
    peak = f"{step.peak_memory / 1e6:,.1f} MB in MLX"
    resident = f"{step.resident_memory / 1e6:,.1f} MB resident"
    lines = [
        f"trains {step.trained_parameters:,} parameters, {operations}",
        f"{step.batch}: {rows} of {step.tokens_per_row:,} tokens",
        f"one step: {step.seconds:.2f} s",
        f"peak memory: {peak}, {resident}, of {step.available_memory / 1e6:,.1f} MB",
    ]
    terminal.show("\n\n".join([table, "\n".join(lines)]))


def describe(run: Path, json: bool = False) -> None:
    """Prints what a run was.

    Args:
        run: a run folder.
        json: prints a JSON object instead.
    """
    from mlxlab import backend

    backend.prepare()
    from mlxlab.experiment.description.run import describe_run
    from mlxlab.experiment.description.text import as_json, as_text

    refuse_links(run)
    description = describe_run(run)
    terminal.show(as_json(description) if json else as_text(description))


_SUBCOMMANDS = {
    "estimate": Subcommand(estimate, forward_prefix=""),
    "describe": Subcommand(describe),
    "data": Subcommand(data, forwards_overrides=True),
    "presets": Subcommand(presets),
    "tokens": Subcommand(tokens, forwards_overrides=True),
}
_main = build_main(__doc__, _SUBCOMMANDS)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand. Without its name, `run=` is that of `describe`; other overrides are those of `estimate`."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in _SUBCOMMANDS or args[0] in ("-h", "--help"):
        return _main(args)
    if os.path.isdir(args[0]) or any(map(_names_run, args)):
        return _main(["describe", *args])
    is_run = args[0].startswith("--") or "=" in args[0]
    return _main(["estimate", *args] if is_run else args)


def _names_run(arg: str) -> bool:
    """Whether an argument is `run=`, or a misspelling of it that is no key of train: `describe` reports that."""
    key, equals, _ = arg.partition("=")
    if not equals or nearest(key, ["run"]) is None:
        return False
    with suppress(UserError):  # without config files the subcommand says so
        return not (conf_dir() / key).exists()
    return True
