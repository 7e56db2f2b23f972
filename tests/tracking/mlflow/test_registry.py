"""The model registry: a version per run, an alias that moves only to a better one."""

import pytest

from mlxlab.errors import ConfigError
from mlxlab.tracking.mlflow.log_model import register_model
from mlxlab.tracking.mlflow.store import open_client
from support.commands import command
from support.tracking import make_journal, query_store, upload
from tracking.mlflow.test_log_model import (
    code_of_the_installed_package,  # noqa: F401  # noqa: F401
    write_checkpoint,
)

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


def register(client, run_id):
    return register_model(client, run_id, "titanic", "champion", "valid/loss", 0.1)


def versions(client):
    return sorted(int(each.version) for each in client.search_model_versions("name='titanic'"))


@pytest.fixture
def client(project):
    return open_client(make_journal(project).address)


def test_the_alias_moves_only_to_a_version_whose_loss_is_lower_by_more_than_min_improvement(
    project, code, client
):
    first = register(client, train(project, "a", 0.5))
    assert first == "registered titanic version 1, champion is version 1"
    worse = register(client, train(project, "b", 0.45))
    reason = "valid/loss 0.45 is not better than 0.5"
    assert worse == f"registered titanic version 2, champion stays at version 1: {reason}"
    run_id = train(project, "c", 0.3)
    better = register(client, run_id)
    assert better.endswith("champion is version 3")
    register(client, run_id)
    assert versions(client) == [1, 2, 3]
    champion = client.get_model_version_by_alias("titanic", "champion")
    assert (int(champion.version), champion.run_id) == (3, run_id)


def test_a_run_is_registered_afterwards_once(project, code, client, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlruns/mlflow.db")
    for name, loss in (("a", 0.5), ("b", 0.7)):
        train(project, name, loss)
    args = ["alias=champion", "metric=valid/loss"]
    for name in ("a", "b", "a"):
        assert main(["register", name, "titanic", *args]) == 0
    assert int(client.get_model_version_by_alias("titanic", "champion").version) == 1
    assert versions(client) == [1, 2]
    printed = capsys.readouterr().out
    assert "champion stays at version 1: valid/loss 0.7 is not better than 0.5" in printed
    assert main(["register", "a", "a/b"]) == ConfigError.exit_code
