"""Memory of the optimized step at `nano` with MLX's kernels; the native ones store fewer activations to recompute."""

import pytest
from benchmarks.memory import memory


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "transformer"])
def test_accumulation_and_activation_checkpointing_need_little_memory(
    mlx_kernels, monkeypatch, family
):
    monkeypatch.setattr(memory, "LENGTH", 64)
    state_bytes, peaks = memory.measure(family, "nano", 0, 64)
    assert peaks["accumulate=8"] <= 1.25 * (peaks["micro-batch"] + state_bytes / 4)
    assert peaks["accumulate=8"] - state_bytes < (peaks["full batch"] - state_bytes) / 2
    activations = peaks["full batch"] - state_bytes
    assert peaks["activation_checkpointing"] - state_bytes <= 0.6 * activations
