"""The config in a run folder may be damaged or hostile: one line, quickly."""

import copy
import json
import time

import pytest
import yaml
from omegaconf import OmegaConf

from mlxlab.config.check import check_stored_config, read_stored_config
from mlxlab.config.hydra.compose import compose, without_hydra
from mlxlab.errors import DataError, InputNotFoundError, NotAllowedError
from support.foreign_runs import setting

LAUGHS = "a0: &a0 [x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


@pytest.fixture(scope="module")
def config():
    composed = without_hydra(compose(["tracking=none"]))
    return OmegaConf.to_container(composed, resolve=True)


def test_a_saved_config_is_read_as_it_was_saved(config, tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    assert read_stored_config(tmp_path / "config.yaml") == config
    assert check_stored_config(json.loads(json.dumps(config)), "state.json") == config


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        "x: " + "y" * 60_000_000,
        "[" * 10_000,
        "a: " + "{b: " * 5_000,
        "!!python/object/apply:os.system [echo]",
        "",
        "model: 3",
        "? [a, b]\n: 1",
        "a: \ud800".encode("utf-8", "surrogatepass"),
        b"\xff\xfe\x00",
    ],
    ids=lambda text: repr(text)[:30],  # 60 MB took seconds to travel between processes
)
def test_a_hostile_file_is_refused_quickly(tmp_path, text):
    file = tmp_path / "config.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    start = time.monotonic()
    with pytest.raises(DataError, match=r"config\.yaml") as caught:
        read_stored_config(file)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", "x", "seed=x: expected a whole number"),
        ("data", None, "data: expected an option of data"),
        ("model.wings", 2, "model.wings=2: unknown key"),
        ("trainer.loss.label_smoothing", "${oc.env:HOME}", "=${oc.env:HOME}: expected a number"),
        ("trainer.optimizer._target_", "mlxlab.training.optim.schedules.cosine", "of kind Optim"),
    ],
)
def test_a_config_that_cannot_run_is_refused_by_key(config, key, value, message):
    changed = copy.deepcopy(config)
    setting(key, value)(changed)
    with pytest.raises(DataError) as caught:
        check_stored_config(changed, "state.json")
    assert str(caught.value).startswith("state.json: ")
    assert message in str(caught.value)


def test_a_target_that_may_not_be_built_is_refused(config):
    with pytest.raises(NotAllowedError, match=r"^state.json: tags.x._target_=os.system: refused"):
        check_stored_config(config | {"tags": {"x": {"_target_": "os.system"}}}, "state.json")


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(InputNotFoundError):
        read_stored_config(tmp_path / "config.yaml")
