"""The splits behind the paper's Table 1: the publisher's test file, or repeated cross-validation (Zangari et al. 2024).

Validation documents are drawn from what is not for testing, as the authors do it: by scikit-learn's
``train_test_split``, a fifth, stratified, with a seed of its own. Their data scripts for HBGL and GACaps draw without
strata, with seed 7.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import RepeatedStratifiedKFold, train_test_split

NUM_SPLITS, NUM_REPEATS = 3, 2
NUM_FOLDS = NUM_SPLITS * NUM_REPEATS
SEED, VALIDATION_SEED = 772361728, 936818217  # published with the protocol
_VALIDATION_SHARE = 0.2

Rows = npt.NDArray[np.int64]


def make_fold(classes: Rows, fold: int, *, seed: int = VALIDATION_SEED, stratified: bool = True) -> dict[str, Rows]:
    """Return the rows of ``train``, ``val`` and ``test`` in one fold, ascending; the same on every machine.

    The folds are two repeats of three, stratified by class. A class with fewer documents than folds is missing from
    some of them.

    Args:
        classes: ``[documents]``, the node that ends each document's path (the protocol's last label).
        fold: 0 to 2 in the first repeat, 3 to 5 in the second.
        seed: seeds the drawing of validation documents.
        stratified: whether validation has the same share of each class.

    Raises:
        ValueError: too few documents.
    """
    assert 0 <= fold < NUM_FOLDS
    most = np.unique(classes, return_counts=True)[1].max()
    if most < NUM_SPLITS:
        raise ValueError(
            f"the most frequent label has {most} document(s); stratified folds need one with {NUM_SPLITS} or more"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # known, see the docstring
        folds = RepeatedStratifiedKFold(n_splits=NUM_SPLITS, n_repeats=NUM_REPEATS, random_state=SEED)
        rest, test = list(folds.split(classes, classes))[fold]
    return {**_with_validation(classes, rest, seed=seed, stratified=stratified), "test": test}


def published_rows(
    classes: Rows, in_test: npt.NDArray[np.bool_], *, seed: int = VALIDATION_SEED, stratified: bool = True
) -> dict[str, Rows]:
    """Return the rows of ``train``, ``val`` and ``test`` where the publisher has set the test documents apart.

    Args:
        classes: ``[documents]``, the node that ends each document's path.
        in_test: ``[documents]``, whether the publisher has a document in the test file.
        seed: seeds the drawing of validation documents.
        stratified: whether validation has the same share of each class.

    Raises:
        ValueError: too few documents for validation.
    """
    rest = _with_validation(classes, np.flatnonzero(~in_test), seed=seed, stratified=stratified)
    return {**rest, "test": np.flatnonzero(in_test)}


def _with_validation(classes: Rows, rest: Rows, *, seed: int, stratified: bool) -> dict[str, Rows]:
    strata = classes[rest] if stratified else None
    try:
        train, val = train_test_split(rest, test_size=_VALIDATION_SHARE, random_state=seed, stratify=strata)
    except ValueError as error:
        remedy = "; set dataset.val_stratified=false, or leave out rare labels" if stratified else ""
        raise ValueError(
            f"no validation documents can be drawn from the {len(rest)} that are not for testing ({error}){remedy}"
        ) from error
    return {"train": np.sort(train), "val": np.sort(val)}
