"""Sources of local files: each document once an epoch, in a new order, from any position."""

import json
import shutil

import pytest

from mlxlab.data.sources.files import find_files
from mlxlab.errors import ConfigError, DataError, InputNotFoundError
from support.streams import make_batches, open_source, take
from support.text import FORMATS, documents_of, make_texts, texts_of, write_texts


@pytest.fixture(params=FORMATS)
def corpus(request, tmp_path):
    """A folder of three files and the texts in it."""
    texts = make_texts()
    if "txt" in request.param:
        texts = [text.replace("\n", " ") for text in texts]
    for number in range(3):
        write_texts(tmp_path / f"part-{number}.{request.param}", texts[number::3])
    return str(tmp_path), texts


def open_lines(folder, window=20, **settings):
    return open_source(folder, document_unit="line", window=window, quoting=True, **settings)


@pytest.mark.parametrize("window", [1, 20, 10_000])
def test_every_document_is_read_once_per_epoch(corpus, window):
    folder, texts = corpus
    source = open_lines(folder, window)
    first, second = (documents_of(source, epoch=epoch) for epoch in (0, 1))
    assert sorted(document.text for document in first) == sorted(texts)
    assert sorted(first) == sorted(second) == sorted(documents_of(source, 5, 7))
    assert documents_of(open_lines(folder, window)) == first
    if window == 20:
        assert len({tuple(texts_of(source, 0, epoch)) for epoch in range(8)}) > 3
    assert len({document.id for document in first}) == len(texts)
    assert all(0 <= document.id < 2**63 for document in first)


def test_reading_resumes_exactly_at_any_position(corpus):
    source = open_lines(corpus[0], 5)
    windows = list(source.windows(3, 2))
    assert len(windows) > 5
    for number, (position, _) in enumerate(windows):
        saved = json.loads(json.dumps(position))
        assert list(source.windows(3, 2, saved)) == windows[number:]


def test_tokens_of_every_format_resume_exactly(corpus):
    source = open_lines(corpus[0], 5)
    settings = {"source": source, "length": 64, "batch_size": 8, "prefetch": 2}
    whole = take(make_batches(**settings), 100)
    for position in range(1, 97, 32):
        batches, resumed = make_batches(**settings), make_batches(**settings)
        assert take(batches, position) == whole[:position]
        resumed.load_state_dict(json.loads(json.dumps(batches.state_dict())))
        assert take(resumed, 3) == whole[position : position + 3]


def test_a_moved_folder_is_the_same_data_and_a_changed_byte_is_not(corpus, tmp_path_factory):
    moved = tmp_path_factory.mktemp("other") / "name"
    shutil.copytree(corpus[0], moved)
    known = open_lines(corpus[0]).fingerprint
    assert open_lines(str(moved)).fingerprint == known
    assert open_lines(str(moved), window=21).fingerprint != known
    changed = max(moved.iterdir())
    data = bytearray(changed.read_bytes())
    data[-20] ^= 1
    changed.write_bytes(data)
    assert find_files(str(moved)).fingerprint() != find_files(corpus[0]).fingerprint()


@pytest.mark.parametrize("position", [0, -1])
def test_start_and_end_of_large_files_are_in_the_fingerprint(tmp_path, position):
    path = write_texts(tmp_path / "a.txt", [f"line {n}" for n in range(30_000)])
    known = open_lines(str(path)).fingerprint
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    assert open_lines(str(path)).fingerprint != known


@pytest.mark.parametrize("position", [-1, 10**6, "x", [0], [99, 0, 0, 0], [0, 0, -1, 0], {}])
def test_an_invalid_position_is_refused(corpus, position):
    with pytest.raises(DataError, match="saved position"):
        documents_of(open_lines(corpus[0]), position=position)


def test_the_pieces_of_a_text_file_make_the_file(tmp_path):
    lines = "".join(f"line {n} {'€' * (n % 50)}\n" for n in range(9000))
    text = lines + "x" * 200_000 + "😀" * 50_000 + " end"
    (tmp_path / "a.txt").write_text(text)
    pieces = sorted(documents_of(open_source(str(tmp_path / "a.txt"), window=100)))
    assert "".join(piece.text for piece in pieces) == text
    assert 200 < len(pieces) < 520
    assert all(piece.text.endswith("\n") for piece in pieces[:5])


def test_small_text_files_are_a_document_each(tmp_path):
    texts = [f"document {n}\n\nof two paragraphs\n" for n in range(300)]
    for n, text in enumerate(texts):
        (tmp_path / f"{n:04}.txt").write_text(text)
    assert sorted(texts_of(open_source(str(tmp_path), window=10))) == sorted(texts)


@pytest.mark.parametrize("ending", ["txt", "jsonl"])
@pytest.mark.parametrize("unit", ["file", "line"])
def test_ranges_of_a_file_partition_its_documents(tmp_path, ending, unit):
    texts = [f"text {n} " + "x" * (n % 500) for n in range(1500)]
    path = str(write_texts(tmp_path / f"a.{ending}", texts))
    ranges = ("[:33.3%]", "train[33.3%:90%]", "[90%:]", None)
    *sides, whole = (
        sorted(documents_of(open_source(path, document_unit=unit, window=30, split=each)))
        for each in ranges
    )
    if unit == "line" or ending == "jsonl":
        read = [document.text for side in sides for document in side]
        assert sorted(read) == sorted(document.text for document in whole)
    *parts, joined = ("".join(document.text for document in side) for side in [*sides, whole])
    assert "".join(parts) == joined
    assert len(parts[2]) / len(joined) == pytest.approx(0.1, abs=0.01)


def test_a_folder_is_read_with_its_subfolders_and_without_hidden_and_other_files(tmp_path):
    for name in ("b/c/one.txt", "two.TXT", ".hidden.txt", ".cache/three.txt", "readme.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert sorted(texts_of(open_source(str(tmp_path)))) == ["b/c/one.txt", "two.TXT"]
    assert texts_of(open_source(f"{tmp_path}/**/o*.txt")) == ["b/c/one.txt"]


def test_a_source_that_cannot_be_opened_is_refused_with_the_nearest_name(tmp_path):
    write_texts(tmp_path / "books.jsonl", ["text"])
    for source, fault, message in [
        (tmp_path / "boks.jsonl", InputNotFoundError, "did you mean .*books.jsonl"),
        (tmp_path / "books.json", InputNotFoundError, "did you mean .*books.jsonl"),
        (tmp_path / "*.txt", InputNotFoundError, "no file that ends in"),
        (tmp_path / "none" / "*.txt", InputNotFoundError, "no file that ends in"),
        ("boks.jsonl", InputNotFoundError, "no such file or folder"),
        ("boks", InputNotFoundError, "no such file or folder, and no owner/name of the hub"),
        ("s3://bucket/a.jsonl", InputNotFoundError, "no such file"),
        ("a\0b.txt", InputNotFoundError, "NUL"),
        ("", InputNotFoundError, "expected a path"),
        ("-", InputNotFoundError, "standard input"),
    ]:
        with pytest.raises(fault, match=message) as raised:
            open_source(str(source))
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("books.jsonl", {"config": "small"}),
        ("books.jsonl", {"revision": "main"}),
        ("books.jsonl", {"split": "test"}),
        ("books.jsonl", {"split": "[50%:20%]"}),
        ("books.jsonl.gz", {"split": "[:90%]"}),
    ],
)
def test_settings_without_an_effect_are_refused(tmp_path, name, settings):
    path = str(write_texts(tmp_path / name, ["text"]))
    with pytest.raises(ConfigError, match=r"data\.reading|a range"):
        open_source(path, **settings)
