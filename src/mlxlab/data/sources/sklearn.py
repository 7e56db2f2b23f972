"""The tables that the scikit-learn package carries."""

import importlib.metadata

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
        expected = ", ".join(TABLES)
        raise InputNotFoundError(f"{name}: expected one of {expected}")
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
    return TableRows(columns, name, fingerprint=f"{name}@{version}")
