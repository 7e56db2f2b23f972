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
    path.write_text(
        "".join(json.dumps({"text": f"{n} sheep and {n * n} dogs. " * 4}) + "\n" for n in range(60))
    )
    return f"data.source={path}"


def first_and_last(folder):
    [state] = sorted(folder.glob("checkpoints/step-*/state.json"))[-1:]
    losses = [
        metrics["train/loss"]
        for _, metrics in json.loads(state.read_text())["history"]["curve"]
        if "train/loss" in metrics
    ]
    return losses[0], losses[-1]


@pytest.mark.parametrize("model", ["bert", "cnn_hybrid", "transformer"])
@pytest.mark.parametrize("data", [TITANIC, TEXT], ids=["titanic", "text"])
def test_one_batch_is_memorised(tmp_path, text, model, data):
    more = ["model.num_filters=8", "model.kernel_sizes=[2,3]"] if model == "cnn_hybrid" else []
    args = [*SMALL, f"model={model}", *more, *data, *([text] if data is TEXT else [])]
    args += ["debug=one_batch"]
    assert (
        main(
            [
                *args,
                "trainer.learning_rate=5e-3",
                "trainer.max_steps=60",
                f"hydra.run.dir={tmp_path / 'run'}",
            ]
        )
        == 0
    )
    first, last = first_and_last(tmp_path / "run")
    assert last < 0.1 * first


@pytest.mark.parametrize("data", [TITANIC, TEXT], ids=["titanic", "text"])
def test_overfit_batches_repeats_the_same_batches_every_epoch(tmp_path, text, data):
    args = [*SMALL, *data, *([text] if data is TEXT else []), "debug=overfit", "trainer.epochs=4"]
    assert main([*args, f"hydra.run.dir={tmp_path / 'run'}"]) == 0
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()][-1:] == [
        "step-00000020"
    ]


@pytest.mark.parametrize("data", [TITANIC, TEXT], ids=["titanic", "text"])
def test_limit_trains_and_evaluates_two_batches_of_each_split(tmp_path, text, data, monkeypatch):
    evaluated = []

    def counted(model, batches, task, *, limit, **options):
        evaluated.append(limit)
        return evaluate(model, batches, task, limit=limit, **options)

    for module in (at_end, loop):
        monkeypatch.setattr(module, "evaluate", counted)
    args = [*SMALL, *data, *([text] if data is TEXT else []), "debug=limit"]
    assert main([*args, f"hydra.run.dir={tmp_path / 'run'}"]) == 0
    record = read_run(tmp_path / "run")
    assert record.training.steps == 2
    assert set(evaluated) == {2}
    assert record.is_evaluated


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
    assert counts["step"] == 12
    assert counts["evaluation"] == 2
    assert counts["checkpoint"] == 12
    assert {"data", "CSVLogger", "Profile"} <= counts.keys()
    memory = [event["args"] for event in events if event["ph"] == "C"]
    assert len(memory) == 12
    assert all(0 < sample["active"] <= sample["peak"] for sample in memory)
    steps = sorted(event["ts"] for event in spans if event["name"] == "step")
    first, last = steps[0], steps[-1]
    assert 0 <= first < last
    assert (folder / "profile.png").read_bytes().startswith(b"\x89PNG")
