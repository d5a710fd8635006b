"""Several data folders as one, whose taxonomy holds those of all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from ptmt_lightning.data.document import SPLITS, read_documents, split_file
from ptmt_lightning.data.hierarchy import read_taxonomy
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.taxonomy.files import edges_of_paths, problem_of_name, write_paths
from ptmt_lightning.utils.checks import shortened
from ptmt_lightning.utils.files import new_folder

PARTS = "parts"  # folder of the documents of each part alone


def merge(folders: Sequence[Path], target: Path, *, by_path: bool = False) -> list[str]:
    """Write a folder with the documents and labels of several; after an error nothing is left of it.

    Validation and test documents are written once more for each part, to ``parts/NAME``, so that a model of all can be
    evaluated on each.

    Args:
        folders: data folders in the project's own form, whose taxonomies are trees; their names become top labels.
        target: the new folder, not there yet.
        by_path: make equal label paths of several folders one label, and add no top labels.

    Returns:
        What was merged, a sentence a line.

    Raises:
        ValueError: a folder can't be used or merged; the message says what to do.
    """
    names = _names(folders)
    taxonomies = [read_taxonomy(folder) for folder in folders]
    prefixes = [() if by_path else (name,) for name in names]
    paths: dict[tuple[str, ...], None] = {}  # as an ordered set
    for folder, taxonomy, prefix in zip(folders, taxonomies, prefixes, strict=True):
        _check_tree(folder, taxonomy)
        paths.update(dict.fromkeys(prefix + _path(taxonomy, node) for node in range(len(taxonomy))))
    edges_of_paths(paths, str(target))  # refuses names that can't be told apart
    said = []
    with new_folder(target) as temporary:
        write_paths(temporary / "taxonomy.tsv", list(paths))
        for folder, name, taxonomy, prefix in zip(folders, names, taxonomies, prefixes, strict=True):
            sizes = {split: _add(folder, split, taxonomy, prefix, temporary, name) for split in SPLITS}
            found = ", ".join(f"{split} {size:,}" for split, size in sizes.items() if size)
            said.append(f"{folder}: {len(taxonomy):,} labels on {taxonomy.num_levels} levels; {found}")
        merged = Taxonomy.from_tsv(temporary / "taxonomy.tsv")
    levels = " / ".join(map(str, merged.level_sizes))
    return [*said, f"{target}: {len(merged):,} labels on {merged.num_levels} levels ({levels})"]


def _names(folders: Sequence[Path]) -> list[str]:
    """Return the names of the parts: those of their folders.

    Raises:
        ValueError: a name is there twice, or can't be a label.
    """
    names = [folder.resolve().name for folder in folders]
    for folder, name in zip(folders, names, strict=True):
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder; expected data in the project's form")
        if problem := problem_of_name(name):
            raise ValueError(f"{folder}: its name becomes a label: {problem}")
    [(name, count)] = Counter(names).most_common(1)
    if count > 1:
        raise ValueError(
            f"{count} folders are named {name!r}: expected a name of its own for each part, as it becomes a label; "
            "rename them"
        )
    return names


def _check_tree(folder: Path, taxonomy: Taxonomy) -> None:
    for node, parents in enumerate(taxonomy.parents):
        if len(parents) > 1:
            raise ValueError(
                f"{folder}: label {shortened(taxonomy.names[node])!r} has {len(parents)} parents; expected a tree, as "
                "labels are merged by their paths; give each parent a label of its own"
            )


def _path(taxonomy: Taxonomy, node: int) -> tuple[str, ...]:
    return tuple(taxonomy.labels[step] for step in taxonomy.path_to(node))


def _add(folder: Path, split: str, taxonomy: Taxonomy, prefix: tuple[str, ...], target: Path, name: str) -> int:
    """Append a split's documents to that of the target, those to evaluate on to the part's own, too.

    Returns:
        The number of documents; 0 without such a split.

    Raises:
        ValueError: a document is not valid; the message names file, line and key.
    """
    source = split_file(folder, split)
    if source is None:
        return 0
    files = [target / f"{split}.jsonl"]
    if split != "train":
        files.append(target / PARTS / name / f"{split}.jsonl")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with ExitStack() as stack:
        outputs = [stack.enter_context(file.open("a", encoding="utf-8")) for file in files]
        for document in read_documents(source, split, taxonomy):
            labels = [[*prefix, *_path(taxonomy, path[-1])] for path in taxonomy.label_paths(document.nodes)]
            line = json.dumps({"text": document.text, "labels": labels, "part": name}, ensure_ascii=False) + "\n"
            for output in outputs:
                output.write(line)
            size += 1
    return size
