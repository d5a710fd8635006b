"""The estimator before scikit-learn's own checks, which know numbers only: each row of numbers is read as a text."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pytest
from conftest import tiny_source
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ptmt_lightning.estimator import PTMTClassifier

EXPECTED_TO_FAIL = {
    "check_classifiers_classes": "classes_ are the names of all nodes, not the labels as they were given",
    "check_classifiers_train": "each node has a probability of its own: a row does not add up to 1",
    "check_methods_sample_order_invariance": "another batch changes probabilities by rounding, 1e-8, not by less",
    "check_fit2d_1sample": "one text is refused as too few to draw some for validation, in words of this project's",
}


class OnNumbers(PTMTClassifier):
    """Takes rows of numbers, a word for each, and numbers or words as labels of one level."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.one_d_array, tags.input_tags.string = True, False, False
        tags.classifier_tags.poor_score = True  # of a few steps
        return tags

    def fit(self, X: Any, y: Any) -> Self:  # type: ignore[override]
        X, y = validate_data(self, X, y)
        check_classification_targets(y)
        self.labels_ = {f"label {label}": label for label in y.tolist()}
        self.dtype_ = y.dtype
        return super().fit(texts(X), [f"label {label}" for label in y.tolist()])

    def predict(self, X: Any) -> npt.NDArray[Any]:
        found = super().predict(self._texts(X))
        return np.array([self.labels_[label] for label in found], dtype=self.dtype_)

    def predict_proba(self, X: Any) -> npt.NDArray[np.float32]:
        return super().predict_proba(self._texts(X))

    def score(self, X: Any, y: Any) -> float:
        return super().score(self._texts(X), [f"label {label}" for label in np.asarray(y).tolist()])

    def _texts(self, X: Any) -> list[str]:
        check_is_fitted(self)
        return texts(validate_data(self, X, reset=False))


def texts(X: npt.NDArray[Any]) -> list[str]:
    """A word for each number, and the whole row as one."""
    rows = X.astype(float).tolist()
    return [" ".join(f"c{column}v{value:.0f}" for column, value in enumerate(row)) + f" {row}" for row in rows]


@pytest.mark.slow
def test_all_checks_of_scikit_learn() -> None:
    """Forty trainings."""
    estimator = OnNumbers(
        tiny_source(), max_epochs=1, max_steps=2, batch_size=8, patience=None, device="cpu", random_state=0
    )
    results = check_estimator(estimator, expected_failed_checks=EXPECTED_TO_FAIL, on_skip=None)
    status = {result["check_name"]: result["status"] for result in results}
    assert len(results) > 45
    assert {name for name, found in status.items() if found == "xfail"} <= EXPECTED_TO_FAIL.keys()
    assert status["check_estimators_pickle"] == status["check_fit_idempotent"] == "passed"
