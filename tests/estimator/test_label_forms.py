"""Label paths are read in every form in which people have them, and come back in the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from ptmt_lightning.data.tables.options import TableOptions
from ptmt_lightning.estimator.labels import LabelForm, read_labels

TWO = [[("A", "B"), ("C",)], [("C",)]]
ONE = [[("A", "B")], [("C",)]]


def read(y: Any, **options: Any) -> tuple[list[list[tuple[str, ...]]], LabelForm]:
    return read_labels(y, "y", TableOptions(**options, prefix=""))


@pytest.mark.parametrize(
    ("given", "paths", "returned"),
    [
        (["A > B | C", "C"], TWO, None),
        (["A > B", "C"], ONE, None),
        ([[["A", "B"], ["C"]], [["C"]]], TWO, None),
        ([[("A", "B"), ("C",)], [("C",)]], TWO, None),
        ([["A", "B"], ["C"]], ONE, None),
        ([("A", "B"), ("C",)], ONE, None),
        (pd.Series(["A>B|C", "C"], index=[7, 7]), TWO, ["A > B | C", "C"]),
        (pd.Series([("A", "B"), ("C",)]), ONE, [("A", "B"), ("C",)]),
        (np.array(["A > B", "C"]), ONE, ["A > B", "C"]),
        (np.array([["A", "B"], ["C", "D"]]), [[("A", "B")], [("C", "D")]], [["A", "B"], ["C", "D"]]),
        ([np.array([np.array(["A", "B"]), ["C"]], dtype=object), [["C"]]], TWO, [[["A", "B"], ["C"]], [["C"]]]),
        ([["2020", 1]], [[("2020", "1")]], [["2020", "1"]]),
    ],
)
def test_forms(given: Any, paths: Any, returned: Any) -> None:
    found, form = read(given)
    assert found == paths
    shaped = [form.shaped(several) for several in found]
    expected = given if returned is None else returned
    assert shaped == expected
    assert [type(one) for one in shaped] == [type(one) for one in expected]
    assert read(shaped) == (found, form)


@pytest.mark.parametrize(
    ("given", "nothing"),
    [(["A", "", None, float("nan")], ""), ([["A"], [], None], []), ([("A",), ()], ()), ([[["A"]], [], None], [])],
)
def test_texts_without_labels(given: Any, nothing: Any) -> None:
    found, form = read(given)
    assert found == [[("A",)], *([[]] * (len(given) - 1))]
    assert form.shaped([]) == nothing


def test_where_there_is_room_for_one_path_the_first_is_returned() -> None:
    for given, shown in ((["A"], "A | C > B"), ([["A"]], ["A"]), ([("A",)], ("A",)), ([[["A"]]], [["A"], ["C", "B"]])):
        _, form = read(given)
        assert form.shaped([("A",), ("C", "B")]) == shown
    _, form = read(["A"], path_separator=None)
    assert form.shaped([("A",), ("C", "B")]) == "A"


def test_separators_of_ones_own() -> None:
    paths, form = read(["R&B > C|D/x", "y"], level_separator="/", path_separator=None)
    assert paths == [[("R&B > C|D", "x")], [("y",)]]
    assert form.shaped(paths[0]) == "R&B > C|D / x"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("A > B", r"y: expected a list, an array or a column, got str; give a list"),
        (pd.DataFrame({"y": ["A"]}), r"y: expected .*, got DataFrame; give one column of it, such as frame\['text'\]"),
        (7, r"y: expected a list, an array or a column, got int; give a list"),
        (["A", 3], r"y\[1\]=3: expected a text such as 'A > B', a path such as \['A', 'B'\], or a list of paths"),
        ([["A", ["B"]]], r"y\[0\]=\['A', \['B'\]\]: expected a text such as"),
        (["A", "", ["B"]], r"y\[0\] is a text, y\[2\] is a path; expected one form for all; write them alike"),
        ([["A"], [["B"]]], r"y\[0\] is a path, y\[1\] is a list of paths; expected one form for all"),
        (["A > > B"], r"column 'y\[0\]': 'A > > B': an empty label beside a separator; .*, or set level_separator or"),
        ([["A", ""]], r"column 'y\[0\]': \['A', ''\]: an empty label; expected one on each level of a path"),
        ([["A", None]], r"column 'y\[0\]': \['A', None\]: an empty label"),
        ([["A", "x" * 501]], r"column 'y\[0\]': .*: 501 characters; expected a label"),
    ],
)
def test_what_is_no_label_path(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{message}[^\n]*$"):
        read(given)
