"""Model FLOPs and the share of the machine's peak."""

import numpy as np
import pytest

from mlxlab.callbacks.throughput import ThroughputMonitor, measure_peak
from mlxlab.data.batch import Batch
from mlxlab.models.adapters.apply import insert
from mlxlab.models.adapters.freeze import adapter_paths, freeze, train_only
from mlxlab.models.bert import Bert
from mlxlab.models.cnn_hybrid import CnnHybrid
from mlxlab.models.layers import named_parameters
from mlxlab.models.model import Model, build_head, training_flops
from mlxlab.models.options import LoRA
from mlxlab.models.transformer import Transformer
from mlxlab.training.state import NO_STEP
from support.models import Recorder, make_run

SHAPE = {"vocab_size": 100, "hidden_size": 32, "num_layers": 2, "num_heads": 4}
SHAPE |= {"intermediate_size": 48}
BLOCK = 4 * 32 * 32 + 3 * 32 * 48  # gated; without biases and norms
PLAIN = 4 * 32 * 32 + 2 * 32 * 48


def lm(backbone):
    return Model(backbone, build_head(backbone, kind="language_modelling"))


BRANCHES = {"kernel_sizes": [2, 3], "num_filters": 8, "dilations": [1]}
# Kernel sizes 2 and 3, and the dilated one of 3; the fusion; the transform of the head.
CONVOLUTIONS = (2 + 3 + 3) * 32 * 8 + 3 * 8 * 8 + (32 + 8) * 32


@pytest.mark.parametrize(
    ("backbone", "options", "parameters"),
    [
        (Transformer, {}, 2 * BLOCK),
        (Transformer, {"tie_embeddings": False}, 2 * BLOCK),
        (Transformer, {"position_embedding": "learned"}, 2 * BLOCK),
        (Bert, {}, 2 * PLAIN + 32 * 32),  # with the head's transform
        (CnnHybrid, {**BRANCHES, "fusion": "concat", "highway": False}, 2 * PLAIN + CONVOLUTIONS),
    ],
)
def test_training_flops_follow_the_formula_of_palm(backbone, options, parameters):
    model = lm(backbone(**SHAPE, **options))
    assert training_flops(model, 64) == 6 * (parameters + 100 * 32) + 12 * 2 * 32 * 64


def test_frozen_weights_have_no_gradients():
    model, head, attention = lm(Transformer(**SHAPE)), 100 * 32, 32 * 64
    freeze(model, ["embedding", "layers.0"])
    weights = 4 * (2 * BLOCK + head) + 2 * BLOCK
    assert training_flops(model, 64) == weights + 12 * 2 * attention
    adapter = LoRA(rank=3)
    adapted = lm(Transformer(**SHAPE))
    paths = insert(adapted, adapter, seed=0)
    train_only(adapted, adapter_paths(named_parameters(adapted)))
    assert len(paths) == 2 * 7
    rows = 2 * 3 * (4 * (32 + 32) + 3 * (32 + 48))  # of A and B
    assert training_flops(adapted, 64) == 4 * (2 * BLOCK + head) + 6 * rows + 12 * 2 * attention


def batch(rows=2, length=16):
    tokens = np.ones((rows, length), np.int32)
    return Batch(tokens, tokens, tokens, tokens.astype(np.float32), np.arange(rows))


def logged(model, measure_peak_after, rate=1000.0, dtype="float32"):
    """Everything that the callback logs at a log point, and the seconds that the timer counts meanwhile."""
    run = make_run(model, tracker=Recorder())
    run.state.progress.step = 7
    run.context.metadata["config"] = {"trainer": {"step": {"dtype": dtype}}}
    result = NO_STEP._replace(batch=batch())
    monitor = ThroughputMonitor(measure_peak_after)
    monitor.on_start(run.context, run.state)
    run.context.log(run.state, {"throughput/tokens_per_sec": rate})
    run.context.timer.restart(run.state.progress)
    monitor.on_step(run.context, run.state, result)
    run.state.progress.tokens += 1
    seconds = 1 / run.context.timer.read(run.state.progress)[1]
    monitor.on_step(run.context, run.state, result)
    return seconds, [metrics for _, metrics in run.context.tracker.lines[1:]]


def test_model_flops_are_logged_once_with_tokens_per_second():
    model = lm(Transformer(**SHAPE))
    _, lines = logged(model, measure_peak_after=None)
    assert lines == [{"throughput/model_flops_per_sec": 1000 * training_flops(model, 16)}]


def test_the_peak_is_measured_after_a_delay_and_not_timed(monkeypatch):
    monkeypatch.setattr(measure_peak, "__defaults__", (0.5,))
    model = lm(Transformer(**SHAPE))
    assert "throughput/mfu" not in logged(model, measure_peak_after=60)[1][0]
    seconds, [metrics] = logged(model, measure_peak_after=0)
    peak = 1000 * training_flops(model, 16) / metrics["throughput/mfu"]
    assert 1e8 < peak < 1e15
    assert seconds < 0.4, "the half second of the measurement does not count"
