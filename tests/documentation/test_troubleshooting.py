"""The messages on the page on troubleshooting are those that the code prints."""

import ast
import re

from support.processes import ROOT

PAGE = (ROOT / "docs" / "how_to" / "troubleshooting.md").read_text(encoding="utf-8")
OF_OTHERS = ("Name or service not known", "Unable to write 196048 bytes to file", "No module named")


def phrases():
    """The fixed text of the code, without what is put into it: two words or more."""
    for file in (ROOT / "src" / "mlxlab").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            value = node.value if isinstance(node, ast.Constant) else None
            if isinstance(value, str) and re.search(r"\w \w", value):
                yield value.strip(" ,;:")


def messages():
    """The lines of blocks without a language, and the first column of tables of lines."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.M | re.DOTALL):
        yield from () if language else block.splitlines()
    for table in re.findall(r"^\| line \|.*\n((?:\|.*\n)+)", PAGE, re.M):
        yield from re.findall(r"^\| `(.*?)` \|", table, re.M)


def test_every_message_is_one_of_the_code():
    shown, known = [*messages()], {*phrases(), *OF_OTHERS}
    assert len(shown) > 25
    for message in shown:
        rest = message
        parts = [phrase for phrase in known if phrase in message]
        for phrase in sorted(parts, key=len, reverse=True):
            rest = rest.replace(phrase, "|")
        words = re.search(r"(?<![\w./-])[a-z]{2,} [a-z]{2,}(?![\w./=-])", rest)
        assert words is None, f"{message}: {rest}"
