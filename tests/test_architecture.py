"""The architecture: packages import only packages on lower layers, and the linters agree."""

import ast
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from support.shape import count_packages, density

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "mlxlab"
FILES = sorted(PACKAGE.rglob("*.py"))

LAYERS = [  # a package imports only packages on later lines of this list
    ["extensions"],
    ["cli"],
    ["sweep"],
    ["analysis", "api"],
    ["run"],
    ["evaluation"],
    ["distillation", "past_runs"],
    ["callbacks", "inference"],
    ["training"],
    ["models"],
    ["views"],
    ["config", "data", "checkpoint", "tracking"],
    ["backend"],
    ["record"],
    ["files"],
    ["terminal"],
    ["errors", "schema", "stats"],
]
LEVEL = {package: len(LAYERS) - number for number, layer in enumerate(LAYERS) for package in layer}
ONLY_IN = {  # third-party package -> the packages or modules that may import it
    "hydra": ("config.hydra", "cli", "sweep"),
    "mlflow": ("tracking.mlflow", "extensions.store_migration"),
}
NEVER_IN = {"mlx": ("config", "data", "tracking", "extensions.cloud", "sweep")}
SHAPE = {  # Limits of support/shape.py; a change that reaches less sets them anew.
    "nodes": 389_330,
    "files": 367,
    "multiplied texts": 0,
    "nodes a statement": 10.3,
    "ternaries": 10.15,
    "packed assignments": 0.15,
    "nested comprehensions": 0.85,
    "assignment expressions": 1.15,
    "functions returning text": 11.9,
    "fragments": 0.1,
}
PACKAGE_NODES = {
    "analysis": 12_320,
    "api": 3_580,
    "backend": 15_320,
    "callbacks": 6_520,
    "checkpoint": 11_180,
    "cli": 18_390,
    "config": 13_100,
    "data": 58_380,
    "distillation": 9_270,
    "evaluation": 9_360,
    "extensions": 36_370,
    "files": 3_660,
    "inference": 14_240,
    "models": 54_630,
    "past_runs": 7_950,
    "record": 4_730,
    "run": 21_070,
    "schema": 1_260,
    "stats": 5_030,
    "sweep": 18_370,
    "terminal": 4_510,
    "tracking": 14_460,
    "training": 32_740,
    "views": 11_980,
}
PRIVATE_MODULES = {}
VAGUE_NAMES = ("utils", "util", "helpers", "base", "common", "misc", "manager", "factory")


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


@cache
def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


@cache
def imported_names(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(parse(file)):
        if isinstance(node, ast.Import):
            names |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names |= {f"{node.module}.{name.name}" for name in node.names}
    return names


def is_within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def test_every_package_has_a_layer():
    top_level = {file.relative_to(PACKAGE).parts[0].removesuffix(".py") for file in FILES}
    assert top_level - {"__init__", "__main__"} <= set(LEVEL)


def may_import(module: str, name: str) -> bool:
    package = module.split(".")[0]
    library, _, rest = name.partition(".")
    target = rest.split(".")[0]
    if library == "mlxlab" and target in LEVEL and package in LEVEL and target != package:
        return LEVEL[target] < LEVEL[package]
    if library in ONLY_IN:
        return is_within(module, ONLY_IN[library])
    return library not in NEVER_IN or not is_within(module, NEVER_IN[library])


def test_packages_import_only_lower_layers():
    faults = []
    for file in FILES:
        module = module_name(file)
        names = [name for name in imported_names(file) if not may_import(module, name)]
        faults += [f"{module} imports {name}" for name in names]
    assert not faults, "\n".join(faults)


def test_nothing_names_an_extension_but_a_config():
    """The layers forbid imports; this forbids dotted names in strings, by which code can be imported."""
    faults = [
        f"{module_name(file)}: {node.value}"
        for file in FILES
        if not is_within(module_name(file), ("extensions",))
        for node in ast.walk(parse(file))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if "mlxlab.extensions" in node.value
    ]
    assert not faults, "\n".join(faults)


def test_no_two_modules_import_each_other_in_a_circle():
    """Imports inside functions and under TYPE_CHECKING count too."""
    modules = {f"mlxlab.{module_name(file)}": file for file in FILES if file.name != "__init__.py"}
    imports = {}
    for module, file in modules.items():
        names = imported_names(file)
        imports[module] = {
            name if name in modules else name.rpartition(".")[0] for name in names
        } & set(modules)
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for target in sorted(imports[module]):
                visit(target, (*path, module))
            done.add(module)

    for module in modules:
        visit(module, ())


def test_a_module_is_one_idea():
    for file in FILES:
        assert file.stem not in VAGUE_NAMES, file
        if file.name != "__init__.py":
            assert ast.get_docstring(parse(file)), f"{file} has no heading"


def test_the_package_and_its_packages_stay_within_their_limits():
    packages = count_packages()
    shape = {name: round(value, 2) for name, value in density(packages).items()}
    assert {name: value for name, value in shape.items() if value > SHAPE[name]} == {}
    nodes = {package: packages[package]["nodes"] for package in PACKAGE_NODES}
    assert {name: count for name, count in nodes.items() if count > PACKAGE_NODES[name]} == {}


def test_no_private_module_of_a_library_is_imported():
    """Names that libraries keep to themselves change without notice."""
    found: dict[str, set[str]] = {}
    for file in FILES:
        for name in imported_names(file):
            library, _, rest = name.partition(".")
            if library in ("hydra", "mlflow", "optuna", "omegaconf") and _is_private(rest):
                private = name if library == "mlflow" else ".".join(name.split(".")[:2])
                found.setdefault(module_name(file), set()).add(private)
    assert found == PRIVATE_MODULES


def _is_private(name: str) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


def test_every_file_is_ascii():
    for file in [*FILES, *(ROOT / "conf").rglob("*.yaml"), *(ROOT / "scripts").glob("*.py")]:
        assert file.read_text().isascii(), file


@pytest.mark.parametrize(
    "args", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]], ids=" ".join
)
def test_the_linters_agree(args):
    done = subprocess.run(
        [sys.executable, "-m", *args], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_only_script_trains_and_holds_no_logic():
    [script] = (ROOT / "scripts").iterdir()
    assert script.name == "train.py"
    assert os.access(script, os.X_OK)
    text = script.read_text()
    kinds = ast.FunctionDef | ast.ClassDef | ast.For
    assert not [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
    assert len(text.splitlines()) <= 25


def test_continuous_integration_runs_the_readme_command():
    readme = (ROOT / "README.md").read_text()
    lines = [
        line for line in (ROOT / ".ci" / "run").read_text().splitlines() if "pip install" in line
    ]
    assert lines
    assert all(line in readme for line in lines)
