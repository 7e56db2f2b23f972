"""Checks what breaks an installation: a line each.

    mlxlab doctor [--json] [timeout=60]

Checks Python, the required packages, MLX and its backend, the compiler for native kernels and the config files.
Nothing is changed. Each check runs in a process of its own, so that
a broken package cannot crash or stop the others.

Exit codes: 0 without errors, also with warnings; 69 with errors.
"""

import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from mlxlab import program, terminal
from mlxlab.cli.print_json import print_json
from mlxlab.config.paths import conf_dir
from mlxlab.constraints import Positive
from mlxlab.detached import module_environment
from mlxlab.errors import ServiceUnavailableError, UserError
from mlxlab.redact import redact
from mlxlab.wording import one_line

# MLX has one package for each device on Linux, and all of them ship the same library file.
BACKENDS = ("mlx-cpu", "mlx-cuda-12", "mlx-cuda-13")
STYLES: dict[str, terminal.Style] = {"ok": "green", "warning": "yellow", "error": "red"}
OPTIONAL = "compiler"  # Without it runs are slower, and none fails.


def doctor(timeout: Positive = 60.0, json: bool = False) -> int:
    """Checks the installation.

    Args:
        timeout: seconds for all checks, after which those that still run are stopped and reported.
        json: prints JSON instead of lines.
    """
    with ThreadPoolExecutor(len(CHECKS)) as pool:
        findings = list(pool.map(partial(_check_apart, timeout), CHECKS))
    if json:
        print_json(findings)
    else:
        for each in findings:
            status = terminal.styled(f"{each['status']:9}", STYLES[each["status"]])
            print(f"{status}{each['check']:13} {each['value']}")

    if any(each["status"] == "error" for each in findings):
        return ServiceUnavailableError.exit_code
    return 0


def _check_apart(timeout: float, name: str) -> dict[str, str]:
    """The finding of a check that runs in a process of its own."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "mlxlab.cli.doctor", name],
            env=module_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"check": name, "status": "error", "value": "no answer in time; see timeout="}
    status = "ok"
    if done.returncode != 0:
        status = "warning" if name == OPTIONAL else "error"
    output = done.stderr if done.returncode else done.stdout
    value = output.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
    return {"check": name, "status": status, "value": one_line(redact(value), 400)}


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

        mx.eval(mx.ones((64, 64)) @ mx.ones((64, 64)))
    except (ImportError, RuntimeError) as error:  # RuntimeError: no usable device
        raise ServiceUnavailableError(f"cannot be used: {error}; {install}") from None
    return f"{_version('mlx')}, {mx.default_device()}"


def check_compiler() -> str:
    if sys.platform != "linux":
        return "not needed: native kernels are for Linux"
    from mlxlab.ops.native.toolchain import KernelsUnavailable, find_compiler

    try:
        return " ".join(find_compiler())
    except KernelsUnavailable as reason:
        raise ServiceUnavailableError(f"native kernels cannot be built: {reason}") from None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


CHECKS: dict[str, Callable[[], object]] = {
    "Python": check_python,
    "packages": check_packages,
    "MLX": check_mlx,
    "compiler": check_compiler,
    "config files": conf_dir,
}

if __name__ == "__main__":
    try:
        print(CHECKS[sys.argv[1]]())
    except (UserError, ImportError) as fault:
        sys.exit(one_line(str(fault), 400))
