"""`compare`: methods by the folders of their runs, and honest about what these show."""

import json

import pytest

from mlxlab.cli.compare import main
from mlxlab.experiment.manifest import RunManifest
from support.processes import run, tiny_overrides


def new_run(folder, seed, accuracy, fold=None, folds=None, best=0.9, steps=100, status="DONE", parameters=1000):
    folder.mkdir(parents=True)
    outcome = {"objective": "valid/loss", "best": best, "parameters": parameters, "speed": 50.0, "steps": steps}
    with RunManifest(folder) as manifest:
        manifest.begin({"seed": seed, "fold": fold, "folds": folds})
        manifest.record(outcome | {"final": {"valid/accuracy": accuracy}})
    facts = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(facts | {"status": status}))


@pytest.fixture
def methods(tmp_path):
    for seed in range(4):
        new_run(tmp_path / "alone" / f"{seed}", seed, 0.7 + 0.01 * seed)
        new_run(tmp_path / "better" / f"{seed}", seed, 0.75 + 0.011 * seed)
        new_run(tmp_path / "same" / f"{seed}", seed, 0.7 + 0.01 * (3 - seed))
    return tmp_path


def compared(folder, *words, baseline="alone", code=0, capsys=None):
    assert main([*words, f"baseline={baseline}", f"out={folder}/out"]) == code
    return capsys.readouterr()


def test_a_gain_is_shown_and_none_is_said_to_be_none(methods, capsys):
    words = [f"{name}={methods}/{name}" for name in ("alone", "better", "same")]
    out = compared(methods, *words, "relative_to=alone", capsys=capsys).out
    assert "- better against alone, valid/accuracy: +0.0515" in out
    assert out.count("significant gain") == 4  # twice each: one, and none
    assert out.count("no significant gain") == 2
    written = json.loads((methods / "out" / "comparison.json").read_text())
    assert written["series"][1]["parameters"] == 1000
    assert written["method"] == "paired t over seeds"


def test_folds_are_paired_by_seed_and_fold_and_judged_with_their_correction(tmp_path, capsys):
    for seed in range(2):
        for fold in range(3):
            new_run(tmp_path / "a" / f"{seed}-{fold}", seed, 0.7 + 0.1 * fold, fold, 3)
            new_run(tmp_path / "b" / f"{fold}-{seed}", seed, 0.71 + 0.1 * fold, fold, 3)
    out = compared(tmp_path, f"a={tmp_path}/a", f"b={tmp_path}/b", baseline="a", capsys=capsys).out
    assert "+0.01 higher" in out
    assert "6 pairs" in out
    assert "Nadeau & Bengio" in out


def test_a_comparison_is_recorded_as_a_run_of_its_own(methods, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{methods}/store.db")
    words = [f"{name}={methods}/{name}" for name in ("alone", "better")]
    compared(methods, *words, "experiment=studies", capsys=capsys)
    lines = [json.loads(line) for line in (methods / "out" / "journal.jsonl").read_text().splitlines()]
    assert lines[0]["start"]["experiment"] == "studies"
    assert lines[0]["start"]["params"]["baseline"] == "alone"
    metrics = next(line["m"] for line in lines if "m" in line)
    assert metrics["better/gain"] == pytest.approx(0.0515)
    assert [line["artifact"]["path"] for line in lines if "artifact" in line] == [
        "comparison.md",
        "comparison.json",
        "comparison.png",
    ]
    assert lines[-1]["end"] == "FINISHED"


def test_of_one_seed_nothing_is_said(methods, capsys):
    out = compared(methods, f"alone={methods}/alone", f"better={methods}/better/2", capsys=capsys).out
    assert "one pair: no verdict" in out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["alone={0}/alone", "better={0}/nowhere"], 66, "nowhere"),
        (["alone={0}/alone"], 2, "two or more"),
        (["alone={0}/alone", "better={0}/better", "relative_to=beter"], 2, "better"),
        (["alone={0}/alone", "better={0}/better", "metric=valid/f1"], 65, "got valid/accuracy"),
        (["alone={0}/alone", "better={0}/better", "evaluation=best"], 65, "best valid/accuracy"),
        (["alone={0}/alone", "better={0}/better,{0}/better"], 65, "two runs of"),
        (["alone={0}/alone", "better={0}/half"], 65, "DONE"),
        (["alone={0}/alone", "better={0}/folds"], 0, ""),
        (["alone={0}/folds", "better={0}/folds2"], 65, "expected the same"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line(methods, capsys, words, code, said):
    new_run(methods / "half", 0, 0.5, status="PREEMPTED")
    new_run(methods / "folds" / "a", 0, 0.5, 1, 3)
    new_run(methods / "folds2" / "a", 0, 0.5, 1, 5)
    out, err = compared(methods, *[word.format(methods) for word in words], code=code, capsys=capsys)
    assert said in err
    assert len(err.splitlines()) == bool(code)
    assert bool(out) == (code == 0)


def test_a_real_run_is_compared_by_what_it_left_behind(tmp_path, capsys):
    done = run(*tiny_overrides("trainer.max_steps=3"), "data.folds=3", f"hydra.run.dir={tmp_path}/real/0")
    assert done.returncode == 0, done.stderr
    new_run(tmp_path / "made", 0, 0.5, 0, 3)
    out = compared(tmp_path, f"real={tmp_path}/real", f"made={tmp_path}/made", baseline="made", capsys=capsys).out
    assert "one pair" in out
    cells = [cell.strip() for line in out.splitlines() if line.startswith("| real") for cell in line.split("|")]
    assert cells[-2] == "3"
    assert all(cells[9:11])  # parameters and speed


def test_a_cross_validation_with_teachers_says_whether_the_student_gained(tmp_path):
    from mlxlab.analysis.crossvalidation import plan_folds
    from mlxlab.cli.crossvalidate import _compared

    methods = {name: plan_folds(tmp_path / name, 3, 2) for name in ("student alone", "distilled", "teacher")}
    for (name, fits), gain in zip(methods.items(), (0, 0.02, 0.1), strict=True):
        for place, fit in enumerate(fits):
            new_run(fit.folder, fit.seed, 0.5, parameters=250 if name == "teacher" else 100)
            accuracy = {"valid/accuracy": 0.7 + 0.01 * place + gain * (1 + 0.1 * (place % 2))}
            figures = {"final": accuracy, "metrics": accuracy, "steps": 3, "baselines": {}}
            (fit.folder / "metrics.json").write_text(json.dumps(figures))
    text = _compared(methods, 3, tmp_path, "the command")
    assert "- distilled against student alone, valid/accuracy: +0.021 higher" in text
    assert "Nadeau" in text
    row = next(line for line in text.splitlines() if line.startswith("| distilled"))
    assert [cell.strip() for cell in row.split("|")][-5:-1] == ["100", "40.0%", "50", "3"]
    assert (tmp_path / "comparison.png").is_file()
