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


def test_numbers_in_names_tell_warnings_apart_but_not_the_folder_of_the_run(tmp_path):
    lines = [
        "column 'x1': {0} cells",
        "column 'x2': 1,{0} cells",
        "layer_3-4: grew by {0}.5 %",
        "layer_3-5: v1.{0}",
    ]
    folders = [tmp_path / f"fold{n}" for n in range(2)]
    for number, folder in enumerate(folders, 20):
        warned(folder, *(line.format(number) for line in lines), f"{folder}/a.png: not written")
    assert fold_warnings(read(folders)) == [
        "column 'x1': 20 cells (2 of 2 runs)",
        "column 'x2': 1,20 cells (2 of 2 runs)",
        "layer_3-4: grew by 20.5 % (2 of 2 runs)",
        "layer_3-5: v1.20 (1 of 2 runs)",
        f"{tmp_path}/fold0/a.png: not written (2 of 2 runs)",
        "layer_3-5: v1.21 (1 of 2 runs)",
    ]
