"""Checks what breaks an installation: a line each.

    mlxlab doctor [--json] [timeout=60]

Checks Python, the required packages, MLX and its backend, the compiler for native kernels and the config files.
Nothing is changed. MLX is used in a process of its own, so that a crash of it does not hide the other lines.

Exit codes: 0 without errors, also with warnings; 69 with errors.
"""

import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Callable
from functools import partial

from mlxlab import terminal
from mlxlab.backend.detached import module_environment
from mlxlab.cli.app import print_json
from mlxlab.config.paths import conf_dir
from mlxlab.errors import ServiceUnavailableError
from mlxlab.schema.constraints import Positive
from mlxlab.terminal import program
from mlxlab.terminal.redact import redact
from mlxlab.terminal.wording import one_line

# MLX has one package for each device on Linux, and all of them ship the same library file.
BACKENDS = ("mlx-cpu", "mlx-cuda-12", "mlx-cuda-13")
USE_OF_MLX = """
from mlxlab import backend
backend.prepare()
import mlx.core as mx
mx.eval(mx.ones((64, 64)) @ mx.ones((64, 64)))
print(mx.default_device())
"""
STYLES: dict[str, terminal.Style] = {"ok": "green", "warning": "yellow", "error": "red"}
OPTIONAL = "compiler"  # Without it runs are slower, and none fails.


def doctor(timeout: Positive = 60.0, json: bool = False) -> int:
    """Checks the installation.

    Args:
        timeout: seconds after which MLX is stopped and reported.
        json: prints JSON instead of lines.
    """
    checks: dict[str, Callable[[], object]] = {
        "Python": check_python,
        "packages": check_packages,
        "MLX": partial(check_mlx, timeout),
        "compiler": check_compiler,
        "config files": conf_dir,
    }
    findings = []
    for name, check in checks.items():
        status = "ok"
        try:
            value = str(check())
        except Exception as fault:  # A broken package may raise anything.
            status = "warning" if name == OPTIONAL else "error"
            value = str(fault)
        value = one_line(redact(value), 400)
        findings.append({"check": name, "status": status, "value": value})
    if json:
        print_json(findings)
    else:
        for each in findings:
            label = terminal.styled(f"{each['status']:9}", STYLES[each["status"]])
            print(f"{label}{each['check']:13} {each['value']}")

    if any(each["status"] == "error" for each in findings):
        return ServiceUnavailableError.exit_code
    return 0


def check_python() -> str:
    return f"{platform.python_version()} ({sys.executable})"


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


def check_mlx(timeout: float) -> str:
    """Uses MLX in a process of its own, which may crash or hang."""
    install = f"{program.install_command('cpu')}, with an NVIDIA GPU cuda instead of cpu"
    installed = [name for name in BACKENDS if _version(name)]
    if sys.platform == "linux" and len(installed) != 1:
        names = " and ".join(installed) or "none"
        raise ServiceUnavailableError(f"expected one of its backends, got {names}; {install}")
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", USE_OF_MLX],
            env=module_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ServiceUnavailableError("no answer in time; see timeout=") from None
    if done.returncode != 0:
        fault = done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
        raise ServiceUnavailableError(f"cannot be used: {fault}; {install}")
    return f"{_version('mlx')}, {done.stdout.strip()}"


def check_compiler() -> str:
    if sys.platform != "linux":
        return "not needed: native kernels are for Linux"
    from mlxlab.backend.ops.native.toolchain import KernelsUnavailable, find_compiler

    try:
        return " ".join(find_compiler())
    except KernelsUnavailable as reason:
        raise ServiceUnavailableError(f"native kernels cannot be built: {reason}") from None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
