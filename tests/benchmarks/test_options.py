"""What a suite cannot measure is one line: which option, and what would do."""

import pytest
from benchmarks.__main__ import main
from benchmarks.steps import torch_decoder


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ("qlora model=/none", 66, "no such folder"),
        ("qlora model=/none compare_with=torch", 2, "expected mlx_lm"),
        ("qlora rounds=0 model=/none", 2, "expected a whole number >= 1"),
        ("growth", 2, "suite=growth: expected file="),
        ("growth file=a.txt steps=3", 2, "expected a whole number >= 10"),
        ("growth file=a.txt plot=/none/growth.png", 66, "no such folder: /none"),
        ("growth file=/none.txt", 66, "/none.txt"),
        ("loader", 2, "suite=loader: expected source="),
        ("decoding shape=nan", 2, "shape=nan: expected nano, tiny"),
        ("runs runs=0", 2, "runs=0"),
        ("zoo only=no_such_architecture", 2, "mlx-lm has no such architecture"),
    ],
)
def test_what_cannot_be_measured_is_one_line(capsys, args, code, message):
    if args.startswith("zoo"):
        pytest.importorskip("mlx_lm")
    assert main(f"suite={args}".split()) == code
    error = capsys.readouterr().err
    assert (message in error, len(error.splitlines())) == (True, 1), error


def test_missing_pytorch_is_one_line_with_the_install_command(monkeypatch, capsys):
    monkeypatch.setattr(torch_decoder, "find_spec", lambda name: None)
    assert main(["suite=shakespeare", "compare_with=torch", "source=text.txt"]) == 69
    assert "pip install torch" in capsys.readouterr().err
