"""The model registry: a version per run, an alias that moves only to a better one."""

import pytest

from mlxlab.errors import ConfigError
from mlxlab.tracking.mlflow.store import open_client
from support.commands import command
from support.tracking import make_journal, query_store, upload
from tracking.mlflow.test_log_model import code_of_the_installed_package, write_checkpoint  # noqa: F401

main = command("registry")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def train(project, run, loss):
    """A run that was uploaded, with its model; returns its id in MLflow."""
    journal = make_journal(project, run, wait=0.0)
    journal.start({}, {})
    journal.log_dataset("Titanic", "0123abcd", "titanic.csv")
    journal.log_metrics(7, {"valid/loss": loss, "train/loss": 0.1})
    journal.log_model(write_checkpoint(journal), 7, {"run": journal.folder / "inference"}, None)
    journal.end("FINISHED")
    upload(journal)
    [(run_id,)] = query_store(project, f"select run_uuid from runs where name = '{run}'")
    return run_id


def versions(client):
    return sorted(int(each.version) for each in client.search_model_versions("name='titanic'"))


@pytest.fixture
def client(project):
    return open_client(make_journal(project).address)


def test_a_run_is_registered_afterwards_once_and_the_alias_moves_only_to_a_better_one(
    project, code, client, monkeypatch, capsys
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlruns/mlflow.db")
    losses = {"a": 0.5, "b": 0.45, "c": 0.3}
    runs = {name: train(project, name, loss) for name, loss in losses.items()}
    args = ["alias=champion", "metric=valid/loss", "min_improvement=0.1"]
    for name in ("a", "b", "a"):
        assert main(["register", name, "titanic", *args]) == 0
    printed = capsys.readouterr().out
    assert "champion stays at version 1: valid/loss 0.45 is not better than 0.5" in printed
    assert int(client.get_model_version_by_alias("titanic", "champion").version) == 1
    for _ in range(2):
        assert main(["register", "c", "titanic", *args]) == 0
    champion = client.get_model_version_by_alias("titanic", "champion")
    assert (int(champion.version), champion.run_id) == (3, runs["c"])
    assert versions(client) == [1, 2, 3]
    assert main(["register", "a", "a/b"]) == ConfigError.exit_code
