"""Checks the starts of text files."""

from mlxlab.data.input_files import describe_binary
from mlxlab.data.text.document import ErrorBudget
from mlxlab.data.text.sources.file_set import FileSet
from mlxlab.errors import DataError

MEAN_BYTES = 1024  # of a document, for windows that are measured in bytes


def check_starts(files: FileSet, error_budget: ErrorBudget, is_text: bool) -> None:
    """Skips empty files; raises DataError if all are empty, or text starts as a known binary format."""
    if not files.sizes.any():
        raise DataError(f"{files.name}: empty (0 bytes)")
    for index in (files.sizes == 0).nonzero()[0]:
        error_budget.skip(
            (int(index), "empty"), f"{files.path(index)}:1: the file is empty (0 bytes)"
        )
    first = files.first_nonempty()
    with files.open(first) as file:
        description = describe_binary(file.read(4))
    if is_text and description:
        raise DataError(f"{files.path(first)}:1: this is {description}; expected text in UTF-8")
