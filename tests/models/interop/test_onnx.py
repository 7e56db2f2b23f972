"""ONNX files of `model=tabular`, answered by onnxruntime as `predict` answers."""

import csv
import json
import math
from datetime import UTC, datetime

import numpy as np
import pytest

from mlxlab.data.labelled.types import read_datetime
from mlxlab.inference.predict import predict_table, row_reading, to_table
from mlxlab.inference.restore import restore_model, save_ensemble
from mlxlab.models.cells.columns import PARTS
from support.commands import command
from support.processes import run_here, tiny_overrides

main = command("export")

onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra onnx)")

COLORS = ["red", "blue", "green", "dark \u00e9"]
TYPES = {"tensor(double)": np.float64, "tensor(string)": object}
ATOL = 1e-5


def mixed_rows(number=240):
    """Numbers, big and small, whole numbers, categories, booleans, times with and without a zone, and missing cells."""
    rng = np.random.default_rng(0)
    for row in range(number):
        amount = 1.7e9 + 1e3 * rng.normal()
        color = COLORS[rng.integers(4)]
        flag = rng.random() < 0.4
        time = datetime.fromtimestamp(int(rng.integers(-3e9, 5e9)), UTC).replace(tzinfo=None)
        zone = time.replace(tzinfo=UTC).astimezone().isoformat()
        yield {
            "amount": amount if row % 7 else None,
            "big": 10.0 ** rng.uniform(-5, 30),
            "count": int(rng.integers(0, 2**40)),
            "color": color if row % 11 else None,
            "flag": bool(flag) if row % 13 else None,
            "time": time.isoformat() if row % 9 else None,
            "zone": zone,
            "value": float(rng.normal()),
            "classes": "A" if amount > 1.7e9 else "B c" if flag else "D",
            "rare": "yes" if rng.random() < 0.2 else "no",
            "several": "x;y" if flag and color == "red" else "y" if flag else "z",
            "number": 1e6 + 1e4 * ((amount - 1.7e9) / 1e3 + flag),
        }


def write(path, rows):
    rows = list(rows)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


INPUTS = "data.columns=[amount,big,count,color,flag,time,zone,value]"
RUNS = {
    "classes": ["data.target=classes"],
    "threshold": ["data.target=rare", "objective=valid/f1"],
    "several": ["data.target=several", "data.label_delimiter=';'"],
    "number": ["data.target=number", "model.folds=1"],
    "one column": ["data.columns=[color]", "data.target=classes"],
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "mixed.csv"
    write(path, mixed_rows())
    return path


@pytest.fixture(scope="module", params=RUNS)
def exported(request, source, tmp_path_factory):
    """The run, the file, and rows to predict."""
    run = tmp_path_factory.mktemp("run") / "run"
    train(run, source, INPUTS, "data.reading.missing=[none]", *RUNS[request.param])
    out = run / "model.onnx"
    assert main(["onnx", f"run={run}", f"out={out}"]) == 0
    return run, out, list(mixed_rows())


def train(run, source, *overrides):
    settings = ["data=table", "model.hidden_size=16", "trainer.max_steps=40", "tracking=none"]
    short = ["trainer.eval_every=20", "~callbacks.report"]
    done = run_here(*settings, *short, f"data.source={source}", *overrides, f"hydra.run.dir={run}")
    assert done.returncode == 0, done.stderr


def seconds(cell):
    time = read_datetime(cell)
    return time.replace(tzinfo=time.tzinfo or UTC).timestamp()


def feed(session, rows):
    """The cells of rows as the inputs of a file."""
    values = {}
    for each in session.get_inputs():
        cells = [row[each.name] for row in rows]
        if each.type == "tensor(string)":
            cells = ["" if cell is None else cell for cell in cells]
        elif each.name in ("time", "zone"):
            cells = [math.nan if cell is None else seconds(cell) for cell in cells]
        else:
            cells = [math.nan if cell is None else float(cell) for cell in cells]
        values[each.name] = np.array(cells, TYPES[each.type])[:, None]
        assert each.shape == ["N", 1]
    return values


def open_session(out):
    onnxruntime = pytest.importorskip(
        "onnxruntime", reason="onnxruntime is not installed (extra interop)"
    )
    return onnxruntime.InferenceSession(out)


def predictions(run, rows):
    restored = restore_model(run)
    missing = row_reading(restored.config["data"]).missing
    table = to_table(rows, restored.encoder.columns, missing)
    return restored, predict_table(restored, table)


def assert_equal(run, out, rows):
    restored, expected = predictions(run, rows)
    session = open_session(out)
    names = [each.name for each in session.get_outputs()]
    answers = dict(zip(names, session.run(None, feed(session, rows)), strict=True))
    task = expected.task
    if task.kind == "regression":
        [(name, value)] = answers.items()
        assert name == ("predicted_value" if "value" in restored.encoder.types else "value")
        assert value.shape == (len(rows), 1)
        scale = task.target_deviation
        np.testing.assert_allclose(value[:, 0], expected.values, rtol=0, atol=ATOL * scale)
        return
    np.testing.assert_allclose(answers["probabilities"], expected.values, rtol=0, atol=ATOL)
    columns = expected.label_columns("label", "labels", task.labels)
    if task.kind == "classification":
        assert answers["label"].tolist() == columns["label"]
    else:
        held = [[task.labels[i] for i in np.flatnonzero(row)] for row in answers["label"]]
        assert held == columns["labels"]


def test_onnxruntime_answers_as_predict_does(exported):
    assert_equal(*exported)


def test_missing_unseen_and_extreme_cells_are_read_as_predict_reads_them(exported):
    run, out, rows = exported
    types = restore_model(run).encoder.types
    changes = {
        "number": [None, -1e300, 1e300, 0.0],
        "integer": [None, -(2**60), 2**60, 0.5],
        "boolean": [None, True, False],
        "category": [None, "none", "unseen", "red"],
        "datetime": [None, "0001-01-01T00", "2000-02-29T23:59:59", "9999-12-31T00"],
    }
    changed = []
    for name, column_type in types.items():
        for cell in changes[column_type.kind]:
            changed.append({**rows[1], name: cell})
    assert_equal(run, out, changed)


def test_the_file_says_what_it_is_and_is_the_same_again(exported, tmp_path):
    run, out, _ = exported
    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=True)
    assert {each.domain: each.version for each in model.opset_import} == {"": 17, "ai.onnx.ml": 3}
    assert {each.domain for each in model.graph.node} <= {"", "ai.onnx.ml"}
    metadata = {each.key: each.value for each in model.metadata_props}
    restored = restore_model(run)
    assert (metadata["run"], metadata["step"]) == ("run", str(restored.checkpoint.step))
    assert json.loads(metadata["classes"]) == list(restored.encoder.task.labels)
    assert metadata["data"] == restored.checkpoint.state["metadata"]["data"]
    assert metadata["config"] == restored.checkpoint.state["metadata"]["config_hash"]
    assert main(["onnx", f"run={run}", f"out={tmp_path}/new/again.onnx"]) == 0
    assert (tmp_path / "new" / "again.onnx").read_bytes() == out.read_bytes()


@pytest.mark.parametrize("part", PARTS)
def test_the_parts_of_a_time_are_exact(part):
    """On the first and last days of months, of leap years and of centuries."""
    from onnx import helper, inliner

    from mlxlab.models.interop.onnx import call
    from mlxlab.models.interop.onnx_functions import MODEL

    model = onnx.parser.parse_model(MODEL.replace("OUTPUTS", "double[N, 1] part"))
    model.graph.input.append(helper.make_tensor_value_info("time", 11, ["N", 1]))
    call(model.graph, part, "time", outputs=["part"])
    years = [1, 3, 4, 100, 400, 1600, 1899, 1900, 1969, 1970, 2000, 2023, 2024, 2100, 9999]
    times = [
        datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        for year in years
        for month in range(1, 13)
        for day, hour, minute, second in ((1, 0, 0, 0), (28, 23, 59, 59), (15, 12, 1, 0))
    ]
    times += [datetime(year, 2, 29, 23, 59, 59, 999_000, tzinfo=UTC) for year in (4, 2000, 2024)]
    times.append(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
    cells = np.array([time.timestamp() for time in times])[:, None]
    session = open_session(inliner.inline_local_functions(model).SerializeToString())
    [values] = session.run(None, {"time": cells})
    assert values[:, 0].tolist() == [PARTS[part](time) for time in times]


def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(source, tmp_path, capsys):
    out = tmp_path / "model.onnx"
    texts = [{"words": f"a text of {row} words", "kind": "ab"[row % 2]} for row in range(60)]
    write(tmp_path / "texts.csv", texts)
    train(tmp_path / "texts", tmp_path / "texts.csv", "data.target=kind")
    bert = ["model=bert", "data=table", f"data.source={source}", "data.target=classes"]
    short = ["trainer.max_steps=2", "trainer.eval_every=2", f"hydra.run.dir={tmp_path}/bert"]
    done = run_here(*tiny_overrides(*bert, "data.tokenizer.vocab_size=300", *short))
    assert done.returncode == 0, done.stderr
    (tmp_path / "ensemble").mkdir()
    save_ensemble(tmp_path / "ensemble", [tmp_path / "texts"])
    before = sorted(tmp_path.iterdir())
    for run, path, code, message in [
        ("texts", out, 2, "column 'words': expected no texts"),
        ("bert", out, 2, "model: expected model=tabular"),
        ("ensemble", out, 2, "expected one model, got an ensemble"),
        ("none", out, 66, "no such folder"),
        ("texts", tmp_path / "model.pb", 2, "ends in .onnx"),
    ]:
        capsys.readouterr()
        assert main(["onnx", f"run={tmp_path}/{run}", f"out={path}"]) == code
        [line] = capsys.readouterr().err.strip().splitlines()
        assert message in line
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_that_cannot_be_written_is_absent(exported, tmp_path, capsys):
    run, out, _ = exported
    assert main(["onnx", f"run={run}", f"out={out}"]) == 73
    (tmp_path / "file").write_text("")
    assert main(["onnx", f"run={run}", f"out={tmp_path}/file/model.onnx"]) == 74
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
