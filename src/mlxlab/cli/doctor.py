"""Checks what breaks an installation: a line each.

    mlxlab doctor [--json] [timeout=60]

Checks Python, the required packages, MLX and its backend, the compiler for native kernels, the config files, the
folders that runs write to and the tracking store. Nothing is changed. Each check runs in a process of its own, so that
a broken package cannot crash or stop the others. `mlxlab runs doctor` mends runs in the store.

Exit codes: 0 without errors, also with warnings; 69 with errors.
"""

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal, TypedDict

from mlxlab import program, terminal
from mlxlab.cli.app import Subcommand, build_main
from mlxlab.cli.print_json import print_json
from mlxlab.config.issues import one_line
from mlxlab.config.paths import conf_dir, project_root
from mlxlab.constraints import Positive
from mlxlab.detached import module_environment
from mlxlab.errors import ServiceUnavailableError, UserError
from mlxlab.redact import redact

OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 13)
# On Linux MLX has one package for each device, and all of them ship the same library file.
BACKENDS = ("mlx-cpu", "mlx-cuda-12", "mlx-cuda-13")
STORE_VARIABLES = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
Status = Literal["ok", "warning", "error"]
STYLES: dict[Status, terminal.Style] = {"ok": "green", "warning": "yellow", "error": "red"}
WARNING = 3
EXIT_CODES: dict[int, Status] = {
    0: "ok",
    WARNING: "warning",
    ServiceUnavailableError.exit_code: "error",
}


class Finding(TypedDict):
    """What a check found: with a warning runs are slow, with an error they fail."""

    check: str
    status: Status
    value: str


class Warned(Exception):
    """Something works, but slowly."""


def _doctor(timeout: Positive = 60.0, json: bool = False) -> int:
    """Checks the installation.

    Args:
        timeout: seconds for all checks, after which those that still run are stopped and reported.
        json: prints JSON instead of lines.
    """
    findings = _run_checks(timeout)
    if json:
        print_json(findings)
    else:
        for each in findings:
            status = terminal.styled(f"{each['status']:9}", STYLES[each["status"]])
            print(f"{status}{each['check']:13} {each['value']}")

    has_error = any(each["status"] == "error" for each in findings)
    return ServiceUnavailableError.exit_code if has_error else 0


def _run_checks(timeout: float) -> list[Finding]:
    """Runs all checks at the same time, each in a process of its own."""
    deadline = time.monotonic() + timeout
    processes = {name: _start(name) for name in CHECKS}
    return [_wait(name, process, deadline) for name, process in processes.items()]


def _start(name: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "mlxlab.cli.doctor", name],
        env=module_environment() | STORE_VARIABLES,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def _wait(name: str, process: "subprocess.Popen[str]", deadline: float) -> Finding:
    try:
        output, errors = process.communicate(timeout=max(deadline - time.monotonic(), 0.01))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return Finding(check=name, status="error", value="no answer in time; see timeout=")

    lines = output.splitlines()
    if process.returncode in EXIT_CODES and lines:
        return Finding(check=name, status=EXIT_CODES[process.returncode], value=lines[-1])
    last_line = "".join(errors.splitlines()[-1:])
    value = f"the check ended with exit code {process.returncode} {last_line}"
    return Finding(check=name, status="error", value=one_line(value, 300).rstrip())


def check_python() -> str:
    value = f"{platform.python_version()} ({sys.executable})"
    if not OLDEST_PYTHON <= sys.version_info[:2] <= NEWEST_PYTHON:
        raise ServiceUnavailableError(f"{value}: expected Python 3.11, 3.12 or 3.13")
    return value


def check_packages() -> str:
    from packaging.requirements import Requirement

    faults = []
    required = importlib.metadata.requires("mlxlab") or []
    for requirement in map(Requirement, required):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = _version(requirement.name)
        if version is None:
            faults.append(f"{requirement.name} is not installed")
        elif not requirement.specifier.contains(version, prereleases=True):
            faults.append(f"{requirement.name} {version}: expected {requirement.specifier}")
    if faults:
        raise ServiceUnavailableError(f"{'; '.join(faults)}; {program.install_command()}")
    return "all that mlxlab requires are installed"


def check_mlx() -> str:
    install = f"{program.install_command('cpu')}, with an NVIDIA GPU cuda instead of cpu"
    installed = [name for name in BACKENDS if _version(name)]
    if sys.platform == "linux" and len(installed) != 1:
        names = " and ".join(installed) or "none"
        raise ServiceUnavailableError(f"expected one of its backends, got {names}; {install}")
    try:
        from mlxlab import backend

        backend.prepare()
        import mlx.core as mx

        ones = mx.ones((64, 64))
        total = float((ones @ ones).sum())
    except (ImportError, RuntimeError) as error:  # RuntimeError: no usable device
        raise ServiceUnavailableError(f"cannot be used: {error}; {install}") from None
    if total != 64.0**3:
        raise ServiceUnavailableError(f"a product of matrices is wrong; {install}")
    return f"{_version('mlx')}, {mx.default_device()}"


def check_compiler() -> str:
    if sys.platform != "linux":
        return "not needed: native kernels are for Linux"
    from mlxlab.ops.native.toolchain import KernelsUnavailable, find_compiler

    try:
        return " ".join(find_compiler())
    except KernelsUnavailable as reason:
        raise Warned(f"native kernels cannot be built: {reason}") from None


def check_config_files() -> str:
    return str(conf_dir())


def check_folders() -> str:
    root = project_root()
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    for folder in (root / "outputs", root / ".cache", user_cache / "mlxlab"):
        # A run makes the folder in the nearest one that exists.
        existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
        try:
            with TemporaryFile(dir=existing):
                pass
        except OSError as error:
            reason = f"{existing}: cannot be written ({error.strerror})"
            raise ServiceUnavailableError(reason) from None
    return f"outputs and caches in {root} and {user_cache} can be written"


def check_store() -> str:
    from mlxlab.tracking.mlflow.address import resolve
    from mlxlab.tracking.mlflow.errors import StoreUnavailableError
    from mlxlab.tracking.mlflow.registry import open_registry
    from mlxlab.tracking.mlflow.sqlite import installed_version, version

    address = resolve(None, None, project_root())
    path = address.database
    if path is None:
        with open_registry(address, writes=False):
            return f"{address.shown}: reachable"
    if not path.exists():
        return f"{path}: made by the first tracked run"
    expected = installed_version()
    try:
        schema = version(path)
    except StoreUnavailableError as error:
        raise ServiceUnavailableError(str(error)) from None
    if schema != expected:
        fault = f"schema {schema}, expected {expected} of the installed MLflow"
        raise ServiceUnavailableError(f"{path}: {fault}; mlflow db upgrade {address.shown}")
    if not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        raise ServiceUnavailableError(f"{path}: cannot be written")
    return str(path)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


CHECKS: dict[str, Callable[[], str]] = {
    "Python": check_python,
    "packages": check_packages,
    "MLX": check_mlx,
    "compiler": check_compiler,
    "config files": check_config_files,
    "folders": check_folders,
    "store": check_store,
}


def _run_check(name: str) -> int:
    """Prints the check's value in its last line; returns the exit code of its process."""
    code = 0
    try:
        value = CHECKS[name]()
    except Warned as warning:
        value, code = str(warning), WARNING
    except (UserError, ImportError) as error:
        value, code = str(error), ServiceUnavailableError.exit_code
    print(one_line(redact(value), 400), flush=True)
    return code


main = build_main(__doc__, Subcommand(_doctor), needs_args=False)
if __name__ == "__main__":
    sys.exit(_run_check(sys.argv[1]))
