"""Hostile targets, wherever a config could hold one: refused with 77 before the target is imported."""

import logging
import shutil
import sys
from pathlib import Path

import pytest

from mlxlab.config.instantiate import _targets, allowed_targets, instantiate, why_disallowed
from mlxlab.config.paths import shipped_conf
from mlxlab.errors import NotAllowedError
from support.configs import line, user_config  # noqa: F401

BLOCKED_BY_HYDRA = """os.system posix.system logging.os.system subprocess.run builtins.eval timeit.timeit pickle.load
    code.InteractiveInterpreter.runsource trace.Trace.run cProfile.run bdb.Bdb.run functools.partial
    operator.methodcaller importlib.import_module cloudpickle.loads
    hydra._internal.instantiate._instantiate2.DEFAULT_BLOCKLISTED_MODULES.discard"""
RAN_WITH_HYDRA = """builtins.open io.open codecs.open shutil.copytree shutil.make_archive os.makedirs os.symlink os.link
    tempfile.mkstemp logging.FileHandler sqlite3.connect numpy.save pathlib.Path.touch pathlib.Path.write_text
    zipfile.ZipFile tarfile.open mlx.core.save sys.path.insert urllib.request.urlretrieve pandas.read_pickle joblib.load
    numpy.load torch.utils.data.dataloader.os.makedirs os.environ.update mlflow.pyfunc.load_model torch.load
    transformers.AutoModel.from_pretrained"""
FURTHER = """os.remove os.chdir shutil.rmtree os.getenv builtins.exec builtins.getattr builtins.__import__
    subprocess.Popen asyncio.create_subprocess_shell runpy.run_path pty.spawn ctypes.CDLL socket.create_connection
    http.server.test webbrowser.open yaml.unsafe_load dill.load shelve.open marshal.loads multiprocessing.Process
    threading.Thread logging.config.dictConfig mlx.core.load mlx.core.export_function mlxlab.experiment.run.os.system
    mlxlab.config.instantiate.instantiate mlxlab.config.paths.project_root mlxlab.config.schema.root.experiment
    mlxlab.training.trainer.Trainer.fit mlxlab.training.trainer.partial mlxlab.training.steps.step.mx.save"""
HOSTILE = [*BLOCKED_BY_HYDRA.split(), *RAN_WITH_HYDRA.split(), *FURTHER.split()]
ODD = [
    "",
    ".",
    "os",
    "..os.system",
    "os..system",
    "os.system ",
    "mlxlab",
    "mlxlab.",
    "mlxlab.training.trainer.Trainer\n",
    3,
]
ODD += [
    None,
    ["os.system"],
    "mlxlab.training.trainer.trainer",
    "MLXLAB.training.trainer.Trainer",
    "__main__.main",
]


@pytest.mark.parametrize("target", HOSTILE + ODD)
def test_a_disallowed_target_is_neither_built_nor_imported(target):
    before = set(sys.modules)
    assert why_disallowed(target)
    with pytest.raises(NotAllowedError, match="refused"):
        instantiate({"_target_": target})
    with pytest.raises(NotAllowedError, match="refused"):
        instantiate({"inner": [{"_target_": target, "_partial_": True}]})
    new = {name for name in set(sys.modules) - before if not name.startswith("mlxlab")}
    assert not new, f"{target} was imported"


def test_every_target_of_conf_is_defined_in_the_module_that_it_names():
    assert len(allowed_targets()) > 15
    assert {target: why for target in allowed_targets() if (why := why_disallowed(target))} == {}


# Where a target can stand. `{}` is the target.
LOCATIONS = {
    "top level": ["+evil={{_target_: {}}}"],
    "a component": ["model._target_={}"],
    "a component, added": ["++trainer.loss._target_={}"],
    "in a list": ["+evil=[1,{{_target_: {}}}]"],
    "in a list of texts": ["data.templates=[{{_target_: {}}}]"],
    "deep": ["+a={{b: {{c: [{{d: {{_target_: {}}}}}]}}}}"],
    "in tags": ["+tags.x={{_target_: {}}}"],
    "partial": ["+evil={{_target_: {}, _partial_: true}}"],
    "behind an interpolation": ["+evil={{_target_: '${{name}}'}}", "name={}"],
    "behind an environment variable": ["+evil={{_target_: '${{oc.env:MLXLAB_EVIL}}'}}"],
    "made by a resolver": ["+evil='${{oc.create:{{_target_: {}}}}}'"],
    "a callback of Hydra": ["+hydra.callbacks.x._target_={}"],
    "a callback of Hydra, replaced": ["hydra.callbacks.parent_run._target_={}"],
    "inside a callback": ["+hydra.callbacks.parent_run.x={{_target_: {}}}"],
    "launcher": ["hydra.launcher._target_={}"],
    "inside the launcher": ["+hydra.launcher.x={{_target_: {}}}"],
    "sweeper": ["hydra.sweeper._target_={}"],
    "job logging, class": ["+hydra.job_logging.handlers={{x: {{class: {}}}}}"],
    "job logging, stream": [
        "+hydra.job_logging.handlers={{x: {{class: logging.StreamHandler, stream: 'ext://{}'}}}}"
    ],
    "elsewhere in hydra": ["+hydra.job.x={{_target_: {}}}"],
}


@pytest.mark.parametrize("location", LOCATIONS)
def test_a_hostile_target_is_refused_at_every_location(line, monkeypatch, location):
    monkeypatch.setenv("MLXLAB_EVIL", "os.system")
    for flags, target in (([], "os.system"), (["-m"], "mlxlab.experiment.run.os.system")):
        line(*flags, *(text.format(target) for text in LOCATIONS[location]))
        # An unknown key in a node that Hydra closes is an invalid config, not a refused one.
        assert line.code in ((2, 77) if "elsewhere" in location else (77,)), line.err
        assert not line.runs
        assert "Traceback" not in line.err
        assert list(line.project.iterdir()) == []


FILES = {
    "job logging": "hydra:\n  job_logging:\n    handlers:\n      x: {{(): {}}}\n",
    "job logging, formatter": "hydra:\n  job_logging:\n    formatters:\n      x:\n        (): {}\n",
    "hydra logging": "hydra:\n  hydra_logging:\n    filters:\n      x: {{(): {}}}\n",
    "a log file": "hydra:\n  job_logging:\n    handlers:\n      x: {{class: logging.FileHandler, filename: {}}}\n",
    "a callback": "hydra:\n  callbacks:\n    x:\n      _target_: {}\n",
    "the parameters of a sweep": "hydra:\n  sweeper:\n    params:\n      model._target_: {}\n",
    "a component": "model:\n  _target_: {}\n",
    "a list": "data:\n  templates:\n    - _target_: {}\n",
}


@pytest.mark.parametrize("location", FILES)
def test_a_hostile_target_is_refused_in_every_file(line, user_config, location):
    flags = user_config("# @package _global_\n" + FILES[location].format("os.system"))
    line("-m", *flags)
    assert line.code == 77, line.err
    assert not line.runs
    assert list(line.project.iterdir()) == []


def test_a_hostile_file_is_refused_with_file_and_line(line, user_config):
    message = line.refuses(
        *user_config("# @package _global_\nmodel:\n  _target_: os.system\n"), code=77
    )
    assert message.endswith(
        "mine.yaml:3: model._target_: refused: os.system is not an allowed target"
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("++model._args_=[1]", "_args_ is not supported; name the arguments"),
        ("++model._recursive_=false", "_recursive_ is not supported; inner nodes are always built"),
        (
            "++model._convert_=all",
            "_convert_ is not supported; lists and mappings are always those of Python",
        ),
        (
            "++model._mode_=call",
            "_mode_ is not supported; a node is always called, or with _partial_ called later",
        ),
    ],
)
def test_other_keys_that_hydra_knows_in_a_component_are_refused(line, override, message):
    assert message in line.refuses(override, code=77)


def test_a_component_is_partial_exactly_where_conf_says_so(line):
    assert "expected true" in line.refuses("trainer.optimizer._partial_=false")
    assert "expected false" in line.refuses("+trainer.loss._partial_=true")


@pytest.mark.parametrize(
    "name",
    [
        "LD_PRELOAD",
        "PYTHONPATH",
        "PATH",
        "MLXLAB_ALLOWED_TARGETS",
        "MLXLAB_CONF",
        "HYDRA_FULL_ERROR",
    ],
)
def test_a_config_may_not_set_these_environment_variables(line, name):
    assert name in line.refuses(f"+hydra.job.env_set.{name}=x", code=77)


def test_the_environment_is_not_copied_into_a_config(line, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2secret")
    message = line.refuses("hydra.job.env_copy=[AWS_SECRET_ACCESS_KEY]", code=77)
    assert "hunter2secret" not in message
    assert message.startswith("hydra.job.env_copy=[AWS_SECRET_ACCESS_KEY]: refused: ")
    assert message.endswith("environment variable AWS_SECRET_ACCESS_KEY")
    line("hydra.job.env_copy=[AWS_SECRET_ACCESS_KEY]", "--cfg", "hydra")
    assert "hunter2secret" not in line.out + line.err


def test_a_copied_environment_variable_that_is_not_set_is_reported_with_its_origin(
    line, user_config, monkeypatch
):
    monkeypatch.delenv("OMP_PLACES", raising=False)
    expected = "the environment variable OMP_PLACES is not set"
    assert (
        line.refuses("hydra.job.env_copy=[OMP_PLACES]")
        == f"hydra.job.env_copy=[OMP_PLACES]: {expected}"
    )
    assert "seed=-1: expected" in line.refuses(
        "hydra.job.env_copy=[OMP_PLACES]", "seed=-1", lines=2
    )
    file = "# @package _global_\nhydra:\n  job:\n    env_copy: [OMP_PLACES]\n"
    assert f"mine.yaml:4: hydra.job.env_copy: {expected}" in line.refuses(*user_config(file))


@pytest.fixture
def restored_log_handlers():
    before = list(logging.root.handlers)
    yield
    for handler in [handler for handler in logging.root.handlers if handler not in before]:
        logging.root.removeHandler(handler)
        handler.close()


def test_the_logging_configs_of_hydra_are_accepted(line, restored_log_handlers):
    assert line("hydra/job_logging=default") == 0
    assert (line.runs[0][1] / "train.log").is_file()


def test_another_config_folder_allows_no_further_targets(line, monkeypatch, tmp_path):
    shutil.copytree(shipped_conf(), tmp_path / "conf")
    (tmp_path / "conf" / "tracking" / "none.yaml").write_text("_target_: os.makedirs\n")
    monkeypatch.setenv("MLXLAB_CONF", str(tmp_path / "conf"))
    assert "none.yaml:1: tracking._target_: refused: os.makedirs" in line.refuses(
        "tracking=none", code=77
    )


def test_a_search_path_may_be_a_folder_but_not_code(line, tmp_path, monkeypatch):
    package = tmp_path / "code" / "evilconf"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(package.parent)
    assert "code" in line.refuses("hydra.searchpath=[pkg://evilconf]", code=77)
    assert "evilconf" not in sys.modules
    own = tmp_path / "own" / "experiment"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("# @package _global_\nseed: 7\n")
    assert line(f"hydra.searchpath=[{own.parent}]", "experiment=mine") == 0
    assert line.runs[0][0].seed == 7


def test_a_search_path_in_a_primary_config_is_refused(line, user_config, tmp_path):
    user_config("defaults: [train]\nhydra:\n  searchpath: [pkg://antigravity]\n", name="other.yaml")
    assert line("--config-dir", str(tmp_path / "own"), "--config-name", "other") == 77
    assert "antigravity" not in sys.modules


def test_a_pickle_is_not_rerun(line):
    assert "--experimental-rerun" in line.refuses("--experimental-rerun", "x.pickle", code=77)
    assert "--experimental-rerun" in line.refuses("--experimental-r=x.pickle", code=77)


def test_a_registered_target_of_a_user_is_built(line, monkeypatch, tmp_path):
    (tmp_path / "own_components.py").write_text(
        "class Loss:\n    def __init__(self, label_smoothing: float) -> None: ...\n\nfrom os import system\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert line("trainer.loss._target_=own_components.Loss") == 77
    monkeypatch.setenv("MLXLAB_ALLOWED_TARGETS", "own_components.Loss, own_components.system")
    assert line("trainer/loss=cross_entropy", "trainer.loss._target_=own_components.Loss") == 0
    assert "unknown key" in line.refuses(
        "trainer/loss=cross_entropy",
        "trainer.loss._target_=own_components.Loss",
        "+trainer.loss.x=1",
    )
    assert "not a class or function defined" in line.refuses(
        "trainer.loss._target_=own_components.system", code=77
    )


def test_a_target_that_is_replaced_at_import_is_not_built(monkeypatch, tmp_path):
    Path(tmp_path / "shifty.py").write_text(
        "def component(): ...\nimport os\ncomponent = os.getcwd\n"
    )
    Path(tmp_path / "shifty2.py").write_text(
        "def component(): ...\nimport os\nglobals()['component'] = os.getcwd\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("MLXLAB_ALLOWED_TARGETS", "shifty.component,shifty2.component")
    for target in ("shifty.component", "shifty2.component"):
        with pytest.raises(NotAllowedError):
            instantiate({"_target_": target})


def test_only_targets_of_mlxlab_are_taken_from_conf(tmp_path):
    (tmp_path / "x.yaml").write_text(
        "a: {_target_: os.makedirs}\nb: [{_target_: mlxlab.models.bert.Bert}]\n"
    )
    assert set(_targets(tmp_path, "mlxlab")) == {"mlxlab.models.bert.Bert"}
