"""Mutated files of a run folder through the commands that read them.

Whatever a run folder holds, a command ends within seconds with a documented exit code and no traceback; it executes
nothing, writes nothing outside the folders it was given, and follows no link out of the run folder.
`pytest -m fault_injection tests/fault_injection/test_fuzz.py` runs 2,000 mutations; the default suite a draw of them.
"""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support.fault_injection.mutations import mutate_file
from support.processes import ROOT, environment, run

TINY = [
    "model.num_layers=1",
    "model.hidden_size=8",
    "model.num_heads=1",
    "model.intermediate_size=8",
    "data.source=synthetic",
    "data.templates=[brief]",
    "data.batch_size=64",
    "data.prefetch=0",
    "trainer.eval_every=2",
    "checkpointing.every_steps=2",
    "~callbacks.learning_curve",
]
NEWEST = "checkpoints/step-00000004"
TARGETS = [  # (command, file of the run folder)
    ("evaluate", "inference/config.yaml"),
    ("evaluate", "inference/data.json"),
    ("evaluate", "inference/tokenizer.json"),
    ("evaluate", f"{NEWEST}/manifest.json"),
    ("evaluate", f"{NEWEST}/state.json"),
    ("evaluate", f"{NEWEST}/model.safetensors"),
    ("resume", "manifest.json"),
    ("resume", "journal.jsonl"),
    ("resume", "journal.sync.json"),
    ("resume", "resume_changes.json"),
    ("resume", "metrics.json"),
    ("resume", "inference/config.yaml"),
    ("resume", f"{NEWEST}/manifest.json"),
    ("resume", f"{NEWEST}/state.json"),
    ("resume", f"{NEWEST}/model.safetensors"),
    ("resume", f"{NEWEST}/optimizer.safetensors"),
    ("compare", "manifest.json"),
    ("sync", "journal.jsonl"),
    ("sync", "journal.sync.json"),
    ("sync", "manifest.json"),
]
DRAW = {"evaluate": 3, "resume": 1, "compare": 8, "sync": 3}  # mutations of each target in the default suite
NOT_YET: dict[tuple[str, str], str] = {}  # target -> reason; to stay empty


class Workplace(NamedTuple):
    """A finished run to copy for each mutation, its store, and the process that runs commands on the copies."""

    template: Path
    store: Path
    server: subprocess.Popen[str]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    folder = tmp_path_factory.mktemp("fuzz")
    store = ["tracking=mlflow", f"tracking.uri=sqlite:///{folder}/store/mlflow.db", "tracking.log_models=false"]
    command = [*TINY, *store, "tracking.wait=60", f"hydra.run.dir={folder}/run", "resume=auto"]
    for steps in (2, 4):
        finished = run(*command, f"trainer.max_steps={steps}")
        assert finished.returncode == 0, finished.stderr
    server = ROOT / "tests" / "support" / "fault_injection" / "fuzz_server.py"
    process = subprocess.Popen([sys.executable, server], stdin=-1, stdout=-1, text=True, env=environment())
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    with process:
        yield Workplace(folder / "run", folder / "store", process)
        process.kill()


def order(command: str, case: Path, store: Path) -> dict[str, Any]:
    """The module and arguments of a command on the run folder `case / "run"`."""
    folder = case / "run"
    train = [*TINY, "tracking=none", "trainer.max_steps=5", f"hydra.run.dir={folder}", "resume=auto"]
    commands = {
        "evaluate": ("mlxlab.cli.evaluate", [f"run={folder}", "checkpoint=last", "max_batches=1"]),
        "resume": ("mlxlab.cli.train", train),
        "compare": ("mlxlab.cli.compare", [f"a={folder}", f"b={case}/other", "baseline=a", f"out={case}/out"]),
        "sync": ("mlxlab.cli.runs", ["sync", str(folder), f"uri=sqlite:///{store}/mlflow.db"]),
    }
    module, argv = commands[command]
    folders = [str(store), *(str(case / name) for name in ("run", "out", "cwd"))]
    return {"module": module, "argv": argv, "cwd": str(case / "cwd"), "out": str(case / "output"), "writable": folders}


def run_command(workplace: Workplace, case: Path, command: str, mutate: Callable[[Path], str]) -> tuple[Any, str]:
    """Runs a command on a copy that `mutate` has changed; returns its exit code, and what went wrong or nothing."""
    shutil.copytree(workplace.template, case / "run", symlinks=True)
    shutil.copytree(workplace.template, case / "other", symlinks=True)
    (case / "cwd").mkdir()
    canary = case / "canary.py"
    canary.write_text(f"open({str(case / 'executed')!r}, 'w')\n")
    mutation = mutate(canary)
    assert workplace.server.stdin is not None
    assert workplace.server.stdout is not None
    workplace.server.stdin.write(json.dumps(order(command, case, workplace.store) | {"canary": str(canary)}) + "\n")
    workplace.server.stdin.flush()
    result = json.loads(workplace.server.stdout.readline())
    output = (case / "output").read_text(errors="replace")
    found = list(result["violations"])
    if result["code"] in ("hang", 70) or "Traceback" in output:
        found.append(f"code {result['code']}: {' / '.join(output.strip().splitlines()[-3:])[:300]}")
    if (case / "executed").exists():
        found.append("code of the run folder was executed")
    return result["code"], f"{mutation}: {'; '.join(found)}" if found else ""


@pytest.mark.parametrize("command", DRAW)
def test_every_command_succeeds_on_the_unchanged_run(workplace, tmp_path, command):
    assert run_command(workplace, tmp_path, command, lambda _: "unchanged") == (0, "")


@pytest.mark.parametrize(("command", "name"), TARGETS, ids=lambda value: value.replace("/", "-"))
@pytest.mark.parametrize("full", [False, pytest.param(True, marks=pytest.mark.fault_injection)])
def test_mutated_files_are_refused_or_read_without_harm(workplace, tmp_path, request, command, name, full):
    assert (workplace.template / name).exists()
    if (command, name) in NOT_YET:
        request.applymarker(pytest.mark.xfail(reason=NOT_YET[command, name], strict=False))
    faults = []
    count = 100 if full else DRAW[command]
    for number in range(count):
        case = tmp_path / str(number)
        case.mkdir()
        rng = random.Random(f"{command} {name} {number}")
        _, fault = run_command(workplace, case, command, partial(mutate_file, rng, case / "run" / name))
        faults += [f"{number} {fault}"] if fault else []
        shutil.rmtree(case)
    assert not faults, f"{len(faults)} of {count}:\n" + "\n".join(faults[:20])
