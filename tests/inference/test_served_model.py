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

import pandas as pd
import pytest

import mlxlab
from mlxlab.checkpoint.arrays import digest
from mlxlab.evaluation.parts.initial_weights import find_weights
from support.commands import command
from support.processes import environment, succeed, succeed_here, tiny_overrides

evaluate = command("evaluate")
predict = command("predict")

pytestmark = pytest.mark.filterwarnings("ignore")  # of MLflow
WORDS = ("lovely", "dull", "long", "funny")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with `rows.csv` (texts with several labels) and `run`."""
    path = tmp_path_factory.mktemp("served")
    lines = ["id,text,label"]
    for number in range(90):
        label = ";".join(word for bit, word in enumerate(WORDS) if number >> bit & 1)
        text = f"A {label.replace(';', ' and ') or 'plain'} film no {number}"
        lines.append(f"{number},{text},{label}")
    (path / "rows.csv").write_text("\n".join([*lines, ""]))
    succeed_here(*settings_of(path), f"hydra.run.dir={path / 'run'}")
    return path


def settings_of(home, *overrides):
    data = ["data=text_classification", "model=bert", f"data.source={home / 'rows.csv'}"]
    data += ["data.label_delimiter=';'", "data.reading.missing=['',N/A]"]
    tiny = tiny_overrides("trainer.max_steps=4", "trainer.eval_every=2", *overrides)
    return [*tiny, *data]


@contextmanager
def served(home, model):
    """The address of `mlflow models serve`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["models", "serve", "-m", f"models:/{model}", "--env-manager", "local", "--port"]
    command += [str(port)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # of the server that mlflow starts
    uri = f"sqlite:///{home / 'http.db'}"
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
    run, output, source = home / "logged", home / "http.jsonl", home / "rows.csv"
    tracking = ["tracking=mlflow", f"tracking.uri=sqlite:///{home}/http.db", "tracking.wait=60"]
    succeed(*settings_of(home, *tracking), f"hydra.run.dir={run}")
    assert predict([f"run={run}", f"input={source}", f"output={output}"]) == 0
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    with sqlite3.connect(f"file:{home}/http.db?mode=ro", uri=True) as connection:
        [(model,)] = connection.execute("select model_id from logged_models")
    rows = [{"text": line.split(",")[1]} for line in source.read_text().splitlines()[1:]]
    body = json.dumps({"dataframe_records": rows}).encode()
    headers = {"Content-Type": "application/json"}
    with served(home, model) as address, urlopen(Request(address, body, headers)) as response:
        answers = json.load(response)["predictions"]
    assert [{"row": number, **answer} for number, answer in enumerate(answers, 1)] == lines


@pytest.mark.slow
def test_the_store_the_command_and_python_answer_the_same(home, monkeypatch):
    import mlflow

    run, output, source = home / "stored", home / "out.jsonl", home / "rows.csv"
    registered, store = home / "registered.jsonl", f"uri=sqlite:///{home / 'store.db'}"
    tracking = ["tracking=mlflow", f"tracking.{store}", "tracking.wait=60"]
    succeed(*settings_of(home, *tracking), f"hydra.run.dir={run}")
    succeed_here("register", str(run), "words", "alias=champion", store, script="registry")
    assert predict([f"run={run}", f"input={source}", f"output={output}"]) == 0
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}/store.db")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(home)  # the cache of downloads
    args = ["run=models:/words@champion", f"input={source}", f"output={registered}"]
    assert predict(args) == 0
    assert registered.read_bytes() == output.read_bytes()
    weights = [find_weights(name).read()[0] for name in (str(run), "models:/words/1")]
    assert digest(weights[0]) == digest(weights[1])
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    texts = [line.split(",")[1] for line in source.read_text().splitlines()[1:]]
    answers = mlxlab.load(run).predict(texts)
    assert [{"row": number, **answer} for number, answer in enumerate(answers, 1)] == lines
    thresholds = json.loads((run / "inference" / "thresholds.json").read_text())
    for answer in answers:
        assert answer["labels"] == [
            name for name in thresholds if answer[f"probability_{name}"] >= thresholds[name]
        ]
    with sqlite3.connect(f"file:{home}/store.db?mode=ro", uri=True) as connection:
        [(location,)] = connection.execute("select artifact_location from logged_models")
    model = mlflow.pyfunc.load_model(location)
    with pytest.raises(Exception, match="row 2: column 'text': an empty text"):
        model.predict(pd.DataFrame({"text": ["a film", "N/A"]}))
    served = model.predict(pd.read_csv(source)[["text"]]).to_dict("records")
    for row, answer in zip(served, answers, strict=True):
        assert row.pop("labels") == answer.pop("labels")
        assert row == pytest.approx(answer, rel=1e-6)


def test_the_input_is_read_as_the_training_data_unless_told_otherwise(home, capsys):
    source, output = home / "latin.csv", home / "latin_out.csv"
    source.write_bytes("text|id\nun caf\xe9|1\nN/A|2\n".encode("latin-1"))
    args = [f"run={home / 'run'}", f"input={source}", f"output={output}"]
    assert predict(args) == 65
    assert "data.reading.encoding" in capsys.readouterr().err
    args += ["data.reading.encoding=latin-1", "data.reading.delimiter=|"]
    assert predict(args) == 65
    assert capsys.readouterr().err.startswith(f"{source}:3: column 'text': an empty text; ")
    assert not output.exists()
    source.write_bytes(source.read_bytes().replace(b"N/A", b"a film"))
    assert predict(args) == 0
    assert predict([*args, "data.reading.encding=latin-1"]) == 2
    assert "did you mean data.reading.encoding?" in capsys.readouterr().err


def test_labels_of_other_rows_hold_from_the_thresholds_on_with_which_predict_answers(home, capsys):
    source, output = home / "rows.csv", home / "held.jsonl"
    thresholds = {name: 0.01 * (1 + index) for index, name in enumerate(WORDS)}
    path = home / "run" / "inference" / "thresholds.json"
    chosen, args = path.read_text(), [f"run={home / 'run'}", f"input={source}"]
    path.write_text(json.dumps(thresholds))
    try:
        assert evaluate([f"run={home / 'run'}", f"data.source={source}"]) == 0
        printed = capsys.readouterr().out
        assert predict([*args, f"output={output}", "keep=[label]"]) == 0
    finally:
        path.write_text(chosen)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    labels = [set(filter(None, (row["label"] or "").split(";"))) for row in rows]
    predicted = [set(row["labels"]) for row in rows]
    hits = sum(len(a & b) for a, b in zip(labels, predicted, strict=True))
    f1 = 2 * hits / sum(map(len, [*labels, *predicted]))
    assert re.search(rf"\| micro F1 +\| +{f1:.4f} \|", printed), printed


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
