"""Mutated files of run folders and caches through the commands that read them.

Whatever they hold, a command ends within seconds with a documented exit code and no traceback; it executes nothing,
writes nothing outside the folders it was given, and follows no link out of the run folder.
`pytest -m fault_injection tests/fault_injection/test_fuzz.py` runs 100 mutations of each file; the default suite few.
"""

import random
import shutil
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mlxlab.tracking.mlflow.address import Address
from support.fault_injection.fuzz_server import serve
from support.fault_injection.mutations import mutate_file
from support.forks import fork
from support.new_stores import create_database
from support.processes import environment

SETTINGS = """model.num_layers=1 model.hidden_size=8 model.num_heads=1 model.intermediate_size=8
data.batch_size=64 data.prefetch=0 trainer.eval_every=2 checkpointing.every_steps=2
~callbacks.memory_monitor resume=auto"""
STREAMING = """model=transformer data=streaming data.tokenizer.vocab_size=300 data.seq_len=16
data.reading.document_unit=line data.valid_fraction=0.2 trainer.schedule.warmup=0"""
CACHE = "trainer.distillation.teacher_cache={top_k: 2, dtype: float16}"
TINY = SETTINGS.split()
TEXT = [*TINY, *STREAMING.split()]
TITANIC = [*TINY, "data.source=synthetic", "data.templates=[brief]", "data.baselines=false"]
DISTILL = [*TITANIC, "trainer=distill", CACHE]
ROUNDS = [*TITANIC, "trainer=distill", "trainer.distillation.rounds=2"]
NEWEST = "run/checkpoints/step-00000004"
TARGETS = [  # (folder that is copied, command, file in it)
    ("titanic", "evaluate", "run/inference/config.yaml"),
    ("titanic", "evaluate", "run/inference/data.json"),
    ("titanic", "evaluate", "run/inference/tokenizer.json"),
    ("titanic", "evaluate", f"{NEWEST}/manifest.json"),
    ("titanic", "evaluate", f"{NEWEST}/state.json"),
    ("titanic", "evaluate", f"{NEWEST}/model.safetensors"),
    ("titanic", "resume", "run/run.json"),
    ("titanic", "resume", "run/journal.jsonl"),
    ("titanic", "resume", "run/resume_changes.json"),
    ("titanic", "resume", "run/run.json"),
    ("titanic", "resume", "run/inference/config.yaml"),
    ("titanic", "resume", f"{NEWEST}/manifest.json"),
    ("titanic", "resume", f"{NEWEST}/state.json"),
    ("titanic", "resume", f"{NEWEST}/model.safetensors"),
    ("titanic", "resume", f"{NEWEST}/optimizer.safetensors"),
    ("titanic", "compare", "run/run.json"),
    ("titanic", "report", "run/run.json"),
    ("titanic", "sync", "run/journal.jsonl"),
    ("titanic", "sync", "run/run.json"),
    ("text", "generate", "run/inference/config.yaml"),
    ("text", "generate", "run/inference/data.json"),
    ("text", "generate", "run/inference/tokenizer.json"),
    ("text", "generate", f"{NEWEST}/model.safetensors"),
    ("text", "evaluate", "run/inference/data.json"),
    ("text", "resume", "run/inference/tokenizer.json"),
    ("text", "resume", f"{NEWEST}/state.json"),
    ("rounds", "resume", "run/run.json"),
    ("rounds", "continue", "run/run.json"),
    ("rounds", "resume", "run/ensemble.json"),
    ("rounds", "evaluate", "run/ensemble.json"),
    ("distilled", "distill", "cwd/.cache/teacher-*/targets.sqlite"),
]
# Mutations of a target in the default suite, which takes every third one.
DRAW = {"evaluate": 3, "compare": 8, "report": 8}
COMMANDS = sorted({(kind, command) for kind, command, _ in TARGETS})


class Workplace(NamedTuple):
    """Finished runs to copy for each mutation, their store, and the process that runs commands on the copies."""

    templates: Path
    server: Connection

    @property
    def store(self) -> str:
        return f"sqlite:///{self.templates}/store/mlflow.db"

    def order(self, kind: str, command: str, case: Path) -> dict[str, Any]:
        """The arguments of a command on the run folder `case / "run"`."""
        run, teacher = f"run={case}/run", f"trainer.teachers=[{self.templates}/titanic/run]"
        text = f"data.source={self.templates}/text.txt"
        settings = {"titanic": TITANIC, "text": [*TEXT, text], "rounds": ROUNDS}
        settings["distilled"] = [*DISTILL, teacher]
        train = [*settings.get(kind, []), f"hydra.{run.replace('=', '.dir=')}"]
        methods = [f"a={case}/run", f"b={self.templates}/titanic/run", "baseline=a"]
        tracked = ["tracking=none"]
        if kind == "titanic":
            tracked = ["tracking=mlflow", f"tracking.uri={self.store}", "tracking.wait=200"]
            tracked.append("tracking.log_models=false")
        last = [] if kind == "rounds" else ["checkpoint=last"]
        distilled = [*train[:-1], f"hydra.run.dir={case}/out"]
        name, argv = {
            "create": ("train", [*train, *tracked]),
            "evaluate": ("evaluate", [run, *last, "max_batches=1"]),
            "generate": ("generate", [run, "checkpoint=last", "prompt=a", "max_tokens=2"]),
            "resume": ("train", [*train, "tracking=none", "trainer.max_steps=5"]),
            "continue": ("train", [train[-1], "resume=auto", "trainer.max_steps=5"]),
            "distill": ("train", [*distilled, "tracking=none", "trainer.max_steps=4"]),
            "compare": ("compare", [*methods, f"out={case}/out"]),
            "report": ("report", [f"{case}/run"]),
            "sync": ("runs", ["sync", f"{case}/run", f"uri=sqlite:///{case}/out/mlflow.db"]),
        }[command]
        writable = [f"{self.templates}/store", f"{case}/run", f"{case}/out", f"{case}/cwd"]
        paths = {"cwd": f"{case}/cwd", "out": f"{case}/output", "canary": f"{case}/canary.py"}
        return {"argv": [name, *argv], "writable": writable, **paths}

    def run(self, order: dict[str, Any]) -> tuple[Any, list[str], str]:
        """The exit code of a command, what it did that it must not, and what it printed."""
        self.server.send(order)
        result = self.server.recv()
        return result["code"], result["violations"], Path(order["out"]).read_text(errors="replace")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    folder = tmp_path_factory.mktemp("fuzz")
    lines = (f"Line {n} tells of {n * n} sheep.\n" for n in range(200))
    (folder / "text.txt").write_text("".join(lines))
    server, child_end = Pipe()
    fork(serve, child_end, environment())
    child_end.close()
    workplace = Workplace(folder, server)
    store = folder / "store"
    address = Address(workplace.store, str(store / "artifacts"))
    fork(create_database, address, store / "mlflow.db").join()
    for kind in ("titanic", "text", "rounds", "distilled"):
        (folder / kind / "cwd").mkdir(parents=True)
        order = workplace.order(kind, "create", folder / kind)
        for steps in (2, 4):
            longer = {"argv": [*order["argv"], f"trainer.max_steps={steps}"]}
            code, _, output = workplace.run(order | longer)
            assert code == 0, output
    yield workplace
    server.close()


def run_command(
    workplace: Workplace, kind: str, case: Path, command: str, mutate: Callable[[Path], str]
) -> tuple[Any, str]:
    """Runs a command on a copy that `mutate` has changed; returns its exit code, and what went wrong or nothing."""
    shutil.copytree(workplace.templates / kind, case, symlinks=True)
    (case / "canary.py").write_text(f"open({str(case / 'executed')!r}, 'w')\n")
    mutation = mutate(case / "canary.py")
    code, problems, output = workplace.run(workplace.order(kind, command, case))
    if code in ("hang", 70) or "Traceback" in output:
        problems.append(f"code {code}: {' / '.join(output.strip().splitlines()[-3:])[:300]}")
    if (case / "executed").exists():
        problems.append("code of the run folder was executed")
    return code, f"{mutation}: {'; '.join(problems)}" if problems else ""


@pytest.mark.fault_injection
@pytest.mark.parametrize(("kind", "command"), COMMANDS)
def test_every_command_succeeds_on_the_unchanged_run(workplace, tmp_path, kind, command):
    done = run_command(workplace, kind, tmp_path / "case", command, lambda _: "unchanged")
    assert done == (0, "")


@pytest.mark.parametrize(
    ("kind", "command", "name", "count"),
    [
        *((kind, command, name, DRAW.get(command, 1)) for kind, command, name in TARGETS[::3]),
        *(pytest.param(*target, 100, marks=pytest.mark.fault_injection) for target in TARGETS),
    ],
    ids=lambda value: str(value).replace("/", "-"),
)
def test_mutated_files_are_refused_or_read_without_harm(
    workplace, tmp_path, kind, command, name, count
):
    faults = []
    for number in range(count):
        case, rng = tmp_path / str(number), random.Random(f"{kind} {command} {name} {number}")

        def mutate(canary: Path, case: Path = case, rng: random.Random = rng) -> str:
            [path] = case.glob(name)
            return mutate_file(rng, path, canary)

        _, fault = run_command(workplace, kind, case, command, mutate)
        faults += [f"{number} {fault}"] if fault else []
        shutil.rmtree(case, ignore_errors=True)  # `sync` may leave an upload in the background
    assert not faults, f"{len(faults)} of {count}:\n" + "\n".join(faults[:20])
