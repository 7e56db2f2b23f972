"""Finds a learning rate: raises it from step to step and watches the loss (LR range test, Smith 2017).

    mlxlab lr_find [key=value ...] [group=option ...]

Trains the composed experiment on its training data with an exponentially rising rate; stops early once the smoothed
loss is four times its minimum. Draws the curve and suggests the rate at which the loss falls most steeply. Nothing else
is written: no run folder, no checkpoint. All other arguments are passed to train.

Examples
    mlxlab lr_find experiment=titanic
    mlxlab lr_find model=transformer model/size=tiny trainer=optimized trainer/optimizer=lion steps=200
"""

import tempfile
from pathlib import Path
from typing import Annotated

from mlxlab.cli.app import print_json
from mlxlab.errors import CannotCreateError, ConfigError
from mlxlab.schema.constraints import Ge, Le, Positive
from mlxlab.terminal.wording import counted


def lr_find(
    *overrides: str,
    start: Positive = 1e-7,
    end: Positive = 1.0,
    steps: Annotated[int, Ge(10), Le(1_000_000)] = 100,
    out: Path = Path("lr_find.png"),
    json: bool = False,
) -> None:
    """Trains with a rising rate.

    Args:
        start: the first learning rate.
        end: the last one.
        steps: optimizer steps from start to end.
        out: file of the plot, in a format of matplotlib (png, pdf, svg).
        json: prints JSON instead, with the curve.
    """
    if start >= end:
        raise ConfigError(f"start={start:g} end={end:g}: expected start < end")
    if out.suffix not in (".png", ".pdf", ".svg"):
        raise ConfigError("out: expected a name that ends in .png, .pdf or .svg")
    if not out.absolute().parent.is_dir():
        raise CannotCreateError(f"out={out}: there is no folder {out.absolute().parent}")
    from mlxlab.config.hydra.compose import compose_checked

    config = compose_checked(overrides)
    from mlxlab import backend

    backend.prepare()
    from mlxlab.backend.ops.native.activation import activate
    from mlxlab.run.resume.start import Start
    from mlxlab.run.session import build_session
    from mlxlab.training.lr_finder import (
        find_learning_rate,
        plot_range_test,
        smoothed,
        suggest_learning_rate,
    )

    activate(config["backend"]["native"])
    with tempfile.TemporaryDirectory() as folder:
        session = build_session(Start(config), Path(folder))
        curve = find_learning_rate(
            session.trainer,
            session.model,
            session.data.train,
            session.data.task,
            start=start,
            end=end,
            steps=steps,
            seed=session.seed,
        )
    best = suggest_learning_rate(curve.rates, curve.losses)
    points = list(zip(curve.rates, smoothed(curve.losses), strict=True))
    plot_range_test(curve, best, out)
    if json:
        curve_json = [{"learning_rate": rate, "smoothed_loss": loss} for rate, loss in points]
        print_json({"suggestion": best, "plot": str(out), "steps": curve_json})
        return
    print(f"{counted(len(points), 'step')}, up to {curve.rates[-1]:.2g}; plot: {out}")
    if best is None:
        print("the loss never fell: no suggestion")
    else:
        print(f"trainer.learning_rate={best:.2g}")
