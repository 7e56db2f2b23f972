"""`instantiate` calls targets as written; run-time objects are passed unchanged."""

import functools
import re
import textwrap

import pytest
from omegaconf import OmegaConf

from mlxlab.config.check import check
from mlxlab.config.hydra.compose import compose, without_hydra
from mlxlab.config.instantiate import instantiate
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
def module(tmp_path, monkeypatch):
    name = f"built_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(SOURCE))
    monkeypatch.syspath_prepend(tmp_path)
    targets = [f"{name}.{function}" for function in ("Inner", "Outer", "made", "bare")]
    monkeypatch.setenv("MLXLAB_ALLOWED_TARGETS", ",".join(targets))
    return name


@pytest.fixture
def outer(module):
    inner = {"_target_": f"{module}.Inner", "size": 3}
    values = {"rate": 1, "names": ["a"], "options": {"x": 1}, "inner": inner}
    return {"_target_": f"{module}.Outer", **values}


class Weights(dict):
    """A dict, as every MLX module is one."""


def test_inner_nodes_are_built_and_lists_and_dicts_are_of_python(outer):
    built = instantiate({"a": outer, "b": [1]}, model=None, size=9)["a"]
    assert (built.rate, built.names, built.options, built.inner.size) == (1, ["a"], {"x": 1}, 3)
    assert (type(built.names), type(built.options)) == (list, dict)


def test_a_run_time_object_is_passed_unchanged_also_to_inner_nodes(outer):
    model, counts = Weights(a=[1]), [1, 2]
    built = instantiate(outer, model=model, counts=counts, unheard_of=1)
    assert built.model is model
    assert built.inner.model is model
    assert built.inner.counts is counts


def test_a_partial_takes_the_other_arguments_later(module):
    made = instantiate({"_target_": f"{module}.made", "_partial_": True, "size": 1})
    assert type(made) is functools.partial
    assert made(width=2) == (1, 2)
    assert made.func.__name__ == "made"


def test_an_object_of_another_kind_is_refused_in_one_line(module):
    with pytest.raises(ConfigError, match=r"bare: expected an instance of int, got str"):
        instantiate({"_target_": f"{module}.bare"}, int)
    assert instantiate({"_target_": f"{module}.bare"}, str) == "bare"


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("trainer.optimizer", "mlxlab.training.optim.schedules.cosine"),
        ("trainer.loss", "mlxlab.callbacks.progress_bar.ProgressBar"),
        ("callbacks.csv", "mlxlab.training.trainer.Trainer"),
        ("model", "mlxlab.data.titanic.dataset.TitanicDataset"),
    ],
)
def test_a_component_of_another_kind_is_refused_before_it_is_built(key, target):
    config = without_hydra(compose([]))
    OmegaConf.update(config, key, {"_target_": target}, merge=False)
    fault = f"{key}._target_={target}: expected a component of kind"
    with pytest.raises(ConfigError, match=f"^{re.escape(fault)}"):
        check(config)


def test_an_unregistered_function_of_the_same_module_is_refused(module):
    with pytest.raises(NotAllowedError, match="not an allowed target"):
        instantiate({"_target_": f"{module}.decorated"})
