"""Labelled texts in a file of one line each: a label, a tab and a text."""

from pathlib import Path


def read_reviews(path: str) -> list[dict[str, str]]:
    """The rows of a file. A DataFrame, columns, or a Hugging Face data set would do as well.

    Args:
        path: the file.
    """
    rows = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        label, _, text = line.partition("\t")
        rows.append({"text": text, "label": label})
    return rows
