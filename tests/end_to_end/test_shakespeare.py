"""experiment=shakespeare_char: runs on any text by characters, and on the real one reaches the published loss."""

import json
import os

import pytest

from support.processes import run, succeed
from support.run_records import best_metrics
from support.titanic import real_rows

SETTINGS = ["experiment=shakespeare_char", "tracking=none"]


def test_shakespeare_char_trains_on_characters_and_validates_on_the_end_of_the_text(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(
        "\n".join(f"{row.name}: ticket {row.ticket}" for row in real_rows() if row.name.isascii())
    )
    shorter = ["trainer.max_steps=4", "trainer.eval_every=2", "trainer.schedule.warmup=1"]
    shorter += ["data.prefetch=0"]
    succeed(*SETTINGS, *shorter, f"data.source={text}", f"hydra.run.dir={tmp_path / 'run'}")
    assert best_metrics(tmp_path / "run").keys() == {
        "valid/loss",
        "valid/perplexity",
        "valid/bits_per_byte",
    }
    pieces = json.loads((tmp_path / "run" / "inference" / "tokenizer.json").read_text())["model"][
        "vocab"
    ]
    assert len(pieces) == 4 + len(set(text.read_text()))


def test_shakespeare_char_without_its_text_is_one_line(tmp_path):
    done = run(*SETTINGS, "data.source=no-such.txt", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode == 66
    assert "no-such.txt" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.fault_injection
@pytest.mark.skipif(
    not os.environ.get("MLXLAB_SHAKESPEARE"),
    reason="MLXLAB_SHAKESPEARE names no tinyshakespeare.txt",
)
def test_shakespeare_char_reaches_the_published_loss(tmp_path):
    succeed(
        *SETTINGS,
        f"data.source={os.environ['MLXLAB_SHAKESPEARE']}",
        f"hydra.run.dir={tmp_path / 'run'}",
    )
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["training"]["final"]["valid/loss"] <= 1.88
