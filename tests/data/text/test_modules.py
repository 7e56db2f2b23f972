"""How many modules a batch of text crosses from its file to the model."""

import sys
import threading

from benchmarks.config import read_config
from benchmarks.data.stream import override

from mlxlab.config.instantiate import instantiate

# What takes a batch from the iterator to the model, see docs/explanation/architecture.md.
TRAINING = (
    "mlxlab.training.distributed.process_group",
    "mlxlab.training.device_batch",
    "mlxlab.training.loop",
    "mlxlab.training.steps.step",
)
PACKAGES = ("mlxlab.data.", "mlxlab.training.", "mlxlab.training.distributed.")


def modules_called(function):
    """The modules of `PACKAGES` whose functions run, in this and in other threads."""
    modules = set()

    def note(frame, event, argument):
        if event == "call":
            modules.add(frame.f_globals.get("__name__", ""))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return {name for name in modules if name.startswith(PACKAGES)}


def test_a_batch_of_text_crosses_at_most_15_modules(tmp_path):
    (tmp_path / "text.jsonl").write_text(
        "".join(f'{{"text": "text {number} of a few words"}}\n' for number in range(500))
    )
    node = read_config("data/streaming") | {
        "source": str(tmp_path / "text.jsonl"),
        "order": read_config("data/order/shuffle"),
        "tokenizer": read_config("data/tokenizer/bpe") | {"vocab_size": 300},
    }
    node = override(node, {"seq_len": 16, "batch_size": 4})
    runtime = {"seed": 0, "masked": False, "parameters": 1000, "width": 8}
    data = instantiate(node, **runtime, cache=tmp_path)
    modules = modules_called(lambda: sum(1 for _ in data.train))
    assert len(modules) + len(TRAINING) <= 15, sorted(modules)
    assert "mlxlab.data.sources.text_files" in modules
