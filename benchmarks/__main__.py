"""Measures what README and log claim, alternating the variants in one run.

    python -m benchmarks suite=saving [size=small] [rounds=5]
    python -m benchmarks suite=tracking [size=nano] [rounds=9]
    python -m benchmarks suite=example_losses [size=nano] [rounds=60]
    python -m benchmarks suite=generate [size=nano] [rounds=5]
    python -m benchmarks suite=distill [rounds=9]
    python -m benchmarks suite=steps [size=nano,tiny] [model=transformer,bert] [compare_with=torch,mlx_lm] [rounds=5]
                         [dropout=0] [save=benchmarks/steps]
    python -m benchmarks suite=formulations [size=nano] [rounds=15]
    python -m benchmarks suite=memory [size=small] [rounds=1]
    python -m benchmarks suite=startup [size=nano] [rounds=5]
    python -m benchmarks suite=shakespeare compare_with=torch source=<tinyshakespeare.txt> [rounds=2000]
    python -m benchmarks suite=loader source=<text> [rounds=5]
    python -m benchmarks suite=streaming_memory source=<file> [rounds=1]

saving    what a checkpoint costs the loop, written in the background or in the foreground
tracking  what logging every step costs the loop, and how long a dead tracking server delays the start
example_losses  what logging the loss of every example costs the loop
generate  tokens /s, with the key-value cache and without, one row and eight
steps     seconds and memory of a training step: mlxlab, plain MLX, mlx-lm's trainer, PyTorch eager and compiled
formulations  what each function that is written for Linux CPU saves against MLX's own
memory    what a step needs: whole batch and micro-batches, activations stored and recomputed
startup   from Enter to the first step of a Titanic run, and the cost of the loop around the steps
shakespeare  experiment=shakespeare_char and the same model in plain PyTorch: seconds and validation loss
loader    how fast text becomes batches of tokens, and how long it takes to seek to a position
streaming_memory  what the loader holds after N and 10 N documents, and with everything in memory
distill   a step with a teacher that is queried, and with cached soft targets, and its components

Prints Markdown: medians, and ratios of medians. save=PATH also writes PATH.md and PATH.json. For figures worth quoting
run nothing else.
"""

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlxlab.cli.app import run_command
from mlxlab.cli.args import parse_values
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
LISTS = {  # keys with several values, separated by commas
    "size": ("nano", "tiny", "small", "medium", "large", "xlarge"),
    "model": ("transformer", "bert"),
    "compare_with": ("torch", "mlx_lm"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    return run_command(__doc__, argv, _measure)


def _measure(words: list[str]) -> None:
    suite, save, options = parse(words)
    from mlxlab import backend

    backend.prepare()
    module, function = SUITES[suite]
    text = getattr(importlib.import_module(f"benchmarks.{module}"), function)(**options)
    print(text)
    if save is not None:
        _save(Path(save).expanduser(), text, {"suite": suite, **options, **backend.describe()})


def parse(words: list[str]) -> tuple[str, str | None, dict[str, Any]]:
    """The suite, where its report is saved, and its options: the parameters of its function.

    Raises:
        ConfigError: no suite, or an option that it does not have or may not have that value.
    """
    suite = next((word.partition("=")[2] for word in words if word.startswith("suite=")), "")
    if suite not in SUITES:
        raise ConfigError(f"suite={suite}: expected one of {', '.join(SUITES)}{suggestion(suite, SUITES)}")
    module, function = SUITES[suite]
    rest = [word for word in words if not word.startswith("suite=")]
    saved = [] if suite == "steps" else [word for word in rest if word.startswith("save=")]  # `steps` saves by itself
    options, names, _ = parse_values([word for word in rest if word not in saved], [f"benchmarks.{module}.{function}"])
    if names:
        raise ConfigError(f"{names[0]}: expected key=value")
    for key, value in options.items():
        for item in value.split(",") if key in LISTS else []:
            if item not in LISTS[key]:
                raise ConfigError(f"{key}={value}: expected {', '.join(LISTS[key])}{suggestion(item, LISTS[key])}")
    if options.get("rounds", 1) < 1:
        raise ConfigError(f"rounds={options['rounds']}: expected a whole number >= 1")
    if not 0 <= (options.get("dropout") or 0) < 1:
        raise ConfigError(f"dropout={options['dropout']}: expected a number >= 0 and < 1")
    return suite, saved[-1].partition("=")[2] if saved else None, options


def _save(path: Path, text: str, facts: dict[str, Any]) -> None:
    from benchmarks.alternate import figures

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Path(f"{path}.md").write_text(text + "\n")
        Path(f"{path}.json").write_text(json.dumps({**facts, "tables": figures(text)}, indent=1, default=str) + "\n")
    except OSError as error:
        raise WriteError(f"save={path}: {error.strerror or error}") from None


if __name__ == "__main__":
    import sys

    sys.exit(main())
