"""`build` calls targets as they are written; run-time objects arrive untouched."""

import functools
import re
import textwrap

import pytest
from omegaconf import OmegaConf

from mlxlab.config.check import check
from mlxlab.config.hydra.compose import Composer, without_hydra
from mlxlab.config.instantiate import instantiate
from mlxlab.config.paths import shipped_conf
from mlxlab.errors import ConfigError, NotAllowedError

SOURCE = """
    from functools import wraps

    def decorated(function):
        @wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args, **kwargs)
        return wrapper

    class Inner:
        def __init__(self, size: int, *, counts: list[int] | None = None, model: object = None) -> None:
            self.size, self.counts, self.model = size, counts, model

    class Outer:
        def __init__(
            self, rate: float, names: list[str], options: dict[str, int], inner: Inner, *, model: object
        ) -> None:
            self.rate, self.names, self.options, self.inner, self.model = rate, names, options, inner, model

    @decorated
    def made(size: int, *, width: int) -> tuple[int, int]:
        return size, width

    def bare() -> str:
        return "bare"
"""


@pytest.fixture
def parts(tmp_path, monkeypatch):
    name = f"built_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(SOURCE))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(
        "MLXLAB_ALLOWED_TARGETS", ",".join(f"{name}.{part}" for part in ("Inner", "Outer", "made", "bare"))
    )
    return name


@pytest.fixture
def outer(parts):
    inner = {"_target_": f"{parts}.Inner", "size": "${top}"}
    node = {"_target_": f"{parts}.Outer", "rate": 1, "names": ["a"], "options": {"x": 1}, "inner": inner}
    return OmegaConf.create({"top": 3, "node": node}).node


class Weights(dict):
    """A dict, as every MLX module is one."""


def test_inner_nodes_are_built_and_lists_and_dicts_are_plain(outer):
    built = instantiate(outer, model=None)
    assert (built.rate, built.names, built.options, built.inner.size) == (1, ["a"], {"x": 1}, 3)
    assert (type(built.names), type(built.options)) == (list, dict)


def test_a_run_time_object_arrives_as_itself_also_in_inner_nodes(outer):
    model, counts = Weights(a=[1]), [1, 2]
    built = instantiate(outer, model=model, counts=counts, unheard_of=1)
    assert built.model is model
    assert built.inner.model is model
    assert built.inner.counts is counts


def test_a_value_of_the_config_wins_over_one_of_the_same_name(parts):
    built = instantiate({"_target_": f"{parts}.Inner", "size": 1}, size=9, model=None)
    assert built.size == 1


def test_partial_is_a_partial_that_takes_the_rest_later(parts):
    made = instantiate({"_target_": f"{parts}.made", "_partial_": True, "size": 1})
    assert type(made) is functools.partial
    assert made(width=2) == (1, 2)
    assert made.func.__name__ == "made"


def test_a_node_without_a_target_is_a_dict_of_what_is_in_it(parts):
    bare = {"_target_": f"{parts}.bare"}
    assert instantiate(OmegaConf.create({"a": bare, "b": [bare, 1], "c": None})) == {
        "a": "bare",
        "b": ["bare", 1],
        "c": None,
    }


def test_an_object_of_another_kind_is_refused_in_one_line(parts):
    with pytest.raises(ConfigError, match=r"bare: expected an instance of int, got str"):
        instantiate({"_target_": f"{parts}.bare"}, int)
    assert instantiate({"_target_": f"{parts}.bare"}, str) == "bare"


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("trainer.optimizer", "mlxlab.training.optim.schedules.cosine"),
        ("trainer.loss", "mlxlab.callbacks.progress_bar.ProgressBar"),
        ("trainer.step", "mlxlab.training.losses.loss.CrossEntropyLoss"),
        ("callbacks.csv", "mlxlab.training.trainer.Trainer"),
        ("model", "mlxlab.data.titanic.dataset.TitanicDataset"),
        ("data.tokenizer", "mlxlab.data.loaders.bucketing.FixedBatchSize"),
        ("tracking", "mlxlab.experiment.signals.SignalHandler"),
    ],
)
def test_a_component_of_another_kind_is_refused_before_it_is_built(key, target):
    composer = Composer(shipped_conf())
    config = without_hydra(composer.checked(composer.open()))
    OmegaConf.update(config, key, {"_target_": target}, merge=False)
    with pytest.raises(
        ConfigError, match=rf"^{re.escape(key)}\._target_={target}: expected a component of kind \w+, got {target}$"
    ):
        check(config)


def test_what_cannot_be_resolved_is_a_fault_not_a_traceback(parts):
    with pytest.raises(ConfigError, match=r"size: \$\{nowhere\}: there is no such key"):
        instantiate(OmegaConf.create({"_target_": f"{parts}.Inner", "size": "${nowhere}"}))


def test_an_unregistered_part_of_the_same_module_is_refused(parts):
    with pytest.raises(NotAllowedError, match="not an allowed target; did you mean"):
        instantiate({"_target_": f"{parts}.decorated"})


def test_check_takes_a_plain_config_as_a_resumed_run_has_it():
    with pytest.raises(ConfigError) as caught:
        check(OmegaConf.create({"seed": -1}))
    lines = str(caught.value).splitlines()
    assert "seed=-1: expected a whole number >= 0, got -1" in lines
    assert "model: missing; expected a component (a mapping with a _target_)" in lines
    with pytest.raises(NotAllowedError):
        check(OmegaConf.create({"seed": -1, "model": {"_target_": "os.system"}}))
