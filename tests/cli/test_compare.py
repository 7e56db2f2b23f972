"""`compare`: methods by the folders of their runs; no claim that the runs do not support."""

import json
import shutil

import pytest

from mlxlab.analysis import crossvalidation
from mlxlab.analysis.comparison_runs import metric_of, read_finished
from mlxlab.errors import DataError
from mlxlab.record.run_file import write_run
from mlxlab.record.run_record import Data, Evaluation, Model, SplitResult, Training
from support.commands import command
from support.run_records import attempt_of, blank_record, edit_run, write_result

main = command("compare")


def make_run(
    folder, seed, value, fold=None, folds=None, metric="valid/accuracy", status="finished", **fields
):
    training = {"steps": 100, "best": 0.9, "speed": 50.0, "final": {metric: value}} | fields
    record = blank_record(
        id="a" * 32,
        name=folder.name,
        status=status,
        attempts=[attempt_of(status)],
        seed=seed,
        data=Data(fold=fold, folds=folds),
        model=Model(parameters=1000),
        training=Training("valid/loss", **training),
    )
    folder.mkdir(parents=True)
    write_run(folder, record)


def make_pair(folder, values=(0.6, 0.7), seeds=2, **fields):
    """Runs of methods a and b, with these values."""
    for name, value in zip("ab", values, strict=True):
        for seed in range(seeds):
            make_run(folder / name / f"{seed}", seed, value + 0.01 * seed, **fields)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for seed in range(4):
        make_run(folder / "alone" / f"{seed}", seed, 0.7 + 0.01 * seed)
        make_run(folder / "better" / f"{seed}", seed, 0.75 + 0.011 * seed)
        make_run(folder / "same" / f"{seed}", seed, 0.7 + 0.01 * (3 - seed))
    return folder


@pytest.fixture
def methods(runs, tmp_path):
    return shutil.copytree(runs, tmp_path, dirs_exist_ok=True)


def compare(folder, *args, baseline="alone", code=0, capsys=None):
    assert main([*args, f"baseline={baseline}", f"out={folder}/out"]) == code
    return capsys.readouterr()


def compare_two(folder, capsys, *args):
    """What is printed of the runs in `a` and `b`, and the page."""
    both = [f"{name}={folder}/{name}" for name in "ab"]
    out = compare(folder, *both, *args, baseline="a", capsys=capsys).out
    return out, (folder / "out" / "comparison.html").read_text().replace("<wbr>", "")


def test_the_folder_option_of_a_cross_validation_is_a_method(tmp_path, capsys):
    for name, value in (("cv_a", 0.7), ("cv_b", 0.75)):
        for fold in (0, 1):
            folder = tmp_path / name / "wine-1a2b" / f"seed-0-fold-{fold}"
            make_run(folder, 0, value + fold / 100, fold, 2)
    methods = [f"a={tmp_path}/cv_a", f"b={tmp_path}/cv_b"]
    out = compare(tmp_path, *methods, baseline="a", capsys=capsys).out
    assert "(gain +0.0500, 95 % interval +0.0500 to +0.0500, p 0, 2 pairs)" in out
    make_run(tmp_path / "cv_b" / "wine-3c4d" / "seed-0-fold-0", 0, 0.8, 0, 2)
    err = compare(tmp_path, *methods, baseline="a", code=66, capsys=capsys).err
    assert err.startswith(f"b={tmp_path}/cv_b: expected a run folder")


def test_a_significant_gain_is_told_from_chance(methods, capsys):
    args = [f"{name}={methods}/{name}" for name in ("alone", "better", "same")]
    out = compare(methods, *args, capsys=capsys).out
    assert "- better against alone, valid/accuracy: 0.0515 higher, which is better (gain +" in out
    assert out.count("significant gain") == 4  # in a sentence and in the table, of two methods
    assert out.count("no significant gain") == 2
    written = json.loads((methods / "out" / "comparison.json").read_text())
    assert written["methods"][0]["parameters"] == 1000
    assert written["test"] == "paired t-test over seeds"
    printed = compare(methods, *args, "--json", capsys=capsys).out
    assert json.loads(printed) == json.loads((methods / "out" / "comparison.json").read_text())


def test_folds_are_paired_by_seed_and_fold_and_the_variance_is_corrected(tmp_path, capsys):
    for seed in range(2):
        for fold in range(3):
            make_run(tmp_path / "a" / f"{seed}-{fold}", seed, 0.7 + 0.1 * fold, fold, 3)
            make_run(tmp_path / "b" / f"{fold}-{seed}", seed, 0.71 + 0.1 * fold, fold, 3)
    out, _ = compare_two(tmp_path, capsys)
    assert "0.0100 higher, which is better (gain +0.0100" in out
    assert "6 pairs" in out
    assert "Nadeau & Bengio" in out


def test_the_best_evaluation_has_all_metrics(tmp_path, capsys):
    make_pair(tmp_path, (0.5, 0.5))
    for path in tmp_path.glob("[ab]/*"):
        write_result(path, {"accuracy": 0.6 if path.parent.name == "a" else 0.7})
    out, page = compare_two(tmp_path, capsys, "evaluation=best")
    assert "- b against a, valid/accuracy: 0.1000 higher, which is better" in out
    assert "valid/accuracy of the best evaluation of each run" in page
    assert "valid/accuracy of the last evaluation of each run" in compare_two(tmp_path, capsys)[1]
    run = read_finished(tmp_path / "a" / "0")
    assert metric_of(run, "valid/loss", "best") == 0.9
    with pytest.raises(DataError, match="expected valid/f1 of the last evaluation"):
        metric_of(run, "valid/f1", "last")


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ("better={0}/nowhere", 66, "nowhere"),
        ("better={0}/bettr", 66, "better={0}/bettr: no such folder; did you mean {0}/better?"),
        ("", 2, "two or more methods, each as NAME=FOLDER; got alone="),
        ("better={0}/better metric=valid/f1", 2, "there is valid/accuracy"),
        ("better={0}/better metric=valid/loss", 65, "got valid/accuracy"),
        ("better={0}/better metrc=valid/loss", 2, "did you mean metric?"),
        ("better={0}/better evaluation=best", 65, "expected valid/accuracy of the best evaluation"),
        ("better={0}/better,{0}/better", 65, "two runs of"),
        ("better={0}/half", 65, "finished"),
        ("better={0}/folds", 0, ""),
        ("alone={0}/folds better={0}/folds2", 65, "expected the same"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_in_one_line(methods, capsys, args, code, message):
    make_run(methods / "half", 0, 0.5, status="interrupted")
    make_run(methods / "folds" / "a", 0, 0.5, 1, 3)
    make_run(methods / "folds2" / "a", 0, 0.5, 1, 5)
    typed = args.format(methods).split()
    if not args.startswith("alone="):
        typed.insert(0, f"alone={methods}/alone")
    out, err = compare(methods, *typed, code=code, capsys=capsys)
    assert message.format(methods) in err
    assert len(err.splitlines()) == bool(code)
    assert bool(out) == (code == 0)


def table_rows(text):
    lines = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line] for line in lines]


def test_a_cross_validation_with_teachers_compares_the_student_with_and_without_them(tmp_path):
    runs = {}
    gains = {"TEACHER": 0.1, "STUDENT_ALONE": 0.0, "MODEL": 0.02}
    for constant, gain in gains.items():
        name = getattr(crossvalidation, constant)
        runs[name] = crossvalidation.plan_folds(tmp_path / name, 3, 2)
        for index, folder in enumerate(runs[name]):
            accuracy = 0.7 + 0.01 * index + gain * (1 + 0.1 * (index % 2))
            make_run(folder, index // 3, accuracy, index % 3, 3, steps=3)
            baselines = {"majority": {"accuracy": 0.6}}
            write_result(folder, {"accuracy": accuracy}, baselines, steps=3)
    text, _ = crossvalidation.write_tables(runs, tmp_path, "the command")
    table, _, comparison = text.partition("\n- distilled against student alone, valid/accuracy: ")
    assert comparison.startswith("0.0210 higher, which is better")
    methods = [row[0] for row in table_rows(table)[1:]]
    assert methods == ["teacher", "this model", "student alone", "majority"]
    assert "this model: Better than majority class. Improvement over majority class +0." in table
    row = next(row for row in table_rows(comparison) if row[0] == "distilled")
    assert row[-3:] == ["1,000", "50", "3"]
    assert (tmp_path / "comparison.html").read_text().count("<svg") == 2


def subject_of(folder):
    return json.loads((folder / "out" / "comparison.json").read_text())["subject"]


def add_inputs(folder, overrides, baseline=None):
    def add(record):
        record.command.overrides = overrides
        for text in overrides:
            key, _, value = text.partition("=")
            group, _, name = key.rpartition(".")
            if group in ("data", "trainer", "trainer.loss"):
                record.config.setdefault(group, {})[name] = value
        record.command.choices = {"data": "titanic", "model": "bert"}
        record.data.name = "titanic"
        record.data.task = "classification"
        record.model.name = "bert"
        baselines = {"majority": {"accuracy": baseline}} if baseline else {}
        result = SplitResult("valid", 10, {}, baselines=baselines)
        record.evaluation = Evaluation("accuracy", [result])
        record.is_evaluated = True

    edit_run(folder, add)


def test_a_comparison_names_data_model_and_the_settings_that_differ(tmp_path, capsys):
    for name, rate, gain in (("a", "1e-4", 0.0), ("b", "0.002", 0.05)):
        for seed in range(3):
            make_run(tmp_path / name / f"{seed}", seed, 0.7 + gain + 0.01 * seed)
            same = ["data=titanic", f"seed={seed}", f"hydra.run.dir=x/{name}"]
            add_inputs(tmp_path / name / f"{seed}", [*same, f"trainer.learning_rate={rate}"], 0.6)
    out, page = compare_two(tmp_path, capsys)
    differs = "trainer.learning_rate: 0.0001 (a), 0.002 (b)"
    assert out.startswith(f"bert on titanic; {differs}\n\nb: Better than")
    subject = subject_of(tmp_path)
    assert subject["differs"] == {"trainer.learning_rate": {"a": "0.0001", "b": "0.002"}}
    assert subject["baselines"] == {"majority": 0.6}
    for text in ("b vs a: bert on titanic", "1 setting, below", ">Better than majority class<"):
        assert text in page
    for cell in ("trainer.learning_rate", "0.0001", "0.002"):
        assert f">{cell}</td>" in page
