"""Measures, side by side in one run, what a README or a log claims.

    benchmark.py suite=saving [size=small] [rounds=5]
    benchmark.py suite=tracking [size=nano] [rounds=9]
    benchmark.py suite=example_losses [size=nano] [rounds=60]
    benchmark.py suite=generate [size=nano] [rounds=5]
    benchmark.py suite=shakespeare against=torch source=<tinyshakespeare.txt> [rounds=2000]
    benchmark.py suite=loader source=<text> [rounds=5]
    benchmark.py suite=streaming_memory source=<file> [rounds=1]

saving    what a checkpoint costs the loop, written in the background and not
tracking  what logging every step costs the loop, and how long a dead tracking server delays the start
example_losses  what logging the loss of every example costs the loop
generate  tokens a second, with the key-value cache and without, one row and eight
shakespeare  experiment=shakespeare_char beside the same model in plain PyTorch: seconds and validation loss
loader    how fast text becomes batches of tokens, and how long it takes to go to a place
streaming_memory  what the loader holds after N and 10 N documents, beside everything in memory

Prints Markdown: medians, and ratios of medians. For figures worth quoting let nothing else run.
"""

import importlib
from collections.abc import Sequence
from typing import Any

from mlxlab.commands.shell import run_program
from mlxlab.config.nearest import suggestion
from mlxlab.errors import ConfigFault

SUITES = {  # module and function of mlxlab.benchmark
    "saving": ("saving", "saving"),
    "tracking": ("tracking", "tracking"),
    "example_losses": ("example_losses", "example_losses"),
    "generate": ("generation", "generation"),
    "shakespeare": ("shakespeare", "shakespeare"),
    "loader": ("loader", "loader"),
    "streaming_memory": ("streaming_memory", "streaming_memory"),
}
KEYS = ("suite", "size", "rounds", "source", "against")
SIZES = ("nano", "tiny", "small", "medium", "large", "xlarge")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    return run_program(__doc__, argv, _measure)


def _measure(words: list[str]) -> None:
    options = parse(words)
    suite = options.pop("suite", None)
    if suite not in SUITES:
        raise ConfigFault(f"suite={suite}: unknown{suggestion(str(suite), list(SUITES))}; one of {', '.join(SUITES)}")
    from mlxlab import backend

    backend.prepare()
    module, function = SUITES[str(suite)]
    print(getattr(importlib.import_module(f"mlxlab.benchmark.{module}"), function)(**options))


def parse(words: list[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in KEYS:
            raise ConfigFault(f"{word}: unknown key{suggestion(key, list(KEYS))}")
        if key == "size" and value not in SIZES:
            raise ConfigFault(f"{word}: unknown size{suggestion(value, list(SIZES))}")
        if key == "rounds" and not (value.isdecimal() and int(value)):
            raise ConfigFault(f"{word}: wanted a whole number >= 1")
        options[key] = int(value) if key == "rounds" else value
    return options
