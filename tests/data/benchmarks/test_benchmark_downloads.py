"""When a benchmark downloads, and that it is prepared once."""

from __future__ import annotations

import io
import json
import multiprocessing
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from conftest import TOY_DOCUMENTS
from downloads import OTHER, PAGE, by_hand, listing, put_part, serving_words, source
from http_server import Answer, Host
from zip_archives import archive

from ptmt_lightning.data.benchmarks.base import BenchmarkDataModule, Raw
from ptmt_lightning.data.benchmarks.download import Source, download
from ptmt_lightning.data.benchmarks.prepared import read_jsonl


@pytest.fixture
def host() -> Iterator[Host]:
    """Serves ``words.bin``; gone after the test."""
    with serving_words() as host:
        yield host


class Toy(BenchmarkDataModule):
    """A benchmark of three files, in ``toy.zip`` or as they are; ``readers`` beside it has a line a reading."""

    source: ClassVar[Source]

    def read_raw(self, files: Sequence[Path]) -> Raw:
        with self.folder.with_name("readers").open("a") as readers:
            readers.write("read\n")
        found = {split: [path for path in files if path.name == f"{split}.jsonl"] for split in ("train", "val", "test")}
        if not all(found.values()):
            raise self.not_found(files, "toy.zip")
        return Raw("toy.zip", {split: read_jsonl(paths) for split, paths in found.items()}, Counter())


def toy_zip(repeats: int = 1) -> bytes:
    lines = [json.dumps(document) + "\n" for document in TOY_DOCUMENTS if len(document["labels"]) == 1]
    content = "".join(lines * repeats).encode()
    return archive({f"toy/{split}.jsonl": content for split in ("train", "val", "test")}, zipfile.ZIP_DEFLATED)


@pytest.fixture
def toy(host: Host, tmp_path: Path) -> Toy:
    """Nothing fetched yet."""
    host.files["toy.zip"] = toy_zip()
    return new_toy(host, tmp_path)


def new_toy(host: Host, tmp_path: Path, *names: str) -> Toy:
    files = source(host, *names or ("toy.zip",))

    class Here(Toy):
        source = files

    return Here(name="toy", path=str(tmp_path / "data/toy"), batch_size=2, cache_dir=str(tmp_path / "cache"))


def times_read(tmp_path: Path) -> int:
    return len((tmp_path / "data/readers").read_text().splitlines())


def test_a_benchmark_is_downloaded_extracted_and_prepared_once(toy: Toy, host: Host, tmp_path: Path) -> None:
    toy.prepare_data()
    toy.prepare_data()
    again = new_toy(host, tmp_path)
    again.prepare_data()
    assert len(host.requests) == times_read(tmp_path) == 1
    assert again.path == toy.path
    assert toy.split_sizes() == {"train": 4, "val": 4, "test": 4}
    assert {path.name for path in toy.folder.iterdir()} == {"raw", toy.path.name}
    assert listing(toy.folder / "raw") == {
        ".lock", "downloads.json", "toy.zip", "toy", "toy/toy",
        "toy/toy/train.jsonl", "toy/toy/val.jsonl", "toy/toy/test.jsonl", "toy/.archive",
    }  # fmt: skip


def test_files_put_there_by_hand_need_no_host(toy: Toy, host: Host) -> None:
    raw = toy.folder / "raw"
    raw.mkdir(parents=True)
    (raw / "toy.zip").write_bytes(toy_zip(3))
    toy.prepare_data()
    assert toy.split_sizes()["train"] == 12
    assert host.requests == []


def test_a_benchmark_goes_on_with_a_broken_download(toy: Toy, host: Host) -> None:
    put_part(f"{host.url}/toy.zip", toy.folder / "raw", toy_zip()[:100], toy_zip())
    toy.prepare_data()
    assert host.ranges() == ["bytes=100-"]
    assert toy.split_sizes()["train"] == 4


def test_a_benchmark_fetches_the_files_that_it_lacks(host: Host, tmp_path: Path) -> None:
    host.files |= {"toy.zip": toy_zip(), "more.bin": OTHER}
    toy = new_toy(host, tmp_path, "toy.zip", "more.bin")
    download(source(host, "toy.zip"), toy.folder / "raw")
    toy.prepare_data()
    toy.prepare_data()
    assert [request.path for request in host.requests] == ["toy.zip", "more.bin"]


def test_files_put_beside_a_broken_download_are_used(toy: Toy, host: Host) -> None:
    raw = toy.folder / "raw"
    put_part(f"{host.url}/toy.zip", raw, toy_zip()[:100], toy_zip())
    with zipfile.ZipFile(io.BytesIO(toy_zip(2))) as content:
        content.extractall(raw)
    toy.prepare_data()
    assert toy.split_sizes()["train"] == 8
    assert host.requests == []


def test_a_changed_archive_is_read_again(toy: Toy, host: Host, tmp_path: Path) -> None:
    raw = toy.folder / "raw"
    toy.prepare_data()
    assert toy.split_sizes()["train"] == 4
    for path in (raw / "toy.zip", raw / "downloads.json"):
        path.unlink()
    host.files["toy.zip"] = toy_zip(3)
    toy.download()
    changed = new_toy(host, tmp_path)
    changed.prepare_data()
    assert changed.split_sizes()["train"] == 12
    assert changed.path != toy.path
    assert len(host.requests) == times_read(tmp_path) == 2


def test_an_archive_changed_by_hand_is_read_again(toy: Toy, host: Host, tmp_path: Path) -> None:
    (toy.folder / "raw").mkdir(parents=True)
    for repeats in (1, 3):
        (toy.folder / "raw/toy.zip").write_bytes(toy_zip(repeats))
        toy = new_toy(host, tmp_path)
        toy.prepare_data()
        assert toy.split_sizes()["train"] == 4 * repeats
    assert host.requests == []


def test_a_downloaded_archive_may_be_deleted_to_save_space(toy: Toy, host: Host) -> None:
    toy.prepare_data()
    (toy.folder / "raw/toy.zip").unlink()
    toy.prepare_data()
    assert len(host.requests) == 1


def test_a_downloaded_file_that_changed_is_refused_before_it_is_read(toy: Toy) -> None:
    toy.download()
    with (toy.folder / "raw/toy.zip").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ValueError, match=r"toy\.zip: size or SHA-256 differs from those at its download"):
        toy.prepare_data()
    assert [path.name for path in toy.folder.iterdir()] == ["raw"]


def test_a_refusing_host_leaves_a_benchmark_as_it_was(toy: Toy, host: Host) -> None:
    host.otherwise = Answer(status=403)
    message = by_hand(f"{host.url}/toy.zip", "the host answers 403 Forbidden", toy.folder / "raw", "toy.zip")
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            toy.prepare_data()
    assert listing(toy.folder) == {"raw", "raw/.lock"}


def test_a_mirror_of_a_benchmark(host: Host, tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    (folder / "toy.zip").write_bytes(toy_zip(2))
    toy = new_toy(host, tmp_path)
    toy.mirror = folder.as_uri()
    toy.prepare_data()
    assert toy.split_sizes()["val"] == 8
    assert host.requests == []


def test_threads_that_prepare_at_once_do_so_once(host: Host, tmp_path: Path) -> None:
    host.files["toy.zip"] = toy_zip(500)
    toys = [new_toy(host, tmp_path) for _ in range(6)]
    start, errors = threading.Barrier(len(toys)), []

    def run(toy: Toy) -> None:
        start.wait()
        try:
            toy.prepare_data()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(toy,)) for toy in toys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(host.requests) == times_read(tmp_path) == len({toy.path for toy in toys}) == 1
    assert all(toy.split_sizes()["test"] == 2000 for toy in toys)
    assert not [name for name in listing(tmp_path) if name.endswith((".part", ".etag", ".tmp"))]


def test_processes_that_prepare_at_once_do_so_once(tmp_path: Path) -> None:
    """From a folder: a host would be a thread, which does not outlive a fork."""
    (tmp_path / "toy.zip").write_bytes(toy_zip(500))

    class Here(Toy):
        source = Source(PAGE, {"toy.zip": (tmp_path / "toy.zip").as_uri()})

    toy = Here(name="toy", path=str(tmp_path / "data/toy"), batch_size=2, cache_dir=str(tmp_path / "cache"))
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=toy.prepare_data) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0] * 6
    assert times_read(tmp_path) == 1
    toy.prepare_data()
    assert times_read(tmp_path) == 1
    assert {path.name for path in toy.folder.iterdir()} == {"raw", toy.path.name}
    assert not [name for name in listing(tmp_path) if name.endswith((".part", ".etag", ".tmp"))]
