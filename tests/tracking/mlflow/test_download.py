"""Models of a store by version, alias, model id or run: downloaded once, one line if missing."""

import io
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest

from mlxlab.errors import DataError, InputNotFoundError, ServiceUnavailableError
from mlxlab.tracking.mlflow import download
from mlxlab.tracking.mlflow.download import download_model
from mlxlab.tracking.mlflow.store import open_client
from support.tracking import make_journal, query_store, upload
from tracking.mlflow.test_log_model import code_of_the_installed_package, write_checkpoint  # noqa: F401

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture
def logged(project, code, monkeypatch):
    """A store with one logged model, registered as `mine`; its run id and model id."""
    journal = make_journal(project, wait=0.0)
    journal.start({}, {})
    checkpoint = write_checkpoint(journal)
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    (journal.folder / "inference" / "config.yaml").write_text("model: {}\n")
    journal.log_model(checkpoint, 7, {"run": journal.folder / "inference"}, None)
    journal.end("FINISHED")
    upload(journal)
    [(model_id, run_id)] = query_store(project, "select model_id, source_run_id from logged_models")
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlruns/mlflow.db")
    client = MlflowClient()
    client.create_registered_model("mine")
    client.create_model_version("mine", f"models:/{model_id}", run_id)
    client.set_registered_model_alias("mine", "champion", 1)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    return run_id, model_id


@pytest.fixture
def here(monkeypatch):
    """Downloads in this process, which has imported MLflow, instead of a new one each."""

    def run(command, env, **options):
        out, err = io.StringIO(), io.StringIO()
        code = None
        with monkeypatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setenv("MLFLOW_TRACKING_URI", env["MLFLOW_TRACKING_URI"])
            patch.setattr(sys, "argv", command[3:])
            try:
                download.main()
            except SystemExit as stop:
                code = stop.code
                if isinstance(code, str):
                    print(code, file=err)
                    code = 1
        return subprocess.CompletedProcess(command, code or 0, out.getvalue(), err.getvalue())

    return lambda: monkeypatch.setattr(download.subprocess, "run", run)


def test_every_uri_of_a_model_gives_its_checkpoint(project, logged, here):
    run_id, model_id = logged
    first = download_model("models:/mine/1", None, project, project / ".cache")
    here()
    names = ["models:/mine/1", "models:/mine@champion"]
    names += [f"models:/{model_id}", f"runs:/{run_id}/best"]
    checkpoints = {download_model(name, None, project, project / ".cache") for name in names}
    [checkpoint] = checkpoints
    assert checkpoint == first
    assert (checkpoint / "model.safetensors").read_bytes() == b"weights"
    assert (checkpoint.parent / "inference" / "config.yaml").is_file()
    assert len(list((project / ".cache" / "models").iterdir())) == 1
    (checkpoint.parent / "inference" / "config.yaml").unlink()
    with pytest.raises(DataError, match="expected a model that mlxlab logged"):
        download_model("models:/mine/1", None, project, project / ".cache")
    client = open_client(make_journal(project).address)
    deleted = client.create_model_version("mine", f"models:/{model_id}", run_id)
    client.delete_model_version("mine", deleted.version)
    for name in ("models:/yours/1", "models:/mine/2", "models:/mine@nobody", "runs:/none/best"):
        with pytest.raises(InputNotFoundError, match=name) as missing:
            download_model(name, None, project, project / ".cache")
        assert "\n" not in str(missing.value)


def test_a_missing_store_is_not_created(project):
    with pytest.raises(ServiceUnavailableError, match="no store found"):
        download_model("models:/mine/1", None, project, project / ".cache")
    assert not (project / "mlruns").exists()
