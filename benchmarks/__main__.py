"""Measures, side by side in one run, what a README or a log claims.

    python -m benchmarks suite=saving [size=small] [rounds=5]
    python -m benchmarks suite=tracking [size=nano] [rounds=9]
    python -m benchmarks suite=example_losses [size=nano] [rounds=60]
    python -m benchmarks suite=generate [size=nano] [rounds=5]
    python -m benchmarks suite=distill [rounds=9]
    python -m benchmarks suite=steps [size=nano,tiny] [model=transformer,bert] [against=torch,mlx_lm] [rounds=5]
                         [dropout=0] [save=benchmarks/steps]
    python -m benchmarks suite=formulations [size=nano] [rounds=15]
    python -m benchmarks suite=memory [size=small] [rounds=1]
    python -m benchmarks suite=startup [size=nano] [rounds=5]
    python -m benchmarks suite=shakespeare against=torch source=<tinyshakespeare.txt> [rounds=2000]
    python -m benchmarks suite=loader source=<text> [rounds=5]
    python -m benchmarks suite=streaming_memory source=<file> [rounds=1]

saving    what a checkpoint costs the loop, written in the background and not
tracking  what logging every step costs the loop, and how long a dead tracking server delays the start
example_losses  what logging the loss of every example costs the loop
generate  tokens a second, with the key-value cache and without, one row and eight
steps     seconds and memory of a training step: ours, plain MLX, mlx-lm's trainer, PyTorch eager and compiled
formulations  what each function that is written for Linux CPU saves against MLX's own
memory    what a step needs: batch whole and in parts, activations kept and computed again
startup   from Enter to the first update of a Titanic run, and what the loop costs beside the updates
shakespeare  experiment=shakespeare_char beside the same model in plain PyTorch: seconds and validation loss
loader    how fast text becomes batches of tokens, and how long it takes to go to a place
streaming_memory  what the loader holds after N and 10 N documents, beside everything in memory
distill   a step with a teacher that is asked, and with one that is remembered, beside the parts it is made of

Prints Markdown: medians, and ratios of medians. save=PATH also writes PATH.md and PATH.json. For figures worth quoting
let nothing else run.
"""

import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlxlab.cli.app import run_program
from mlxlab.config.suggest import suggestion
from mlxlab.errors import ConfigError, WriteError

SUITES = {  # module and function of benchmarks
    "saving": ("saving", "saving"),
    "tracking": ("tracking", "tracking"),
    "example_losses": ("example_losses", "example_losses"),
    "generate": ("generation", "generation"),
    "memory": ("memory", "memory"),
    "formulations": ("formulations", "formulations"),
    "distill": ("distilling", "distilling"),
    "steps": ("steps", "steps"),
    "startup": ("startup", "startup"),
    "shakespeare": ("shakespeare", "shakespeare"),
    "loader": ("loader", "loader"),
    "streaming_memory": ("streaming_memory", "streaming_memory"),
}
KEYS = ("suite", "size", "rounds", "source", "against", "model", "dropout", "save")
LISTS = {  # words with commas between, where a suite takes several
    "size": ("nano", "tiny", "small", "medium", "large", "xlarge"),
    "model": ("transformer", "bert"),
    "against": ("torch", "mlx_lm"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    return run_program(__doc__, argv, _measure)


def _measure(words: list[str]) -> None:
    options = parse(words)
    suite = options.pop("suite", None)
    if suite not in SUITES:
        raise ConfigError(f"suite={suite}: unknown{suggestion(str(suite), list(SUITES))}; one of {', '.join(SUITES)}")
    from mlxlab import backend

    backend.prepare()
    module, function = SUITES[str(suite)]
    save = None if suite == "steps" else options.pop("save", None)  # which keeps every burst
    text = getattr(importlib.import_module(f"benchmarks.{module}"), function)(**options)
    print(text)
    if save is not None:
        _save(Path(save).expanduser(), text, {"suite": suite, **options, **backend.describe()})


def _save(path: Path, text: str, facts: dict[str, Any]) -> None:
    from benchmarks.alternate import figures

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Path(f"{path}.md").write_text(text + "\n")
        Path(f"{path}.json").write_text(json.dumps({**facts, "tables": figures(text)}, indent=1, default=str) + "\n")
    except OSError as error:
        raise WriteError(f"save={path}: {error.strerror or error}") from None


def parse(words: list[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in KEYS:
            raise ConfigError(f"{word}: unknown key{suggestion(key, list(KEYS))}")
        for one in value.split(",") if key in LISTS else []:
            if one not in LISTS[key]:
                raise ConfigError(f"{word}: unknown {key}{suggestion(one, list(LISTS[key]))}")
        if key == "rounds" and not (value.isdecimal() and int(value)):
            raise ConfigError(f"{word}: expected a whole number >= 1")
        options[key] = int(value) if key == "rounds" else _share(word, value) if key == "dropout" else value
    return options


def _share(word: str, value: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise ConfigError(f"{word}: expected a number from 0 to below 1")
    return share


if __name__ == "__main__":
    sys.exit(main())
