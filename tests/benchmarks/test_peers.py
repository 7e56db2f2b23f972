"""The suites that compare mlxlab with other libraries measure the same work."""

import math
import re

import pytest
from benchmarks.__main__ import main
from benchmarks.models import decoding, evaluation


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(evaluation, "LENGTH", 8)
    monkeypatch.setattr(evaluation, "VOCABULARY", 64)
    monkeypatch.setattr(decoding, "TOKENS", 3)


@pytest.mark.parametrize("family", ["transformer", "bert"])
def test_an_evaluation_is_that_of_random_tokens_and_equal_in_pytorch(family):
    loss = evaluation.subject("mlxlab", family, "nano")()
    assert loss == pytest.approx(math.log(64), abs=0.2)
    pytest.importorskip("torch")
    assert evaluation.subject("PyTorch", family, "nano")() == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "package"), [("mlxlab", "mlx"), ("mlx-lm", "mlx_lm"), ("transformers", "torch")]
)
def test_every_peer_generates_all_tokens(name, package):
    pytest.importorskip(package)
    if name == "transformers":
        pytest.importorskip("transformers")
    assert len(decoding.subject(name, "nano")()) == 3


def test_a_checkpoint_is_written_and_read(capsys):
    assert main(["suite=checkpoints", "size=nano", "rounds=1"]) == 0
    names = re.findall(r"^\| (mlxlab \w+)", capsys.readouterr().out, re.M)
    assert names == ["mlxlab write", "mlxlab read"]


def test_both_tokenizers_reach_the_size(tmp_path, capsys):
    file = tmp_path / "text.txt"
    file.write_text("the cat sat on the mat with the other cats\n" * 50)
    assert main(["suite=tokenizer_training", f"source={file}", "vocab_size=270", "rounds=1"]) == 0
    out = capsys.readouterr().out
    assert out.count(" 270 |") == 2


def test_a_peer_that_is_not_installed_is_named(monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.steps.peer_process.find_spec", lambda name: None)
    assert main(["suite=checkpoints", "size=nano", "compare_with=torch"]) == 2
    assert capsys.readouterr().err.startswith("compare_with=torch: torch is not installed")
