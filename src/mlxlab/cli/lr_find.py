"""`lr_find`: the rate rises from update to update, and the loss tells where it is too high (Smith 2017).

    lr_find.py [start=1e-7] [end=1] [updates=100] [out=lr_find.png] [group=option ...] [key=value ...]

Trains the composed experiment on its training data, the rate rising exponentially from start to end; ends early once
the smoothed loss is four times its least. Writes a plot, prints some points and a suggestion: the rate at which the
loss falls most steeply. Nothing else is written: no run folder, no checkpoint, nothing tracked.

All other words are those of train.

Examples
    lr_find.py experiment=titanic
    lr_find.py model=transformer model/size=tiny trainer=optimized trainer/optimizer=lion updates=200
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlxlab.cli.app import run_program
from mlxlab.config.paths import conf_dir
from mlxlab.errors import CannotCreateError, ConfigError

DEFAULTS: dict[str, float] = {"start": 1e-7, "end": 1.0, "updates": 100}
POINTS = 20  # lines of the table


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    return run_program(__doc__, words or ["start=1e-7"], _act)


def parse(words: Sequence[str]) -> tuple[dict[str, float], Path, list[str]]:
    """start, end and updates; the file of the plot; the words of train.

    Raises:
        ConfigError: a number that cannot be.
    """
    numbers, out, rest = dict(DEFAULTS), Path("lr_find.png"), []
    for word in words:
        key, _, value = word.partition("=")
        if key in numbers:
            try:
                numbers[key] = float(value)
            except ValueError:
                raise ConfigError(f"{word}: expected a number") from None
        elif key == "out" and value:
            out = Path(value).expanduser()
        else:
            rest.append(word)
    start, end, updates = numbers["start"], numbers["end"], numbers["updates"]
    if not 0 < start < end < float("inf"):
        raise ConfigError(f"start={start:g} end={end:g}: expected 0 < start < end")
    if updates != int(updates) or not 10 <= updates <= 1e6:
        raise ConfigError(f"updates={updates:g}: expected a whole number from 10 to 1,000,000")
    return numbers, out, rest


def _act(words: list[str]) -> None:
    numbers, out, rest = parse(words)
    if not out.absolute().parent.is_dir():
        raise CannotCreateError(f"out={out}: there is no folder {out.absolute().parent}")
    cfg = _composed(rest)
    with tempfile.TemporaryDirectory() as folder:
        found = _search(cfg, numbers, Path(folder))
    from mlxlab.training.lr_finder import plot_range_test, smoothed, suggest_learning_rate

    best = suggest_learning_rate(found.rates, found.losses)
    print("| learning rate | smoothed loss |\n|--:|--:|")
    rows = list(zip(found.rates, smoothed(found.losses), strict=True))
    for rate, loss in rows[:: max(len(rows) // POINTS, 1)]:
        print(f"| {rate:.2e} | {loss:.4f} |")
    plot_range_test(found, best, out)
    print(f"\n{len(rows)} updates, up to {found.rates[-1]:.2g}; plot: {out}")
    print(f"trainer.learning_rate={best:.2g}" if best is not None else "the loss never fell: no suggestion")


def _composed(words: list[str]) -> Any:
    from mlxlab.config.hydra.compose import Composer, without_hydra

    composer = Composer(conf=conf_dir(), overrides=words)
    return without_hydra(composer.checked(composer.open()))


def _search(cfg: Any, numbers: dict[str, float], folder: Path) -> Any:
    from mlxlab import backend

    backend.prepare()
    from omegaconf import OmegaConf

    from mlxlab.experiment.build import build_session, model_seed
    from mlxlab.training.lr_finder import find_learning_rate

    config: Any = OmegaConf.to_container(cfg, resolve=True)
    session = build_session(config, folder)
    data, steps = session.data, int(numbers["updates"])
    start, end, seed = numbers["start"], numbers["end"], model_seed(config)
    return find_learning_rate(
        session.trainer, session.model, data.train, data.task, start=start, end=end, steps=steps, seed=seed
    )
