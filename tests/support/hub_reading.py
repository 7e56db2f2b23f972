"""A program: reads a data set from a hub on loopback in several ways and prints the results as JSON.

A process of its own, since `datasets` takes the hub's address and folder when it is imported.
"""

import io
import json
import os
import sys
import time
import types
from pathlib import Path

import numpy as np
import pyarrow
from pyarrow import parquet

from mlxlab.data.labelled.rows import Rows, open_rows
from support.hub_server import HubServer
from support.rows import row_reading
from support.streams import make_batches, open_source, take
from support.text import documents_of, make_texts

NAME = "roneneldan/TinyStories"
TEXTS = make_texts(900)
OUTAGES = ["503", "cut", "", *["503"] * 8, "cut", "", "cut", *["503"] * 7]
WRONG = [
    ("roneneldan/TinyStory", {}),
    (NAME, {"split": "valid"}),
    (NAME, {"config": "large"}),
    (NAME, {"text_column": "txt"}),
    (NAME, {"revision": "v2"}),
]


def parquet_bytes(texts):
    file = io.BytesIO()
    table = pyarrow.table(
        {"id": range(len(texts)), "text": texts, "label": [n % 3 - 1 for n in range(len(texts))]}
    )
    types = {"id": "int64", "text": "string"}
    features = {name: {"dtype": type_, "_type": "Value"} for name, type_ in types.items()}
    features["label"] = {"names": ["negative", "positive"], "_type": "ClassLabel"}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    parquet.write_table(table.replace_schema_metadata(metadata), file, row_group_size=100)
    return file.getvalue()


def new_hub():
    files = {
        f"data/train-{n:05}-of-00003.parquet": parquet_bytes(TEXTS[n * 250 : n * 250 + 250])
        for n in range(3)
    }
    return HubServer(
        NAME, {**files, "data/validation-00000-of-00001.parquet": parquet_bytes(TEXTS[750:])}
    )


def shorten_waits():
    import datasets
    import huggingface_hub.utils._http as http

    from mlxlab.data.sources import hub

    http.time = types.SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
    datasets.config.STREAMING_READ_RETRY_INTERVAL = 0
    datasets.config.STREAMING_READ_SERVER_UNAVAILABLE_RETRY_INTERVAL = 0
    hub.RETRY_DELAY = 0.01


def tokens_of(source, **settings):
    return make_batches(source=source, length=64, batch_size=16, **settings)


def resumes_exactly(source, position, tokens):
    """Whether the batches after a resume are those of an uninterrupted run."""
    batches = tokens_of(source, prefetch=position % 3)
    batches_before = take(batches, position) if position else []
    saved = json.loads(json.dumps(batches.state_dict()))
    resumed = tokens_of(source, prefetch=position % 2)
    resumed.load_state_dict(saved)
    return (
        batches_before == tokens[:position] and take(resumed, 3) == tokens[position : position + 3]
    )


def message(name, settings):
    try:
        open_source(name, **settings)
    except Exception as fault:
        return [fault.exit_code, str(fault)]


def main():
    hub = new_hub()
    os.environ.update(HF_ENDPOINT=hub.url, HF_HOME=sys.argv[1], HF_HUB_DISABLE_TELEMETRY="1")
    shorten_waits()
    source = open_source(NAME, window=40)
    windows = list(source.windows(1, 0))
    results = {"first": windows, "second": list(source.windows(1, 1)), "exact": []}
    for number, (position, _) in enumerate(windows):
        results["exact"].append(
            list(source.windows(1, 0, json.loads(json.dumps(position)))) == windows[number:]
        )
    began = time.monotonic()
    next(source.windows(1, 0, windows[-1][0]))
    results["seconds"] = time.monotonic() - began
    hub.faults = list(OUTAGES)
    results["in spite of outages"] = list(source.windows(1, 0)) == windows
    results["outages left"] = hub.faults
    tokens = take(tokens_of(source), 100)  # more than an epoch
    hub.faults = list(OUTAGES)
    results["same tokens in spite of outages"] = take(tokens_of(source, prefetch=2), 100) == tokens
    results["exact tokens"] = [
        resumes_exactly(source, position, tokens) for position in range(0, 97, 6)
    ]
    results["validation"] = documents_of(open_source(NAME, split="validation"))
    rows = Rows([open_rows(NAME, row_reading(split="validation"), Path(sys.argv[1]))])
    results["rows"] = rows.table(rows.columns, np.arange(len(rows)))
    results["location"] = rows.location(100)
    results["wrong"] = [message(name, settings) for name, settings in WRONG]
    print(json.dumps(results))


if __name__ == "__main__":
    main()
