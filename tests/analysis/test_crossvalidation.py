"""The warnings of the runs of a cross-validation."""

import logging

from mlxlab.analysis.crossvalidation import fold_warnings
from mlxlab.record.run_file import read_run
from mlxlab.record.run_record import Data, Overlap
from mlxlab.run.writer import RunWriter
from mlxlab.views.run_view import RunView
from support.run_records import blank_record


def read(folders):
    return [RunView(read_run(folder), folder) for folder in folders]


def test_warnings_that_differ_in_their_numbers_are_one(tmp_path):
    folders = [tmp_path / str(fold) for fold in range(3)]
    for rows, folder in zip((14, 17, 15), folders, strict=True):
        line = f"rows.csv: {rows} training rows with the same input as validation rows, at rows.csv:{rows}"
        dropped = "rows.csv: 3 training rows with the same input as test rows; left out"
        overlaps = [Overlap(line, left_out=False), Overlap(dropped, left_out=True)]
        with RunWriter(folder) as writer:
            writer.begin(blank_record(data=Data(overlaps=overlaps)))
            if rows > 14:
                logging.getLogger("mlxlab.test").warning(f"step {rows}: not finite")
    overlap, nonfinite = fold_warnings(read(folders))
    assert overlap.startswith("rows.csv: 14 training rows with the same input as validation rows")
    assert overlap.endswith("data.on_overlap=drop leaves them out (3 of 3 runs)")
    assert nonfinite == "step 17: not finite (2 of 3 runs)"


def warned(folder, *lines):
    with RunWriter(folder) as writer:
        writer.begin(blank_record())
        for line in lines:
            logging.getLogger("mlxlab.test").warning(line)
    return folder


def test_equal_warnings_of_one_run_are_counted_once(tmp_path):
    folder = warned(tmp_path / "run", "step 5: not finite", "step 9: not finite")
    assert fold_warnings(read([folder])) == ["step 9: not finite (1 of 1 runs)"]
