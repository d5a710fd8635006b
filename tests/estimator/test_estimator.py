"""The estimator: it trains, predicts in the form that it was given, and goes through scikit-learn's own checks."""

from __future__ import annotations

import copy
import gc
import pickle
import random
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import ROOT_DIR, TOY_EDGES, tiny_source, write_folder
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MultiLabelBinarizer
from sklearn.utils import estimator_checks

from ptmt_lightning.estimator import PTMTClassifier
from ptmt_lightning.estimator.estimator import MINILM, SYSTEMS
from ptmt_lightning.inference import Classifier
from ptmt_lightning.models.ptmt.module import PTMT
from ptmt_lightning.models.saved import registry

WORDS = {
    ("Hardware", "Printer"): "paper jams",
    ("Hardware", "Screen"): "black pixels",
    ("Account", "Password"): "login expired",
}
PATHS = [list(path) for path in WORDS] * 8
TEXTS = [f"{words} ticket {i}" for i in range(8) for words in WORDS.values()]
LABELS = [" > ".join(path) for path in PATHS]
SEVERAL = [[path] if row % 2 else [path, ["Account", "Password"]] for row, path in enumerate(PATHS)]


def made(**settings: Any) -> PTMTClassifier:
    """An estimator that is fitted in a few steps."""
    fast: dict[str, Any] = {
        "backbone": tiny_source(), "max_epochs": 1, "batch_size": 8, "device": "cpu",
        "random_state": 0,
    }  # fmt: skip
    return PTMTClassifier(**fast | settings)


@pytest.fixture(scope="module")
def fitted() -> PTMTClassifier:
    """An estimator that has learned the words of its texts."""
    return made(max_epochs=20, learning_rate=1e-2).fit(TEXTS, LABELS)


# ---- scikit-learn's checks ----


@estimator_checks.parametrize_with_checks([made()])
def test_checks_for_every_estimator(estimator: PTMTClassifier, check: Any) -> None:
    """Of estimators of texts, scikit-learn checks little else: all of it is asked in test_sklearn_checks.py."""
    check(estimator)


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_estimator_cloneable, estimator_checks.check_estimator_tags_renamed,
        estimator_checks.check_valid_tag_types, estimator_checks.check_estimator_repr,
        estimator_checks.check_no_attributes_set_in_init, estimator_checks.check_mixin_order,
        estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
        estimator_checks.check_parameters_default_constructible, estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
    ],
)  # fmt: skip
def test_checks_without_data(check: Any) -> None:
    check("PTMTClassifier", made())


@pytest.mark.slow
def test_what_the_checks_with_numbers_ask_of_fit_and_predict(fitted: PTMTClassifier) -> None:
    settings = fitted.get_params()
    state = {**vars(fitted)}
    predicted = fitted.predict(TEXTS)
    probabilities = fitted.predict_proba(TEXTS)
    assert vars(fitted) == state  # a prediction changes nothing
    order = np.random.default_rng(0).permutation(len(TEXTS))
    np.testing.assert_array_equal(fitted.predict([TEXTS[row] for row in order]), predicted[order])
    alone = np.concatenate([fitted.predict_proba([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, probabilities, rtol=1e-4, atol=1e-5)
    given = made()
    before = given.get_params()
    assert given.fit(TEXTS, LABELS) is given
    assert given.get_params() == before
    first = given.predict_proba(TEXTS)
    np.testing.assert_array_equal(given.fit(TEXTS, LABELS).predict_proba(TEXTS), first)  # fitted anew, not further
    assert clone(fitted).get_params() == settings
    for use in (made().predict, made().predict_proba, partial(made().score, y=LABELS)):
        with pytest.raises(NotFittedError):
            use(TEXTS)


# ---- what it learns, and how well ----


def test_it_learns(fitted: PTMTClassifier) -> None:
    assert fitted.predict(TEXTS).tolist() == LABELS
    assert fitted.score(TEXTS, LABELS) == 1
    assert accuracy_score(LABELS, fitted.predict(pd.Series(TEXTS))) == 1
    assert fitted.classes_.tolist() == ["Account", "Hardware", "Password", "Printer", "Screen"]
    assert fitted.classifier_.predict(TEXTS[0])[0].labels == ("Hardware", "Printer")
    found = fitted.predict_proba(TEXTS)
    assert (found.dtype, found.shape) == (np.float32, (len(TEXTS), 5))
    np.testing.assert_array_equal(found, fitted.classifier_.probabilities(TEXTS).numpy())
    assert fitted.result_["num_documents"] == {"train": 22, "val": 2}


def augmented(label: str) -> set[str]:
    """All beginnings of a path."""
    names = label.split(" > ")
    return {" > ".join(names[: end + 1]) for end in range(len(names))}


def test_the_score_is_the_macro_f1_of_labels_with_what_is_above_them(fitted: PTMTClassifier) -> None:
    true = [*LABELS[:-4], "Account > Password", "Account > Key", "Account", "Hardware > Printer"]
    sets = [[augmented(label) for label in labels] for labels in (true, fitted.predict(TEXTS))]
    known = MultiLabelBinarizer().fit(sets[0] + sets[1])  # with a label that was in no training text
    expected = f1_score(*map(known.transform, sets), average="macro", zero_division=0)
    assert fitted.score(TEXTS, true) == pytest.approx(expected, abs=1e-6)
    assert expected < 0.9


def test_several_paths() -> None:
    estimator = made(model=partial(PTMT, threshold=0.01)).fit(pd.Series(TEXTS, index=range(5, 29)), SEVERAL)
    found = estimator.predict(TEXTS[:4])
    assert found.shape == (4,)
    assert found.tolist() == [[list(path.labels) for path in p] for p in estimator.classifier_.predict(TEXTS[:4])]
    assert max(map(len, found)) > 1
    assert 0 < estimator.score(TEXTS, SEVERAL) < 1


# ---- validation, taxonomy, settings, chance ----


def test_validation_texts_of_ones_own() -> None:
    estimator = made(val_share=0.0).fit(TEXTS[:18], LABELS[:18], validation=(TEXTS[18:], LABELS[18:]))
    assert estimator.result_["num_documents"] == {"train": 18, "val": 6}
    assert estimator.result_["val"]["h_f1_macro"] == pytest.approx(estimator.score(TEXTS[18:], LABELS[18:]), abs=1e-6)


def test_a_taxonomy_of_ones_own(tmp_path: Path) -> None:
    known = [*LABELS, "Account > Key"]
    estimator = made(taxonomy=known).fit(TEXTS, LABELS)
    assert "Key" in estimator.classes_
    with pytest.raises(ValueError, match=r"^y\[1\]: label 'Kye' is not in the taxonomy \(did you mean 'Key'\?\); "):
        estimator.score(TEXTS[:2], ["Account > Key", "Account > Kye"])
    path = write_folder(tmp_path, [*TOY_EDGES, ("C", "AAA")]) / "taxonomy.tsv"  # a DAG
    estimator.set_params(taxonomy=path).fit(TEXTS, ["C > AAA", "A > AA > AAA"] * 12)
    assert [(a, b) for a, b in estimator.taxonomy_.edges if b == "AAA"] == [("AA", "AAA"), ("C", "AAA")]
    assert 0 <= estimator.score(TEXTS[:2], ["C > AAA", "B"]) <= 1


def test_systems_and_settings() -> None:
    assert list(SYSTEMS) == list(registry.SYSTEMS)
    assert yaml.safe_load((ROOT_DIR / "conf/backbone/minilm.yaml").read_text())["name"] == MINILM
    estimator = made(model=partial(PTMT, num_prompt_tokens=2), learning_rate=0.5)
    estimator.set_params(taxonomy=None, batch_size=5).fit(TEXTS, LABELS)
    settings = estimator.classifier_.folder.settings
    assert len(settings["template"]["prompt_ids"]) == 2
    assert estimator.result_["steps"] == 5


@pytest.mark.parametrize("system", [pytest.param(name, marks=pytest.mark.slow) for name in SYSTEMS])
def test_every_system(system: str) -> None:
    estimator = made(model=system, backbone=tiny_source(num_layers=3), learning_rate=1e-3).fit(TEXTS, SEVERAL)
    assert estimator.classifier_.folder.settings_file.name == f"{system}.json"
    assert estimator.predict(TEXTS).shape == (len(TEXTS),)


def test_the_random_state_gives_the_seed_and_no_other_is_changed() -> None:
    states = torch.get_rng_state(), random.getstate()
    estimator = made(random_state=np.random.RandomState(1)).fit(TEXTS, LABELS)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert estimator.result_["seed"] == np.random.RandomState(1).randint(2**31)


# ---- what is kept ----


def test_copies_predict_the_same_and_leave_nothing(fitted: PTMTClassifier, tmp_path: Path) -> None:
    expected = fitted.predict_proba(TEXTS)
    copies = [pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)]
    folders = [made_.classifier_.folder.path for made_ in (fitted, *copies)]
    assert all(one != other for one, other in pairwise(folders))
    for same in copies:
        np.testing.assert_array_equal(same.predict_proba(TEXTS), expected)
        assert same.predict(TEXTS[:2]).tolist() == LABELS[:2]
        assert same.get_params().keys() == fitted.get_params().keys()
    fitted.classifier_.save_pretrained(tmp_path / "new/model")
    del same, copies
    gc.collect()
    assert [folder.exists() for folder in folders] == [True, False, False]
    np.testing.assert_array_equal(Classifier.from_pretrained(tmp_path / "new/model").probabilities(TEXTS), expected)
    assert pickle.loads(pickle.dumps(made())).get_params().keys() == made().get_params().keys()  # not fitted


def test_a_run_is_kept_where_it_is_asked_for(tmp_path: Path) -> None:
    estimator = made(run_dir=tmp_path / "run").fit(TEXTS, LABELS)
    assert (tmp_path / "run/result.json").exists()
    assert [*(tmp_path / "run/figures").iterdir()]
    found = Classifier.from_pretrained(tmp_path / "run/model").probabilities(TEXTS)
    np.testing.assert_array_equal(found, estimator.predict_proba(TEXTS))
    with pytest.raises(ValueError, match=r"^y\[0\]=3: "):
        estimator.set_params(run_dir=None).fit(TEXTS, [3] * len(TEXTS))
    assert estimator.set_params(run_dir=tmp_path / "run").predict(TEXTS[:1]).shape == (1,)  # as it was before
    with pytest.raises(ValueError, match=r"^run_dir='.*/run': there is something in it; give a new folder"):
        estimator.fit(TEXTS, LABELS)


# ---- tools ----


@pytest.mark.slow
def test_tools_that_fit_it_many_times() -> None:
    """Seven trainings."""
    found = cross_val_score(made(), TEXTS, LABELS, cv=2)
    assert len(found) == 2
    assert np.isfinite(found).all()
    assert np.isfinite(cross_val_score(made(), TEXTS, SEVERAL, cv=KFold(2))).all()
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    pipeline = make_pipeline(lower, made())
    search = GridSearchCV(pipeline, {"ptmtclassifier__learning_rate": [1e-5, 1e-2]}, cv=KFold(2), scoring="accuracy")
    search.fit([text.upper() for text in TEXTS], LABELS)
    assert search.predict(["PAPER JAMS"]).shape == (1,)
    assert set(search.cv_results_["param_ptmtclassifier__learning_rate"]) == {1e-5, 1e-2}


# ---- mistakes ----


@pytest.mark.parametrize(
    ("settings", "data", "message"),
    [
        ({}, ("a text", LABELS), r"X: expected a list, an array or a column, got str; give a list"),
        ({}, (pd.DataFrame({"text": TEXTS}), LABELS), r"X: expected .*, got DataFrame; give one column of it"),
        ({}, ([None, *TEXTS[1:]], LABELS), r"X\[0\]=None: expected a text; fill it in, or leave it out"),
        ({}, ([*TEXTS[1:], " "], LABELS), r"column 'X\[23\]': the text is empty; fill it in"),
        ({}, (TEXTS, LABELS[1:]), r"Found input variables with inconsistent numbers of samples: \[24, 23\]"),
        ({}, (TEXTS, [3, *LABELS[1:]]), r"y\[0\]=3: expected a text such as 'A > B', a path such as"),
        ({}, (TEXTS, [*LABELS[1:], ["A"]]), r"y\[0\] is a text, y\[23\] is a path; expected one form for all"),
        ({}, (TEXTS, [*LABELS[1:], "A >"]), r"column 'y\[23\]': 'A >': an empty label beside a separator; .*set level"),
        ({}, (TEXTS, [""] * 24), r"y: expected a label path of at least one text, got none; add the labels"),
        ({}, (["one"] * 24, LABELS), r"1 different text\(s\) to draw from are too few for a val split; .*val_share"),
        ({"val_share": 0.0}, (TEXTS, LABELS), r"no validation split, which training needs; set val_share"),
        ({"val_share": 2.0}, (TEXTS, LABELS), r"val_share=2\.0: expected a number in \[0, 1\)"),
        ({"model": "tfidf"}, (TEXTS, LABELS), r"model='tfidf': expected one of ptmt, bert, bert_ml, "),
        ({"batch_size": 0}, (TEXTS, LABELS), r"batch_size=0: expected an integer >= 1; set batch_size to one"),
        ({"max_epochs": 1.5}, (TEXTS, LABELS), r"max_epochs=1\.5: expected an integer >= -1"),
        ({"random_state": -1}, (TEXTS, LABELS), r"random_state=-1: expected an integer in"),
        ({"learning_rate": -1}, (TEXTS, LABELS), r"learning_rate=-1: expected a number >= 0"),
        ({"device": "cuda:99"}, (TEXTS, LABELS), r"device='cuda:99': not there"),
        ({"backbone": "nowhere/at-all"}, (TEXTS, LABELS), r"backbone\.name='nowhere/at-all'.*the hub can't be reached"),
        ({"taxonomy": ["A > B"]}, (TEXTS, LABELS), r"y\[0\]: label 'Hardware' is not in the taxonomy; correct it, or"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_line(settings: dict[str, Any], data: tuple[Any, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^[^\n]*{message}[^\n]*$"):
        made(**settings).fit(*data)
