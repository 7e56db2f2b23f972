"""The best checkpoint in the store is a model: `mlflow.pyfunc.load_model` loads it in another process and predicts."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from mlxlab.tracking import queue
from mlxlab.tracking.mlflow import log_model
from mlxlab.tracking.mlflow.store import open_client
from support.tracking import make_journal, query_store, upload

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

SERVED = """
import json
from pathlib import Path

class Served:
    def __init__(self, folder):
        self.scale = json.loads((folder / "step-00000007" / "state.json").read_text())["scale"]
        self.word = (folder / "inference" / "word.txt").read_text()

    def predict(self, model_input, params=None):
        import mlxlab
        import pandas as pd
        return pd.DataFrame({"answer": [f"{self.word} {x * self.scale:g}" for x in model_input["x"]]})

def _load_pyfunc(path):
    return Served(Path(path))
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
    """A small model instead of `inference/pyfunc_model.py`; journals are uploaded by `upload` only."""
    code = project / "served.py"
    code.write_text(SERVED)
    monkeypatch.setattr(log_model, "LOADER", "served")
    monkeypatch.syspath_prepend(project)
    monkeypatch.setattr(queue, "start_uploading", lambda queue: False)
    return code


def write_checkpoint(journal):
    checkpoint = journal.folder / "checkpoints" / "step-00000007"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.json").write_text(json.dumps({"scale": 2}))
    (journal.folder / "inference").mkdir()
    (journal.folder / "inference" / "word.txt").write_text("twice:")
    return checkpoint


def forget_position(project):
    with closing(sqlite3.connect(project / "mlruns" / "mlflow.db")) as database, database:
        database.execute("update tags set value = '0' where key = 'mlxlab.position'")


def load(project, *uris):
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{project}/mlruns/mlflow.db"}
    words = [sys.executable, "-c", LOAD, *uris]
    return subprocess.check_output(words, text=True, env=environment, cwd=project).splitlines()


def test_a_logged_checkpoint_loads_as_a_model_and_predicts_in_another_process(project, code):
    journal = make_journal(project, wait=0.0)
    journal.start({"seed": 1, "tags": "x"}, {})
    journal.log_dataset("rows", "0123", "rows.csv")
    journal.log_metrics(7, {"train/loss": 0.5})
    journal.log_metrics(8, {"train/loss": 0.4})
    signature = {
        "inputs": json.dumps([{"type": "double", "name": "x", "required": True}]),
        "outputs": json.dumps([{"type": "string", "name": "answer", "required": True}]),
    }
    checkpoint = write_checkpoint(journal)
    files = {"run": journal.folder / "inference"}
    journal.log_model(checkpoint, 7, files, signature)
    upload(journal)
    journal.end("FINISHED")
    upload(journal)
    assert query_store(project, "select value from tags where key = 'mlxlab.missing'") == []
    forget_position(project)
    upload(journal)  # every record a second time
    query = "select model_id, source_run_id from logged_models where name = 'best'"
    [(model_id, run_id)] = query_store(project, query)
    params = "select param_key, param_value from logged_model_params"
    assert query_store(project, params) == [("seed", "1")]
    metrics = "select metric_name, metric_step, metric_value from logged_model_metrics"
    assert query_store(project, metrics) == [("train/loss", 7, 0.5)]
    assert query_store(project, "select step from metrics order by step") == [(7,), (8,)]
    answers = load(project, f"models:/{model_id}", f"runs:/{run_id}/best")
    assert answers == ["['twice: 2', 'twice: 5'] True"] * 2
    requirements = next((project / "mlruns" / "artifacts").rglob("requirements.txt")).read_text()
    assert "mlxlab==" in requirements


def test_a_run_is_uploaded_although_its_model_cannot_be_logged(project, code):
    journal = make_journal(project, wait=0.0)
    journal.start({}, {})
    signature = {"inputs": "no JSON", "outputs": "{}"}
    files = {"run": journal.folder / "inference"}
    journal.log_model(write_checkpoint(journal), 7, files, signature)
    journal.log_model(journal.folder / "checkpoints" / "step-00000009", 9, {}, None)
    journal.end("FINISHED")
    upload(journal)
    assert query_store(project, "select status from runs") == [("FINISHED",)]
    [(missing,)] = query_store(project, "select value from tags where key = 'mlxlab.missing'")
    assert "model of step 7" in missing
    assert "step-00000009" in missing


def test_the_data_of_each_split_load_from_their_addresses(project, no_syncer):
    (project / "rows.csv").write_text("a,b\n1,2\n")
    journal = make_journal(project, wait=0.0)
    journal.start({}, {})
    for context, digest in (("training", "01"), ("validation", "02")):
        columns = '[{"type": "double", "name": "a", "required": true}]'
        rows = {"num_rows": 1}
        journal.log_dataset(context, digest, str(project / "rows.csv"), context, columns, rows)
    journal.log_dataset("hub", "03", "hf://datasets/stanfordnlp/imdb")
    journal.end("FINISHED")
    upload(journal)
    import mlflow.data

    client = open_client(journal.address)
    [experiment] = client.search_experiments(filter_string="name = 'mlxlab'")
    [run] = client.search_runs([experiment.experiment_id])
    inputs = {each.dataset.name: each for each in run.inputs.dataset_inputs}
    contexts = {name: each.tags[0].value for name, each in inputs.items()}
    assert contexts == {"training": "training", "validation": "validation", "hub": "training"}
    logged = inputs["validation"].dataset
    [column] = json.loads(logged.schema)["mlflow_colspec"]
    assert (column["name"], column["type"]) == ("a", "double")
    assert json.loads(logged.profile) == {"num_rows": 1}
    source = mlflow.data.get_source(inputs["validation"].dataset)
    with open(source.load()) as file:
        assert file.read() == "a,b\n1,2\n"
    assert inputs["hub"].dataset.source_type == "hugging_face"
