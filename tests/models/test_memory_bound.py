"""What cannot fit in memory is refused before it is allocated; what may fit is not."""

import json
import shutil
from functools import partial

import pytest

from mlxlab.checkpoint.manifest import MANIFEST, write_manifest
from mlxlab.errors import ConfigError
from mlxlab.models import memory_bound
from mlxlab.models.build import build_model
from mlxlab.models.model import count_parameters
from support.processes import ROOT, run_here, run_script, tiny_overrides

GB = 10**9
TEXT = ["model=transformer", "data=streaming"]
NEVER_SAVED = ["tracking=none", "hydra.run.dir=never"]


def assert_refused(key, *args, folder, fresh=False):
    """A command in a process whose memory is limited; `fresh` has all of it for the command."""
    script = ROOT / "tests" / "support" / "limited.py"
    done = run_script(script, *map(str, args), folder=folder, fresh=fresh)
    assert done.returncode == 2, done.stderr
    *_, line = done.stderr.splitlines()
    assert key in line
    assert "Traceback" not in done.stderr
    peak = int((folder / "peak").read_text())  # resident bytes
    assert peak < 0.7 * GB  # A fork begins with 0.4 GB of imports.


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a text, a run on it, and one on the Titanic."""
    path = tmp_path_factory.mktemp("bound")
    (path / "text.txt").write_text("".join(f"line {n} of a text\n" for n in range(20_000)))
    short = tiny_overrides("trainer.max_steps=2", "trainer.eval_every=2")
    text = [each for each in short if not each.startswith("data.baselines")]
    text += [*TEXT, f"data.source={path}/text.txt", "data.seq_len=32"]
    for name, overrides in {"text": text, "titanic": short}.items():
        done = run_here(*overrides, f"hydra.run.dir={path / name}")
        assert done.returncode == 0, done.stderr
    return path


@pytest.mark.parametrize(
    "override",
    [
        "model.hidden_size=1000000",
        "model.num_layers=1000000000",
        "model.intermediate_size=1000000000000",
        "model.max_position_embeddings=1000000000",
    ],
)
def test_a_typed_size_beyond_the_memory_is_refused_with_its_key(override, tmp_path):
    assert_refused(override, "train", override, *NEVER_SAVED, folder=tmp_path)
    if override == "model.num_layers=1000000000":
        assert_refused(override, "info", override, folder=tmp_path)
    assert not (tmp_path / "never").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "lines"),
    [
        (["data.batch_size=1000000000"], 200_000),
        (["model.hidden_size=4096", "model.num_layers=4", "model.intermediate_size=8192"], 20_000),
    ],
)
def test_what_only_training_needs_is_refused_too(overrides, lines, tmp_path):
    large = tmp_path / "large.txt"
    large.write_text("".join(f"line {n} of a text\n" for n in range(lines)))
    args = [*TEXT, f"data.source={large}", *overrides, *NEVER_SAVED]
    assert_refused(overrides[-1], "train", *args, folder=tmp_path, fresh=True)


def test_adapters_beyond_the_memory_are_refused(folder, tmp_path):
    rank = "model.adapter.rank=1000000000"
    base = [f"model.init_from={folder}/titanic", "model/adapter=lora"]
    assert_refused(rank, "train", *base, rank, *NEVER_SAVED, folder=tmp_path)


@pytest.mark.parametrize(
    "swept",
    [
        "seed=range(0,1000000000)",
        "hydra/sweeper=grid seed=range(0,1000000000)",
        "trainer.log_every=range(1,400) seed=range(0,1000)",
    ],
)
def test_the_jobs_of_a_sweep_are_counted_before_they_are_enumerated(swept, tmp_path):
    args = ["train", "-m", *swept.split(), "tracking=none"]
    assert_refused("100,000 jobs", *args, folder=tmp_path)


def edit_checkpoints(run, key, value):
    """Writes a size into the state of each checkpoint, with a right manifest."""
    for folder in (run / "checkpoints").iterdir():
        state = json.loads((folder / "state.json").read_text())
        owner = state if key == "vocab_size" else state["architecture"]
        owner[key] = value
        (folder / "state.json").write_text(json.dumps(state))
        manifest = json.loads((folder / MANIFEST).read_text())
        (folder / MANIFEST).unlink()
        write_manifest(folder, step=manifest["step"], best_step=manifest["best_step"])


COMMANDS = {
    "evaluate": ["evaluate", "run=RUN"],
    "generate": ["generate", "run=RUN", "prompt=line"],
    "predict": ["predict", "run=RUN", "input=test", "output=out.csv"],
    "export": ["export", "hf", "run=RUN", "out=exported"],
    "resume": ["train", "resume=RUN", "trainer.max_steps=3", *NEVER_SAVED],
    "teacher": ["train", "trainer=distill", "trainer.teachers=[RUN]", *NEVER_SAVED],
}


@pytest.mark.parametrize(
    ("command", "key", "size"),
    [
        ("generate", "hidden_size", 10**6),
        ("evaluate", "vocab_size", 10**9),
        ("resume", "num_layers", 10**9),
        *(
            pytest.param(command, "num_layers", 10**9, marks=pytest.mark.slow)
            for command in ("evaluate", "generate", "predict", "export", "teacher")
        ),
    ],
)
def test_a_stored_size_beyond_the_memory_is_refused_with_its_key(
    command, key, size, folder, tmp_path
):
    source = "text" if command == "generate" else "titanic"
    stranger = shutil.copytree(folder / source, tmp_path / "run")
    edit_checkpoints(stranger, key, size)
    args = [arg.replace("RUN", str(stranger)) for arg in COMMANDS[command]]
    assert_refused(f"{key}={size}", *args, folder=tmp_path)


def has_memory(monkeypatch, amount):
    monkeypatch.setattr(memory_bound, "total_memory", lambda: amount)
    monkeypatch.setattr(memory_bound, "memory_budget", lambda: amount)


@pytest.mark.parametrize("layers", [1, 3, 100])
@pytest.mark.parametrize("family", ["bert.Bert", "cnn_hybrid.CnnHybrid", "transformer.Transformer"])
def test_weights_that_fit_exactly_are_not_refused(family, layers, monkeypatch):
    node = {"_target_": f"mlxlab.models.{family}", "hidden_size": 32, "num_layers": layers}
    node |= {"num_heads": 2, "intermediate_size": 64}
    build = partial(build_model, node, kind="classification", vocab_size=100, num_classes=2)
    needed = 4 * count_parameters(build().backbone)
    has_memory(monkeypatch, needed)
    build()
    has_memory(monkeypatch, needed - 1)
    with pytest.raises(ConfigError, match="needs at least"):
        build()
