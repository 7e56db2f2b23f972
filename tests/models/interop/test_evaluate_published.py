"""`evaluate` of a language model as it was published: the loss of a text, without a run."""

import json
import math

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.models.build import build_pretrained_model
from mlxlab.models.interop.gguf import export_gguf
from mlxlab.models.interop.hugging_face import export_hugging_face
from support.commands import command
from support.exported import BERT, LLAMA, ORIGIN

main = command("evaluate")

TEXT = "the cat sees the dog, and Zo\u00eb sees them; the cat \u2603 again and again.\n" * 5
T = 8


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def published(trained, tmp_path):
    source = trained(LLAMA, scale=8.0)
    export_hugging_face(source, tmp_path / "hf", ORIGIN)
    export_gguf(source, tmp_path / "tiny.gguf", "tiny")
    return tmp_path


def evaluate(capsys, run, text, *args):
    assert main([f"run={run}", f"data.source={text}", "json=true", *args]) == 0
    return json.loads(capsys.readouterr().out)["metrics"]


def rows_of(tokenizer):
    """Rows of T + 1 tokens, each of which begins with the last one of the row before."""
    tokens = np.array([*tokenizer.encode(TEXT, special=False), tokenizer.eos_id])
    return [tokens[start : start + T + 1] for start in range(0, len(tokens) - 1, T)]


def expected_metrics(losses, tokenizer):
    first = tokenizer.encode(TEXT, special=False)[0]
    num_bytes = len(TEXT.encode()) - tokenizer.token_bytes[first]  # The first is no target.
    loss = float(np.mean(losses))
    bits = float(np.sum(losses)) / math.log(2) / num_bytes
    return {"loss": loss, "perplexity": math.exp(loss), "bits_per_byte": bits}


@pytest.mark.parametrize("name", ["hf", "tiny.gguf"])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_the_loss_is_that_of_the_logits(published, tokenizer, text, name, batch_size, capsys):
    model = build_pretrained_model(published / name, tokenizer.vocab_size)
    losses = []
    for row in rows_of(tokenizer):
        inputs = mx.array(row[None, :-1])
        logits = np.array(model(inputs, mx.ones(inputs.shape, mx.int32)), np.float64)[0]
        log_sums = np.log(np.exp(logits).sum(axis=-1))
        losses += (log_sums - logits[np.arange(len(row) - 1), row[1:]]).tolist()
    options = [f"data.seq_len={T}", f"data.eval_batch_size={batch_size}"]
    metrics = evaluate(capsys, published / name, text, *options)
    assert metrics == pytest.approx(expected_metrics(losses, tokenizer), rel=1e-4)


def test_what_cannot_be_evaluated_is_one_line(published, trained, text, tmp_path, capsys):
    export_hugging_face(trained(BERT), tmp_path / "bert", ORIGIN)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    source = f"data.source={text}"
    for name, args, code, words in [
        ("hf", [], 2, "expected data.source=FILE"),
        ("hf", [source, "data.order.alpha=1"], 2, "data.order.alpha=1"),
        ("hf", [source, "pretrained=x.gguf"], 2, "pretrained=x.gguf"),
        ("hf", [f"data.source={tmp_path}/none.txt"], 66, "none.txt"),
        ("bert", [source], 2, "masked"),
        ("broken", [source], 66, "tokenizer.json"),
        ("none.gguf", [source], 66, "none.gguf"),
    ]:
        assert main([f"run={tmp_path / name}", *args]) == code, name
        lines = capsys.readouterr().err.splitlines()
        assert words in lines[-1]
        assert "Traceback" not in " ".join(lines)
