"""A report that is printed although the measurement failed."""

from mlxlab.errors import UserError


class UnexpectedResults(UserError, exit_code=1):
    """A measurement with other results than expected; `report` is its text."""

    def __init__(self, message: str, report: str) -> None:
        super().__init__(message)
        self.report = report
