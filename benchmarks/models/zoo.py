"""All architectures of the installed mlx-lm, tiny: trained, killed and resumed, exported and reloaded."""

import hashlib
import json
import random
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

from benchmarks.report import UnexpectedResults
from mlxlab.config.paths import project_root
from mlxlab.errors import ConfigError
from mlxlab.files.atomic import write_json
from mlxlab.files.untrusted import read_json
from mlxlab.models.zoo.architectures import architectures
from mlxlab.schema.constraints import Size
from mlxlab.terminal.nearest import suggestion
from mlxlab.terminal.tables import markdown_table

CONFIGS = Path(__file__).with_name("zoo_configs.json")  # a tiny config.json of each architecture
EXPECTED = Path(__file__).with_name("zoo_expected.json")  # those that do not pass every column
COLUMNS = ("forward", "20 steps", "resumed", "exported")
GIB = 1 << 30

Row = list[str]  # name, parameters, yes or no for each column, the first reason of a no


class Expected(TypedDict):
    """An architecture that does not pass: the first column that it fails, and why."""

    fails: str
    why: str
    platform: NotRequired[str]  # of `sys.platform`; it passes on others


class Measured(TypedDict):
    """The rows of an interrupted measurement by the hash of what they depend on."""

    rows: dict[str, Row]


class Limits(NamedTuple):
    """What a process may take."""

    seconds: int
    address_space: int  # bytes


def zoo(
    only: str | None = None, seconds: Size = 120, gigabytes: Size = 12, workers: Size = 1
) -> str:
    """A table of architectures, and of those that fail with the reason. An interrupted measurement is continued.

    Args:
        only: some architectures, separated by commas; null takes all.
        seconds: at most for each process.
        gigabytes: address space of each process.
        workers: architectures at once.

    Raises:
        UnexpectedResults: an architecture passes more or fewer columns than `zoo_expected.json` says.
    """
    configs = read_json(CONFIGS, dict[str, dict[str, object]])
    names = _chosen(only)
    limits = Limits(seconds, gigabytes * GIB)
    keys = {name: _key(name, configs.get(name), limits) for name in names}
    rows = _continued(keys, lambda pending: _measure(pending, configs, limits, workers))
    return _report(rows, read_json(EXPECTED, dict[str, Expected]))


def _continued(keys: dict[str, str], measure: Callable[[list[str]], Iterator[Row]]) -> list[Row]:
    """The rows of architectures: those that an interrupted measurement wrote, and the others measured now.

    `keys` has the `_key` of each.
    """
    file = project_root() / ".cache" / "zoo.json"
    done = read_json(file, Measured)["rows"] if file.exists() else {}
    pending = [name for name, key in keys.items() if key not in done]
    count = len(keys) - len(pending)
    if count:
        print(f"continuing: {count} of {len(keys)} are measured", file=sys.stderr)
    file.parent.mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(measure(pending), count + 1):
        print(f"[{number}/{len(keys)}] {' | '.join(row)}", file=sys.stderr, flush=True)
        done[keys[row[0]]] = row
        write_json(file, {"rows": done})
    file.unlink(missing_ok=True)
    return [done[key] for key in keys.values()]


def _chosen(only: str | None) -> list[str]:
    """The architectures to measure; ConfigError for one that mlx-lm does not have."""
    names = architectures()
    chosen = names if only is None else only.split(",")
    if unknown := [name for name in chosen if name not in names]:
        raise ConfigError(
            f"only={unknown[0]}: mlx-lm has no such architecture{suggestion(unknown[0], names)}"
        )
    return chosen


def _key(name: str, config: dict[str, object] | None, limits: Limits) -> str:
    """A hash of what a row depends on, apart from the code of mlxlab."""
    depends = [name, config, limits, version("mlx"), version("mlx-lm")]
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]


def _measure(
    names: list[str], configs: dict[str, dict[str, object]], limits: Limits, workers: int
) -> Iterator[Row]:
    """The rows of architectures, in this order."""
    context = _context()
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(workers) as executor:
        source = Path(temporary) / "text.txt"
        source.write_text(_text())

        def measured(name: str) -> Row:
            folder = Path(temporary) / name
            folder.mkdir()
            return _row(name, configs.get(name), Processes(context, folder, source, limits))

        try:
            yield from executor.map(measured, names)
        finally:
            executor.shutdown(cancel_futures=True)


def _report(rows: list[Row], expected: dict[str, Expected]) -> str:
    """The tables; raises UnexpectedResults with them where a row differs from what is expected."""
    passed: list[Row] = []
    failed: list[Row] = []
    changes = []
    for row in rows:
        entry = expected.get(row[0])
        if entry is not None and entry.get("platform", sys.platform) != sys.platform:
            entry = None
        before, after = entry["fails"] if entry else "none", _first_failure(row)
        if before != after:
            changes.append(
                f"{row[0]}: expected to fail {before}, failed {after} {row[-1]}".rstrip()
            )
        reason = entry["why"] if entry and before == after else row[-1]
        (passed if after == "none" else failed).append([*row[:-1], reason])
    head = ["architecture", "parameters", *COLUMNS]
    lines = [f"{len(passed)} of {len(rows)} architectures pass every column:", ""]
    lines += [markdown_table(head, [row[:-1] for row in passed], "lrllll")]
    if failed:
        lines += ["", "The others:", "", markdown_table([*head, "reason"], failed, "lrlllll")]
    text = "\n".join(lines)
    if changes:
        raise UnexpectedResults("; ".join(changes), text)
    return text


def _first_failure(row: Row) -> str:
    """The first column that an architecture fails, or none."""
    return next(
        (column for column, mark in zip(COLUMNS, row[2:], strict=False) if mark == "no"), "none"
    )


class Processes(NamedTuple):
    """Performs actions on an architecture in processes of their own."""

    context: ForkServerContext | SpawnContext
    folder: Path
    source: Path
    limits: Limits

    def act(self, action: str, config: dict[str, object]) -> dict[str, Any]:
        """The results of an action by their names; `error` in those that failed."""
        args = (action, str(self.folder), config, str(self.source), self.limits.address_space)
        process = self.context.Process(target=perform_action, args=args)
        process.start()
        process.join(self.limits.seconds)
        late = process.exitcode is None
        process.kill()
        process.join()
        if action == "killed" and process.exitcode == -signal.SIGKILL and not late:
            return {"killed": {}}
        default = f"more than {self.limits.seconds} s" if late else f"exit code {process.exitcode}"
        parts = ("forward", "whole", "export") if action == "whole" else (action,)
        files = {part: self.folder / f"{part}.json" for part in parts}
        return {
            part: json.loads(file.read_text()) if file.exists() else {"error": default}
            for part, file in files.items()
        }


def _row(name: str, config: dict[str, object] | None, processes: Processes) -> Row:
    if config is None:
        return [name, "", *["no"] * len(COLUMNS), "no tiny config"]
    results = processes.act("whole", config)
    errors = [results["forward"].get("error", "")]
    if not errors[-1]:
        if "error" not in results["whole"]:
            results |= processes.act("killed", config) | processes.act("resumed", config)
        errors = [*errors, *_faults(results)]
    marks = ["yes" if not error else "no" for error in errors] + ["no"] * (
        len(COLUMNS) - len(errors)
    )
    parameters = results["forward"].get("parameters")
    return [name, f"{parameters:,}" if parameters else "", *marks, next(filter(None, errors), "")]


def _faults(results: dict[str, dict[str, Any]]) -> list[str]:
    """What is wrong with training, resume and export; empty texts where nothing is."""
    whole, export = results["whole"], results["export"]
    if "error" in whole:
        return [whole["error"], "not run", "not run"]
    killed, resumed = results["killed"], results["resumed"]
    after = killed.get("error", "") or resumed.get("error", "")
    if not after and not resumed["resumed"]:
        after = "started anew"
    if not after and resumed["final_state"] != whole["final_state"]:
        after = "another final state than without the kill"
    exported = export.get("error", "")
    if not exported and export["difference"] > 0:
        exported = f"logits differ by {export['difference']:.2g}"
    return ["", after, exported]


def perform_action(
    action: str, folder: str, config: dict[str, object], source: str, limit_bytes: int
) -> None:
    """`perform` of `zoo_run`, which only the process of an architecture imports."""
    from benchmarks.models.zoo_run import perform

    perform(action, folder, config, source, limit_bytes)


def _context() -> ForkServerContext | SpawnContext:
    """Processes that start at once, forked from one that has imported everything; Metal does not survive a fork."""
    if sys.platform != "linux":
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.models.zoo_run"])
    return context


def _text() -> str:
    """Lines of drawn words."""
    draw = random.Random(0)
    words = [
        "".join(draw.choice("abcdefghij") for _ in range(draw.randint(2, 6))) for _ in range(200)
    ]
    return "\n".join(" ".join(draw.choice(words) for _ in range(40)) for _ in range(100))
