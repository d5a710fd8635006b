"""The splits behind the paper's Table 1: repeated stratified cross-validation (Zangari et al. 2024)."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import RepeatedStratifiedKFold, StratifiedKFold

NUM_SPLITS, NUM_REPEATS = 3, 2
NUM_FOLDS = NUM_SPLITS * NUM_REPEATS
SEED = 772361728  # published with the protocol
_VALIDATION_PARTS = 5  # what is not for testing is cut into so many parts, one of which is for validation
_MIN_LARGEST_CLASS = 8  # documents: at least 5 of them are then not for testing, one for each validation part

Rows = npt.NDArray[np.int64]


def make_fold(classes: Rows, fold: int) -> dict[str, Rows]:
    """Return the rows of ``train``, ``val`` and ``test`` in one fold, ascending; the same on every machine.

    The folds are two repeats of three, stratified by class. A stratified fifth of what is not for testing is for
    validation. A class with fewer documents than folds is missing from some of them.

    Args:
        classes: ``[documents]``, the node that ends each document's path (the protocol's last label).
        fold: 0 to 2 in the first repeat, 3 to 5 in the second.

    Raises:
        ValueError: no class has enough documents.
    """
    assert 0 <= fold < NUM_FOLDS
    most = np.unique(classes, return_counts=True)[1].max()
    if most < _MIN_LARGEST_CLASS:
        raise ValueError(
            f"the most frequent label has {most} document(s); "
            f"stratified folds need one with {_MIN_LARGEST_CLASS} or more"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # known, see the docstring
        folds = RepeatedStratifiedKFold(n_splits=NUM_SPLITS, n_repeats=NUM_REPEATS, random_state=SEED)
        rest, test = list(folds.split(classes, classes))[fold]
        parts = StratifiedKFold(n_splits=_VALIDATION_PARTS, shuffle=True, random_state=SEED)
        train, val = next(parts.split(rest, classes[rest]))
    return {"train": rest[train], "val": rest[val], "test": test}
