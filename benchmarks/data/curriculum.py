"""A curriculum by neglected tokens compared with a plain shuffle, after the same number of tokens of the same text."""

import statistics
import tempfile
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.alternate import table
from mlxlab.callbacks.token_metrics import TokenMetrics
from mlxlab.config.hydra.compose import compose_checked
from mlxlab.errors import ConfigError, WriteError
from mlxlab.run.resume.start import Start
from mlxlab.run.session import build_session
from mlxlab.schema.constraints import Size

ROWS, LENGTH, VOCABULARY, POOL = 16, 64, 2048, 8192
MODEL = {"hidden_size": 64, "num_layers": 2, "num_heads": 4, "intermediate_size": 192}
CURRICULUM = ("data/order=curriculum", f"data.order.pool={POOL}")
VARIANTS = {
    "shuffle": ("data/order=measured", f"data.shuffle.row_buffer={POOL}"),
    "curriculum, alpha 1": (*CURRICULUM, "data.order.alpha=1"),
    "curriculum, alpha 1, 0.5, 0": (*CURRICULUM, "data.order.alpha=[[0,1],[0.33,0.5],[0.67,0]]"),
}
COVERAGE, BITS, EARLY = (
    "data/rare_coverage",
    "valid/bits_per_byte",
    1,
)  # the second point of a curve
METRICS = {
    COVERAGE: "rare tokens served",
    "data/rare_coverage_5": "served 5 times",
    "data/kl_uniform": "KL to uniform",
    BITS: "valid bits per byte",
}

Curve = list[tuple[int, float]]  # (tokens, value)


def curriculum(
    file: str | None = None, steps: Size = 240, seeds: Size = 3, plot: str = "curriculum.png"
) -> str:
    """Trains a small decoder with each order and each seed, and writes the curves to `plot`."""
    if file is None:
        raise ConfigError("suite=curriculum: expected file=<text>, for example books.jsonl")
    curves = {
        name: [_train(file, steps, seed, overrides) for seed in range(seeds)]
        for name, overrides in VARIANTS.items()
    }
    _draw(curves, Path(plot))
    early = f"after {curves['shuffle'][0][COVERAGE][EARLY][0]:,}"
    bits = [f"bits, seed {seed}" for seed in range(seeds)]
    rows: list[tuple[str, ...]] = [
        ("order", f"{METRICS[COVERAGE]} {early}", *METRICS.values(), *bits)
    ]
    for name, runs in curves.items():
        means = [statistics.mean(run[metric][-1][1] for run in runs) for metric in METRICS]
        coverage = statistics.mean(run[COVERAGE][EARLY][1] for run in runs)
        bits = [f"{run[BITS][-1][1]:.4f}" for run in runs]
        rows.append(
            (
                name,
                f"{coverage:.3f}",
                *(f"{mean:.3f}" for mean in means[:-1]),
                f"{means[-1]:.4f}",
                *bits,
            )
        )
    shape = f"a decoder of {MODEL['num_layers']} layers and width {MODEL['hidden_size']}, vocabulary {VOCABULARY:,}"
    title = f"{shape}, after {steps * ROWS * LENGTH:,} tokens, means of {seeds} seeds"
    return f"{table(title, rows)}\n\nCurves: {plot}"


def _train(file: str, steps: int, seed: int, overrides: tuple[str, ...]) -> dict[str, Curve]:
    """Each metric by the number of tokens trained on."""
    settings = [
        "model=transformer",
        "data=streaming",
        f"data.source={Path(file).expanduser().absolute()}",
        *overrides,
    ]
    settings += [
        f"data.batch_size={ROWS}",
        f"data.seq_len={LENGTH}",
        f"data.tokenizer.vocab_size={VOCABULARY}",
    ]
    settings += [f"model.{key}={value}" for key, value in MODEL.items()]
    settings += [
        f"trainer.max_steps={steps}",
        "trainer.epochs=null",
        f"seed={seed}",
        "trainer.learning_rate=2e-3",
    ]
    settings += [
        f"trainer.log_every={max(steps // 15, 1)}",
        f"trainer.eval_every={max(steps // 4, 1)}",
        "tracking=none",
    ]
    settings += ["trainer=optimized", "trainer.eval_batches=4", "data.valid_fraction=0.01"]
    config = compose_checked(settings)
    with tempfile.TemporaryDirectory() as folder:
        session = build_session(Start(config), Path(folder))
        state = session.fit(session.init_state(), [TokenMetrics()])
    points = [(step * ROWS * LENGTH, metrics) for step, metrics in state.history.curve]
    return {
        name: [(tokens, metrics[name]) for tokens, metrics in points if name in metrics]
        for name in METRICS
    }


def _draw(curves: dict[str, list[dict[str, Curve]]], path: Path) -> None:
    figure = Figure(figsize=(4.2 * len(METRICS), 3.4))
    for axis, (metric, title) in zip(
        figure.subplots(1, len(METRICS)), METRICS.items(), strict=True
    ):
        for name, runs in curves.items():
            columns = zip(*(run[metric] for run in runs), strict=True)
            tokens = []
            means = []
            for column in columns:
                tokens.append(column[0][0])
                means.append(statistics.mean(value for _, value in column))
            axis.plot(tokens, means, marker=".", label=name)
        axis.set(xlabel="tokens", title=title)
        axis.legend(fontsize=7)
    figure.tight_layout()
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise WriteError(f"plot={path}: {error.strerror or error}") from None
