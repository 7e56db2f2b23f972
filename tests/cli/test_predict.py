"""`predict`: a row for each row of the input, the numbers of `predict_table`, the whole file or none."""

import csv
import json
from io import StringIO

import pytest

from mlxlab.data.titanic.dataset import TitanicDataset
from support.commands import command
from support.processes import succeed_here, tiny_overrides
from support.titanic import csv_text, real_rows

main = command("predict")

ROWS = real_rows()[:200]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with `run` and `rows.csv`."""
    path = tmp_path_factory.mktemp("predict")
    short = tiny_overrides("trainer.max_steps=4", "trainer.eval_every=2")
    succeed_here(*short, f"hydra.run.dir={path / 'run'}")
    (path / "rows.csv").write_text(csv_text(ROWS))
    return path


def predict(folder, *args, code=0):
    assert main([f"run={folder / 'run'}", *args]) == code


def read(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_the_test_rows_of_the_titanic_become_a_submission_file(folder):
    output = folder / "submission.csv"
    kaggle = ["keep=PassengerId", "format=kaggle"]
    predict(folder, "input=test", f"output={output}", *kaggle)
    rows = read(output)
    assert [row["PassengerId"] for row in rows] == [str(number) for number in range(892, 1310)]
    assert {row["Survived"] for row in rows} <= {"0", "1"}
    assert all(row.keys() == {"PassengerId", "Survived"} for row in rows)
    table = TitanicDataset.test_rows()
    del table["Survived"]  # as Kaggle publishes them
    with (folder / "test.csv").open("w", newline="") as file:
        csv.writer(file).writerows([table, *zip(*table.values(), strict=True)])
    predict(folder, f"input={folder / 'test.csv'}", f"output={folder / 'raw.csv'}", *kaggle)
    assert (folder / "raw.csv").read_bytes() == output.read_bytes()


def test_kept_columns_stand_first_and_formulas_are_text(folder):
    names = ["=1+1", "@x", "-2.5", "plain"]
    rows = [row._replace(name=name) for row, name in zip(ROWS, names, strict=False)]
    (folder / "formulas.csv").write_text(csv_text(rows))
    args = [f"input={folder / 'formulas.csv'}", "keep=[Name,Age]"]
    predict(folder, *args, f"output={folder / 'kept.csv'}")
    predict(folder, *args, f"output={folder / 'kept.jsonl'}")
    kept = read(folder / "kept.csv")
    assert list(kept[0]) == ["Name", "Age", "label", "probability_died", "probability_survived"]
    assert [row["Name"] for row in kept] == ["'=1+1", "'@x", "-2.5", "plain"]
    lines = [json.loads(line) for line in (folder / "kept.jsonl").read_text().splitlines()]
    assert [line["Name"] for line in lines] == names


def test_rows_that_cannot_be_read_are_left_out_on_request_up_to_the_limit(folder, capsys):
    rows = [*ROWS[:150], ROWS[150]._replace(sex="other"), *ROWS[151:]]
    header, *lines = csv_text(rows).splitlines()
    wrong, output = folder / "two_wrong.csv", folder / "some.jsonl"
    args = [f"input={wrong}", f"output={output}", "batch_size=4", "on_error=skip", "json=true"]
    wrong.write_text("\n".join([header, *lines, ""]))
    output.write_text("old")
    predict(folder, *args[:3], code=65)
    [error] = capsys.readouterr().err.splitlines()
    assert error.startswith(f"{wrong}:152: column 'Sex': expected ")
    assert output.read_text() == "old"
    wrong.write_text("\n".join([header, *lines[:180], "not,a,row", *lines[180:], ""]))
    predict(folder, *args)
    out, err = capsys.readouterr()
    assert json.loads(out) == {"output": str(output), "rows": 199, "left_out": 2}
    assert f"199 rows of {wrong}; left out: 2; step" in err
    assert f"skipped {wrong}:152: column 'Sex': expected " in err
    predict(folder, f"input={folder / 'rows.csv'}", f"output={folder / 'all.jsonl'}")
    every, some = (
        [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        for name in ("all", "some")
    )
    numbers = [row for row in range(1, 202) if row not in (151, 181)]
    assert [row["row"] for row in some] == numbers, "malformed rows have numbers too"
    labels = [row["label"] for row in every if row["row"] != 151]
    assert [row["label"] for row in some] == labels
    wrong.write_text("\n".join([header, *lines[:180], "not,a,row", "nor,this", *lines[180:], ""]))
    predict(folder, *args, code=65)
    assert "3 of 202 rows are malformed, more than 1 %; the first: " in capsys.readouterr().err
    assert len(output.read_text().splitlines()) == 199
    predict(folder, *args, "max_left_out=0.02")
    assert json.loads(capsys.readouterr().out)["left_out"] == 3


def test_an_error_is_one_line_and_its_exit_code(folder, capsys):
    rows, out = f"input={folder / 'rows.csv'}", f"output={folder / 'new.csv'}"
    header, *lines = csv_text(ROWS[:3]).splitlines()
    (folder / "renamed.csv").write_text("\n".join([header.replace("Age", "Agee"), *lines, ""]))
    cases = [
        ([rows, f"output={folder / 'new.txt'}"], 2, "expected a file that ends in .csv or .jsonl"),
        ([rows, f"output={folder / 'rows.csv'}"], 2, "is a file of the input"),
        ([rows, f"output={folder / 'none' / 'new.csv'}"], 74, "No such file"),
        ([rows, out, "keep=Nam"], 2, "no column 'Nam'"),
        ([rows, out, "format=kaggle"], 2, "keep=PassengerId"),
        ([rows, out, "data.on_error=ignore"], 2, "expected one of strict, skip"),
        ([rows, out, "data.seq_len=64"], 2, "data.seq_len=64: has no effect here"),
        ([rows, out, "checkpoint=step-9"], 76, "step-9"),
        ([f"input={folder / 'renamed.csv'}", out], 65, "no column 'Age'"),
        ([f"input={folder / 'row.csv'}", out], 66, "rows.csv"),
        ([out], 2, "input=...: missing; expected the file of the rows"),
    ]
    for args, code, message in cases:
        assert main([f"run={folder / 'run'}", *args]) == code, args
        stdout, err = capsys.readouterr()
        assert not stdout
        assert message in err, args
        assert err.count("\n") == 1, err
        assert not (folder / "new.csv").exists()


def test_a_text_and_lines_of_standard_input_are_predicted(tmp_path, monkeypatch, capsys):
    rows = "".join(f"{'good' if n % 2 else 'bad'} film {n},{n % 2}\n" for n in range(40))
    (tmp_path / "texts.csv").write_text(f"text,label\n{rows}")
    data = ["data=text_classification", f"data.source={tmp_path}/texts.csv", "model=bert"]
    data += ["data.text_column=text", "data.target=label", "trainer.max_steps=2"]
    classifier = tmp_path / "run"
    succeed_here(*tiny_overrides(*data), f"hydra.run.dir={classifier}")
    assert main([str(classifier), "text=a good film"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    monkeypatch.setattr("sys.stdin", StringIO("a good film\na bad film\n"))
    assert main([str(classifier), "--json"]) == 0
    predictions = json.loads(capsys.readouterr().out)
    assert predictions[0] == json.loads(line)
    names = ["label", "probability_0", "probability_1"]
    assert [sorted(each) for each in predictions] == [names] * 2
