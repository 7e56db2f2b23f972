"""A model of a table gives the same predictions for the same rows of every format, and says what it does not know."""

import json

import numpy as np
import pandas as pd
import pytest

import mlxlab
from support.commands import command
from support.processes import run_here, succeed_here, tiny_overrides

evaluate = command("evaluate")
predict = command("predict")

ROWS = 120


def new_rows(count, seed, colours=("red", "green", "blue")):
    """Rows whose label follows from two of their columns, as a DataFrame."""
    rng = np.random.default_rng(seed)
    colour = rng.choice(colours, size=count)
    ward = rng.integers(1, 4, size=count)
    day = pd.to_datetime("2024-01-01") + pd.to_timedelta(rng.integers(0, 300, size=count), "D")
    return pd.DataFrame(
        {
            "colour": colour,
            "ward": ward,
            "paid": rng.random(count) < 0.5,
            "day": day,
            "amount": rng.normal(size=count).round(3),
            "zip": [f"0{number}" for number in rng.integers(100, 104, size=count)],
            "late": np.where((colour == "red") | (ward == 2), "late", "on time"),
        }
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with `rows.csv` and a run on it."""
    folder = tmp_path_factory.mktemp("typed")
    new_rows(ROWS, seed=0).to_csv(folder / "rows.csv", index=False)
    settings = tiny_overrides("trainer.max_steps=30", "trainer.eval_every=15")
    data = ["data=table", "model=bert", f"data.source={folder / 'rows.csv'}", "data.target=late"]
    data += ["data.types={ward: category}", "data.positive_class=late"]
    data += ["trainer.learning_rate=0.003"]
    succeed_here(*settings, *data, f"hydra.run.dir={folder / 'run'}")
    return folder


def with_gaps(frame):
    """The rows with gaps, which make floats of integers and objects of booleans."""
    frame = frame.copy()
    frame["ward"] = frame["ward"].astype(float)
    frame["paid"] = frame["paid"].astype(object)
    for row, name in enumerate(("ward", "paid", "day", "colour")):
        frame.loc[row, name] = None
    return frame


def predictions(folder, frame, form):
    """The probability of `late` of each row, read in a format."""
    inputs = frame.drop(columns="late")
    if form in ("frame", "dicts"):
        model = mlxlab.load(folder / "run")
        if form == "frame":
            return model.predict(inputs)["probability_late"].tolist()
        answers = model.predict(inputs.to_dict("records"))
        return [answer["probability_late"] for answer in answers]
    path = folder / f"new.{form}"
    match form:
        case "csv":
            inputs.to_csv(path, index=False)
        case "jsonl":
            inputs.to_json(path, orient="records", lines=True, date_format="iso")
        case "parquet":
            inputs.to_parquet(path)
    output = folder / f"{form}_out.jsonl"
    assert predict([f"run={folder / 'run'}", f"input={path}", f"output={output}"]) == 0
    return [json.loads(line)["probability_late"] for line in output.read_text().splitlines()]


@pytest.mark.parametrize("form", ["jsonl", "parquet", "frame", "dicts"])
def test_the_same_rows_have_the_same_predictions(home, form):
    frame = with_gaps(new_rows(40, seed=1))
    expected = predictions(home, frame, "csv")
    np.testing.assert_allclose(predictions(home, frame, form), expected, atol=1e-7)
    assert len({round(value, 6) for value in expected}) > 1


def test_the_metrics_are_those_of_the_positive_class(home, capsys):
    frame = new_rows(60, seed=2)
    frame.to_csv(home / "labelled.csv", index=False)
    source = f"data.source={home / 'labelled.csv'}"
    assert evaluate([f"run={home / 'run'}", source, "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    is_late = np.array(predictions(home, frame, "csv")) > 0.5
    expected = (frame["late"] == "late").to_numpy()
    assert metrics["recall"] == pytest.approx((is_late & expected).sum() / expected.sum())


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_rows_of_the_run_are_recognised_in_every_format(home, caplog, form):
    caplog.set_level("INFO")
    frame = pd.read_csv(home / "rows.csv", dtype={"zip": str}, parse_dates=["day"])
    path = home / f"known.{form}"
    if form == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    assert evaluate([f"run={home / 'run'}", f"data.source={path}"]) == 0
    [line] = [message for message in caplog.messages if "equal a training row" in message]
    assert line.startswith("96 of the 120 rows")


def test_categories_that_no_training_row_has_are_named(home, caplog):
    caplog.set_level("INFO")
    frame = new_rows(40, seed=3, colours=("red", "violet"))
    count = (frame["colour"] == "violet").sum()
    line = (
        f"column 'colour': {count} cells with a category that no training row has, such as 'violet'"
    )
    for form in ("csv", "frame", "dicts"):
        caplog.clear()
        predictions(home, frame, form)
        assert line in caplog.messages
    caplog.clear()
    frame.to_csv(home / "violet.csv", index=False)
    assert evaluate([f"run={home / 'run'}", f"data.source={home / 'violet.csv'}"]) == 0
    assert line in caplog.messages


def test_a_cell_of_another_type_is_refused_with_its_line_or_left_out(home, capsys):
    frame = new_rows(200, seed=4).astype({"amount": object})
    frame.loc[5, "amount"] = "much"
    frame.loc[6, "late"] = "never"
    frame.to_csv(home / "wrong.csv", index=False)
    source = f"data.source={home / 'wrong.csv'}"
    assert evaluate([f"run={home / 'run'}", source]) == 65
    err = capsys.readouterr().err
    assert "wrong.csv:7: column 'amount': expected a finite number" in err
    assert "wrong.csv:8: column 'late': unknown label 'never'" in err
    assert evaluate([f"run={home / 'run'}", source, "data.on_error=skip"]) == 0
    assert ": 2 rows (1.0 %) left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("labels", "rows", "objective"),
    [(["late", "on time"], ["late"] * 5, "roc_auc"), (["1.5", "2.5"], ["1.5"], "r2")],
)
def test_an_objective_without_a_value_is_refused_before_training(tmp_path, labels, rows, objective):
    for name, cells in {"train": labels * 20, "valid": rows}.items():
        lines = [f"{name} {number},{label}" for number, label in enumerate(cells)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *lines, ""]))
    data = ["data=text_classification", f"data.source={tmp_path / 'train.csv'}"]
    data += [f"data.valid_source={tmp_path / 'valid.csv'}", f"objective=valid/{objective}"]
    settings = tiny_overrides("trainer.max_steps=2", "model=bert")
    done = run_here(*settings, *data, f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode == 65, done.stderr
    assert f"objective=valid/{objective}: undefined on {len(rows)} validation row" in done.stderr
