"""Tokenised documents on disk: when they are made again, and what is read back."""

from __future__ import annotations

import json
import logging
import multiprocessing
import pickle
import re
import shutil
import time
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TOY_DOCUMENTS, TOY_EDGES
from transformers import BertTokenizer

from ptmt_lightning.backbones import word_tokenizer
from ptmt_lightning.data.cache import TokenizedDocuments, tokenized, tokenizer_fingerprint
from ptmt_lightning.data.document import Document, read_documents
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.utils.files import new_folder
from ptmt_lightning.utils.tokens import text_token_ids

TEXTS = [document["text"] for document in TOY_DOCUMENTS]
# "[MASK]" and "[SEP]" can be spelt in it without an unknown token.
VOCABULARY = [*TEXTS, "[ ] mask sep cls pad"]


@pytest.fixture
def tokenizer() -> BertTokenizer:
    return word_tokenizer(VOCABULARY, 100)


def write_raw(folder: Path, texts: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps({"text": text, "labels": [["A", "AB"]]}) + "\n" for text in texts))
    return path


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_raw(tmp_path / "raw", TEXTS)


def unreadable() -> Iterator[Document]:
    raise AssertionError("the documents were read")
    yield


def open_cache(raw: Path, cache_dir: Path, tokenizer: BertTokenizer, **changes: Any) -> TokenizedDocuments:
    taxonomy = changes.pop("taxonomy", None) or Taxonomy(TOY_EDGES)
    settings: dict[str, Any] = {
        "documents": read_documents(raw, "train", taxonomy),
        "taxonomy": taxonomy,
        "tokenizer": tokenizer,
        "max_tokens": 16,
        "cache_dir": cache_dir,
    }
    return tokenized(raw, **settings | changes)


def folders(cache_dir: Path) -> list[Path]:
    return sorted(path for path in cache_dir.iterdir() if path.is_dir())


def contents(documents: TokenizedDocuments) -> list[tuple[list[int], list[int]]]:
    examples = documents.__getitems__([(0, row) for row in range(len(documents))])
    return [(example.input_ids.tolist(), example.nodes.tolist()) for example in examples]


# ---- when the documents are read again ----


def test_the_second_start_does_not_read_the_documents(raw: Path, tmp_path: Path, tokenizer: BertTokenizer) -> None:
    first = open_cache(raw, tmp_path / "cache", tokenizer)
    second = open_cache(raw, tmp_path / "cache", tokenizer, documents=unreadable())
    assert contents(second) == contents(first)


def test_the_same_content_elsewhere_is_found(raw: Path, tmp_path: Path, tokenizer: BertTokenizer) -> None:
    open_cache(raw, tmp_path / "cache", tokenizer)
    elsewhere = write_raw(tmp_path / "elsewhere", TEXTS)
    open_cache(elsewhere, tmp_path / "cache", tokenizer, documents=unreadable())
    assert len(folders(tmp_path / "cache")) == 1


def test_a_tokenizer_made_again_finds_the_cache(raw: Path, tmp_path: Path, tokenizer: BertTokenizer) -> None:
    open_cache(raw, tmp_path / "cache", tokenizer)
    open_cache(raw, tmp_path / "cache", word_tokenizer(VOCABULARY, 100), documents=unreadable())


@pytest.mark.parametrize(
    "changes",
    [
        {"max_tokens": 15},
        {"taxonomy": Taxonomy([*TOY_EDGES, ("C", "CB")])},
        {"taxonomy": Taxonomy([*TOY_EDGES[1:], TOY_EDGES[0]])},
        {"tokenizer": word_tokenizer(VOCABULARY, 9)},
        {"tokenizer": word_tokenizer([*VOCABULARY, "more"], 100)},
    ],
    ids=["max_tokens", "another node", "another node order", "smaller vocabulary", "larger vocabulary"],
)
def test_whatever_changes_the_tokens_makes_another_cache(
    changes: dict[str, Any], raw: Path, tmp_path: Path, tokenizer: BertTokenizer
) -> None:
    open_cache(raw, tmp_path / "cache", tokenizer)
    open_cache(raw, tmp_path / "cache", **{"tokenizer": tokenizer} | changes)
    assert len(folders(tmp_path / "cache")) == 2


def test_a_changed_text_makes_another_cache(raw: Path, tmp_path: Path, tokenizer: BertTokenizer) -> None:
    open_cache(raw, tmp_path / "cache", tokenizer)
    write_raw(raw.parent, ["m n p", *TEXTS[1:]])
    changed = open_cache(raw, tmp_path / "cache", tokenizer)
    assert len(folders(tmp_path / "cache")) == 2
    assert contents(changed)[0][0] == text_token_ids(tokenizer, ["m n p"], 16)[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda tokenizer: tokenizer.add_tokens(["[P1]", "[LABEL_A]"], special_tokens=True),
        lambda tokenizer: tokenizer(TEXTS, padding="max_length", truncation=True, max_length=3),
        lambda tokenizer: text_token_ids(tokenizer, TEXTS, 3),
    ],
    ids=["special tokens", "a padded call", "a cut call"],
)
def test_what_leaves_texts_alone_keeps_the_fingerprint(
    change: Callable[[BertTokenizer], object], tokenizer: BertTokenizer
) -> None:
    before = tokenizer_fingerprint(tokenizer)
    change(tokenizer)
    assert tokenizer_fingerprint(tokenizer) == before


def test_a_new_word_changes_the_fingerprint(tokenizer: BertTokenizer) -> None:
    before = tokenizer_fingerprint(tokenizer)
    tokenizer.add_tokens(["newword"])
    assert tokenizer_fingerprint(tokenizer) != before


def test_a_model_that_adds_special_tokens_finds_the_cache(raw: Path, tmp_path: Path, tokenizer: BertTokenizer) -> None:
    open_cache(raw, tmp_path / "cache", tokenizer)
    tokenizer.add_tokens(["[P1]", "[LABEL_A]"], special_tokens=True)
    open_cache(raw, tmp_path / "cache", tokenizer, documents=unreadable())


# ---- damage ----


def flip_a_byte(folder: Path) -> None:
    content = bytearray((folder / "documents.arrow").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "documents.arrow").write_bytes(content)


def truncate(folder: Path) -> None:
    content = (folder / "documents.arrow").read_bytes()
    (folder / "documents.arrow").write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (flip_a_byte, "its checksum differs"),
        (truncate, "its checksum differs"),
        (lambda folder: (folder / "documents.arrow").unlink(), "FileNotFoundError"),
        (lambda folder: (folder / "checksum.json").unlink(), "FileNotFoundError"),
        (lambda folder: (folder / "checksum.json").write_text(""), "JSONDecodeError"),
        (lambda folder: (folder / "checksum.json").write_text("{}"), "KeyError"),
    ],
    ids=["flipped bit", "truncated", "no documents", "no checksum", "empty checksum file", "no checksum in it"],
)
def test_a_damaged_cache_is_made_again_with_a_warning(
    damage: Callable[[Path], object],
    problem: str,
    raw: Path,
    tmp_path: Path,
    tokenizer: BertTokenizer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = contents(open_cache(raw, tmp_path / "cache", tokenizer))
    (folder,) = folders(tmp_path / "cache")
    damage(folder)
    with caplog.at_level(logging.WARNING):
        again = open_cache(raw, tmp_path / "cache", tokenizer)
    assert contents(again) == expected
    assert re.search(rf"^{re.escape(str(folder))}: damaged cache \(.*{problem}.*\), made again$", caplog.messages[0])
    open_cache(raw, tmp_path / "cache", tokenizer, documents=unreadable())


def test_a_sound_cache_is_opened_without_a_warning(
    raw: Path, tmp_path: Path, tokenizer: BertTokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            open_cache(raw, tmp_path / "cache", tokenizer)
    assert caplog.messages == []


def test_an_error_in_the_documents_leaves_nothing_behind(raw: Path, tmp_path: Path, tokenizer: BertTokenizer) -> None:
    def breaks_off() -> Iterator[Document]:
        for row in range(2500):  # more than are written at a time
            yield Document(f"train:{row}", "m n o", (0,))
        raise ValueError("a bad line")

    with pytest.raises(ValueError, match="a bad line"):
        open_cache(raw, tmp_path / "cache", tokenizer, documents=breaks_off())
    assert folders(tmp_path / "cache") == []
    assert list((tmp_path / "cache").glob("*.tmp")) == []
    assert len(open_cache(raw, tmp_path / "cache", tokenizer)) == len(TEXTS)


def test_making_a_cache_leaves_no_temporary_folder(raw: Path, tmp_path: Path, tokenizer: BertTokenizer) -> None:
    open_cache(raw, tmp_path / "cache", tokenizer)
    (folder,) = folders(tmp_path / "cache")
    assert sorted(path.name for path in folder.iterdir()) == ["checksum.json", "documents.arrow"]


def test_leftovers_of_killed_builds_go_whatever_their_key_and_those_of_live_ones_stay(
    raw: Path, tmp_path: Path, tokenizer: BertTokenizer
) -> None:
    cache = tmp_path / "cache"
    for name in ("train-dead.0a.tmp", "val-dead.0b.tmp"):
        (cache / name).mkdir(parents=True)
    with new_folder(cache / "train-live") as live:
        open_cache(raw, cache, tokenizer)
        assert list(cache.glob("*.tmp")) == [live]


# ---- two processes ----


def _open_at_the_signal(raw: Path, folder: Path, name: str, start: Barrier) -> None:
    def slow_documents() -> Iterator[Document]:
        (folder / f"{name}.read").touch()
        yield from read_documents(raw, "train", Taxonomy(TOY_EDGES))
        time.sleep(0.5)  # the other process comes meanwhile

    tokenizer = word_tokenizer(VOCABULARY, 100)
    start.wait(timeout=120)
    documents = open_cache(raw, folder / "cache", tokenizer, documents=slow_documents())
    (folder / f"{name}.json").write_text(json.dumps(contents(documents)))


@pytest.mark.slow
def test_two_processes_at_once_make_one_cache(raw: Path, tmp_path: Path, tokenizer: BertTokenizer) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    other = context.Process(target=_open_at_the_signal, args=(raw, tmp_path, "other", start))
    other.start()
    _open_at_the_signal(raw, tmp_path, "this", start)
    other.join(timeout=60)
    assert other.exitcode == 0
    assert len(list(tmp_path.glob("*.read"))) == 1
    assert len(folders(tmp_path / "cache")) == 1
    assert list((tmp_path / "cache").glob("*.tmp")) == []
    assert (tmp_path / "this.json").read_bytes() == (tmp_path / "other.json").read_bytes()
    open_cache(raw, tmp_path / "cache", tokenizer, documents=unreadable())


# ---- tokens ----


@pytest.mark.parametrize("text", ["[MASK]", "m [SEP] n", "[CLS][PAD]", "[mask]", "m[MASK]n", "[P1] [LABEL_A] x"])
def test_text_that_spells_a_special_token_does_not_become_one(text: str, tokenizer: BertTokenizer) -> None:
    num_text_tokens = len(tokenizer)
    tokenizer.add_tokens(["[P1]", "[LABEL_A]"], special_tokens=True)
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    (ids,) = text_token_ids(tokenizer, [text], 50)
    assert ids
    assert not set(ids) & special
    assert max(ids) < num_text_tokens


def test_a_spelt_mask_is_cut_into_its_pieces(tokenizer: BertTokenizer) -> None:
    (ids,) = text_token_ids(tokenizer, ["[MASK]"], 50)
    assert tokenizer.convert_ids_to_tokens(ids) == ["[", "mask", "]"]


def test_texts_are_cut_and_get_no_special_tokens(tokenizer: BertTokenizer) -> None:
    ids = text_token_ids(tokenizer, ["m n o p q", "x"], 3)
    assert [tokenizer.convert_ids_to_tokens(row) for row in ids] == [["m", "n", "o"], ["x"]]


# ---- reading ----


@pytest.fixture
def many(raw: Path, tmp_path: Path, tokenizer: BertTokenizer) -> TokenizedDocuments:
    """2,500 documents, in more than one chunk; row i has i % 7 tokens and the nodes 0 to i % 3."""
    documents = (
        Document(f"train:{row + 1}", " ".join("mnopqrs"[: row % 7]), tuple(range(row % 3 + 1))) for row in range(2500)
    )
    return open_cache(raw, tmp_path / "cache", tokenizer, documents=documents)


def test_lengths_are_the_numbers_of_tokens(many: TokenizedDocuments) -> None:
    assert len(many) == 2500
    assert many.lengths.dtype == np.int64
    assert many.lengths.tolist() == [row % 7 for row in range(2500)]


@pytest.mark.parametrize(
    "rows",
    [[5], [0, 7], [2499, 0, 1300, 6], [3, 3, 1999, 3], list(range(990, 1010)), [7, 14, 0], list(range(2499, -1, -7))],
    ids=["one", "empty rows", "any order", "repeats", "over a chunk border", "only empty rows", "backwards"],
)
def test_rows_come_back_in_the_order_asked_for(
    rows: list[int], many: TokenizedDocuments, tokenizer: BertTokenizer
) -> None:
    letters = text_token_ids(tokenizer, ["m n o p q r s"], 16)[0]
    examples = many.__getitems__([(row % 4, row) for row in rows])
    assert [example.row for example in examples] == rows
    assert [example.epoch for example in examples] == [row % 4 for row in rows]
    assert [example.input_ids.tolist() for example in examples] == [letters[: row % 7] for row in rows]
    assert [example.nodes.tolist() for example in examples] == [list(range(row % 3 + 1)) for row in rows]


def test_ids_of_rows(many: TokenizedDocuments) -> None:
    assert many.ids([2000, 0, 0]) == ["train:2001", "train:1", "train:1"]


def test_nodes_are_pairs_over_the_whole_split(many: TokenizedDocuments) -> None:
    rows, nodes = many.nodes()
    pairs = [(row, node) for row in range(2500) for node in range(row % 3 + 1)]
    assert list(zip(rows.tolist(), nodes.tolist(), strict=True)) == pairs


def test_an_open_cache_survives_its_folder(many: TokenizedDocuments, tmp_path: Path) -> None:
    """It is mapped into memory: a process that makes a damaged cache again does not break a running one."""
    expected = contents(many)
    shutil.rmtree(tmp_path / "cache")
    assert contents(many) == expected


def test_a_process_that_makes_batches_maps_the_file_anew(raw: Path, tmp_path: Path, tokenizer: BertTokenizer) -> None:
    documents = open_cache(raw, tmp_path / "cache", tokenizer).select(np.array([2, 0]))
    again = pickle.loads(pickle.dumps(documents))
    assert again.ids() == documents.ids() == ["train:3", "train:1"]
    assert again.lengths.tolist() == documents.lengths.tolist()
    assert contents(again) == contents(documents)
    large = documents.select(np.zeros(1000, dtype=np.int64))
    assert len(pickle.dumps(large)) < 1000 * 8 + 1000 + len(str(tmp_path))  # rows, and where the file is
