"""A model of labels from the MLflow store answers the numbers of `predict` and of the Python API."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

import mlxlab
from mlxlab.checkpoint.arrays import digest
from mlxlab.errors import DataError
from mlxlab.evaluation.parts.initial_weights import find_weights
from support.commands import command
from support.processes import environment, passed, succeed, succeed_here, tiny_overrides

evaluate = command("evaluate")
predict = command("predict")

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning"
)  # of MLflow
WORDS = ("lovely", "dull", "long", "funny")
SERVE = """
import sys, mlflow, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
try:
    model.predict(pd.DataFrame({"text": ["a film", "N/A"]}))
except Exception as error:
    assert "row 2: column 'text': an empty text" in str(error), error
else:
    raise AssertionError("a missing text was predicted")
print(model.predict(pd.read_csv(sys.argv[2])[["text"]]).to_json(orient="records", double_precision=15))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with `rows.csv` (texts with several labels), `run`, and `store.db`, where the run is recorded."""
    path = tmp_path_factory.mktemp("served")
    labels = [
        ";".join(word for bit, word in enumerate(WORDS) if number >> bit & 1)
        for number in range(90)
    ]
    lines = [
        f"{n},A {label.replace(';', ' and ') or 'plain'} film no {n},{label}"
        for n, label in enumerate(labels)
    ]
    (path / "rows.csv").write_text("\n".join(["id,text,label", *lines, ""]))
    data = ["data=text_classification", "model=bert", f"data.source={path / 'rows.csv'}"]
    data += ["data.label_delimiter=';'", "data.reading.missing=['',N/A]"]
    store = ["tracking=mlflow", f"tracking.uri=sqlite:///{path / 'store.db'}", "tracking.wait=60"]
    tiny = tiny_overrides("trainer.max_steps=4", "trainer.eval_every=2", "tracking=mlflow")
    succeed(*tiny, *data, *store[1:], f"hydra.run.dir={path / 'run'}")
    register = ["register", str(path / "run"), "words", "alias=champion"]
    register += [store[1].removeprefix("tracking.")]
    succeed_here(*register, script="registry")
    return path


def test_the_store_the_command_and_python_answer_the_same(home, monkeypatch):
    output, source = home / "out.jsonl", home / "rows.csv"
    assert predict([f"run={home / 'run'}", f"input={source}", f"output={output}"]) == 0
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}/store.db")
    monkeypatch.chdir(home)  # the cache of downloads
    assert (
        predict(
            ["run=models:/words@champion", f"input={source}", f"output={home / 'registered.jsonl'}"]
        )
        == 0
    )
    assert (home / "registered.jsonl").read_bytes() == output.read_bytes()
    weights, registered = (
        find_weights(name).read()[0] for name in (str(home / "run"), "models:/words/1")
    )
    assert digest(weights) == digest(registered)
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    texts = [line.split(",")[1] for line in source.read_text().splitlines()[1:]]
    answers = mlxlab.load(home / "run").predict(texts)
    assert [{"row": number, **answer} for number, answer in enumerate(answers, 1)] == lines
    thresholds = json.loads((home / "run" / "inference" / "thresholds.json").read_text())
    for answer in answers:
        assert answer["labels"] == [
            name for name in thresholds if answer[f"probability_{name}"] >= thresholds[name]
        ]
    with sqlite3.connect(f"file:{home}/store.db?mode=ro", uri=True) as connection:
        [(location,)] = connection.execute("select artifact_location from logged_models")
    quiet = environment(MLFLOW_DISABLE_TELEMETRY="true")
    command = [sys.executable, "-c", SERVE, location, str(source)]
    done = passed(
        subprocess.run(command, cwd=home, env=quiet, capture_output=True, text=True, check=False)
    )
    served = json.loads(done.stdout.splitlines()[-1])
    for row, answer in zip(served, answers, strict=True):
        assert row.pop("labels") == answer["labels"]
        assert row == pytest.approx(
            {name: value for name, value in answer.items() if name != "labels"}, rel=1e-6
        )


@contextmanager
def served(home, model):
    """The address of `mlflow models serve`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["models", "serve", "-m", f"models:/{model}", "--env-manager", "local", "--port"]
    command += [str(port)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # of the server that mlflow starts
    uri = f"sqlite:///{home / 'store.db'}"
    env = environment(MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_TRACKING_URI=uri, PATH=path)
    log = (home / "serve.log").open("w")
    arguments = {"cwd": home, "env": env, "stdout": log, "stderr": log, "start_new_session": True}
    process = subprocess.Popen([sys.executable, "-m", "mlflow", *command], **arguments)
    try:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(URLError, ConnectionError):
                if urlopen(f"http://127.0.0.1:{port}/ping").status == 200:
                    break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()


@pytest.mark.fault_injection  # the slow ones: a server takes seconds to start
def test_a_server_answers_over_http_what_predict_writes(home):
    output, source = home / "http.jsonl", home / "rows.csv"
    assert predict([f"run={home / 'run'}", f"input={source}", f"output={output}"]) == 0
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    with sqlite3.connect(f"file:{home}/store.db?mode=ro", uri=True) as connection:
        [(model,)] = connection.execute("select model_id from logged_models")
    rows = [{"text": line.split(",")[1]} for line in source.read_text().splitlines()[1:]]
    body = json.dumps({"dataframe_records": rows}).encode()
    headers = {"Content-Type": "application/json"}
    with served(home, model) as address, urlopen(Request(address, body, headers)) as response:
        answers = json.load(response)["predictions"]
    assert [{"row": number, **answer} for number, answer in enumerate(answers, 1)] == lines


def test_rows_without_labels_or_texts_are_named_by_their_line(home, capsys):
    (home / "empty.csv").write_text("id,text,label\n1,a film,dull\n2,,dull\n", encoding="utf-16")
    (home / "unknown.csv").write_text("id,text,label\n1,a film,dull\n2,a film,dul\n")
    args = [f"run={home / 'run'}", f"input={home / 'empty.csv'}", f"output={home / 'none.csv'}"]
    assert predict(args) == 65
    assert capsys.readouterr().err.startswith(
        f"{home / 'empty.csv'}:3: column 'text': an empty text; "
    )
    assert not (home / "none.csv").exists()
    assert evaluate([f"run={home / 'run'}", f"data.source={home / 'unknown.csv'}"]) == 65
    assert (
        f"{home / 'unknown.csv'}:3: column 'label': unknown label 'dul'" in capsys.readouterr().err
    )


def test_the_input_is_read_as_the_training_data_unless_told_otherwise(home, capsys):
    (home / "latin.csv").write_bytes("text|id\nun caf\xe9|1\n".encode("latin-1"))
    args = [
        f"run={home / 'run'}",
        f"input={home / 'latin.csv'}",
        f"output={home / 'latin_out.csv'}",
    ]
    assert predict(args) == 65
    assert "data.reading.encoding" in capsys.readouterr().err
    assert predict([*args, "data.reading.encoding=latin-1", "data.reading.delimiter=|"]) == 0
    assert predict([*args, "data.reading.encding=latin-1"]) == 2
    assert "did you mean data.reading.encoding?" in capsys.readouterr().err


def test_python_reads_missing_cells_as_the_run_does(home):
    with pytest.raises(DataError, match="row 2: column 'text': an empty text"):
        mlxlab.load(home / "run").predict(["a film", "N/A"])


def test_other_rows_are_evaluated_with_the_labels_of_the_run(home, capsys):
    assert evaluate([f"run={home / 'run'}", f"data.source={home / 'rows.csv'}"]) == 0
    out, err = capsys.readouterr()
    assert "| loss" in out
    assert "90 rows of" in err


def test_labels_of_other_rows_hold_from_the_thresholds_on_with_which_predict_answers(home, capsys):
    source, output = home / "rows.csv", home / "held.jsonl"
    thresholds = {name: 0.01 * (1 + index) for index, name in enumerate(WORDS)}
    path = home / "run" / "inference" / "thresholds.json"
    chosen = path.read_text()
    path.write_text(json.dumps(thresholds))
    try:
        assert evaluate([f"run={home / 'run'}", f"data.source={source}"]) == 0
        printed = capsys.readouterr().out
        assert (
            predict([f"run={home / 'run'}", f"input={source}", f"output={output}", "keep=[label]"])
            == 0
        )
    finally:
        path.write_text(chosen)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    expected, predicted = (
        [set(cells) for cells in sides] for sides in zip(*map(_sides, rows), strict=True)
    )
    hits = sum(len(a & b) for a, b in zip(expected, predicted, strict=True))
    f1 = 2 * hits / sum(map(len, [*expected, *predicted]))
    assert re.search(rf"\| micro F1 +\| +{f1:.4f} \|", printed), printed


def _sides(row):
    return filter(None, (row["label"] or "").split(";")), row["labels"]


@pytest.mark.parametrize("change", [("dull", "boring"), ("\n1,", "\n1000,a new film,dull\n1,")])
def test_changed_data_of_the_run_are_not_evaluated_as_its_own(home, capsys, change):
    source = home / "rows.csv"
    original = source.read_text()
    source.write_text(original.replace(*change))
    try:
        assert evaluate([f"run={home / 'run'}", "data.eval_batch_size=3"]) == 65
    finally:
        source.write_text(original)
    err = capsys.readouterr().err
    assert "the data of this run changed since it was trained; data.source=FILE" in err
    assert err.count("\n") == 1
    assert evaluate([f"run={home / 'run'}"]) == 0


@pytest.mark.parametrize(
    "arg", ["data.valid_fraction=0.5", "data.fold=0", "data.reading.missing=[dull]"]
)
def test_the_split_of_the_run_cannot_be_changed(home, capsys, arg):
    assert evaluate([f"run={home / 'run'}", arg]) == 2
    assert "has no effect here" in capsys.readouterr().err
