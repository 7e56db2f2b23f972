"""Configs of the Python API: composed of overrides, keys or a DataFrame, read and changed by attributes."""

import pandas as pd
import pytest

import mlxlab
from mlxlab.errors import ConfigError, NotAllowedError
from support.processes import tiny_overrides

TINY = tiny_overrides("trainer.max_steps=4", "trainer.eval_every=2")


def test_a_config_holds_the_checked_values():
    config = mlxlab.compose(*TINY, "seed=3")
    assert config["seed"] == config.seed == 3
    assert config["trainer.max_steps"] == config.trainer.max_steps == 4
    assert config["name"] is None
    assert "max_steps: 4" in str(config)
    assert "max_steps: 4" in str(config.trainer)
    config["trainer"]["max_steps"] = 5
    assert config["trainer.max_steps"] == 4
    assert {"max_steps", "epochs"} <= {*dir(config.trainer)}
    with pytest.raises(ConfigError, match=r"trainer\.steps: no such key; did you mean"):
        config["trainer.steps"]
    with pytest.raises(AttributeError, match="did you mean epochs"):
        _ = config.trainer.epoch


def test_an_assignment_is_an_override_and_is_checked():
    config = mlxlab.compose(*TINY)
    config.trainer.max_steps = 7
    config["data.templates"] = ("brief",)
    config.name = "it's"
    assert config["trainer.max_steps"] == 7
    assert config["data.templates"] == ["brief"]
    assert config.name == "it's"
    for name, value in {"epoch": 3, "max_steps": -1, "learning_rate": "fast"}.items():
        with pytest.raises(ConfigError, match=f"trainer.{name}"):
            setattr(config.trainer, name, value)
    assert config["trainer.max_steps"] == 7
    assert config.overrides.count("trainer.max_steps=7") == 1
    assert "trainer.max_steps=4" not in config.overrides


def test_keys_are_those_of_the_command_line():
    given = mlxlab.compose(model="transformer", trainer={"max_steps": 5}, seed=2, tracking="none")
    typed = mlxlab.compose("model=transformer", "trainer.max_steps=5", "seed=2", "tracking=none")
    assert given.values == typed.values


def test_a_frame_is_a_table_unless_another_data_set_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"text": ["a", "b"] * 10, "label": ["x", "y"] * 10})
    table = mlxlab.compose("data.target=label", data=frame)
    texts = mlxlab.compose("data=text_classification", data=frame)
    assert "target" in table["data"]
    assert "text_column" in texts["data"]
    assert table.data.source == texts.data.source


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["trainer.max_stps=3"], ConfigError, "did you mean trainer.max_steps?"),
        (["seed=1,2"], ConfigError, "several values"),
        ([3], ConfigError, "expected an override as text"),
        (["tracking.uri=https://me:secret@host"], NotAllowedError, "tracking.uri"),
    ],
)
def test_a_wrong_override_is_one_line(overrides, error, message):
    with pytest.raises(error) as caught:
        mlxlab.compose(*overrides)
    [line] = caught.value._render_traceback_()
    assert line.startswith(error.__name__)
    assert message in line
    assert "secret" not in line
