"""Size and density of Python code, counted in nodes of its syntax tree, which no formatter changes.

`python -m tests.support.shape` prints the figures by package.
"""

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (ROOT / "src" / "mlxlab", ROOT / "src" / "hydra_plugins")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DOCUMENTED = (ast.Module, ast.ClassDef, *FUNCTIONS)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
TEXT = ("str", "str | None", "list[str]")
# A remark that begins with one of these words leans on the line before it.
FRAGMENT = re.compile(
    r"(of|that|those|which|whose|also|as|with|for|from|by|in|on|at|to|and|or|the same|its|their)\b",
    re.IGNORECASE,
)


def count(file: Path) -> Counter[str]:
    """Counts nodes, statements and habits of one file."""
    text = file.read_text()
    tree = ast.parse(text)
    counts: Counter[str] = Counter(files=1)
    for node in ast.walk(tree):
        counts["nodes"] += 1
        counts["statements"] += isinstance(node, ast.stmt)
        counts["ternaries"] += isinstance(node, ast.IfExp)
        counts["assignment expressions"] += isinstance(node, ast.NamedExpr)
        counts["packed assignments"] += _packs_values(node)
        counts["nested comprehensions"] += _is_nested_comprehension(node)
        counts["multiplied texts"] += _multiplies_text(node)
        if isinstance(node, FUNCTIONS):
            counts["functions"] += 1
            counts["functions returning text"] += _returns_text(node)
    remarks = [*_comments(text), *_docstrings(tree)]
    counts["remarks"] = len(remarks)
    counts["fragments"] = sum(1 for remark in remarks if FRAGMENT.match(remark))
    return counts


def count_packages() -> dict[str, Counter[str]]:
    """The counts of each package, without files that have no content."""
    packages: dict[str, Counter[str]] = {}
    for folder in FOLDERS:
        for file in sorted(folder.rglob("*.py")):
            if file.stat().st_size:
                name = file.relative_to(folder).parts[0]
                packages.setdefault(name, Counter()).update(count(file))
    return packages


def density(packages: dict[str, Counter[str]]) -> dict[str, float]:
    """The figures that have a limit; habits are counted per 1,000 statements, the last two in per cent."""
    counts = sum(packages.values(), Counter[str]())
    thousands = counts["statements"] / 1000
    return {
        "nodes": counts["nodes"],
        "files": counts["files"],
        "multiplied texts": counts["multiplied texts"],
        "nodes a statement": counts["nodes"] / counts["statements"],
        "ternaries": counts["ternaries"] / thousands,
        "packed assignments": counts["packed assignments"] / thousands,
        "nested comprehensions": counts["nested comprehensions"] / thousands,
        "assignment expressions": counts["assignment expressions"] / thousands,
        "functions returning text": 100 * counts["functions returning text"] / counts["functions"],
        "fragments": 100 * counts["fragments"] / counts["remarks"],
    }


def _packs_values(node: ast.AST) -> bool:
    """Whether it is `a, b = c, d`, and no exchange of the same names."""
    if not isinstance(node, ast.Assign):
        return False
    target = node.targets[0]
    if not (isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)):
        return False
    targets = sorted(ast.unparse(each) for each in target.elts)
    return targets != sorted(ast.unparse(each) for each in node.value.elts)


def _is_nested_comprehension(node: ast.AST) -> bool:
    if not isinstance(node, COMPREHENSIONS):
        return False
    inner = [each for each in ast.walk(node) if isinstance(each, COMPREHENSIONS)]
    return len(node.generators) > 1 or len(inner) > 1


def _multiplies_text(node: ast.AST) -> bool:
    """Whether a text is multiplied by a condition, as in `"s" * (count != 1)`."""
    if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult)):
        return False
    is_text = isinstance(node.left, ast.JoinedStr)
    if isinstance(node.left, ast.Constant):
        is_text = isinstance(node.left.value, str)
    return is_text and isinstance(node.right, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.Name)


def _returns_text(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return function.returns is not None and ast.unparse(function.returns) in TEXT


def _comments(text: str) -> Iterator[str]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        is_directive = token.string.startswith(("#!", "# type:", "# noqa"))
        if token.type == tokenize.COMMENT and not is_directive:
            yield token.string.lstrip("# ")


def _docstrings(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED):
            docstring = ast.get_docstring(node)
            if docstring:
                yield docstring.splitlines()[0]


def main() -> None:
    packages = count_packages()
    for name, value in density(packages).items():
        print(f"{name:28} {value:10,.1f}")
    for name, counts in sorted(packages.items(), key=lambda item: -item[1]["nodes"]):
        print(f"  {name:26} {counts['nodes']:10,}")


if __name__ == "__main__":
    main()
