"""`embed`: a vector for each row of the input, in its order; the whole file or none."""

import json

import numpy as np
import pytest

from mlxlab.inference.restore import restore_model
from mlxlab.models.pretrained.load import PACKAGES, resolve
from mlxlab.models.sentence_encoder import SentenceEncoder
from mlxlab.training.device_batch import to_device
from support.commands import command
from support.processes import succeed_here, tiny_overrides
from support.titanic import csv_text, real_rows, table_of

main = command("embed")

TEXTS = ["the moon and stars", 'doctors, "medicine"', "rockets fly", "a", "b " * 300]


def test_vectors_are_those_of_the_published_encoder_in_the_order_of_the_rows(tmp_path):
    pytest.importorskip(PACKAGES["minilm"])
    output = tmp_path / "vectors.npy"
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(f"{json.dumps({'body': text})}\n" for text in TEXTS))
    argv = ["minilm", f"input={source}", "column=body", "batch_size=2", f"output={output}"]
    assert main(argv) == 0
    vectors = np.load(output)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, SentenceEncoder(resolve("minilm"))(TEXTS), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_vectors_of_a_run_are_what_its_classifier_reads(tmp_path):
    folder = tmp_path / "run"
    succeed_here(*tiny_overrides("trainer.max_steps=2"), f"hydra.run.dir={folder}")
    rows = real_rows()[:20]
    (tmp_path / "rows.csv").write_text(csv_text(rows))
    output = tmp_path / "vectors.npy"
    assert main([f"model={folder}", f"input={tmp_path}/rows.csv", f"output={output}"]) == 0
    vectors = np.load(output)
    restored = restore_model(folder)
    batch = to_device(restored.encoder.encode_rows(table_of(rows)))
    backbone = restored.model.backbone
    states = np.array(backbone.pool(backbone(batch.tokens, batch.segment_ids), batch.segment_ids))
    lengths = np.linalg.norm(states, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, states / lengths, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "column", "code", "message"),
    [
        ("text,x\nmoon,1\n,2\n", "text", 65, "rows.csv:3: column 'text': an empty text"),
        ("text,x\nmoon,1\n", "txt", 65, "no column 'txt'"),
    ],
)
def test_rows_that_cannot_be_read_leave_no_file(tmp_path, capsys, text, column, code, message):
    pytest.importorskip(PACKAGES["minilm"])
    (tmp_path / "rows.csv").write_text(text)
    output = tmp_path / "vectors.npy"
    argv = ["minilm", f"input={tmp_path}/rows.csv", f"column={column}", f"output={output}"]
    assert main(argv) == code
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_what_has_no_vectors_of_texts_is_refused(tmp_path, capsys):
    (tmp_path / "model.gguf").touch()
    (tmp_path / "texts.csv").write_text("text\na\n")
    args = [f"model={tmp_path}/model.gguf", f"input={tmp_path}/texts.csv"]
    assert main([*args, f"output={tmp_path}/v.npy"]) == 77
    assert main([*args, f"output={tmp_path}/v.csv"]) == 2
    assert "expected an encoder" in capsys.readouterr().err
