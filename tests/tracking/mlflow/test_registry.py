"""The model registry: a version per run, an alias that moves only to a better one, promotion and rollback."""

import json

import pytest

from mlxlab.cli.registry import main
from mlxlab.errors import ConfigError, DataError
from mlxlab.tracking.mlflow.client import MlflowStore
from mlxlab.tracking.mlflow.registry import ModelRegistry
from support.tracking import make_journal, project_fixture, query_store, upload  # noqa: F401
from tracking.mlflow.test_log_model import code_of_the_installed_package, write_checkpoint  # noqa: F401

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
OPTIONS = {"name": "titanic", "alias": "champion", "metric": "valid/loss", "min_improvement": 0.1}


def train(project, name, loss, **options):
    """A run that was uploaded, with its model; returns its journal."""
    journal = make_journal(project, name, wait=0.0, register=OPTIONS | options)
    journal.start({}, {})
    journal.log_dataset("Titanic", "0123abcd", "titanic.csv")
    journal.log_metrics(7, {"valid/loss": loss, "train/loss": 0.1})
    journal.log_model(write_checkpoint(journal), 7, {"run": journal.folder / "inference"}, None)
    journal.end("FINISHED")
    upload(journal)
    return journal


def outcome(journal):
    return json.loads((journal.folder / "journal.sync.json").read_text())["registered"]


@pytest.fixture
def registry(project):
    store = MlflowStore(make_journal(project).mlflow.address)
    yield ModelRegistry(store.client)
    store.close()


def test_the_alias_moves_only_to_a_version_whose_loss_is_lower_by_more_than_min_improvement(
    project, code, registry
):
    first = train(project, "a", 0.5)
    assert (
        outcome(first)
        == "registered titanic version 1, champion is version 1: the first with this alias"
    )
    worse = train(project, "b", 0.45)
    reason = "valid/loss 0.45 is not better than 0.5 by more than 0.1"
    assert outcome(worse) == f"registered titanic version 2, champion stays at version 1: {reason}"
    better = train(project, "c", 0.3)
    assert outcome(better).startswith(
        "registered titanic version 3, champion is version 3: valid/loss 0.3 is better"
    )
    assert registry.aliases("titanic") == {"champion": 3}

    newest = registry.versions("titanic")[0]
    [(run_id,)] = query_store(project, f"select run_uuid from tags where value = '{better.uid}'")
    assert (newest.run_id, newest.data, newest.step, newest.aliases) == (
        run_id,
        "0123abcd",
        "7",
        ("champion",),
    )
    assert newest.metrics == {"valid/loss": 0.3}

    registry.move("titanic", "champion", 1)
    (better.folder / "journal.sync.json").unlink()
    upload(better)  # every record a second time
    assert len(registry.versions("titanic")) == 3
    assert registry.aliases("titanic") == {"champion": 1}
    assert outcome(better).startswith("registered titanic version 3")


def test_promote_and_rollback_twice_are_the_same_as_once(
    project, code, registry, monkeypatch, capsys
):
    for name, loss in (("a", 0.5), ("b", 0.3)):
        train(project, name, loss)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlruns/mlflow.db")
    commands = [
        "rollback titanic",
        "rollback titanic",
        "promote titanic 2",
        "promote titanic 2",
        "promote titanic 3",
    ]
    assert [main(command.split()) for command in commands] == [0, 0, 0, 0, 2]
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-4:] == [
        "titanic: champion is version 1",
        "titanic: champion was already version 1",
        "titanic: champion is version 2",
        "titanic: champion was already version 2",
    ]
    assert "titanic: no version or alias 3" in printed.err
    # The process died between the record of the move and the move of the alias.
    assert registry.rollback("titanic", "champion") == (1, True)
    move = json.dumps({"version": 2, "previous": 1})
    registry.client.set_registered_model_tag("titanic", "mlxlab.move.champion", move)
    assert registry.rollback("titanic", "champion") == (1, False)
    assert registry.move("titanic", "champion", 2)
    assert registry.rollback("titanic", "champion") == (1, True)
    with pytest.raises(ConfigError, match="no move of alias challenger"):
        registry.rollback("titanic", "challenger")


def test_a_rollback_of_what_another_program_did_is_refused(project, code, registry):
    for name, loss in (("a", 0.5), ("b", 0.3), ("c", 0.1)):
        train(project, name, loss)
    registry.client.set_registered_model_alias("titanic", "champion", "1")
    with pytest.raises(ConfigError, match="another program"):
        registry.rollback("titanic", "champion")
    registry.client.set_registered_model_tag("titanic", "mlxlab.move.champion", "{}")
    with pytest.raises(DataError, match="champion"):
        registry.rollback("titanic", "champion")


def test_the_list_names_versions_aliases_and_metrics(project, code, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlruns/mlflow.db")
    train(project, "a", 0.5)
    assert main(["list", "--json"]) == main(["list", "titanic", "--json"]) == 0
    models, _, versions = capsys.readouterr().out.partition("]\n")
    assert json.loads(f"{models}]") == [{"name": "titanic", "aliases": {"champion": 1}}]
    [version] = json.loads(versions)
    assert (version["number"], version["step"], version["aliases"]) == (1, "7", ["champion"])
    assert version["metrics"] == {"valid/loss": 0.5}
    assert main(["list"]) == main(["list", "titanic"]) == 0
    printed = capsys.readouterr().out
    assert "| titanic | champion=1 |" in printed
    assert "valid/loss" in printed
    assert main(["list", "bert"]) == ConfigError.exit_code
    assert "bert: no such registered model" in capsys.readouterr().err


def test_a_registration_that_fails_is_one_line_and_the_run_is_complete(project, code):
    code.write_text("raise RuntimeError('no such layer')")
    journal = train(project, "a", 0.5)
    assert query_store(project, "select status from runs") == [("FINISHED",)]
    assert (
        outcome(journal) == "not registered: model titanic: the checkpoint of step 7 was not logged"
    )


def test_options_that_cannot_work_are_refused_at_the_start(project):
    for options in ({"name": "a/b"}, {"alias": "latest"}, {"alias": "v2"}):
        with pytest.raises(ConfigError, match=r"tracking\.register"):
            make_journal(project, register=OPTIONS | options)
    with pytest.raises(ConfigError, match="log_models"):
        make_journal(project, register=OPTIONS, log_models=False)
