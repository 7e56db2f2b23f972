"""The page of environment variables names those that the code reads, and no others."""

import ast
import re
from functools import cache

from support.processes import ROOT

PACKAGE = ROOT / "src" / "mlxlab"
PAGE = (ROOT / "docs" / "reference" / "environment.md").read_text(encoding="utf-8")
NAME = re.compile(r"[A-Z][A-Z0-9_]{2,}")
READING = ("get", "pop", "setdefault", "getenv")


@cache
def sources():
    """Name of a module below mlxlab -> its text; a package is its `__init__`."""
    texts = {}
    for file in PACKAGE.rglob("*.py"):
        path = file.relative_to(PACKAGE).with_suffix("")
        texts[".".join(path.parts).removesuffix(".__init__")] = file.read_text()
    return texts


@cache
def tree(module):
    return ast.parse(sources()[module])


@cache
def words():
    return set(re.findall(r"[A-Z][A-Z0-9_]+", "\n".join(sources().values())))


def is_environment(node):
    return ast.unparse(node) in ("os.environ", "os")


def names_read(module):
    """Expressions that name a variable which is read."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            if node.func.attr in READING and is_environment(node.func.value):
                yield node.args[0]
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            if is_environment(node.value):
                yield node.slice
        elif isinstance(node, ast.Compare) and is_environment(node.comparators[0]):
            yield node.left


def values_of(name, module):
    """Expressions that a name stands for: constants, what a loop goes through, arguments of calls."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Assign):
            if name in map(ast.unparse, node.targets):
                yield node.value, module
        elif isinstance(node, ast.For | ast.comprehension):
            if name in ast.unparse(node.target).split(", "):
                yield node.iter, module
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mlxlab."):
            if name in [alias.name for alias in node.names]:
                yield from values_of(name, node.module.removeprefix("mlxlab."))
        elif isinstance(node, ast.FunctionDef):
            arguments = [each.arg for each in node.args.args]
            calls = [each for each in ast.walk(tree(module)) if isinstance(each, ast.Call)]
            for call in calls if name in arguments else ():
                if ast.unparse(call.func) == node.name and call.args:
                    yield call.args[arguments.index(name)], module


def variables(expression, module, seen=()):
    found = set()
    for node in ast.walk(expression):
        value = node.value if isinstance(node, ast.Constant) else None
        if isinstance(value, str) and NAME.fullmatch(value):
            found.add(value)
        elif isinstance(node, ast.Name) and (node.id, module) not in seen:
            for value, owner in values_of(node.id, module):
                found |= variables(value, owner, (*seen, (node.id, module)))
    return found


@cache
def read():
    names = set()
    for module, text in sources().items():
        if re.search(r"os\.(environ|getenv)", text):
            names.update(*(variables(node, module) for node in names_read(module)))
    return names


def documented():
    rows = re.findall(r"^\| (`.*?) \|", PAGE, re.M)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


SET_ONLY = {  # by mlxlab, to what must not vary
    *("GIT_PYTHON_REFRESH", "MLFLOW_DISABLE_TELEMETRY", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"),
    *("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"),
}


def test_every_variable_that_the_code_reads_is_documented():
    assert {"MLXLAB_DEVICE", "MLFLOW_TRACKING_URI", "PMI_RANK", "AWS_ALLOW_HTTP"} <= read()
    assert read() - SET_ONLY <= set(documented())
    own = {name for name in words() if re.fullmatch(r"MLXLAB_[A-Z_]*[A-Z]", name)}
    assert own <= set(documented())


def test_every_documented_variable_is_in_the_code():
    names = documented()
    assert len(names) == len(set(names)) > 40
    assert set(names) <= words()  # libraries read some of them, whose names the code mentions
    assert {name for name in names if name.startswith("MLXLAB_")} <= read()
