"""`suite=growth` compares runs of the same number of operations."""

import pytest
from benchmarks.__main__ import main


@pytest.mark.slow
def test_every_run_has_the_same_number_of_operations_within_a_step(tmp_path, capsys):
    words = ["a", "brown", "fox", "jumps", "over", "the", "lazy", "dog"]
    text = [" ".join(words[(i * j) % 7] + str(i % 13) for j in range(60)) for i in range(1, 2000)]
    file, plot = tmp_path / "text.txt", tmp_path / "growth.png"
    file.write_text("\n\n".join(text))
    assert main(["suite=growth", f"file={file}", "steps=10", f"plot={plot}"]) == 0
    lines = capsys.readouterr().out.splitlines()[4:7]
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    grown, final, first = (
        {"parameters": row[2], "steps": int(row[3]), "flops": float(row[5])} for row in rows
    )
    assert grown["parameters"] == final["parameters"] != first["parameters"]
    assert final["steps"] < grown["steps"] < first["steps"]
    for run in (final, first):
        assert abs(run["flops"] - grown["flops"]) <= 0.51 * run["flops"] / run["steps"]
    assert plot.stat().st_size > 5000
