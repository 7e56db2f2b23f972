"""The cross-validation: real fits of a tiny model, their table, what is not repeated, what is refused."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from mlxlab.analysis.crossvalidation import FoldResult
from mlxlab.analysis.fold_table import MODEL, markdown, summarise, teacher_note
from mlxlab.cli.crossvalidate import main

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "model.num_layers=1",
    "model.hidden_size=8",
    "model.num_heads=1",
    "model.intermediate_size=8",
    "data.templates=[brief]",
]
WORDS = [*TINY, "data.source=synthetic", "folds=2", "seeds=1"]


def test_a_table_of_every_fold_and_a_second_call_that_repeats_nothing(tmp_path, capsys):
    words = [*WORDS, "trainer.max_steps=2", f"folder={tmp_path}"]
    assert main(words) == 0
    first = capsys.readouterr()
    [folder] = tmp_path.iterdir()
    fits = sorted(folder.glob("seed-*/metrics.json"))
    written = [json.loads(fit.read_text()) for fit in fits]
    assert [fit.parent.name for fit in fits] == ["seed-0-fold-0", "seed-0-fold-1"]
    table = json.loads((folder / "table.json").read_text())
    assert table["judged"] == "last step"
    rows = {row["name"]: row for row in table["rows"]}
    assert rows[MODEL]["mean"] == pytest.approx(np.mean([one["final"]["valid/accuracy"] for one in written]))
    assert set(rows) == {MODEL, *written[0]["baselines"]}
    assert first.out.strip() == (folder / "table.md").read_text().strip()
    assert (folder / "table.png").stat().st_size > 5000

    times = [fit.stat().st_mtime_ns for fit in fits]
    fits[0].write_text("{")  # a fit that was killed while it wrote
    assert main(words) == 0
    again = capsys.readouterr()
    assert "2 runs, 1 of them finished already" in again.err
    assert again.out == first.out, "a repeated fit gives what it gave"
    assert fits[1].stat().st_mtime_ns == times[1]


def test_a_fit_that_fails_ends_the_command_with_its_line_and_exit_code(tmp_path, capsys):
    rows = tmp_path / "rows.csv"
    rows.write_text("PassengerId,Survived\n1,x\n")
    assert main([*TINY, f"data.source={rows}", "folds=2", "seeds=1", f"folder={tmp_path / 'out'}"]) == 65
    [line] = capsys.readouterr().err.strip().splitlines()[1:]
    assert line.startswith("seed 0 fold")
    assert "rows.csv:1" in line


def test_a_stopped_command_leaves_no_process_behind(tmp_path):
    script = ROOT / "scripts" / "crossvalidate.py"
    words = [*WORDS, "trainer.epochs=100000", f"folder={tmp_path}"]
    process = subprocess.Popen([sys.executable, str(script), *words], stderr=subprocess.PIPE, text=True)
    children: list[psutil.Process] = []
    while len(children) < 2 and process.poll() is None:
        time.sleep(0.05)
        children = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert said.strip().splitlines()[-1] == "stopped; the same command continues"
    assert len(children) == 2
    assert not any(child.is_running() for child in children)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("folds=1", "folds=1: expected a whole number >= 2 and <= 400"),
        ("seeds=many", "seeds=many: expected a whole number >= 1 and <= 100"),
        ("--fast", "--fast: unknown flag"),
        ("seed=3", "seed=3: crossvalidate sets seed itself"),
        ("+data.fold=1", "+data.fold=1: crossvalidate sets data.fold itself"),
        ("teacher='", "teacher=': No closing quotation"),
        ("model=brt", "did you mean bert?"),
        ("trainer.epoch=3", "did you mean trainer.epochs?"),
        ("callbacks.early_stopping.patience=2", "callbacks.early_stopping.patience=2, expected null"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(word, expected, tmp_path, capsys):
    assert main([word, f"folder={tmp_path}"]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert expected in line
    assert not list(tmp_path.iterdir())


def test_the_standard_error_is_over_all_fits_and_the_gain_is_taken_fold_by_fold():
    finals, others = [0.8, 0.7, 0.9, 0.8], [0.7, 0.6, 0.8, 0.7]
    results = [
        FoldResult(place // 2, place % 2, 10, finals[place], 0.95, {"rule": others[place]})
        for place in range(len(finals))
    ]
    rule, model = summarise(results)
    assert (rule.name, model.name) == ("rule", MODEL)
    assert model.mean == pytest.approx(0.8)
    assert model.error == pytest.approx(np.std(finals, ddof=1) / 2)
    assert model.by_seed == pytest.approx([0.75, 0.85])
    assert rule.gain == pytest.approx(0.1)
    assert rule.gain_error == pytest.approx(0, abs=1e-12), "the folds' hardness is common to both"
    assert "best checkpoints: 0.9500" in markdown(results, "")


def test_one_fold_is_never_called_a_gain():
    result = FoldResult(0, 0, 10, 0.9, 0.9, {"teacher": 1.0, "student alone": 0.5})
    note = teacher_note([result], 20, 100)
    assert note == "The student reaches 90.0% of the teacher's accuracy with 20 of its 100 parameters (20%)."
    assert "gain" not in markdown([result], "", note)
