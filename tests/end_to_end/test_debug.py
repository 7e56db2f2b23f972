"""debug=one_batch and debug=overfit on every data set: a sound model learns a few batches by heart."""

import json
from collections import Counter

import pytest

from mlxlab.cli.train import main
from mlxlab.evaluation import at_end
from mlxlab.record.run_file import read_run
from mlxlab.training import loop
from mlxlab.training.evaluate import evaluate
from support.processes import tiny_overrides

SMALL = [
    setting
    for setting in tiny_overrides("model.hidden_size=32", "data.batch_size=4")
    if not setting.startswith(("trainer.", "callbacks.", "checkpointing.", "data.baselines"))
]
TITANIC = ["data.source=synthetic", "data.baselines=false"]
TEXT = ["data=streaming", "data.tokenizer.vocab_size=300", "data.seq_len=16"]
TEXT += ["data.shuffle.window=10"]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.jsonl"
    rows = [{"text": f"{n} sheep and {n * n} dogs. " * 4} for n in range(60)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return f"data.source={path}"


def first_and_last(folder):
    [state] = sorted(folder.glob("checkpoints/step-*/state.json"))[-1:]
    curve = [metrics for _, metrics in json.loads(state.read_text())["history"]["curve"]]
    losses = [metrics["train/loss"] for metrics in curve if "train/loss" in metrics]
    return losses[0], losses[-1]


FILTERS = ["model.num_filters=8", "model.kernel_sizes=[2,3]"]


@pytest.mark.parametrize(
    ("data", "model"),
    [(TITANIC, ["bert"]), (TITANIC, ["cnn_hybrid", *FILTERS]), (TEXT, ["transformer"])],
    ids=["bert", "cnn_hybrid", "transformer"],
)
def test_one_batch_is_memorised(tmp_path, text, data, model):
    args = [*SMALL, *data, *([text] if data is TEXT else []), f"model={model[0]}", *model[1:]]
    args += ["debug=one_batch", "trainer.learning_rate=5e-3", "trainer.max_steps=60"]
    assert main([*args, f"hydra.run.dir={tmp_path / 'run'}"]) == 0
    first, last = first_and_last(tmp_path / "run")
    assert last < 0.1 * first


@pytest.mark.parametrize("data", [TITANIC, TEXT], ids=["titanic", "text"])
def test_overfit_batches_repeats_the_same_batches_every_epoch(tmp_path, text, data):
    args = [*SMALL, *data, *([text] if data is TEXT else []), "debug=overfit", "trainer.epochs=4"]
    assert main([*args, f"hydra.run.dir={tmp_path / 'run'}"]) == 0
    last = max(path.name for path in (tmp_path / "run" / "checkpoints").glob("step-*"))
    assert last == "step-00000020"


def test_limit_trains_and_evaluates_two_batches_of_each_split(tmp_path, monkeypatch):
    evaluated = []

    def counted(model, batches, task, *, limit, **options):
        evaluated.append(limit)
        return evaluate(model, batches, task, limit=limit, **options)

    for module in (at_end, loop):
        monkeypatch.setattr(module, "evaluate", counted)
    assert main([*SMALL, *TITANIC, "debug=limit", f"hydra.run.dir={tmp_path / 'run'}"]) == 0
    record = read_run(tmp_path / "run")
    assert (record.training.steps, record.is_evaluated, set(evaluated)) == (2, True, {2})


def test_a_profile_has_all_parts_of_a_run_and_changes_nothing_in_it(tmp_path):
    states = []
    for name, options in (("plain", []), ("profiled", ["debug=profile"])):
        args = [*SMALL, *TITANIC, *options, "tracking=none", "model.dropout=0.1"]
        args += ["trainer.max_steps=12", "trainer.epochs=null", "trainer.eval_every=6"]
        args += ["trainer.eval_batches=2", f"hydra.run.dir={tmp_path / name}"]
        assert main(args) == 0
        states.append(read_run(tmp_path / name).training.final_state)
    assert states[0] == states[1]

    folder = tmp_path / "profiled"
    events = json.loads((folder / "profile.json").read_text())["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]
    counts = Counter(event["name"] for event in spans)
    assert (counts["step"], counts["evaluation"], counts["checkpoint"]) == (12, 2, 12)
    assert {"data", "CSVLogger", "Profile"} <= counts.keys()
    memory = [event["args"] for event in events if event["ph"] == "C"]
    assert len(memory) == 12
    assert all(0 < sample["active"] <= sample["peak"] for sample in memory)
    assert (folder / "profile.png").read_bytes().startswith(b"\x89PNG")
