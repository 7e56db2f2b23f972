"""A model that grows while it trains, compared with its final size from the start, at equal compute."""

import itertools
import math
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.alternate import table
from mlxlab.config.hydra.compose import Composer
from mlxlab.config.paths import conf_dir
from mlxlab.errors import ConfigError
from mlxlab.experiment.build import build_callbacks
from mlxlab.experiment.session import build_session
from mlxlab.models.model import count_parameters, training_flops
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.state import StepResult, TrainState

SEQ_LEN, BATCH_SIZE, VOCAB_SIZE = 128, 8, 2048
EVALUATIONS = 8  # of each run
PHASES = (0.5, 0.3, 0.2)  # of the steps: nano, stacked, widened
LAYERS, WIDER = 6, 1024  # of model/size=nano; the widened feed-forward layer


@dataclass
class Meter(Callback):
    """Adds up the operations and seconds of training; records the validation loss at each evaluation."""

    flops: float = 0.0
    seconds: float = 0.0  # evaluations included
    parameters: int = 0  # at the end
    steps: int = 0
    points: list[tuple[float, float, float]] = field(default_factory=list)  # (flops, seconds, validation loss)
    _since: float = 0.0

    def on_start(self, context: FitContext, state: TrainState) -> None:
        self._since = time.perf_counter()

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        self.flops += training_flops(state.model, SEQ_LEN) * SEQ_LEN * len(result.batch.example_ids)  # type: ignore[arg-type]
        now = time.perf_counter()
        self.seconds, self._since = self.seconds + now - self._since, now
        if result.evaluation is not None:
            self.points.append((self.flops, self.seconds, result.evaluation.metrics["loss"]))


def growth(file: str | None = None, steps: int = 200, plot: str = "growth.png") -> str:
    """`steps` steps of nano, stacked to twice the layers and then widened; then the final size with as many operations.

    Both have the same rows, learning rate and warm-up. `file` is a text or JSON lines; `plot` the path of a PNG.
    """
    if file is None:
        raise ConfigError("suite=growth: expected file=<text or .jsonl>")
    first, second = (round(steps * share) for share in itertools.accumulate(PHASES[:2]))
    layers = [layer // 2 for layer in range(2 * LAYERS)]
    operations = [
        {"id": "stacked", "op": "stack", "map": layers, "when": {"or_steps": first}},
        {"id": "widened", "op": "widen", "feed_forward": WIDER, "when": {"or_steps": second - first}},
    ]
    grown = _train(file, steps, operations, [])
    direct = _train(file, grown.flops, [], [f"model.num_layers={2 * LAYERS}", f"model.intermediate_size={WIDER}"])
    runs = {"grown": grown, "final size from the start": direct}
    _plot(runs, Path(plot).expanduser())
    rows: list[tuple[str, ...]] = [("", "parameters", "steps", "operations", "seconds", "validation loss")]
    for name, meter in runs.items():
        numbers = (f"{meter.parameters:,}", str(meter.steps), f"{meter.flops:.3g}", f"{meter.seconds:.1f}")
        rows.append((name, *numbers, f"{meter.points[-1][2]:.4f}"))
    title = f"nano, stacked at step {first}, widened at step {second} of {steps}"
    return f"{table(title, rows)}\n\nplot: {plot}"


def _train(file: str, budget: float, operations: list[dict[str, Any]], sizes: list[str]) -> Meter:
    """Trains for a number of steps (an integer) or of operations (a float)."""
    cfg = _config(file, sizes)
    cfg["callbacks"] = {"growth": {**cfg["callbacks"]["growth"], "operations": operations}}
    with tempfile.TemporaryDirectory() as folder:
        session = build_session(cfg, Path(folder))
        per_step = training_flops(session.model, SEQ_LEN) * SEQ_LEN * BATCH_SIZE
        steps = budget if isinstance(budget, int) else math.ceil(budget / per_step)
        trainer = replace(session.trainer, max_steps=steps, eval_every=max(steps // EVALUATIONS, 1))
        session, meter = replace(session, trainer=trainer), Meter()
        state = session.fit(session.init_state(), [meter, *build_callbacks(cfg, Path(folder))])
    meter.parameters, meter.steps = count_parameters(state.model), state.progress.step
    return meter


def _config(file: str, sizes: list[str]) -> Any:
    """Nothing of it depends on the length of the run: the schedule is constant."""
    source = f"data.source={Path(file).expanduser().absolute()}"
    data = ["data=streaming", source, f"data.seq_len={SEQ_LEN}", f"data.batch_size={BATCH_SIZE}", "data.prefetch=0"]
    data += [f"data.eval_batch_size={BATCH_SIZE}", f"data.tokenizer.vocab_size={VOCAB_SIZE}"]
    trainer = ["trainer/schedule=constant", "trainer.schedule.warmup=10", "trainer.learning_rate=1e-3"]
    trainer += ["trainer.max_steps=100", "trainer.eval_batches=8", "trainer.log_every=1000"]
    common = ["model=transformer", "model/size=nano", "tracking=none"]
    return Composer(conf_dir(), [*common, *data, *trainer, *sizes]).checked_values(resolve=True)


def _plot(runs: dict[str, Meter], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4))
    for axis, (index, label) in zip(figure.subplots(1, 2), enumerate(["operations", "seconds"]), strict=True):
        for name, meter in runs.items():
            axis.plot([point[index] for point in meter.points], [point[2] for point in meter.points], ".-", label=name)
        axis.set(xlabel=label, ylabel="validation loss")
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
