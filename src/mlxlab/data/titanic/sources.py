"""Where the Titanic's passengers come from: a ladder of sources, each step saying what it did.

A CSV named by the user; the cache; the 1,309 rows that the scikit-learn wheel carries among its test data; OpenML.
Invented rows only when asked for by name.
"""

import csv
import gzip
import hashlib
import importlib.util
import io
import json
import logging
import urllib.request
from pathlib import Path
from typing import NamedTuple

from mlxlab.data.array_cache import write_whole
from mlxlab.data.strict_csv import read_regular
from mlxlab.data.titanic.csv_schema import read_passengers
from mlxlab.data.titanic.passenger import Passenger
from mlxlab.data.titanic.synthetic import synthetic_passengers
from mlxlab.errors import ServiceUnavailableError

WHEEL_FILE = "datasets/tests/data/openml/id_40945/data-v1-dl-16826755.arff.gz"
URL = "https://www.openml.org/data/v1/download/16826755/Titanic.arff"
ARFF_SHA256 = "c56e3785c96cd8aceac85f11bff21c2bf72841426f50903a6f27be8f334a7d03"  # unpacked
ARFF_BYTES = 118_039
FIRST_TEST_ID = 892  # Kaggle's split: 1..891 to train on, 892..1309 to report on
KAGGLE_SHA256 = {
    "4a437fde05fe5264e1701a7387ac6fb75393772ba38bb2c9c566405af5af4bd7": "Kaggle's train.csv",
    "5c78320a80dc159b35c408363be46a5d93f078183d539db75ee42a796d6a4e95": "Kaggle's test.csv",
}
log = logging.getLogger(__name__)


class Source(NamedTuple):
    """Passengers, and what was done to get them."""

    train: list[Passenger]  # to train and validate on
    test: list[Passenger]  # to report on, never to train on or to choose by
    name: str  # "titanic", or "titanic-synthetic" for invented rows
    digest: str  # sha256 of the bytes they were read from
    lines: list[str]


def load_passengers(source: str | None, cache: Path) -> Source:
    """Passengers by the first step of the ladder that has them.

    Raises:
        InputNotFoundError, DataError: `source` is not a sound CSV file.
        ServiceUnavailableError: nothing has them.
    """
    if source == "synthetic":
        rows = synthetic_passengers(891)
        line = f"titanic: SYNTHETIC rows, {len(rows)} invented passengers, not the real Titanic (source=synthetic)"
        return Source(rows, [], "titanic-synthetic", hashlib.sha256(repr(rows).encode()).hexdigest(), [line])
    if source is not None:
        rows, digest, lines = read_source(source)
        return Source(rows, [], "titanic", digest, lines)
    return _real(cache)


def read_source(path: str) -> tuple[list[Passenger], str, list[str]]:
    """Labelled passengers of a user's CSV, the sha256 of its bytes, and what is to be said of it."""
    rows = read_passengers(path, labelled=True)
    digest = hashlib.sha256(read_regular(path)).hexdigest()
    known = KAGGLE_SHA256.get(digest) or KAGGLE_SHA256.get(hashlib.sha256(_unix(path)).hexdigest())
    lines = [f"titanic: {len(rows)} rows from {path}, sha256 {digest[:12]} ({known or 'not a checksum known to us'})"]
    held_out = sum(FIRST_TEST_ID <= row.id <= 1309 for row in rows)
    if held_out:
        lines.append(f"titanic: {held_out} rows of {path} have PassengerIds of the usual test set (892..1309)")
    return rows, digest, lines


def _unix(path: str) -> bytes:
    return read_regular(path).replace(b"\r\n", b"\n")


def _real(cache: Path) -> Source:
    lines: list[str] = []
    for step in (_from_cache, _from_wheel, _from_openml):
        data, line = step(cache)
        lines.append(f"titanic: {line}")
        if data is not None:
            rows = parse_arff(data.decode())
            train = [row for row in rows if row.id < FIRST_TEST_ID]
            return Source(train, rows[len(train) :], "titanic", ARFF_SHA256, lines)
    raise ServiceUnavailableError("no Titanic rows: " + "; ".join(lines) + "; name a CSV file with data.source=<path>")


def parse_arff(text: str) -> list[Passenger]:
    """The 1,309 rows of OpenML's set 40945 with Kaggle's PassengerIds, in their order.

    boat, body and home.dest are left out: they were known only afterwards (of 486 with a boat 477 survived).
    """
    body = text.split("@data", 1)[1].strip()
    rows = csv.reader(io.StringIO(body), escapechar="\\", doublequote=False, skipinitialspace=True)
    ids = json.loads(Path(__file__).with_name("passenger_id_order.json").read_text())
    return sorted(_passenger(number, row) for number, row in zip(ids, rows, strict=True))


def _passenger(number: int, row: list[str]) -> Passenger:
    known = [None if text == "?" else text.strip() for text in row]
    pclass, survived, name, sex, age, sibsp, parch, ticket, fare, cabin, embarked = known[:11]
    return Passenger(
        id=number,
        survived=int(survived or 0),
        pclass=int(pclass or 0),
        name=name or "",
        sex=sex or "",
        age=None if age is None else float(age),
        sibsp=int(sibsp or 0),
        parch=int(parch or 0),
        ticket=ticket or "",
        fare=None if fare is None else float(fare),
        cabin=cabin,
        embarked=embarked,
    )


def _from_cache(cache: Path) -> tuple[bytes | None, str]:
    path = cache / "titanic.arff"
    if not path.is_file():
        return None, "nothing downloaded in the cache"
    data = path.read_bytes()
    if not _is_genuine(data):
        log.warning("%s is corrupt and is not used", path)
        return None, "the file in the cache is corrupt, not used"
    return data, "1309 real rows from the cache, sha256 as expected"


def _from_wheel(cache: Path) -> tuple[bytes | None, str]:
    spec = importlib.util.find_spec("sklearn")  # finds, does not import
    if spec is None or spec.origin is None:
        return None, "scikit-learn is not installed"
    path = Path(spec.origin).parent / WHEEL_FILE
    if not path.is_file():
        return None, "this scikit-learn came without its test data"
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, ValueError) as error:
        return None, f"the rows in scikit-learn cannot be unpacked ({error})"
    if not _is_genuine(data):
        return None, "the rows in scikit-learn have another sha256, not used"
    return data, "1309 real rows from the scikit-learn wheel, sha256 as expected"


def _from_openml(cache: Path) -> tuple[bytes | None, str]:
    data, line = download(URL)
    if data is not None:
        _keep(cache / "titanic.arff", data)
    return data, line


def download(url: str, seconds: float = 10) -> tuple[bytes | None, str]:
    """The real rows from a server, only if the checksum is right; and what happened."""
    try:
        with urllib.request.urlopen(url, timeout=seconds) as answer:
            data = answer.read(ARFF_BYTES + 1)
    except (OSError, ValueError) as error:
        return None, f"{url} cannot be had ({getattr(error, 'reason', error)})"
    if not _is_genuine(data):
        return None, f"{url} answered {len(data)} bytes of another sha256, not used"
    return data, f"1309 real rows from {url}, sha256 as expected"


def _is_genuine(data: bytes) -> bool:
    return hashlib.sha256(data).hexdigest() == ARFF_SHA256


def _keep(path: Path, data: bytes) -> None:
    try:
        write_whole(path, lambda file: file.write(data))
    except OSError as error:
        log.warning("%s could not be written (%s)", path, error)
