"""What is typed for a run whose vocabulary has grown."""

from pathlib import Path

import pytest

from mlxlab.checkpoint.store import Checkpoint
from mlxlab.errors import ConfigError
from mlxlab.experiment.resume import requests
from support.checkpoints import state_at

CONFIG = {"model": {}, "data": {"vocabulary": {"size": 10, "coverage": None}}}


def request(monkeypatch, typed, before):
    monkeypatch.setattr(requests, "cli_overrides", lambda: typed)
    state = state_at(3)
    state["data"]["vocabulary"] = {"core": "", "grown": True}
    state["metadata"] |= {"config": CONFIG, "overrides": before}
    return requests.requests_against_growth(
        CONFIG, Checkpoint(Path("step-00000003"), 3, {}, {}, state)
    )


def test_a_vocabulary_that_has_grown_does_not_shrink(monkeypatch):
    typed = ["data.vocabulary.size=10", "trainer.epochs=3"]
    assert request(monkeypatch, typed, typed).lines() == [
        "data.vocabulary.size=10 was typed for this run before, and is None by now: it stays so"
    ]
    assert request(monkeypatch, typed[1:], []).lines() == []
    with pytest.raises(
        ConfigError, match=r"^data\.vocabulary\.size=10: the run has grown to all tokens"
    ):
        request(monkeypatch, typed, [])
