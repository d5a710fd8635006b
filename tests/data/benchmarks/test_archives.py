"""Archives are extracted, once and again when they change."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from downloads import CONTENT, OTHER, listing
from zip_archives import archive, extracted, put_archive

from ptmt_lightning.data.benchmarks.archives import extract_archives
from ptmt_lightning.data.benchmarks.download import raw_files


def test_an_archive_is_extracted_into_a_folder_of_its_name(tmp_path: Path) -> None:
    put_archive(tmp_path, archive({"a": CONTENT, "sub/deep/b": OTHER}, zipfile.ZIP_DEFLATED))
    extract_archives(tmp_path)
    assert extracted(tmp_path) == {"a", "sub", "sub/deep", "sub/deep/b"}
    assert (tmp_path / "words/a").read_bytes() == CONTENT
    assert (tmp_path / "words/sub/deep/b").read_bytes() == OTHER


def test_archives_within_an_archive_are_extracted_too_and_no_deeper(tmp_path: Path) -> None:
    inner = archive({"innermost.zip": archive({"c": CONTENT}), "b": OTHER})
    put_archive(tmp_path, archive({"sub/inner.zip": inner, "another.zip": archive({"d": b""})}))
    for _ in range(2):
        extract_archives(tmp_path)
        assert (tmp_path / "words/sub/inner/b").read_bytes() == OTHER
        assert {str(path.relative_to(tmp_path)) for path in raw_files(tmp_path)} == {
            "words.zip", "words/another.zip", "words/another/d", "words/sub/inner.zip", "words/sub/inner/b",
            "words/sub/inner/innermost.zip",
        }  # fmt: skip


def test_folders_and_what_a_mac_adds_are_skipped(tmp_path: Path) -> None:
    put_archive(tmp_path, archive({"sub/": b"", "a": b"1", "__MACOSX/._a": b"2", "sub/__MACOSX/._b": b"3"}))
    extract_archives(tmp_path)
    assert extracted(tmp_path) == {"a"}


def test_what_is_extracted_is_not_extracted_again(tmp_path: Path) -> None:
    put_archive(tmp_path, archive({"a": CONTENT}))
    extract_archives(tmp_path)
    (tmp_path / "words/a").write_bytes(b"touched")
    extract_archives(tmp_path)
    assert (tmp_path / "words/a").read_bytes() == b"touched"


def test_a_changed_archive_is_extracted_again(tmp_path: Path) -> None:
    put_archive(tmp_path, archive({"a": CONTENT, "only_in_first": b""}))
    extract_archives(tmp_path)
    put_archive(tmp_path, archive({"a": OTHER}))
    extract_archives(tmp_path)
    assert extracted(tmp_path) == {"a"}
    assert (tmp_path / "words/a").read_bytes() == OTHER


def test_an_archive_of_the_same_size_but_another_time_is_extracted_again(tmp_path: Path) -> None:
    path = put_archive(tmp_path, archive({"a": CONTENT}))
    extract_archives(tmp_path)
    put_archive(tmp_path, archive({"a": CONTENT[::-1]}))
    os.utime(path, ns=(0, 0))
    extract_archives(tmp_path)
    assert (tmp_path / "words/a").read_bytes() == CONTENT[::-1]


def test_a_folder_put_there_by_hand_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    (tmp_path / "words/a").write_bytes(b"by hand")
    for content in (CONTENT, OTHER):
        put_archive(tmp_path, archive({"a": content, "b": content}))
        extract_archives(tmp_path)
        assert listing(tmp_path) == {"words.zip", "words", "words/a"}
        assert (tmp_path / "words/a").read_bytes() == b"by hand"


def test_extracted_files_stay_without_their_archive(tmp_path: Path) -> None:
    path = put_archive(tmp_path, archive({"a": CONTENT}))
    extract_archives(tmp_path)
    path.unlink()
    extract_archives(tmp_path)
    assert listing(tmp_path) == {"words", "words/a", "words/.archive"}


def test_what_a_killed_extraction_left_goes_with_the_next(tmp_path: Path) -> None:
    put_archive(tmp_path, archive({"a": CONTENT}))
    (tmp_path / "words.0123.tmp").mkdir()
    (tmp_path / "words.0123.tmp/a").write_bytes(CONTENT[:10])
    extract_archives(tmp_path)
    assert listing(tmp_path) == {"words.zip", "words", "words/a", "words/.archive"}


def test_dots_within_a_name_are_harmless(tmp_path: Path) -> None:
    put_archive(tmp_path, archive({"..a..b": b"1", "sub/...": b"2"}))
    extract_archives(tmp_path)
    assert extracted(tmp_path) == {"..a..b", "sub", "sub/..."}
