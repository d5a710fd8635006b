"""Exports of annotation tools as rows of a table: the fields of a record, and a column of paths for each question.

Label Studio: the export format JSON of version 1.x, an array of tasks, each with ``data`` and ``annotations``. Of the
results, those of the types ``taxonomy`` and ``choices`` are label paths.

Argilla: the records of version 2.x as ``Dataset.records.to_json`` writes them (``fields``, ``responses``), or flat, as
``to_list(flatten=True)``, ``to_datasets`` and the export to a hub give them (``QUESTION.responses``).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from ptmt_lightning.data.records import Record
from ptmt_lightning.data.tables.opening import Table, keys_of, peeked
from ptmt_lightning.data.tables.options import ANNOTATIONS, TableOptions

LABELS = "labels"  # the column of paths, where the user names no question
_ANY = ""  # stands for every question: an annotation that has no result at all, which is one without labels
_NOT_ANNOTATED = "without an annotation"
_DISAGREE = "on which annotators disagree: its first answer is taken; of Label Studio the ground truth, or the newest"
_RESPONSES = ".responses"


def form_of(content: Any) -> str | None:
    """Return which tool's export a record is of, ``label-studio`` or ``argilla``; None if it is of neither."""
    if not isinstance(content, dict):
        return None
    if isinstance(content.get("data"), dict) and isinstance(content.get("annotations"), list):
        return "label-studio"
    is_nested = isinstance(content.get("fields"), dict) and isinstance(content.get("responses"), dict)
    return "argilla" if is_nested or any(key.endswith(_RESPONSES) for key in content) else None


def annotated(table: Table, options: TableOptions, left_out: Counter[str]) -> Table:
    """Return the rows of an export, or the table as it is where it is none.

    Args:
        table: as the file has it.
        options: its format, None to tell it by the first record; and the question, where there are several.
        left_out: records that nobody annotated, and those of which annotators disagree, are counted here.

    Raises:
        ValueError: no record is annotated, or there are several questions of which none is chosen.
    """
    first, records = peeked(table.records)
    form = options.format if options.format in ANNOTATIONS else form_of(first[0].content if first else None)
    if form is None:
        return table._replace(records=records)
    rows, every = peeked(_rows(records, form, options, left_out))
    names = keys_of(rows)
    if not names:
        problem = next((f"{row.where}: {row.error}" for row in rows if row.error), "no annotated document")
        raise ValueError(f"{problem}; expected an export of {form}; annotate some, or set {options.named('format')}")
    return Table(names, every, f" in this export of {form}")


def _rows(records: Iterator[Record], form: str, options: TableOptions, left_out: Counter[str]) -> Iterator[Record]:
    questions: set[str] = set()
    for record in records:
        try:
            fields, answers = (_label_studio if form == "label-studio" else _argilla)(record.content)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            problem = record.error or f"not a record of {form} ({type(error).__name__}: {error})"
            yield record._replace(content=None, error=problem)
            continue
        questions |= answers.keys() - {_ANY}
        if options.paths is None and len(questions) > 1:
            raise ValueError(
                f"{record.where}: questions {', '.join(map(repr, sorted(questions)))}; expected one of label paths; "
                f"set {options.named('paths')} to it"
            )
        several = answers.get(options.paths or next(iter(questions), _ANY)) or answers.get(_ANY)
        if several is None:
            left_out[_NOT_ANNOTATED] += 1
            continue
        if len({repr(answer) for answer in several}) > 1:
            left_out[_DISAGREE] += 1
        yield record._replace(content={**fields, options.paths or LABELS: several[0]})


Answers = Mapping[str, list[Any]]  # cells of paths that annotators gave, the one to take first, by question


def _label_studio(task: Mapping[str, Any]) -> tuple[Mapping[str, Any], Answers]:
    done = [a for a in task["annotations"] if not a.get("was_cancelled")]
    done.sort(key=lambda a: (bool(a.get("ground_truth")), str(a.get("updated_at") or "")), reverse=True)
    answers: dict[str, list[Any]] = defaultdict(list)
    questions = {
        result["from_name"]
        for annotation in done
        for result in annotation["result"]
        if result["type"] in ("taxonomy", "choices")
    }
    for annotation in done:
        found: dict[str, list[Any]] = {question: [] for question in questions or {_ANY}}
        for result in annotation["result"]:
            if result["from_name"] in questions:
                chosen = result["value"][result["type"]]
                found[result["from_name"]] += [[c] if isinstance(c, str) else c for c in chosen]
        for question, paths in found.items():
            answers[question].append(paths)
    return task["data"], answers


def _argilla(record: Mapping[str, Any]) -> tuple[Mapping[str, Any], Answers]:
    if isinstance(record.get("fields"), dict):
        responses = {
            question: [response["value"] for response in several]
            for question, several in (record.get("responses") or {}).items()
            if several
        }
        return record["fields"], responses
    answers = {}
    for key in record:
        if key.endswith(_RESPONSES) and record[key]:
            states = record.get(f"{key}.status") or [None] * len(record[key])
            values = [v for v, state in zip(record[key], states, strict=True) if state in (None, "submitted")]
            if values:
                answers[key.removesuffix(_RESPONSES)] = values
    return {key: value for key, value in record.items() if _RESPONSES not in key}, answers
