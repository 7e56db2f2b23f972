"""`--help` and `--cfg job` import little, and the help covers all of conf/."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mlxlab.cli import main as dispatcher
from mlxlab.cli.train import show_help
from mlxlab.config.option_files import chosen, groups, lines
from mlxlab.config.paths import conf_dir
from support.sweep_jobs import checked_config

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"mlflow", "pandas", "transformers", "mlx", "sklearn", "matplotlib", "tokenizers", "numpy"}

PROBE = """
import json, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as stop:
    code = stop.code
print(json.dumps([code, sorted({name.split(".")[0] for name in sys.modules})]), file=sys.stderr)
"""


def probe(*argv):
    command = [sys.executable, "-c", PROBE, str(ROOT / "scripts" / "train.py"), *argv]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout, *json.loads(done.stderr.splitlines()[-1])


@pytest.mark.parametrize(
    ("args", "expected", "text", "unused"),
    [
        (["-h"], 0, "trainer.learning_rate=", {"hydra", "omegaconf", "antlr4"}),
        (["--cfg", "job"], 0, "_target_: mlxlab.training.trainer.Trainer", set()),
        (["trainer.learning_rte=1"], 2, "", set()),
    ],
)
def test_help_a_shown_config_and_an_error_import_nothing_heavy(args, expected, text, unused):
    out, code, modules = probe(*args)
    assert code == expected
    assert text in out
    assert not (HEAVY | unused) & set(modules)


def test_help_lists_every_group_and_option_with_its_description():
    printed = show_help([]).splitlines()
    described = [line[6:].split() for line in printed if line[4:6] in ("* ", "  ")]
    for group, options in groups([conf_dir()]).items():
        assert f"  {group}=" in printed
        for option, description in options.items():
            assert [option, *description.split()] in described


def test_help_lists_keys_with_default_type_and_meaning():
    text = " ".join(show_help([]).split())
    assert " trainer.learning_rate=0.0003 a number > 0; the peak of the schedule " in text
    conf = [conf_dir()]
    for model in groups(conf)["model"]:
        keys = lines(conf, chosen(conf, [f"model={model}"]))
        assert [key.key for key in keys if not key.description] == []


def test_help_shows_the_keys_of_another_choice():
    assert "model.kernel_sizes=" not in show_help([])
    assert "model.kernel_sizes=" in show_help(["model=cnn_hybrid"])
    assert "trainer.schedule.decay_fraction=" in show_help(["trainer/schedule=wsd"])
    distilled = show_help(["trainer=distill"])  # It extends another option, as its tokenizer does.
    for key in ("trainer.distillation.rounds=", "trainer.epochs=", "data.tokenizer.min_frequency="):
        assert key in distilled
    text = show_help(["experiment=instruct_smollm2", "trainer=simple", "model/size=tiny"])
    assert "data.templates=" not in text
    assert "trainer.step.accumulate=" not in text
    for key in ("data.loss_on=assistant", "trainer.max_steps=30"):
        assert f"  {key} " in text


def test_examples_of_help_are_valid():
    examples = show_help([]).partition("Examples\n")[2].partition("\n\nFlags")[0].splitlines()
    assert len(examples) >= 5
    for args in map(shlex.split, examples):
        checked_config(args)


def test_the_dispatcher_knows_its_subcommands(capsys):
    assert dispatcher.main([]) == 0
    out = capsys.readouterr().out
    assert {"train", "runs"} <= set(dispatcher.subcommands())
    assert all(f"  {subcommand} " in out for subcommand in dispatcher.subcommands())
    assert dispatcher.main(["trainn"]) == 2
    assert capsys.readouterr().err == "trainn: unknown subcommand; did you mean train?\n"
    assert dispatcher.main(["train", "--help"]) == 0
    assert "mlxlab train [group=option ...]" in capsys.readouterr().out
    assert dispatcher.main(["--version"]) == 0
