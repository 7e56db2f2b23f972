"""Runs programs in forked children of a process that has imported everything, and reports what each of them did.

Orders are dicts: argv, out (a file for stdout and stderr), writable (folders), canary (a file
that must not be read). Answers: exit code, seconds, and the violations that an audit hook saw.
MLX computes nothing in this process, so that forking it is safe.
"""

import gc
import os
import resource
import signal
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from mlxlab.cli.main import main
from support.fault_injection.fork_server import receive
from support.fault_injection.preload import import_all
from support.forks import ROOT

CPU_SECONDS = 5  # More is a hang.
SECONDS = 240  # The clock is generous because machines are shared.
PACKAGES = ("distillation",)  # `support.preloaded` lacks it.
OTHERS = ("mlxlab.tracking.upload", "mlxlab.tracking.mlflow.store", "mlflow")
STARTS_CODE = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn")


def serve(connection: Connection, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    sys.dont_write_bytecode = True  # Files that Python writes for a new checkout are no violations.
    import_all(PACKAGES, OTHERS)
    gc.freeze()
    while order := receive(connection):
        connection.send(run(order))


def run(order: dict[str, Any]) -> dict[str, Any]:
    start, report = time.monotonic(), Path(f"{order['out']}.violations")
    child = os.fork()
    if child == 0:
        live(order, report)
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() - start > SECONDS:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return {"code": "hang", "seconds": SECONDS, "violations": []}
        time.sleep(0.005)
        continue
    return {"code": _code(order), "seconds": time.monotonic() - start, "violations": _lines(report)}


def live(order: dict[str, Any], report: Path) -> None:
    """The child: never returns."""
    output = os.open(order["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, target)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.setsid()
    os.chdir(order["cwd"])
    tempfile.tempdir = order["cwd"]
    watch(order, os.open(report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644))
    code: Any = 70
    try:
        code = main(order["argv"])
    except SystemExit as error:
        code = error.code
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os.write(output, f"\nexit code {code or 0}\n".encode())
        os._exit(0)


def watch(order: dict[str, Any], report: int) -> None:
    """Reports files written outside the writable folders, reads of the canary, and unexpected programs."""
    writable = [*order["writable"], "/dev", str(ROOT / ".cache"), tempfile.tempdir]
    writable.append(os.path.expanduser("~/.cache/mlxlab"))

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(args[0], str | bytes):
            path = os.path.realpath(os.fsdecode(args[0]))
            flags = args[2] if isinstance(args[2], int) else 0
            if flags & os.O_NOFOLLOW and os.path.islink(args[0]):
                return  # the event precedes the call, which fails
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if path == order["canary"]:
                os.write(report, f"read {path}\n".encode())
            inside = any(f"{path}/".startswith(f"{folder}/") for folder in writable)
            if writes and not inside:
                os.write(report, f"wrote {path}\n".encode(errors="replace"))
        elif event.startswith(STARTS_CODE):
            if args[0] != "git" and "mlxlab.tracking" not in str(args):
                os.write(report, f"started {str(args)[:200]}\n".encode(errors="replace"))

    sys.addaudithook(hook)


def _code(order: dict[str, Any]) -> Any:
    last = (_lines(Path(order["out"])) or [""])[-1]
    code = last.removeprefix("exit code ")
    return int(code) if code != last and code.isdecimal() else "hang"


def _lines(path: Path) -> list[str]:
    return path.read_text(errors="replace").strip().splitlines() if path.exists() else []
