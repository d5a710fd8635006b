"""Reading the JSON-lines form, and the message for everything that can be wrong with it."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from ptmt_lightning.data.document import Document, read_documents, split_file
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.utils import lines

FORMAT = '{"text": "...", "labels": [["level-1 node", "level-2 node"], ...]}'
GOOD = b'{"text": "m n o", "labels": [["A", "AB"]]}\n'
PATHS_EXPECTED = (
    'expected a list of label paths, each a non-empty list of strings, such as [["level-1 node", "level-2 node"]]'
)


def read(path: Path, taxonomy: Taxonomy) -> list[Document]:
    return list(read_documents(path, "train", taxonomy))


def write(folder: Path, content: bytes) -> Path:
    path = folder / "train.jsonl"
    path.write_bytes(content)
    return path


def many_documents() -> bytes:
    """Text that does not compress to nothing, so that damage hits the data."""
    return b"".join(json.dumps({"text": f"m {i * 7919}", "labels": [["A"]]}).encode() + b"\n" for i in range(5000))


# ---- what is read ----


@pytest.mark.parametrize("name", ["train.jsonl", "train.jsonl.gz"])
def test_plain_and_compressed_files_give_the_same_documents(name: str, tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    content = GOOD + b'{"text": " p q ", "labels": [["B"], ["A", "AA", "AAA"]]}\n'
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert read(path, toy_taxonomy) == [
        Document("train:1", "m n o", tuple(toy_taxonomy.encode([["A", "AB"]]))),
        Document("train:2", " p q ", tuple(toy_taxonomy.encode([["B"], ["A", "AA", "AAA"]]))),
    ]


def test_ids_are_the_split_and_the_line_with_blank_lines_counted(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    path = write(tmp_path, b"\n" + GOOD + b"  \t\r\n" + GOOD + b"\n\n")
    assert [document.id for document in read_documents(path, "val", toy_taxonomy)] == ["val:2", "val:4"]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + GOOD,
        GOOD.replace(b"\n", b"\r\n"),
        GOOD.rstrip(),
        b'{"id": 7, "labels": [["A", "AB"]], "source": {"labels": 3}, "text": "m n o"}\n',
        b'{"text": "m n o", "labels": [["A", "AB"], ["A"], ["A", "AB"]]}\n',
    ],
    ids=["byte order mark", "CRLF", "no last newline", "other keys", "paths that repeat nodes"],
)
def test_harmless_variants_give_the_same_document(content: bytes, tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    expected = Document("train:1", "m n o", tuple(toy_taxonomy.encode([["A", "AB"]])))
    assert read(write(tmp_path, content), toy_taxonomy) == [expected]


def test_text_outside_ascii_is_kept(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    path = write(tmp_path, '{"text": "Straße 日本 \\u00e9 \\n x", "labels": [["A"]]}\n'.encode())
    assert read(path, toy_taxonomy)[0].text == "Straße 日本 é \n x"


def test_a_document_may_have_no_label(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    path = write(tmp_path, b'{"text": "m", "labels": []}\n' + GOOD)
    assert [len(document.nodes) for document in read(path, toy_taxonomy)] == [0, 2]


def test_a_split_without_any_label_is_refused(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    path = write(tmp_path, b'{"text": "m", "labels": []}\n' * 2)
    message = (
        f"{path}: labels=[] in all documents of the train split; expected a label path in at least one of them; "
        "add the labels"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read(path, toy_taxonomy)


def test_documents_are_streamed(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    documents = read_documents(write(tmp_path, GOOD + b"not JSON\n"), "train", toy_taxonomy)
    assert next(documents).id == "train:1"


# ---- the file of a split ----


@pytest.mark.parametrize("name", ["val.jsonl", "val.jsonl.gz"])
def test_split_file_finds_either_form(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    assert split_file(tmp_path, "val") == tmp_path / name


def test_split_file_of_a_missing_split_is_none(tmp_path: Path) -> None:
    assert split_file(tmp_path, "val") is None


def test_both_forms_at_once_are_refused(tmp_path: Path) -> None:
    (tmp_path / "val.jsonl").touch()
    (tmp_path / "val.jsonl.gz").touch()
    message = f"{tmp_path}: both val.jsonl and val.jsonl.gz are there; delete one of the two"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        split_file(tmp_path, "val")


# ---- what is refused, with file, line and key ----


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            b'{"text": "m", "labels": [["A", "AAB"]]}',
            "labels: label 'AAB' is not in the taxonomy (did you mean 'AB'?); "
            "correct the labels or add the edge to the taxonomy",
        ),
        (
            b'{"text": "m", "labels": [["A", "AAA"]]}',
            "labels: path 'A > AAA' skips a level above 'AAA'; expected each step to be an edge of the taxonomy, "
            "here 'A > AA > AAA'; correct the labels or add the edge to the taxonomy",
        ),
        (
            b'{"text": "m", "labels": [["C"], ["A", "BB"]]}',
            "labels: path 'A > BB' is not in the taxonomy: no edge from 'A' to 'BB', whose parent is 'B'; "
            "correct the labels or add the edge to the taxonomy",
        ),
        (b'{"text": "m", "labels": "A"}', f'labels="A": {PATHS_EXPECTED}'),
        (b'{"text": "m", "labels": ["A", "AB"]}', f'labels=["A", "AB"]: {PATHS_EXPECTED}'),
        (b'{"text": "m", "labels": [[]]}', f"labels=[[]]: {PATHS_EXPECTED}"),
        (b'{"text": "m", "labels": [["A", 3]]}', f'labels=[["A", 3]]: {PATHS_EXPECTED}'),
        (b'{"text": "m", "labels": null}', f"labels=null: {PATHS_EXPECTED}"),
        (b'{"text": "m", "labels": {"A": ["AB"]}}', f'labels={{"A": ["AB"]}}: {PATHS_EXPECTED}'),
        (b'{"text": "m", "label": [["A"]]}', f"no key 'labels', found ['label', 'text']; expected {FORMAT}"),
        (b'{"Text": "m", "labels": [["A"]]}', f"no key 'text', found ['Text', 'labels']; expected {FORMAT}"),
        (b"{}", f"no key 'text', found []; expected {FORMAT}"),
        (b'{"text": 5, "labels": [["A"]]}', "text=5: expected a string; convert it or delete the line"),
        (b'{"text": null, "labels": [["A"]]}', "text=null: expected a string; convert it or delete the line"),
        (b'{"text": ["m"], "labels": [["A"]]}', 'text=["m"]: expected a string; convert it or delete the line'),
        (
            b'{"text": " \\n\\t", "labels": [["A"]]}',
            r'text=" \n\t": expected more than white space; fill it in or delete the line',
        ),
        (b'{"text": "", "labels": [["A"]]}', 'text="": expected more than white space'),
        (b"m n o", f"invalid JSON (Expecting value at column 1); expected {FORMAT}"),
        (b'{"text": m}', f"invalid JSON (Expecting value at column 10); expected {FORMAT}"),
        (b"[" * 100_000, "invalid JSON (maximum recursion depth exceeded"),
        (b'{"text": ' + b"1" * 5000 + b"}", "invalid JSON (Exceeds the limit (4300 digits)"),
        (b'["m", [["A"]]]', f"expected a JSON object {FORMAT}, got list"),
        (b'"m"', f"expected a JSON object {FORMAT}, got str"),
        (b'{"text": "m\xff"}', "invalid UTF-8 at byte 12 of the line; save the file as UTF-8"),
        (
            '{"text": "a\u201cé"}'.encode("cp1252"),
            "invalid UTF-8 at byte 12 of the line; save the file as UTF-8",
        ),
        (b'{"text": "m\x00"}', "NUL characters, as UTF-16 does that is read as UTF-8; save the file as UTF-8"),
        (b'{"text": "m", "text": "n"}', f"invalid JSON (key 'text' is there twice); expected {FORMAT}"),
        (b'{"text": NaN, "labels": [["A"]]}', "text=NaN: expected a string; convert it or delete the line"),
        (b'{"text": "m", "labels": [[1]]}', f"labels=[[1]]: {PATHS_EXPECTED}"),
        (b'{"text": "m", "labels": [[NaN]]}', f"labels=[[NaN]]: {PATHS_EXPECTED}"),
        (b'{"text": "m", "labels": [["\\ud800"]]}', "labels: label '\\ud800' is not in the taxonomy"),
        (b'{"text": "m", "labels": [["' + b"A" * 5000 + b'"]]}', f"labels: label '{'A' * 197}...' is not in the"),
    ],
)
def test_a_bad_line_is_refused(line: bytes, message: str, tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    path = write(tmp_path, GOOD + b"\n" + line + b"\n" + GOOD)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}:3: {message}')}"):
        read(path, toy_taxonomy)


def test_a_line_that_breaks_off_is_refused_with_the_column_where_it_does(
    tmp_path: Path, toy_taxonomy: Taxonomy
) -> None:
    path = write(tmp_path, b'{"text": "m"\n' + GOOD)
    message = f"{path}:1: invalid JSON (Expecting ',' delimiter at column 13)"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        read(path, toy_taxonomy)


def test_half_a_surrogate_pair_is_refused(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    r"""JSON may spell ``\ud83d`` alone, as texts cut inside an emoji do; no tokenizer takes it."""
    path = write(tmp_path, GOOD + b'{"text": "m \\ud83d", "labels": [["A"]]}\n')
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}:2: text=')}"):
        read(path, toy_taxonomy)


def test_a_long_value_is_shortened_in_the_message(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    path = write(tmp_path, json.dumps({"text": "m", "labels": ["A" * 500]}).encode())
    with pytest.raises(ValueError, match=r':1: labels=\["A{55}\.\.\.: expected'):
        read(path, toy_taxonomy)


@pytest.mark.parametrize("content", [b"", b"\n \n"], ids=["no bytes", "blank lines"])
@pytest.mark.parametrize("name", ["train.jsonl", "train.jsonl.gz"])
def test_an_empty_split_is_refused(name: str, content: bytes, tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    message = f"{path}: the train split holds no document; expected one a line: {FORMAT}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read(path, toy_taxonomy)


def test_truncated_gzip_is_refused(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    path = tmp_path / "train.jsonl.gz"
    compressed = gzip.compress(many_documents())
    path.write_bytes(compressed[: len(compressed) // 2])
    with pytest.raises(ValueError, match=r"copy or download the file again$") as error:
        read(path, toy_taxonomy)
    line = re.match(re.escape(f"{path}: damaged or truncated gzip after line ") + r"(\d+) \(", str(error.value))
    assert line is not None
    assert 0 < int(line[1]) < 5000


# The third byte range starts the compressed data: a block of an unknown type.
@pytest.mark.parametrize("place", [slice(0, 2), slice(-8, -4), slice(10, 11)], ids=["header", "checksum", "data"])
def test_damaged_gzip_is_refused(place: slice, tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    path = tmp_path / "train.jsonl.gz"
    damaged = bytearray(gzip.compress(many_documents()))
    damaged[place] = b"\xff" * len(damaged[place])
    path.write_bytes(damaged)
    message = f"{path}: damaged or truncated gzip after line "
    with pytest.raises(ValueError, match=f"^{re.escape(message)}\\d+ .*; copy or download the file again$"):
        read(path, toy_taxonomy)


def test_a_plain_file_named_gz_is_refused(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    path = tmp_path / "train.jsonl.gz"
    path.write_bytes(GOOD)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: damaged or truncated gzip after line 0')}"):
        read(path, toy_taxonomy)


# ---- encodings, and files that are none ----


@pytest.mark.parametrize("name", ["train.jsonl", "train.jsonl.gz"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_byte_order_mark_tells_the_encoding(name: str, encoding: str, tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    line = json.dumps({"text": "Straße 日本", "labels": [["A"]]}, ensure_ascii=False) + "\n"
    marked = (("\ufeff" if encoding.endswith(("le", "be")) else "") + line * 2).encode(encoding)
    bare = (line * 2).encode(encoding if encoding.endswith(("le", "be")) else f"{encoding}-le")
    path = tmp_path / name
    packed = gzip.compress if name.endswith(".gz") else bytes
    path.write_bytes(packed(marked))
    assert [document.text for document in read(path, toy_taxonomy)] == ["Straße 日本"] * 2
    path.write_bytes(packed(bare))
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}:1: NUL characters, as UTF-16 does')}"):
        read(path, toy_taxonomy)


def test_a_line_that_is_too_long_is_refused_before_it_is_read_on(
    tmp_path: Path, toy_taxonomy: Taxonomy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_LINE", 1000)
    path = tmp_path / "train.jsonl.gz"
    path.write_bytes(gzip.compress(GOOD + bytes(2**24)))
    message = f"{path}:2: more than 1,000 characters; shorten or delete the line"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read(path, toy_taxonomy)


def test_a_split_that_is_a_folder_or_a_dead_link_says_so(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    (tmp_path / "val.jsonl").mkdir()
    (tmp_path / "test.jsonl").symlink_to("gone.jsonl")
    for split, problem in {"val": "a folder", "test": "a link to 'gone.jsonl', which is not there"}.items():
        path = split_file(tmp_path, split)
        assert path is not None
        with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: {problem}; expected a file')}$"):
            read(path, toy_taxonomy)
