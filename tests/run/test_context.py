"""The first line of a run."""

import os
import sys

import pytest

from mlxlab.run.context import announce, run_name, tracked_name
from mlxlab.terminal.messages import configure_logging

CFG = {"name": None, "model": {"pretrained": None}}


def test_a_terminal_shows_at_once_what_runs_and_where(tmp_path, monkeypatch):
    parent, child = os.openpty()
    configure_logging()
    with os.fdopen(child, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        announce(CFG | {"name": "mine"}, tmp_path)
    assert (
        os.read(parent, 500).decode().strip()
        == f"mine in {tmp_path}: loading MLX, data and model ..."
    )
    os.close(parent)


def test_a_pipe_gets_no_line_of_a_quick_start(tmp_path, capsys):
    configure_logging()
    with announce(CFG, tmp_path):
        pass
    assert capsys.readouterr() == ("", "")


LOADED = [{"pretrained": "minilm"}, {"init_from": "outputs/x"}]


@pytest.mark.parametrize(
    ("model", "name"), [({}, "bert-nano-titanic"), *((node, "bert-titanic") for node in LOADED)]
)
def test_a_run_is_named_by_its_options_without_the_size_of_loaded_weights(tmp_path, model, name):
    choices = {"data": "titanic", "model": "bert", "model/size": "nano"}
    assert run_name(CFG | {"model": model}, choices, tmp_path) == name
    assert run_name(CFG | {"model": model}, {}, tmp_path / "mine") == "mine"


def test_the_name_in_a_store_says_what_was_overridden():
    overrides = ["experiment=titanic", "trainer.epochs=2", "seed=3", "data.source=/data/x.csv"]
    overrides += ["tracking.experiment=mine", "hydra.run.dir=here"]
    assert tracked_name("bert", overrides) == "bert epochs=2 seed=3"
    assert len(tracked_name("bert", ["model.name=" + "x" * 1000])) == 120
