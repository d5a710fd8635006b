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
from sklearn.model_selection import RepeatedStratifiedKFold, train_test_split

from ptmt_lightning.data.benchmarks.folds import NUM_FOLDS, SEED, VALIDATION_SEED, Rows, make_fold, published_rows

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


def expected_test(classes: Rows, fold: int) -> list[int]:
    rng = np.random.RandomState(772361728)
    part = [parts(rng, classes, 3) for _ in range(2)][fold // 3]
    return np.flatnonzero(part == fold % 3).tolist()


def test_the_seed_is_the_published_one() -> None:
    assert (SEED, VALIDATION_SEED, NUM_FOLDS) == (772361728, 936818217, 6)


@pytest.mark.parametrize(
    ("fold", "val", "first_of_test"),
    [
        (0, [6, 10, 16, 28, 32, 46, 51, 55], [0, 2, 15, 18, 19, 20]),
        (1, [8, 11, 19, 21, 23, 39, 50, 58], [1, 3, 9, 12, 13, 14]),
        (2, [12, 13, 16, 21, 41, 46, 52, 55], [4, 5, 6, 7, 8, 10]),
        (3, [8, 14, 17, 19, 45, 53, 54, 55], [1, 2, 4, 10, 15, 16]),
        (4, [6, 10, 12, 16, 28, 38, 50, 58], [5, 7, 11, 13, 14, 18]),
        (5, [13, 16, 19, 28, 32, 39, 43, 55], [0, 3, 6, 8, 9, 12]),
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
    assert digest.hexdigest() == "f87d7a00fafd6e54e3ea55701039c5c1c91ec6e18e05a35bf579eeac24c24fcc"


@given(drawn=DRAWN, fold=st.integers(0, 5))
def test_test_splits_are_those_of_an_independent_implementation(drawn: list[int], fold: int) -> None:
    classes = np.array(drawn)
    assert make_fold(classes, fold, stratified=False)["test"].tolist() == expected_test(classes, fold)


@pytest.mark.parametrize(("seed", "stratified"), [(936818217, True), (7, False), (936818217, False)])
def test_documents_are_those_of_scikit_learn_called_as_the_authors_call_it(seed: int, stratified: bool) -> None:
    labels = np.array([f"top_{i * i * 31 % 1009 % 20}" for i in range(600)])
    documents = np.array([f"text {i}" for i in range(600)])
    _, classes = np.unique(labels, return_inverse=True)
    splitter = RepeatedStratifiedKFold(n_splits=3, n_repeats=2, random_state=772361728)
    for fold, (rest, test) in enumerate(splitter.split(documents, labels)):
        train, val, _, _ = train_test_split(
            documents[rest], labels[rest], test_size=0.2, random_state=seed,
            stratify=labels[rest] if stratified else None,
        )  # fmt: skip
        rows = make_fold(classes, fold, seed=seed, stratified=stratified)
        expected = {"train": set(train), "val": set(val), "test": set(documents[test])}
        assert {split: set(documents[found]) for split, found in rows.items()} == expected
        in_test = np.zeros(600, dtype=bool)
        in_test[test] = True
        again = published_rows(classes, in_test, seed=seed, stratified=stratified)
        assert all(np.array_equal(again[split], rows[split]) for split in SPLITS)


@settings(max_examples=40)
@given(drawn=DRAWN)
def test_splits_are_whole_disjoint_ascending_stratified_and_of_the_right_size(drawn: list[int]) -> None:
    classes, size = np.array(drawn), len(drawn)
    tests: list[list[int]] = []
    for fold in range(NUM_FOLDS):
        rows = make_fold(classes, fold, stratified=False)
        assert tuple(rows) == SPLITS
        assert sorted(np.concatenate([rows[split] for split in SPLITS]).tolist()) == list(range(size))
        assert all(np.all(np.diff(rows[split]) > 0) for split in SPLITS)
        assert len(rows["test"]) in (size // 3, math.ceil(size / 3))
        assert len(rows["val"]) == math.ceil((size - len(rows["test"])) / 5)
        for label in set(drawn):
            assert abs(np.sum(classes[rows["test"]] == label) - np.sum(classes == label) / 3) < 1
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


def test_other_numbers_of_the_same_order_give_the_same_folds() -> None:
    for fold in range(NUM_FOLDS):
        one, other = make_fold(SYNTHETIC, fold), make_fold(1000 + 3 * SYNTHETIC, fold)
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


def test_a_class_of_one_document_can_be_drawn_without_strata_and_without_a_warning() -> None:
    classes = np.array([0] * 30 + [1, 2, 2, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for fold in range(NUM_FOLDS):
            assert sum(len(rows) for rows in make_fold(classes, fold, stratified=False).values()) == len(classes)
    message = (
        r"^no validation documents can be drawn from the 2[23] that are not for testing \(The least populated.*\); "
        r"set dataset\.val_stratified=false, or leave out rare labels$"
    )
    [fold] = [fold for fold in range(3) if 30 not in make_fold(classes, fold, stratified=False)["test"]][:1]
    with pytest.raises(ValueError, match=message):
        make_fold(classes, fold)


@pytest.mark.parametrize("classes", [[0, 0], [0, 1, 0, 1], list(range(40))])
def test_too_few_documents_of_every_class_are_refused(classes: list[int]) -> None:
    most = max(classes.count(label) for label in classes)
    message = f"the most frequent label has {most} document\\(s\\); stratified folds need one with 3 or more"
    with pytest.raises(ValueError, match=f"^{message}$"):
        make_fold(np.array(classes), 0)
