"""Runs of the Python API: what they hold, evaluate and predict, and how they are interrupted."""

import html
import json
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest

import mlxlab
from mlxlab.errors import (
    ConfigError,
    DataError,
    InputNotFoundError,
    NotAllowedError,
)
from mlxlab.record.run_file import read_run
from mlxlab.training.callback import Callback
from support.commands import command
from support.processes import ROOT, environment, tiny_overrides
from support.run_records import best_metrics
from support.titanic import csv_text, real_rows, table_of

predict_command = command("predict")

TINY = tiny_overrides("trainer.max_steps=4", "trainer.eval_every=2")
ROWS = real_rows()[:30]
DICTS = [
    dict(zip(table_of(ROWS), cells, strict=True))
    for cells in zip(*table_of(ROWS).values(), strict=True)
]


def fresh_process(code, folder):
    command, env = [sys.executable, "-c", code], environment(PYTHONPATH=str(ROOT / "src"))
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api") / "run"
    return mlxlab.train(mlxlab.compose(*TINY, f"hydra.run.dir={folder}"))


def test_importing_the_package_imports_nothing_else(tmp_path):
    code = "import sys; before = {*sys.modules}; import mlxlab; print({*sys.modules} - before)"
    done = fresh_process(code, tmp_path)
    assert done.stdout == "{'mlxlab'}\n", done.stderr


def test_a_run_is_that_of_the_command(run):
    record = read_run(run.folder)
    assert run.metrics == best_metrics(run.folder)
    assert run.best == run.metrics["valid/loss"] == record.training.best
    assert run.record == record
    assert record.command.overrides == TINY
    assert record.status == "finished"


def test_a_run_shows_its_history_its_page_and_how_it_ended(run):
    assert list(run.history.index) == [2, 4]
    assert run.history["valid/loss"].min() == run.best
    assert "<title>" in html.unescape(run.report()._repr_html_())
    assert "finished: bert" in repr(run)
    with pytest.raises(InputNotFoundError, match=r"run\.json: not found"):
        mlxlab.Run(run.folder.parent)


def test_a_run_is_evaluated_on_rows_as_by_the_command(run, tmp_path):
    own = run.evaluate()
    assert own.loc["accuracy", "value"] == run.metrics["valid/accuracy"]
    assert own.loc["accuracy", "low"] <= own.loc["accuracy", "value"] <= own.loc["accuracy", "high"]
    frame = pd.DataFrame(DICTS).assign(Survived=[row.survived for row in ROWS])
    frame.to_csv(tmp_path / "rows.csv", index=False)
    assert run.evaluate(frame).equals(run.evaluate(tmp_path / "rows.csv"))
    with pytest.raises(DataError, match="no column 'Sex'"):
        run.evaluate(frame.drop(columns="Sex"))


def test_compared_runs_show_the_keys_and_metrics_that_differ(run, tmp_path):
    config = mlxlab.compose(*TINY, f"hydra.run.dir={tmp_path / 'other'}")
    config.trainer.learning_rate = 0.5
    table = run.compare(mlxlab.train(config))
    assert list(table.loc["trainer.learning_rate"]) == [run.record.training.learning_rate, 0.5]
    assert "trainer.max_steps" not in table.index
    assert table.loc["valid/loss"].iloc[0] == run.best


def test_rows_of_a_frame_are_trained_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"size": range(40), "kind": ["small"] * 20 + ["large"] * 20})
    few = ["data.target=kind", "data.baselines=false", "tracking=none", "trainer.epochs=1"]
    config = mlxlab.compose(*few, f"hydra.run.dir={tmp_path / 'run'}", data=frame)
    run = mlxlab.train(config, quiet=True)
    assert capsys.readouterr() == ("", "")
    assert run.record.data.rows == {"training": 32, "validation": 8}
    rows = frame.sample(5, random_state=0)
    proba = mlxlab.load(run).predict_proba(rows)
    assert list(proba.columns) == ["large", "small"]
    assert list(proba.index) == list(rows.index)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)
    [file] = (tmp_path / "outputs" / "frames").iterdir()
    assert pd.read_parquet(file).equals(frame)
    with pytest.raises(DataError, match="cannot be stored"):
        mlxlab.train(config, data=frame.assign(kind=[object()] * 40))


def test_a_model_answers_as_the_command_does(run, tmp_path):
    model = mlxlab.load(run.folder)
    answers = model.predict(DICTS)
    (tmp_path / "rows.csv").write_text(csv_text(ROWS))
    output = tmp_path / "out.jsonl"
    args = [f"run={run.folder}", f"input={tmp_path / 'rows.csv'}", f"output={output}"]
    assert predict_command(args) == 0
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [{"row": number, **answer} for number, answer in enumerate(answers, 1)] == lines
    frame = pd.DataFrame(DICTS, index=[f"p{row.id}" for row in ROWS])
    predicted = model.predict(frame)
    assert list(predicted.index) == list(frame.index)
    assert predicted.to_dict("records") == answers
    assert model.predict([]) == []
    assert model.task.labels == ("died", "survived")


def test_what_a_model_cannot_do_is_an_error_of_the_user(run):
    model = mlxlab.load(run.folder)
    with pytest.raises(ConfigError, match="cannot generate"):
        model.generate("Once")
    with pytest.raises(ConfigError, match="did you mean temperature"):
        model.generate("Once", temprature=1)
    with pytest.raises(DataError, match=r"row 2: column 'Sex': expected .*, got .x"):
        model.predict([DICTS[0], DICTS[1] | {"Sex": "x"}])
    with pytest.raises(InputNotFoundError):
        mlxlab.load("nowhere")
    with pytest.raises(ConfigError, match="expected a config of"):
        mlxlab.train("trainer.max_steps=3")


def test_texts_become_vectors_of_length_1(run):
    vectors = mlxlab.load(run).embed(DICTS[:3])
    assert len(vectors) == 3
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_a_language_model_continues_texts(tmp_path):
    (tmp_path / "text.txt").write_text("".join(f"One fish, {n} fish.\n" for n in range(300)))
    settings = ["model=transformer", "data=streaming", f"data.source={tmp_path / 'text.txt'}"]
    settings += ["data.seq_len=32", "data.tokenizer.vocab_size=300", "data.valid_fraction=0.1"]
    settings.append("data.reading.document_unit=line")
    tiny = [setting for setting in TINY if "baselines" not in setting]
    run = mlxlab.train(mlxlab.compose(*tiny, *settings, f"hydra.run.dir={tmp_path / 'lm'}"))
    model = mlxlab.load(run.folder)
    first, second = model.generate(["One", "two"], max_tokens=5, temperature=0)
    assert model.generate(prompt="One", max_tokens=5, temperature=0) == first
    assert isinstance(second, str)
    with pytest.raises(NotAllowedError, match="a language model predicts no labels"):
        model.predict(["One"])


INTERRUPT = """
import os, signal, sys, time, types
kernel = types.SimpleNamespace(IPKernelApp=types.SimpleNamespace(initialized=lambda: True))
sys.modules["ipykernel.kernelapp"] = kernel
from mlxlab.run.signals import SignalHandler
handler = SignalHandler(requeue=False)
handler.start()
try:
    for _ in range(200):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
except KeyboardInterrupt:
    print("interrupted")
handler.stop()
"""


def test_a_second_interrupt_does_not_end_the_kernel_of_a_notebook(tmp_path):
    done = fresh_process(INTERRUPT, tmp_path)
    assert done.stdout == "interrupted\n", done.stderr
    assert done.returncode == 0
    alone = fresh_process(INTERRUPT.replace("sys.modules[", "{}["), tmp_path)
    assert alone.returncode == 130


class Watcher(Callback):
    """Counts steps."""

    def __init__(self):
        self.steps = 0

    def on_step(self, context, state, result):
        self.steps += 1


class Misspelt(Watcher):
    def on_stepp(self, context, state, result): ...


def test_callback_objects_see_every_step_also_in_another_thread(tmp_path):
    """Signals are left alone there."""
    watcher = Watcher()
    config = mlxlab.compose(*TINY, f"hydra.run.dir={tmp_path / 'run'}")
    thread = threading.Thread(target=mlxlab.train, args=[config], kwargs={"callbacks": [watcher]})
    thread.start()
    thread.join()
    assert watcher.steps == 4


@pytest.mark.parametrize(
    ("callback", "message"),
    [(Misspelt(), "on_stepp: .*did you mean on_step"), (print, "expected a subclass of")],
)
def test_what_is_no_callback_is_refused_before_a_run_begins(tmp_path, callback, message):
    config = mlxlab.compose(*TINY, f"hydra.run.dir={tmp_path / 'run'}")
    with pytest.raises(ConfigError, match=message):
        mlxlab.train(config, callbacks=[callback])
    assert not (tmp_path / "run").exists()
