"""Cross-validation: runs of a tiny model, their table, finished runs are not repeated, wrong input is refused."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from mlxlab.analysis.comparison import MethodResults, Subject, compare
from mlxlab.analysis.comparison_report import ComparisonView, comparison_lines
from mlxlab.analysis.crossvalidation import MODEL
from mlxlab.record.run_file import read_run
from support.commands import command
from support.processes import NO_PLOTS

main = command("crossvalidate")

ACCURACY = "valid/accuracy"

TINY = ["model.num_layers=1", "model.hidden_size=8", "model.num_heads=1", *NO_PLOTS]
TINY += ["model.intermediate_size=8", "data.templates=[brief]"]
ARGS = [*TINY, "data.source=synthetic", "folds=2", "seeds=1"]


def test_a_second_call_repeats_no_fold_and_prints_the_same_table(tmp_path, capsys):
    args = [*ARGS, "trainer.max_steps=2", f"folder={tmp_path}"]
    assert main(args) == 0
    first = capsys.readouterr()
    [folder] = tmp_path.iterdir()
    fits = sorted(folder.glob("seed-*/run.json"))
    assert [fit.parent.name for fit in fits] == ["seed-0-fold-0", "seed-0-fold-1"]
    table = json.loads((folder / "table.json").read_text())
    methods = {method["name"]: method for method in table["methods"]}
    last = np.mean([read_run(fit.parent).training.final[ACCURACY] for fit in fits])
    assert methods[MODEL]["mean"] == pytest.approx(last)
    assert set(methods) == {MODEL, *read_run(fits[0].parent).evaluation.results[0].baselines}
    assert first.out.strip() == (folder / "table.md").read_text().strip()

    times = [fit.stat().st_mtime_ns for fit in fits]
    shutil.rmtree(fits[0].parent)
    assert main(args) == 0
    again = capsys.readouterr()
    assert "2 jobs known, 1 of them ended; 0 new" in again.err
    assert again.out == first.out, "a repeated run gives the same result"
    assert fits[1].stat().st_mtime_ns == times[1]


def test_a_failed_run_ends_the_command_with_its_message_and_exit_code(tmp_path, capsys):
    rows = tmp_path / "rows.csv"
    rows.write_text("PassengerId,Survived\n1,x\n")
    args = [*TINY, f"data.source={rows}", "folds=2", "seeds=1"]
    assert main([*args, f"folder={tmp_path / 'out'}"]) == 65
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "seed-0-fold-" in line
    assert "rows.csv: no column" in line


@pytest.mark.parametrize(
    ("arg", "expected"),
    [
        ("folds=1", "folds=1: expected a whole number >= 2 and <= 400"),
        ("seed=3", "seed=3: crossvalidate sets seed itself"),
        ("sweep=learning_rate", "sweep=learning_rate: crossvalidate trains one config"),
        ("+data.fold=1", "+data.fold=1: crossvalidate sets data.fold itself"),
        ("callbacks.early_stopping.patience=2", ".patience=2, expected null"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(arg, expected, tmp_path, capsys):
    assert main([arg, f"folder={tmp_path}"]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert expected in line
    assert not list(tmp_path.iterdir())


def folds(name, values):
    results = {f"seed {i // 2} fold {i % 2}": value for i, value in enumerate(values)}
    return MethodResults(name, results, folds=(2,))


@pytest.mark.parametrize(
    ("model", "rule", "expected"),
    [
        ([0.6, 0.6, 0.6, 0.6], [0.7] * 4, "Learned nothing: no better than majority class."),
        ([0.8, 0.7, 0.9, 0.8], [0.7, 0.61, 0.8, 0.69], "Better than rule. Improvement over rule +"),
        ([0.7, 0.61, 0.8, 0.69], [0.8, 0.7, 0.9, 0.8], "Worse than rule."),
        ([0.8, 0.7, 0.9, 0.8], [0.7, 0.8, 0.8, 0.9], "No clear difference from rule."),
    ],
)
def test_the_verdict_is_on_the_best_baseline_and_says_if_nothing_was_learned(model, rule, expected):
    baselines = [folds("majority", [0.6] * 4), folds("rule", rule)]
    means = {"majority": 0.6, "rule": float(np.mean(rule))}
    subject = Subject(baselines=means)
    comparison = compare(ACCURACY, [folds(MODEL, model), *baselines], MODEL, subject=subject)
    comparison = replace(comparison, judged=MODEL)
    assert f"{MODEL}: {expected}" in comparison_lines(comparison)
    is_bad = "nothing" in expected or "Worse" in expected
    assert ComparisonView(comparison).trust.state == ("bad" if is_bad else "warning")
