"""The protocol's splits: sizes, strata, and that they are the same on every machine and with every scikit-learn."""

from __future__ import annotations

import hashlib
import math
import warnings

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptmt_lightning.data.benchmarks.folds import NUM_FOLDS, SEED, Rows, make_fold

SPLITS = ("train", "val", "test")
SYNTHETIC: npt.NDArray[np.int64] = np.array([i * i % 7 for i in range(60)])  # classes 0, 1, 2 and 4
DRAWN = st.tuples(st.lists(st.integers(0, 6), max_size=142), st.integers(0, 6)).flatmap(
    lambda drawn: st.permutations([*drawn[0], *[drawn[1]] * 8])  # one class has documents enough
)


def parts(rng: np.random.RandomState, classes: Rows, num_parts: int) -> npt.NDArray[np.int64]:
    """The part of each document as scikit-learn's documentation of shuffled stratified folds has it, in NumPy alone."""
    _, first, inverse = np.unique(classes, return_index=True, return_inverse=True)
    codes = np.argsort(np.argsort(first))[inverse]  # classes in the order in which they occur
    in_order = np.sort(codes)
    part = np.empty(len(classes), dtype=np.int64)
    for code in range(len(first)):
        sizes = [int(np.sum(in_order[start::num_parts] == code)) for start in range(num_parts)]
        drawn = np.repeat(np.arange(num_parts), sizes)
        rng.shuffle(drawn)
        part[codes == code] = drawn
    return part


def expected_fold(classes: Rows, fold: int) -> dict[str, list[int]]:
    rng = np.random.RandomState(772361728)
    part = [parts(rng, classes, 3) for _ in range(2)][fold // 3]
    test, rest = np.flatnonzero(part == fold % 3), np.flatnonzero(part != fold % 3)
    inner = parts(np.random.RandomState(772361728), classes[rest], 5)
    return {"train": rest[inner != 0].tolist(), "val": rest[inner == 0].tolist(), "test": test.tolist()}


def test_the_seed_is_the_published_one() -> None:
    assert (SEED, NUM_FOLDS) == (772361728, 6)


@pytest.mark.parametrize(
    ("fold", "val", "first_of_test"),
    [
        (0, [1, 4, 9, 14, 17, 27, 40, 55], [0, 2, 15, 18, 19, 20]),
        (1, [7, 8, 15, 19, 31, 35, 51, 59], [1, 3, 9, 12, 13, 14]),
        (2, [14, 15, 18, 24, 33, 41, 49, 58], [4, 5, 6, 7, 8, 10]),
        (3, [7, 8, 13, 17, 37, 42, 52, 54], [1, 2, 4, 10, 15, 16]),
        (4, [4, 10, 15, 21, 40, 48, 49, 54], [5, 7, 11, 13, 14, 18]),
        (5, [1, 5, 10, 14, 23, 29, 39, 50], [0, 3, 6, 8, 9, 12]),
    ],
)
def test_frozen_folds_of_sixty_documents(fold: int, val: list[int], first_of_test: list[int]) -> None:
    """If this fails, this machine's scikit-learn or NumPy draws other folds than those behind the results."""
    rows = make_fold(SYNTHETIC, fold)
    assert rows["val"].tolist() == val
    assert rows["test"][:6].tolist() == first_of_test


def test_frozen_folds_of_three_thousand_documents() -> None:
    classes = np.array([i * i * 31 % 1009 % 40 for i in range(3000)])
    digest = hashlib.sha256()
    for fold in range(NUM_FOLDS):
        for split in SPLITS:
            digest.update(make_fold(classes, fold)[split].astype("<i8").tobytes())
    assert digest.hexdigest() == "3fe7503e86563bb6c6c1d365ee4e63197832adf989580b96ddc0e4458ebfee86"


@given(drawn=DRAWN, fold=st.integers(0, 5))
def test_folds_are_those_of_an_independent_implementation(drawn: list[int], fold: int) -> None:
    classes = np.array(drawn)
    assert {split: rows.tolist() for split, rows in make_fold(classes, fold).items()} == expected_fold(classes, fold)


@settings(max_examples=40)
@given(drawn=DRAWN)
def test_splits_are_whole_disjoint_ascending_stratified_and_of_the_right_size(drawn: list[int]) -> None:
    classes, size = np.array(drawn), len(drawn)
    tests: list[list[int]] = []
    for fold in range(NUM_FOLDS):
        rows = make_fold(classes, fold)
        assert tuple(rows) == SPLITS
        assert sorted(np.concatenate([rows[split] for split in SPLITS]).tolist()) == list(range(size))
        assert all(np.all(np.diff(rows[split]) > 0) for split in SPLITS)
        assert len(rows["test"]) in (size // 3, math.ceil(size / 3))
        assert len(rows["val"]) == math.ceil((size - len(rows["test"])) / 5)
        rest = np.concatenate([rows["train"], rows["val"]])
        for label in set(drawn):
            assert abs(np.sum(classes[rows["test"]] == label) - np.sum(classes == label) / 3) < 1
            assert abs(np.sum(classes[rows["val"]] == label) - np.sum(classes[rest] == label) / 5) < 1
        tests.append(rows["test"].tolist())
    for repeat in (tests[:3], tests[3:]):
        assert sorted(row for test in repeat for row in test) == list(range(size))


def test_all_folds_differ_and_each_is_the_same_again() -> None:
    folds = [{split: tuple(rows.tolist()) for split, rows in make_fold(SYNTHETIC, f).items()} for f in range(6)]
    for split in SPLITS:
        assert len({fold[split] for fold in folds}) == 6
    assert folds == [{split: tuple(rows.tolist()) for split, rows in make_fold(SYNTHETIC, f).items()} for f in range(6)]


def test_the_global_random_state_plays_no_part() -> None:
    np.random.seed(1)  # noqa: NPY002
    one = make_fold(SYNTHETIC, 2)["test"].tolist()
    np.random.seed(2)  # noqa: NPY002
    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    assert make_fold(SYNTHETIC, 2)["test"].tolist() == one
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002


def test_other_numbers_for_the_same_classes_give_the_same_folds() -> None:
    for fold in range(NUM_FOLDS):
        one, other = make_fold(SYNTHETIC, fold), make_fold(1000 - 3 * SYNTHETIC, fold)
        assert all(np.array_equal(one[split], other[split]) for split in SPLITS)


@pytest.mark.parametrize(
    ("size", "num_classes", "expected"),
    [
        (46_960, 138, (25_044, 6_262, 15_654)),
        (35_050, 85, (18_692, 4_674, 11_684)),
        (500_000, 25, (266_666, 66_667, 166_667)),
    ],
)
def test_sizes_of_the_benchmarks(size: int, num_classes: int, expected: tuple[int, int, int]) -> None:
    """The first fold of each repeat gets the document that is left over."""
    for fold in (0, 3):
        rows = make_fold(np.arange(size) % num_classes, fold)
        assert tuple(len(rows[split]) for split in SPLITS) == expected


@pytest.mark.parametrize("small", [[1], [1, 1], [1, 2, 2], [*range(1, 20)]])
def test_classes_with_one_or_two_documents_are_split_without_a_warning(small: list[int]) -> None:
    classes = np.array([0] * 30 + small)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for fold in range(NUM_FOLDS):
            assert sum(len(rows) for rows in make_fold(classes, fold).values()) == len(classes)


@pytest.mark.parametrize("classes", [[0] * 7, [0] * 7 + [1] * 7, list(range(40))])
def test_too_few_documents_of_every_class_are_refused(classes: list[int]) -> None:
    most = max(classes.count(label) for label in classes)
    message = f"the most frequent label has {most} document\\(s\\); stratified folds need one with 8 or more"
    with pytest.raises(ValueError, match=f"^{message}$"):
        make_fold(np.array(classes), 0)


def test_eight_documents_of_one_class_are_enough() -> None:
    sizes = [[len(rows) for rows in make_fold(np.zeros(8, dtype=np.int32), fold).values()] for fold in range(3)]
    assert sizes == [[4, 1, 3], [4, 1, 3], [4, 2, 2]]
