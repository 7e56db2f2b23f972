"""debug=one_batch and debug=overfit on every data set: a sound model learns a few batches by heart."""

import json

import pytest

from mlxlab.cli.train import main
from support.processes import tiny_overrides

SMALL = [
    setting
    for setting in tiny_overrides("model.hidden_size=32", "data.batch_size=4")
    if not setting.startswith(("trainer.", "callbacks.", "checkpointing.", "data.baselines"))
]
TITANIC = ["data.source=synthetic", "data.baselines=false"]
TEXT = [
    "data=streaming",
    "data.tokenizer.vocab_size=300",
    "data.seq_len=16",
    "data.shuffle.window=10",
]


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
    args = [
        *SMALL,
        f"model={model}",
        *more,
        *data,
        *([text] if data is TEXT else []),
        "debug=one_batch",
    ]
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
