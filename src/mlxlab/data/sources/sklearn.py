"""The tables that the scikit-learn package carries."""

import importlib.metadata

from mlxlab.data.sources.arrow import TableRows
from mlxlab.errors import InputNotFoundError

TABLES = ("breast_cancer", "diabetes", "digits", "iris", "wine")
LABEL = "target"  # the name of the class, or the number of a regression


def load_sklearn_table(table: str) -> TableRows:
    """Raises InputNotFoundError for another table."""
    from sklearn import datasets

    if table not in TABLES:
        expected = ", ".join(TABLES)
        raise InputNotFoundError(f"sklearn:{table}: expected one of {expected}")
    load = getattr(datasets, f"load_{table}")
    # Raw measurements rather than the standardised ones of diabetes.
    bunch = load(scaled=False) if table == "diabetes" else load()
    columns = {
        str(name): bunch.data[:, index].tolist() for index, name in enumerate(bunch.feature_names)
    }
    classes = bunch.get("target_names")
    labels = bunch.target.tolist()
    if classes is not None:
        labels = [str(classes[label]) for label in labels]
    columns[LABEL] = labels
    version = importlib.metadata.version("scikit-learn")
    name = f"sklearn:{table}"
    return TableRows(columns, name, fingerprint=f"{name}@{version}")
