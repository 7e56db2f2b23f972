"""`compare`: methods by the folders of their runs; no claim that the runs do not support."""

import json
import shutil

import pytest

from mlxlab.analysis import crossvalidation
from mlxlab.analysis.comparison_runs import metric_of, read_finished
from mlxlab.errors import DataError, WriteError
from mlxlab.record.run_file import read_run, write_run
from mlxlab.record.run_record import Data, Evaluation, Model, SplitResult, Training
from support.commands import command
from support.past_run import past_run
from support.run_records import attempt_of, blank_record, edit_run, write_result

main = command("compare")


def make_run(
    folder,
    seed,
    value,
    fold=None,
    folds=None,
    best=0.9,
    steps=100,
    status="finished",
    parameters=1000,
    metric="valid/accuracy",
):
    folder.mkdir(parents=True)
    final = {metric: value}
    training = Training("valid/loss", steps=steps, best=best, speed=50.0, final=final)
    record = blank_record(
        id="a" * 32,
        name=folder.name,
        status=status,
        attempts=[attempt_of(status)],
        seed=seed,
        data=Data(fold=fold, folds=folds),
        model=Model(parameters=parameters),
        training=training,
    )
    write_run(folder, record)


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


def subject_of(folder):
    return json.loads((folder / "out" / "comparison.json").read_text())["subject"]


def test_two_runs_without_names_are_sent_to_the_command_for_single_runs(methods, capsys):
    assert main([f"{methods}/alone/0", f"{methods}/alone/1"]) == 2
    expected = "expected NAME=FOLDER; mlxlab runs diff RUN RUN compares single runs"
    assert capsys.readouterr().err.endswith(f"{expected}\n")


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


def test_the_value_of_a_run_is_that_of_any_metric_of_its_best_evaluation(tmp_path):
    make_run(tmp_path / "run", 0, 0.7, best=0.4)
    write_result(tmp_path / "run", {"accuracy": 0.8})
    run = read_finished(tmp_path / "run")
    values = [metric_of(run, name, "best") for name in ("valid/accuracy", "valid/loss")]
    assert (*values, metric_of(run, "valid/accuracy", "last")) == (0.8, 0.4, 0.7)
    with pytest.raises(DataError, match="expected valid/f1 of the last evaluation"):
        metric_of(run, "valid/f1", "last")


def test_a_significant_gain_is_told_from_chance(methods, capsys):
    args = [f"{name}={methods}/{name}" for name in ("alone", "better", "same")]
    out = compare(methods, *args, capsys=capsys).out
    assert "- better against alone, valid/accuracy: 0.0515 higher, which is better (gain +" in out
    assert out.count("significant gain") == 4  # in a sentence and in the table, of two methods
    assert out.count("no significant gain") == 2
    typed = f"{' '.join(args)} baseline=alone out={methods}/out"
    assert f"\n    mlxlab compare {typed}\n" in out
    heading, table = out.split("valid/accuracy of the last evaluation of each run:")
    assert "| method" not in heading
    assert table.startswith("\n\n| method")
    assert out.splitlines()[-1] == f"report: {methods}/out/comparison.html"
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


def test_reports_of_different_comparisons_are_in_folders_of_their_own_below_outputs(
    methods, capsys, monkeypatch
):
    monkeypatch.chdir(methods)
    for options in ([], [], ["evaluation=best", "metric=valid/loss"], ["out=chosen"]):
        assert main(["alone=alone", "better=better", "baseline=alone", *options]) == 0
    pages = [page for page in methods.glob("**/comparison.html") if page.parent.name != "chosen"]
    assert {page.parent.parent for page in pages} == {methods / "outputs" / "comparisons"}
    assert len(pages) == 2
    reports = [line for line in capsys.readouterr().out.splitlines() if line.startswith("report: ")]
    assert reports[0] == reports[1]
    assert (methods / reports[0].split()[1]).is_file()
    assert reports[-1] == "report: chosen/comparison.html"


def test_runs_without_an_accuracy_are_compared_by_their_objective(tmp_path, capsys):
    for seed in range(3):
        make_run(tmp_path / "a" / f"{seed}", seed, 0.5 + 0.01 * seed, metric="valid/loss")
        make_run(tmp_path / "b" / f"{seed}", seed, 0.4 + 0.011 * seed, metric="valid/loss")
    out, _ = compare_two(tmp_path, capsys)
    assert "- b against a, valid/loss: " in out


def test_the_best_evaluation_has_all_metrics(tmp_path, capsys):
    for name, best in (("a", 0.6), ("b", 0.7)):
        for seed in range(2):
            make_run(tmp_path / name / f"{seed}", seed, 0.5)
            write_result(tmp_path / name / f"{seed}", {"accuracy": best})
    out, page = compare_two(tmp_path, capsys, "evaluation=best")
    assert "- b against a, valid/accuracy: 0.1000 higher, which is better" in out
    assert "valid/accuracy of the best evaluation of each run:" in out
    assert "valid/accuracy of the best evaluation of each run, in " in page
    assert (
        "valid/accuracy of the last evaluation of each run, in " in compare_two(tmp_path, capsys)[1]
    )
    compare_two(tmp_path, capsys, "metric=valid/loss", "evaluation=best")


def test_a_single_pair_gets_no_verdict(methods, capsys):
    both = [f"alone={methods}/alone", f"better={methods}/better/2"]
    assert "one pair: no verdict" in compare(methods, *both, capsys=capsys).out


def test_the_first_method_is_the_baseline_unless_another_is_named(methods, capsys, tmp_path):
    both = [f"alone={methods}/alone", f"better={methods}/better", f"out={tmp_path}/out", "--json"]
    for more, expected in (([], "alone"), (["baseline=better"], "better")):
        assert main([*both, *more]) == 0
        assert json.loads(capsys.readouterr().out)["against"] == expected


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ("better={0}/nowhere", 66, "nowhere"),
        ("better=~no-such-user/runs", 66, "better=~no-such-user/runs: no such folder; expected a"),
        ("better={0}/bettr", 66, "better={0}/bettr: no such folder; did you mean {0}/better?"),
        ("seed=3", 66, "seed=3: no such folder; expected a run folder"),
        ("", 2, "two or more methods, each as NAME=FOLDER; got alone="),
        ("better", 2, "better: expected NAME=FOLDER"),
        ("better={0}/better metric=valid/f1", 2, "there is valid/accuracy"),
        ("better={0}/better metric=valid/acuracy", 2, "there is valid/accuracy, valid/loss"),
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


def test_a_report_that_cannot_be_written_is_one_line(methods, capsys):
    (methods / "out").write_text("")
    both = [f"alone={methods}/alone", f"same={methods}/same"]
    assert compare(methods, *both, code=74, capsys=capsys).err == f"{methods}/out: File exists\n"


def test_a_trained_run_can_be_compared(tmp_path, capsys):
    shutil.copytree(past_run(), tmp_path / "b" / "0")
    make_run(tmp_path / "a", 0, 0.5)
    out, _ = compare_two(tmp_path, capsys)
    assert "one pair" in out
    head, *rows = table_rows(out)
    real = next(dict(zip(head, row, strict=True)) for row in rows if row[0] == "b")
    assert real["steps"] == "3"
    assert real["parameters"]
    assert real["tokens/s"]


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
            parameters = 250 if name == crossvalidation.TEACHER else 100
            make_run(folder, index // 3, accuracy, index % 3, 3, parameters=parameters, steps=3)
            baselines = {"majority": {"accuracy": 0.6}}
            write_result(folder, {"accuracy": accuracy}, baselines, steps=3)
    text, _ = crossvalidation.write_tables(runs, tmp_path, "the command")
    table, _, comparison = text.partition("\n- distilled against student alone, valid/accuracy: ")
    assert comparison.startswith("0.0210 higher, which is better")
    methods = [row[0] for row in table_rows(table)[1:]]
    assert methods == ["teacher", "this model", "student alone", "majority"]
    assert "Nadeau" in table
    assert "this model: Better than majority class. Improvement over majority class +0." in table
    assert ">Better than majority class<" in (tmp_path / "table.html").read_text()
    row = next(row for row in table_rows(comparison) if row[0] == "distilled")
    assert row[-3:] == ["100", "50", "3"]
    assert (tmp_path / "comparison.html").read_text().count("<svg") == 2


def test_a_cross_validation_of_a_regression_compares_rmse_and_lower_is_better(tmp_path):
    runs = {crossvalidation.MODEL: crossvalidation.plan_folds(tmp_path, 2, 2)}
    for index, folder in enumerate(runs[crossvalidation.MODEL]):
        make_run(folder, index // 2, 60.0 + index, index % 2, 2, metric="valid/rmse")
        metrics = {"rmse": 60.0 + index, "spearman": None}
        baselines = {"mean": {"rmse": 70.0, "spearman": None}, "ridge": {"rmse": 55.5 + index}}
        write_result(folder, metrics, baselines, main_metric="rmse", task="regression", steps=3)
    text, _ = crossvalidation.write_tables(runs, tmp_path, "the command")
    table = table_rows(text)
    assert [row[0] for row in table[1:]] == ["ridge", "this model", "mean"], "the best one first"
    assert table[2][2] == "61.500"
    assert "valid/rmse: lower is better" in " ".join(text.split())
    write_result(folder, {"loss": 1.0}, task="language_modelling")
    with pytest.raises(WriteError, match="expected a run on labelled data"):
        crossvalidation.write_tables({crossvalidation.MODEL: [folder]}, tmp_path, "the command")


def test_output_is_the_name_of_a_method(methods, capsys, monkeypatch):
    monkeypatch.chdir(methods)
    methods_typed = ["alone=alone", "output=better", "third=alone", "baseline=alone"]
    assert main([*methods_typed, "out=new", "--json"]) == 0
    names = [each["name"] for each in json.loads(capsys.readouterr().out)["methods"]]
    assert names == ["output", "alone", "third"]
    assert not (methods / "better" / "comparison.json").exists()


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


def test_values_that_differ_are_those_of_the_config_of_each_run(tmp_path, capsys):
    first = ["data.baselines=false", "data.batch_size=8"]
    second = ["data.batch_size=4", "trainer.epochs=null"]
    for name, overrides in (("a", first), ("b", second)):
        for seed in range(2):
            folder = tmp_path / name / f"{seed}"
            make_run(folder, seed, 0.6)
            add_inputs(folder, ["data=titanic", *overrides])
            config = read_run(past_run()).config
            config["data"] |= {"baselines": False, "batch_size": 8.0 if name == "a" else 4}
            config["trainer"] |= {"epochs": None}
            edit_run(folder, lambda record, new=config: record.config.update(new))
    compare_two(tmp_path, capsys)
    assert subject_of(tmp_path)["differs"] == {"data.batch_size": {"a": "8", "b": "4"}}


def test_settings_that_an_experiment_brings_along_are_compared_and_those_of_an_option_are_not(
    tmp_path, capsys
):
    for name, width, loss in (("a", 64, "auto"), ("b", 32, "focal")):
        folder = tmp_path / name
        make_run(folder, 0, 0.6)
        add_inputs(folder, ["data=titanic", f"experiment={name}"])
        choices = {"experiment": name, "trainer/loss": loss}
        config = read_run(past_run()).config
        config["model"]["hidden_size"] = width
        config["trainer"]["loss"]["gamma"] = width
        edit_run(folder, lambda record, new=choices: record.command.choices.update(new))
        edit_run(folder, lambda record, new=config: record.config.update(new))
    _, page = compare_two(tmp_path, capsys)
    assert "3 settings, below" in page
    differs = subject_of(tmp_path)["differs"]
    assert [*differs] == ["experiment", "trainer/loss", "model.hidden_size"]
    assert differs["model.hidden_size"] == {"a": "64", "b": "32"}


def test_equal_runs_are_called_equal(tmp_path, capsys):
    for name in ("a", "b"):
        for seed in range(2):
            make_run(tmp_path / name / f"{seed}", seed, 0.6)
            add_inputs(tmp_path / name / f"{seed}", [f"seed={seed}"], 0.6)
    out, page = compare_two(tmp_path, capsys)
    assert "- b against a, valid/accuracy: no difference in any pair (2 pairs)." in out
    for text in ("A tie: a, b", "no setting, except for the seed", "Learned nothing: no better"):
        assert text in page
    assert 'class="answer bad">No<' in page  # whether it can be trusted


@pytest.mark.parametrize(
    ("seeds", "value", "answer", "checks"),
    [
        (1, 0.7, "Not clear", ["1 run each (minimum 3)", "Not better than tfidf"]),
        (3, 0.9, "b", ["3 runs each (minimum 3)", "Better than tfidf"]),
    ],
)
def test_the_page_says_whether_a_comparison_can_be_trusted(
    tmp_path, capsys, seeds, value, answer, checks
):
    for name, gain in (("a", 0.0), ("b", 0.05)):
        for seed in range(seeds):
            folder = tmp_path / name / f"{seed}"
            make_run(folder, seed, value + gain + 0.001 * seed * (name == "b"))
            add_inputs(folder, [f"seed={seed}"], 0.6)
            write_result(folder, {}, {"majority": {"accuracy": 0.6}, "tfidf": {"accuracy": 0.8}})
    _, page = compare_two(tmp_path, capsys)
    assert f">{answer}</p>" in page
    state = "good" if seeds == 3 else "warning"
    for text in checks:
        assert f'<li class="{state}">{text}</li>' in page
    assert '<li class="warning">validation scores, optimistic' in page
