"""A model that grows while it trains, compared with its final and its first size from the start, at equal compute.

Compute is counted in operations of training, in every size that the model has had; seconds too are those of training,
with the operations of growth. Evaluations, as many in each run and of the same rows, count in neither.
"""

import itertools
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from matplotlib.figure import Figure

from benchmarks.alternate import table
from mlxlab.config.hydra.compose import compose_checked
from mlxlab.errors import ConfigError, InputNotFoundError, WriteError
from mlxlab.models.model import Model, count_parameters, training_flops
from mlxlab.run.resume.start import Start
from mlxlab.run.session import build_callbacks, build_session
from mlxlab.schema.constraints import Size
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.state import StepResult, TrainState

SEQ_LEN, BATCH_SIZE, VOCAB_SIZE = 128, 8, 2048
EVALUATIONS = 12  # of each run
PHASES = (0.4, 0.3, 0.3)  # of the steps: nano, stacked, widened
MIN_STEPS = 10  # so that every phase has some
LAYERS, WIDER = 6, 1024  # of model/size=nano; the widened feed-forward layer
FINAL_SIZE = (f"model.num_layers={2 * LAYERS}", f"model.intermediate_size={WIDER}")


@dataclass
class Meter(Callback):
    """Adds up operations, tokens and seconds of training; records the validation loss at each evaluation."""

    flops: float = 0.0
    seconds: float = 0.0
    tokens: int = 0
    parameters: int = 0  # at the end
    steps: int = 0
    points: list[tuple[float, float, float]] = field(
        default_factory=list
    )  # (flops, seconds, validation loss)

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        self.flops += step_flops(state.model)
        steps_per_second, _ = context.timer.read(state.progress)
        self.seconds += (
            1 / steps_per_second if steps_per_second else 0.0
        )  # 0: just read, for the log
        self.tokens, self.steps = state.progress.tokens, state.progress.step
        self.parameters = count_parameters(state.model)
        if result.evaluation is not None:
            self.points.append((self.flops, self.seconds, result.evaluation.metrics["loss"]))


def growth(file: str | None = None, steps: Size = 320, plot: str = "growth.png") -> str:
    """`steps` steps of nano, stacked to twice the layers and then widened; then both sizes with as many operations.

    All read the same rows in the same order, with the same learning rate and schedule: it rises over 3 % of the steps
    of a run, is constant, and decays in the last fifth.

    Args:
        file: a text or JSON lines.
        steps: of the run that grows.
        plot: path of a PNG with the validation loss by operations and by seconds.
    """
    if file is None:
        raise ConfigError("suite=growth: expected file=<text or .jsonl>")
    if steps < MIN_STEPS:
        raise ConfigError(f"steps={steps}: expected a whole number >= {MIN_STEPS}")
    path = Path(plot).expanduser()
    if not path.absolute().parent.is_dir():
        raise InputNotFoundError(f"plot={plot}: no such folder: {path.parent}")
    first, second = (round(steps * share) for share in itertools.accumulate(PHASES[:2]))
    operations: list[dict[str, Any]] = [
        {
            "id": "stacked",
            "op": "stack",
            "map": [i // 2 for i in range(2 * LAYERS)],
            "when": {"or_steps": first},
        },
        {
            "id": "widened",
            "op": "widen",
            "feed_forward": WIDER,
            "when": {"or_steps": second - first},
        },
    ]
    grown = _train(file, operations=operations, steps=steps)
    runs = {
        "grown": grown,
        "final size from the start": _train(file, FINAL_SIZE, flops=grown.flops),
        "first size throughout": _train(file, flops=grown.flops),
    }
    _plot(runs, path)
    rows: list[tuple[str, ...]] = [
        ("", "parameters", "steps", "tokens", "operations", "seconds", "s/step", "validation loss")
    ]
    for name, run in runs.items():
        counts = (f"{run.parameters:,}", f"{run.steps:,}", f"{run.tokens:,}", f"{run.flops:.4g}")
        seconds = (f"{run.seconds:.0f}", f"{run.seconds / run.steps:.2f}")
        rows.append((name, *counts, *seconds, f"{run.points[-1][2]:.4f}"))
    title = f"nano, stacked at step {first}, widened at step {second} of {steps}"
    return f"{table(title, rows)}\n\nplot: {plot}"


def step_flops(model: Any) -> float:
    return training_flops(cast(Model, model), SEQ_LEN) * SEQ_LEN * BATCH_SIZE


def _train(
    file: str,
    sizes: tuple[str, ...] = (),
    *,
    operations: list[dict[str, Any]] | None = None,
    steps: int | None = None,
    flops: float = 0.0,
) -> Meter:
    """Trains for `steps`, or for about as many operations as `flops`."""
    cfg = _config(file, sizes)
    cfg["callbacks"] = {"growth": {**cfg["callbacks"]["growth"], "operations": operations or []}}
    with tempfile.TemporaryDirectory() as folder:
        session = build_session(Start(cfg), Path(folder))
        steps = steps or max(round(flops / step_flops(session.model)), 1)
        trainer = replace(
            session.trainer, max_steps=steps, eval_every=max(-(-steps // EVALUATIONS), 1)
        )
        session, meter = replace(session, trainer=trainer), Meter()
        session.fit(session.init_state(), [meter, *build_callbacks(cfg, Path(folder))])
    return meter


def _config(file: str, sizes: tuple[str, ...]) -> Any:
    source = f"data.source={Path(file).expanduser().absolute()}"
    data = [
        "data=streaming",
        source,
        f"data.seq_len={SEQ_LEN}",
        f"data.batch_size={BATCH_SIZE}",
        "data.prefetch=0",
    ]
    data += [f"data.eval_batch_size={BATCH_SIZE}", f"data.tokenizer.vocab_size={VOCAB_SIZE}"]
    trainer = ["trainer/schedule=wsd", "trainer.schedule.warmup=0.03", "trainer.learning_rate=1e-3"]
    trainer += [
        "trainer.max_steps=100",
        "trainer.epochs=null",
        "trainer.eval_batches=16",
        "trainer.log_every=1000000",
    ]
    common = ["model=transformer", "model/size=nano", "tracking=none"]
    return compose_checked([*common, *data, *trainer, *sizes])


def _plot(runs: dict[str, Meter], path: Path) -> None:
    figure = Figure(figsize=(8, 3.4))
    for axis, (index, label) in zip(
        figure.subplots(1, 2), enumerate(["operations", "seconds"]), strict=True
    ):
        for name, run in runs.items():
            axis.plot(
                [point[index] for point in run.points],
                [point[2] for point in run.points],
                ".-",
                label=name,
            )
        axis.set(xlabel=f"{label} of training", ylabel="validation loss")
        axis.legend(fontsize=8)
    figure.tight_layout()
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:  # ValueError: a format that matplotlib lacks
        raise WriteError(f"plot={path}: {error}") from None
