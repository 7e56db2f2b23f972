"""The best checkpoint in the store is a model: `mlflow.pyfunc.load_model` loads it in another process and predicts."""

import json
import os
import subprocess
import sys

import pytest

from mlxlab.tracking.mlflow import log_model, queue
from support.tracking import make_journal, project_fixture, query_store, upload  # noqa: F401

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

SERVED = """
import json
from pathlib import Path
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

class Served(PythonModel):
    def load_context(self, context):
        self.scale = json.loads((Path(context.artifacts["checkpoint"]) / "state.json").read_text())["scale"]
        self.word = (Path(context.artifacts["run"]) / "word.txt").read_text()

    def predict(self, context, model_input, params=None):
        import mlxlab
        import pandas as pd
        return pd.DataFrame({"answer": [f"{self.word} {x * self.scale:g}" for x in model_input["x"]]})

set_model(Served())
"""

LOAD = """
import os, sys
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
import mlflow, pandas as pd
for uri in sys.argv[1:]:
    model = mlflow.pyfunc.load_model(uri)
    print(model.predict(pd.DataFrame({"x": [1.0, 2.5]}))["answer"].tolist(), model.metadata.signature is not None)
"""


@pytest.fixture(name="code")
def code_of_the_installed_package(project, monkeypatch):
    """A small model instead of `inference/pyfunc_model.py`; journals are uploaded by `upload_here` only."""
    code = project / "served.py"
    code.write_text(SERVED)
    monkeypatch.setattr(log_model, "CODE", code)
    monkeypatch.setattr(queue, "start_syncer", lambda address: False)
    return code


def write_checkpoint(journal):
    checkpoint = journal.folder / "checkpoints" / "step-00000007"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.json").write_text(json.dumps({"scale": 2}))
    (journal.folder / "inference").mkdir()
    (journal.folder / "inference" / "word.txt").write_text("twice:")
    return checkpoint


def load(project, *uris):
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{project}/mlruns/mlflow.db"}
    words = [sys.executable, "-c", LOAD, *uris]
    done = subprocess.run(
        words, capture_output=True, text=True, env=environment, cwd=project, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_logged_checkpoint_loads_as_a_model_and_predicts_in_another_process(
    project, code, capsys
):
    journal = make_journal(project, wait=0.0)
    journal.start({}, {})
    signature = {
        "inputs": json.dumps([{"type": "double", "name": "x", "required": True}]),
        "outputs": json.dumps([{"type": "string", "name": "answer", "required": True}]),
    }
    checkpoint = write_checkpoint(journal)
    files = {"run": journal.folder / "inference"}
    journal.log_model(checkpoint, 7, files, signature)
    upload(journal)
    journal.end("FINISHED")
    printed = capsys.readouterr().err
    upload(journal)
    assert query_store(project, "select value from tags where key = 'mlxlab.missing'") == []
    (journal.folder / "journal.sync.json").unlink()
    upload(journal)  # every record a second time
    [(model_id, name, run_id)] = query_store(
        project, "select model_id, name, source_run_id from logged_models"
    )
    assert name == "best"
    assert f"tracking: model best: models:/{model_id}\n" in printed
    answers = load(project, f"models:/{model_id}", f"runs:/{run_id}/best")
    assert answers == ["['twice: 2', 'twice: 5'] True"] * 2
    requirements = next((project / "mlruns" / "artifacts").rglob("requirements.txt")).read_text()
    assert "mlx==" in requirements
    assert "numpy==" in requirements


def test_a_run_is_uploaded_although_its_model_cannot_be_logged(project, code):
    journal = make_journal(project, wait=0.0)
    journal.start({}, {})
    code.write_text("raise RuntimeError('no such layer')")
    journal.log_model(write_checkpoint(journal), 7, {"run": journal.folder / "inference"}, None)
    journal.log_model(journal.folder / "checkpoints" / "step-00000009", 9, {}, None)
    journal.end("FINISHED")
    upload(journal)
    assert query_store(project, "select status from runs") == [("FINISHED",)]
    [(missing,)] = query_store(project, "select value from tags where key = 'mlxlab.missing'")
    assert "no such layer" in missing
    assert "step-00000009" in missing


def test_no_model_is_logged_with_log_models_false(project):
    journal = make_journal(project, log_models=False)
    journal.start({}, {})
    journal.log_model(write_checkpoint(journal), 7, {}, None)
    assert '"model":' not in (journal.folder / "journal.jsonl").read_text()
