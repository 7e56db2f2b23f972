"""Checks that required packages are installed in versions that fit, which extras are, and where conf/ is."""

import importlib.metadata
import tomllib
from collections.abc import Iterator

from mlxlab import program
from mlxlab.cli.doctor.finding import Finding, finding
from mlxlab.cli.doctor.probe import Check
from mlxlab.config.paths import checkout, conf_dir
from mlxlab.files.untrusted import read_text

BACKENDS = ("cpu", "cuda")  # extras that hold MLX's backend; `compute` checks it


def _required() -> Iterator[Finding]:
    required = _requirements()[""]
    if faults := _faults(required):
        yield finding("packages", faults, "error", program.install_command())
    else:
        yield finding("packages", f"all {len(required)} that mlxlab requires are installed")


def _extras() -> Iterator[Finding]:
    for extra, required in _requirements().items():
        if not extra or extra in BACKENDS:
            continue
        name, faults = f"extra {extra}", _faults(required)
        remedy = program.install_command(extra)
        yield finding(name, faults, "note", remedy) if faults else finding(name, "installed")


def _requirements() -> dict[str, list[str]]:
    """Extra -> its requirements; "" holds those of mlxlab itself. Of the checkout, or of the installed package."""
    if (folder := checkout()) is not None:
        project = tomllib.loads(read_text(folder / "pyproject.toml"))["project"]
        return {"": project["dependencies"], **project["optional-dependencies"]}
    metadata = importlib.metadata.metadata("mlxlab")
    extras = {extra: f'extra == "{extra}"' for extra in metadata.get_all("Provides-Extra") or []}
    lines = metadata.get_all("Requires-Dist") or []
    of_extras = {
        extra: [line for line in lines if marker in line.replace("'", '"')]
        for extra, marker in extras.items()
    }
    return {"": [line for line in lines if "extra ==" not in line], **of_extras}


def _faults(lines: list[str]) -> str:
    """The requirements that are not met, or ""."""
    from packaging.requirements import Requirement

    missing, others = [], []
    for required in map(Requirement, lines):
        extra = {"extra": str(required.marker).partition('extra == "')[2].partition('"')[0]}
        if required.marker and not required.marker.evaluate(extra):
            continue
        try:
            version = importlib.metadata.version(required.name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(required.name)
            continue
        if not required.specifier.contains(version, prereleases=True):
            others.append(f"{required.name} {version}: expected {required.specifier}")
    return "; ".join([*([f"not installed: {', '.join(missing)}"] if missing else []), *others])


def _conf() -> Iterator[Finding]:
    yield finding("config files", str(conf_dir()))


CHECKS: dict[str, Check] = {"packages": _required, "config files": _conf, "extras": _extras}
