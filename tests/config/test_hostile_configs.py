"""Hostile targets, wherever a config could hold one: refused with 77 before the target is imported."""

import sys

import pytest

from mlxlab.config.instantiate import _targets_in, allowed_targets, instantiate, why_disallowed
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
    threading.Thread logging.config.dictConfig mlx.core.load mlx.core.export_function mlxlab.run.context.os.system
    mlxlab.config.instantiate.instantiate mlxlab.config.paths.project_root mlxlab.config.schema.root.experiment
    mlxlab.training.trainer.Trainer.fit mlxlab.training.trainer.partial mlxlab.training.steps.step.mx.save"""
HOSTILE = [*BLOCKED_BY_HYDRA.split(), *RAN_WITH_HYDRA.split(), *FURTHER.split()]
ODD = ["", ".", "os", "..os.system", "os..system", "os.system ", "mlxlab", "mlxlab.", 3, None]
ODD += [["os.system"], "mlxlab.training.trainer.Trainer\n", "mlxlab.training.trainer.trainer"]
ODD += ["MLXLAB.training.trainer.Trainer", "__main__.main"]


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
}


@pytest.mark.parametrize("location", LOCATIONS)
def test_a_hostile_target_is_refused_at_every_location(line, monkeypatch, location):
    monkeypatch.setenv("MLXLAB_EVIL", "os.system")
    for flags, target in (([], "os.system"), (["-m"], "mlxlab.run.context.os.system")):
        line(*flags, *(text.format(target) for text in LOCATIONS[location]))
        assert line.code == 77, line.err
        assert not line.runs
        assert "Traceback" not in line.err
        assert list(line.project.iterdir()) == []


FILES = {
    "the parameters of a sweep": "hydra:\n  sweeper:\n    params:\n      model._target_: {}\n",
    "a component": "model:\n  _target_: {}\n",
    "a list": "data:\n  templates:\n    - _target_: {}\n",
}


@pytest.mark.parametrize("location", FILES)
def test_a_hostile_target_is_refused_in_every_file(line, user_config, location):
    flags = user_config("# @package _global_\n" + FILES[location].format("os.system"))
    line("-m", *flags)
    assert line.code == 77, line.err
    assert "_target_=os.system: refused: os.system is not an allowed target" in line.err
    assert not line.runs
    assert list(line.project.iterdir()) == []


def test_other_keys_that_hydra_knows_in_a_component_are_refused(line):
    for name in ("_args_=[1]", "_recursive_=false", "_convert_=all", "_mode_=call"):
        assert "unknown key" in line.refuses(f"++model.{name}")


def test_a_component_is_partial_exactly_where_conf_says_so(line):
    assert "expected true" in line.refuses("trainer.optimizer._partial_=false")
    assert "expected false" in line.refuses("+trainer.loss._partial_=true")


def test_another_config_folder_allows_no_further_targets(line, tmp_path):
    own = tmp_path / "own" / "tracking"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("_target_: os.makedirs\n")
    refusal = line.refuses(f"--config-dir={own.parent}", "tracking=mine", code=77)
    assert "tracking._target_=os.makedirs: refused: os.makedirs" in refusal


def test_a_pickle_is_not_rerun(line):
    assert "--experimental-rerun" in line.refuses("--experimental-rerun", "x.pickle", code=77)


def test_a_registered_target_of_a_user_is_built(line, monkeypatch, tmp_path):
    code = (
        "from os import system\nclass Loss:\n    def __init__(self, label_smoothing: float): ...\n"
    )
    (tmp_path / "own_components.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    assert line("trainer.loss._target_=own_components.Loss") == 77
    monkeypatch.setenv("MLXLAB_ALLOWED_TARGETS", "own_components.Loss, own_components.system")
    own = ["trainer/loss=cross_entropy", "trainer.loss._target_=own_components.Loss"]
    assert line(*own) == 0
    assert "unknown key" in line.refuses(*own, "+trainer.loss.x=1")
    refusal = line.refuses("trainer.loss._target_=own_components.system", code=77)
    assert "not a class or function defined" in refusal


def test_a_target_that_is_replaced_at_import_is_not_built(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    for number, name in enumerate(("component", "globals()['component']")):
        text = f"def component(): ...\nimport os\n{name} = os.getcwd\n"
        (tmp_path / f"shifty{number}.py").write_text(text)
        monkeypatch.setenv("MLXLAB_ALLOWED_TARGETS", f"shifty{number}.component")
        with pytest.raises(NotAllowedError):
            instantiate({"_target_": f"shifty{number}.component"})


def test_only_targets_of_mlxlab_are_taken_from_conf(tmp_path):
    text = "a: {_target_: os.makedirs}\nb: [{_target_: mlxlab.models.bert.Bert}]\n"
    (tmp_path / "x.yaml").write_text(text)
    assert set(_targets_in(tmp_path, "mlxlab")) == {"mlxlab.models.bert.Bert"}
