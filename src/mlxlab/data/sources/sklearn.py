"""The tables that the scikit-learn package carries."""

from mlxlab.data.sources.arrow import TableRows
from mlxlab.errors import InputNotFoundError

SKLEARN = "sklearn:"
TABLES = ("breast_cancer", "diabetes", "digits", "iris", "wine")
LABEL = "target"  # the name of the class, or the number of a regression


def load_sklearn_table(name: str) -> TableRows:
    """The rows of `sklearn:TABLE`; raises InputNotFoundError for another table."""
    from sklearn import datasets

    table = name.removeprefix(SKLEARN)
    if table not in TABLES:
        raise InputNotFoundError(f"{name}: expected one of {', '.join(TABLES)}")
    # Raw measurements rather than the standardised ones of diabetes.
    options = {"scaled": False} if table == "diabetes" else {}
    bunch = getattr(datasets, f"load_{table}")(as_frame=True, **options)
    rows = bunch.data.rename(columns=str)
    classes = bunch.get("target_names")
    rows[LABEL] = bunch.target if classes is None else classes[bunch.target].astype(str)
    return TableRows(rows, name)
