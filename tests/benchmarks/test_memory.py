"""Memory of the optimized step at `nano` with MLX's kernels; the native ones store fewer activations to recompute."""

import json

import pytest
from benchmarks.__main__ import main
from benchmarks.memory import memory

from mlxlab.backend.ops.native import state


@pytest.fixture(scope="module", params=["bert", "transformer"])
def measured(request):
    kernels = state.current()
    state.deactivate()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "LENGTH", 64)
        figures = memory.measure(request.param, "nano", 0, 64)
    state.use(kernels)
    return figures


@pytest.mark.slow
def test_accumulation_and_activation_checkpointing_need_little_memory(measured):
    state_bytes, peaks = measured
    assert peaks["accumulate=8"] <= 1.25 * (peaks["micro-batch"] + state_bytes / 4)
    assert peaks["accumulate=8"] - state_bytes < (peaks["full batch"] - state_bytes) / 2
    activations = peaks["full batch"] - state_bytes
    assert peaks["activation_checkpointing"] - state_bytes <= 0.6 * activations


def test_the_table_has_every_variant_and_is_saved_as_markdown_and_json(
    monkeypatch, tmp_path, capsys
):
    steps = ["full batch", "micro-batch", "accumulate=8", "activation_checkpointing"]
    peaks = dict.fromkeys([*steps, "accumulate=8 activation_checkpointing"], 2e6)
    monkeypatch.setattr(memory, "measure", lambda *_: (1_000_000, peaks))
    assert main(["suite=memory", "size=nano", f"save={tmp_path}/reports/memory"]) == 0
    text = capsys.readouterr().out
    assert (tmp_path / "reports" / "memory.md").read_text() == text
    saved = json.loads((tmp_path / "reports" / "memory.json").read_text())
    assert (saved["suite"], saved["size"], len(saved["tables"])) == ("memory", "nano", 2)
    assert saved["tables"][0]["columns"] == ["step", "peak", "activations", "ratio"]
    assert saved["tables"][0]["rows"][3] == ["activation_checkpointing", "2", "1", "1.00"]
    assert " ".join(text.split()).count("| activation_checkpointing | 2 | 1 | 1.00 |") == 2
    assert "accumulate=8 relative to a micro-batch plus gradients: 0.89" in text
