"""Change data files, taxonomies and the JSON files of a saved model at random, and open them; see README.md.

A case is named by its target and its number, which is its seed, so that it can be made again with ``--case``.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import itertools
import json
import logging
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from mutated import mutated_bytes, mutated_json

from ptmt_lightning.data.document import read_documents
from ptmt_lightning.inference.text_files import read_rows
from ptmt_lightning.taxonomy import Taxonomy

HERE = Path(__file__).parent
EDGES = [("ROOT", "A"), ("ROOT", "Café"), ("A", "C++"), ("A", "b c"), ("b c", "=d")]
DOCUMENTS: list[dict[str, Any]] = [
    {"id": 7, "text": "Straße 日本 m n", "labels": [["A", "C++"]]},
    {"text": 'two "words", and\nlines', "labels": [["Café"], ["A", "b c", "=d"]]},
]
SECONDS, MEGABYTES = 30, 512  # what one case may take, of time and of memory beyond that taken before
MODEL_FILES = ("config.json", "ptmt.json", "taxonomy.json", "tokenizer.json", "tokenizer_config.json")


class DeadlineError(BaseException):
    """A case has taken too long."""


def table(delimiter: str) -> bytes:
    """Return the documents as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerows([["id", "text"], *((i, d["text"]) for i, d in enumerate(DOCUMENTS))])
    return text.getvalue().encode()


def parquet() -> bytes:
    """Return the documents as Parquet."""
    file = io.BytesIO()
    pq.write_table(pa.table({"text": [d["text"] for d in DOCUMENTS]}), file)
    return file.getvalue()


LINES = "".join(json.dumps(document, ensure_ascii=False) + "\n" for document in DOCUMENTS).encode()
INPUTS = {
    "in.txt": LINES, "in.jsonl": LINES, "in.json": json.dumps(DOCUMENTS, indent=1).encode(), "in.csv": table(","),
    "in.tsv": table("\t"), "semicolon.csv": table(";"), "in.parquet": parquet(),
}  # fmt: skip


def open_data(folder: Path, random: Random) -> None:
    """Read documents of a changed file."""
    path = folder / random.choice(["train.jsonl", "train.jsonl.gz"])
    content = mutated_bytes(LINES, random)
    if path.suffix == ".gz":
        content = gzip.compress(content, mtime=0)
        content = content if random.random() < 0.5 else mutated_bytes(content, random)
    path.write_bytes(content)
    list(read_documents(path, "train", Taxonomy(EDGES)))


def open_taxonomy(folder: Path, random: Random) -> None:
    """Read a changed taxonomy."""
    path = folder / "taxonomy.tsv"
    path.write_bytes(mutated_bytes("".join(f"{a}\t{b}\n" for a, b in EDGES).encode(), random))
    Taxonomy.from_tsv(path)


def open_texts(folder: Path, random: Random) -> None:
    """Read texts of a changed file of any format; a bad row is a row with an error."""
    name = random.choice(list(INPUTS))
    content = mutated_bytes(INPUTS[name], random)
    path = folder / name
    if not name.endswith("parquet") and random.random() < 0.3:
        path, content = path.with_name(f"{name}.gz"), gzip.compress(content, mtime=0)
    path.write_bytes(content)
    for row in itertools.islice(read_rows(str(path)), 1_000_000):
        assert row.error is not None or row.text.strip()


class SavedModel:
    """Opens a saved model, one of whose JSON files is changed, and predicts with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = {name: (folder / name).read_bytes() for name in MODEL_FILES if (folder / name).exists()}
        settings = json.loads(self.files["ptmt.json"])
        # As versions before 0.2 wrote it: with its digests, any change is seen before the file is used.
        for name in ("digest", "taxonomy_fingerprint"):
            settings.pop(name, None)
        self.files["ptmt.json"] = json.dumps(settings).encode()

    def __call__(self, folder: Path, random: Random) -> None:
        """Open the model."""
        from ptmt_lightning.inference import Classifier

        changed = random.choice(list(self.files))
        change = mutated_json if random.random() < 0.7 else mutated_bytes
        for name, content in self.files.items():
            (self.folder / name).write_bytes(change(content, random) if name == changed else content)
        Classifier.from_pretrained(self.folder, device="cpu").predict("m n o")


def memory(field: str) -> float:
    """Return a field of this process's status in megabytes."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise KeyError(field)


def outcome(target: Callable[[Path, Random], None], seed: int) -> tuple[str, str]:
    """Run one case; return what came of it, ``opened``, ``refused`` or a fault, and the details of a fault."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak of memory begins anew
    before = memory("VmRSS")
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    found, details = "opened", ""
    try:
        with tempfile.TemporaryDirectory() as folder:
            target(Path(folder), Random(seed))
    except (ValueError, OSError) as error:
        found = "refused"
        if "\n" in str(error) or len(str(error)) > 2000:
            found, details = "message", repr(error)[:1000]
    except DeadlineError:
        found, details = "hang", traceback.format_exc()
    except Exception as error:
        found, details = f"traceback {type(error).__name__}", traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    taken = memory("VmHWM") - before
    return (found, details) if taken < MEGABYTES else ("memory", f"{taken:.0f} MB after {found}")


def work(targets: dict[str, Callable[[Path, Random], None]], first: int, ends: float, state: Path) -> None:
    """Run cases until a time; write each result to ``state`` at once."""

    def stop(*_: Any) -> None:
        raise DeadlineError

    signal.signal(signal.SIGALRM, stop)
    logging.disable(logging.CRITICAL)
    with state.open("a", encoding="utf-8") as file:
        for seed in itertools.count(first):
            name = list(targets)[seed % len(targets)]
            if time.time() > ends:
                return
            print(json.dumps([name, seed, "begun", ""]), file=file, flush=True)
            print(json.dumps([name, seed, *outcome(targets[name], seed)]), file=file, flush=True)


def main() -> None:
    """Run cases in a process that is begun again where a case ends it; print figures and faults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="a copy of a model/ folder, which is changed")
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=0, help="number of the first case")
    parser.add_argument("--state", type=Path, default=Path("fuzz.jsonl"), help="a line for each case")
    parser.add_argument("--case", type=int, help="run this case alone, and show its traceback")
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    targets: dict[str, Callable[[Path, Random], None]] = {
        "data": open_data, "taxonomy": open_taxonomy, "texts": open_texts, "model": SavedModel(options.model)
    }  # fmt: skip
    if options.case is not None:
        name = list(targets)[options.case % len(targets)]
        with tempfile.TemporaryDirectory() as folder:
            targets[name](Path(folder), Random(options.case))
        return
    if options.until:
        work(targets, options.seed, options.until, options.state)
        return
    ends = time.time() + 60 * options.minutes
    seed = options.seed
    options.state.write_bytes(b"")
    while time.time() < ends:
        command = [sys.executable, __file__, str(options.model), "--seed", str(seed), "--until", str(ends)]
        done = subprocess.run([*command, "--state", str(options.state)], check=False)
        lines = [json.loads(line) for line in options.state.read_text(encoding="utf-8").splitlines()]
        if done.returncode:
            name, seed = lines[-1][:2]
            with options.state.open("a", encoding="utf-8") as file:
                print(json.dumps([name, seed, f"process ended with {done.returncode}", ""]), file=file)
            seed += 1
    lines = [json.loads(line) for line in options.state.read_text(encoding="utf-8").splitlines()]
    ended = [line for line in lines if line[2] != "begun"]
    for (name, found), count in sorted(Counter((line[0], line[2]) for line in ended).items()):
        print(f"{name}\t{found}\t{count}")


if __name__ == "__main__":
    main()
