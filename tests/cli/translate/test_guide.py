"""The commands of docs/how_to/migration.md are what the old ones are translated into, and they run, on small data."""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from mlxlab.cli.translate import check, main
from mlxlab.cli.translate.tables import flag_table
from mlxlab.cli.translate.translation import PROGRAMS
from mlxlab.config.hydra.compose import Composer
from mlxlab.config.paths import shipped_conf
from mlxlab.experiment.storage import open_address
from support.object_stores.emulators import emulator
from support.processes import NO_PLOTS, ROOT, environment, run, run_here

GUIDE = (ROOT / "docs" / "how_to" / "migration.md").read_text(encoding="utf-8")
LINES = re.findall(r"^\| `((?:python|torchrun) .*?)` \| `(.*?)` \|$", GUIDE, re.M)
SMALL = {
    "tracking": "none",
    "trainer.max_steps": "1",
    "trainer.eval_every": "1",
    "trainer.eval_batches": "1",
    "trainer.schedule.warmup": "0",
    "model.num_layers": "1",
    "model.hidden_size": "16",
    "model.num_heads": "2",
    "model.intermediate_size": "16",
    "data.prefetch": "0",
    "data.seq_len": "16",
}
OF_ROWS = {"data.baselines": "false", "data.augment.copies": "1"}
OF_TEXT = {"data.tokenizer.vocab_size": "300"}
TEXT_RECIPES = ("limited_memory", "quality", "rapid", "cloud", "growth_course")
RECIPES = re.findall(r"`(experiment=[^`]*)`", GUIDE.split("## Recipes")[1].split("\n## ")[0])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Rows, texts and conversations, and where the runs of this module are."""
    folder = tmp_path_factory.mktemp("guide")
    with (ROOT / "src/mlxlab/data/titanic/titanic.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    for name, part in {"train.csv": rows[:81], "test.csv": [rows[0], *rows[-9:]]}.items():
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows(part)
    texts = [{"text": f"Number {n} follows {n - 1}."} for n in range(300)]
    chats = [{"prompt": f"What follows {n}?", "completion": f"{n + 1} follows."} for n in range(40)]
    for name, records in {"books.jsonl": texts, "chats.jsonl": chats}.items():
        (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def trained(files, name):
    """The folder of a run that another command reads: a run of `bert` or a `decoder`."""
    folder = files / {"bert": "outputs/mine", "decoder": "output_advanced"}[name]
    if not folder.exists():
        old = {"bert": LINES[0][0], "decoder": "python train_refactored.py"}[name]
        done = run_here(*small(dict(LINES)[old], files, f"hydra.run.dir={folder}"))
        assert done.returncode == 0, done.stderr
    return folder


def small(new, files, *more):
    """A training command on small data, with a tiny model."""
    values = dict(word.partition("=")[::2] for word in shlex.split(new)[2:] if word != "-m")
    values.pop("nproc", None)
    values |= SMALL
    values.setdefault(
        "data", "streaming" if values.get("experiment") in TEXT_RECIPES else "titanic"
    )
    if values["data"] == "titanic":
        values |= OF_ROWS | {"data.source": files / "train.csv"}
    else:
        values |= OF_TEXT | {
            "data.source": files
            / ("chats.jsonl" if values["data"] == "instruct" else "books.jsonl")
        }
    if values["data"] == "instruct":
        values["data.seq_len"] = "48"
    if values.get("model") == "mlx_lm":  # the shape is in its config
        values = {key: text for key, text in values.items() if not key.startswith("model.")}
        configs = json.loads(
            (ROOT / "benchmarks/models/zoo_configs.json").read_text(encoding="utf-8")
        )
        values |= {
            "model.pretrained": "null",
            "model.config": json.dumps(configs["olmo2"]).replace('"', ""),
        }
    if "data.validation.split" in values:
        values["data.validation.split"] = "null"  # a file has no splits with names
    if "trainer.teachers" in values:
        teachers = [] if values["data"] == "instruct" else [trained(files, "decoder")]
        values |= {
            "trainer.teachers": f"[{', '.join(map(str, teachers))}]",
            "model.pretrained": "null",
        }
    if "resume" in values:
        trained(files, "bert" if values["model"] == "bert" else "decoder")
        values |= {
            "resume": values["resume"].replace("step-1000", "step-1"),
            "trainer.max_steps": "2",
        }
    if "cloud.bucket" in values and "AWS_ENDPOINT_URL" not in os.environ:  # no emulator
        values = {key: text for key, text in values.items() if not key.startswith("cloud")}
        values |= {"cloud": "directory", "cloud.path": files / "store"}
    values |= {key: text for key, _, text in (override.partition("=") for override in more)}
    return [*NO_PLOTS, *(f"{key}={value}" for key, value in values.items())]


def test_the_guide_has_lines_of_every_program_that_trains():
    scripts = {program.script for program in PROGRAMS if program.to == "train"} - {
        "mlx_bert_cli",
        "train_unified",
    }
    assert all(any(re.search(rf"\b{script}\b", old) for old, _ in LINES) for script in scripts)


@pytest.mark.parametrize(("old", "new"), LINES)
def test_the_guide_says_what_the_translator_prints(old, new, capsys, monkeypatch):
    monkeypatch.setattr(
        "mlxlab.cli.translate.check", lambda *_, **__: None
    )  # test_a_new_command_runs composes it
    assert main([old]) == 0
    assert capsys.readouterr().out == f"{new}\n"


@pytest.mark.parametrize(
    "new", [new for _, new in LINES if re.match("mlxlab (train|launch) ", new)]
)
def test_a_new_training_command_runs(new, files, monkeypatch):
    if "model=mlx_lm" in new:
        pytest.importorskip("mlx_lm", reason="mlx-lm is not installed (extra zoo)")
    monkeypatch.chdir(files)
    if " -m " in new:  # test_a_command_of_several_processes_runs trains
        check(small(new, files), multirun=True)
        return
    done = run_here(*small(new, files))
    assert done.returncode == 0, done.stderr
    assert "final_state=" in done.stdout
    assert ("resumed from step-" in done.stderr) == ("resume=" in new)


@pytest.mark.fault_injection
def test_a_run_is_resumed_from_step_1000(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [new] = [new for _, new in LINES if "step-1000" in new]
    fast = ["data.batch_size=1", "trainer.eval_every=1000"]
    before = ["trainer.epochs=10", "trainer.max_steps=1000", "hydra.run.dir=output_advanced"]
    assert (
        run_here(
            *small(dict(LINES)["python train_refactored.py"], files, *fast, *before)
        ).returncode
        == 0
    )
    done = run_here(
        *small(new, files, *fast, "resume=output_advanced/step-1000", "trainer.max_steps=1001")
    )
    assert "resumed from step-00001000" in done.stderr
    assert "final_state=" in done.stdout


@pytest.mark.fault_injection
def test_commands_with_a_bucket_upload_to_it(files, monkeypatch):
    pytest.importorskip("obstore", reason="obstore is not installed: pip install 'mlxlab[cloud]'")
    monkeypatch.chdir(files)
    commands = [new for _, new in LINES if "cloud=s3" in new]
    commands += [f"mlxlab train {recipe}" for recipe in RECIPES if "cloud" in recipe]
    with emulator("s3", bucket="checkpoints") as service:
        for name, value in service.environment.items():
            monkeypatch.setenv(name, value)
        for command in commands:
            done = run_here(*small(command, files))
            assert done.returncode == 0, done.stderr
            prefix = re.search(r"cloud\.prefix=(\w+)", command)[1]
            assert open_address(f"s3://checkpoints/{prefix}", {}).store.list(prefix).folders


@pytest.mark.fault_injection
@pytest.mark.parametrize("recipe", [recipe for recipe in RECIPES if "cloud" not in recipe])
def test_a_recipe_trains(recipe, files, monkeypatch):
    monkeypatch.chdir(files)
    done = run_here(*small(f"mlxlab train {recipe}", files))
    assert done.returncode == 0, done.stderr
    assert "final_state=" in done.stdout


@pytest.mark.parametrize(
    "new", [new for _, new in LINES if re.match("mlxlab (predict|generate|info|export) ", new)]
)
def test_a_new_command_for_a_run_runs(new, files, monkeypatch):
    monkeypatch.chdir(files)
    _, script, *words = shlex.split(new)
    run = {"predict": "bert", "export": "bert", "generate": "decoder"}.get(script)
    for folder in [word.removeprefix("run=") for word in words if word.startswith("run=")]:
        if not (files / folder).exists():
            shutil.copytree(trained(files, run), files / folder)
    done = run_here(*words, script=script)
    assert done.returncode == 0, done.stderr
    if script == "predict":
        assert (files / "submission.csv").read_text().startswith("PassengerId,Survived\n")
    if script == "export":
        assert (files / "exported" / "model.safetensors").exists()


@pytest.mark.fault_injection
@pytest.mark.parametrize(
    "new", [new for _, new in LINES if re.match("mlxlab (launch|train) (nproc|-m)", new)]
)
def test_a_command_of_several_processes_runs(new, files):
    if "model=mlx_lm" in new:
        pytest.importorskip("mlx_lm", reason="mlx-lm is not installed (extra zoo)")
    _, script, first = new.split()[:3]
    folder = files / f"several-{len(list(files.iterdir()))}"
    of_sweep = first == "-m"
    where = f"hydra.sweep.dir={folder}" if of_sweep else f"hydra.run.dir={folder}"
    done = run(
        first,
        *small(new, files, where),
        script=script,
        fresh=True,
    )
    assert done.returncode == 0, done.stderr
    assert len([*folder.rglob("checkpoints/step-*")]) == (2 if of_sweep else 1)
    parallel = "none" if of_sweep else "data"
    assert all(
        f"parallel: {parallel}" in path.read_text() for path in folder.rglob(".hydra/config.yaml")
    )


@pytest.mark.fault_injection
def test_the_list_of_runs_has_a_run(files, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{files}/store.db")
    command = dict(LINES)["python mlx_bert_cli_v2.py list-experiments"].split()
    tracked = small(
        LINES[0][1], files, "tracking=mlflow", "name=listed", f"hydra.run.dir={files}/listed"
    )
    assert run(*tracked, fresh=True).returncode == 0
    listed = run(*command[2:], script=command[1], fresh=True)
    assert listed.returncode == 0, listed.stderr
    assert "listed" in listed.stdout


@pytest.mark.fault_injection
def test_the_benchmark_prints_its_table():
    """One round of one model: 20 of two take half an hour."""
    python, *args = dict(LINES)["python mlx_bert_cli_v2.py benchmark --steps 20"].split()
    assert (python, args[-1]) == ("python", "rounds=20")
    reduced = [sys.executable, *args[:-1], "rounds=1", "model=bert"]
    done = subprocess.run(
        reduced, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "| bert nano | optimized |" in re.sub(" +", " ", done.stdout)


@pytest.mark.parametrize("title", sorted({program.title for program in PROGRAMS}))
def test_the_guide_has_every_flag_of_the_tables(title):
    assert flag_table(title) in GUIDE


def test_the_tables_name_no_folder_after_the_absence_of_a_default():
    assert "=none/" not in GUIDE


def test_the_recipes_of_the_guide_compose():
    assert len(RECIPES) > 8
    for overrides in RECIPES:
        Composer(shipped_conf(), overrides.split()).checked()


def test_the_growth_course_grows_a_decoder_to_size_nano(files):
    text = f"data.source={files / 'books.jsonl'}"
    done = run_here("experiment=growth_course", text, "data.tokenizer.vocab_size=300", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "num_layers=6" in done.stdout.splitlines()[-3]
