"""All architectures of the installed mlx-lm, tiny: trained, killed and resumed, exported and reloaded."""

import json
import random
import signal
import sys
import tempfile
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from typing import Any

from mlxlab.constraints import Size
from mlxlab.markdown import markdown_table
from mlxlab.models.zoo.architectures import architectures

CONFIGS = Path(__file__).with_name("zoo_configs.json")  # a tiny config.json of each architecture
COLUMNS = ("forward", "20 steps", "resumed", "exported")
GIB = 1 << 30


def zoo(only: str | None = None, seconds: Size = 60, gigabytes: Size = 12) -> str:
    """A table of architectures, and of those that fail with the reason.

    Args:
        only: some architectures, separated by commas; null takes all.
        seconds: at most for each process.
        gigabytes: address space of each process.
    """
    configs: dict[str, dict[str, Any]] = json.loads(CONFIGS.read_text())
    names = only.split(",") if only else architectures()
    context = _context()
    passed, failed = [], []
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "text.txt"
        source.write_text(_text())
        for name in names:
            row = _row(context, name, configs.get(name), Path(temporary) / name, source, seconds, gigabytes * GIB)
            (failed if row[-1] else passed).append(row)
            print(" | ".join(row), file=sys.stderr, flush=True)
    head = ["architecture", "parameters", *COLUMNS]
    lines = [f"{len(passed)} of {len(names)} architectures pass every column.", ""]
    lines += [markdown_table(head, [row[:-1] for row in passed]), "", "The others:", ""]
    return "\n".join([*lines, markdown_table([*head, "reason"], failed)])


def _row(
    context: ForkServerContext | SpawnContext,
    name: str,
    config: dict[str, Any] | None,
    folder: Path,
    source: Path,
    seconds: int,
    limit_bytes: int,
) -> list[str]:
    """Name, parameters, yes or no for each column, and the first reason of a no."""
    if config is None:
        return [name, "", *["no"] * len(COLUMNS), "no tiny config"]
    folder.mkdir()

    def act(action: str) -> dict[str, Any]:
        args = (action, str(folder), config, str(source), limit_bytes)
        process = context.Process(target=perform_action, args=args)
        process.start()
        process.join(seconds)
        late = process.exitcode is None
        process.kill()
        process.join()
        default = f"more than {seconds} s" if late else f"exit code {process.exitcode}"
        if action == "killed" and process.exitcode == -signal.SIGKILL and not late:
            return {"killed": {}}
        parts = ("forward", "whole", "export") if action == "whole" else (action,)
        files = {part: folder / f"{part}.json" for part in parts}
        return {
            part: json.loads(file.read_text()) if file.exists() else {"error": default} for part, file in files.items()
        }

    results = act("whole")
    errors = [results["forward"].get("error", "")]
    if not errors[-1]:
        if "error" not in results["whole"]:
            results |= act("killed") | act("resumed")
        errors = [*errors, *_faults(results)]
    marks = ["yes" if not error else "no" for error in errors] + ["no"] * (len(COLUMNS) - len(errors))
    parameters = results["forward"].get("parameters")
    return [name, f"{parameters:,}" if parameters else "", *marks, next(filter(None, errors), "")]


def _faults(results: dict[str, dict[str, Any]]) -> list[str]:
    """What is wrong with training, resume and export; empty texts where nothing is."""
    whole, export = results["whole"], results["export"]
    if "error" in whole:
        return [whole["error"], "not run", "not run"]
    killed, resumed = results["killed"], results["resumed"]
    training, after = whole.get("error", ""), killed.get("error", "") or resumed.get("error", "")
    if not after and not resumed["resumed"]:
        after = "started anew"
    if not after and resumed["final_state"] != whole.get("final_state"):
        after = "another final state than without the kill"
    exported = export.get("error", "")
    if not exported and export["difference"] > 0:
        exported = f"logits differ by {export['difference']:.2g}"
    return [training, after, exported]


def perform_action(action: str, folder: str, config: dict[str, Any], source: str, limit_bytes: int) -> None:
    """`perform` of `zoo_run`, which only the process of an architecture imports."""
    from benchmarks.zoo_run import perform

    perform(action, folder, config, source, limit_bytes)


def _context() -> ForkServerContext | SpawnContext:
    """Processes that start at once, forked from one that has imported everything; Metal does not survive a fork."""
    if sys.platform != "linux":
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.zoo_run"])
    return context


def _text() -> str:
    """Lines of drawn words."""
    draw = random.Random(0)
    words = ["".join(draw.choice("abcdefghij") for _ in range(draw.randint(2, 6))) for _ in range(200)]
    return "\n".join(" ".join(draw.choice(words) for _ in range(40)) for _ in range(100))
