"""The benchmark of the curriculum needs a text."""

from benchmarks.__main__ import main


def test_a_missing_file_is_one_line(capsys):
    assert main(["suite=curriculum"]) == 2
    assert capsys.readouterr().err.startswith("suite=curriculum: expected file=")
