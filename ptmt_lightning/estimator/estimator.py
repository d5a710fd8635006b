"""Training and prediction as scikit-learn knows them.

Shape legend: ``N`` texts, ``V`` nodes.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted
from torch import Tensor

from ptmt_lightning.backbones import FromScratch, Pretrained
from ptmt_lightning.data.tables.module import TableDataModule
from ptmt_lightning.data.tables.options import TableOptions
from ptmt_lightning.estimator.labels import Labelled, entries, nodes_of, read_labels, read_texts
from ptmt_lightning.inference import Classifier
from ptmt_lightning.inference.model_folder import present_device
from ptmt_lightning.metrics import HierarchicalMetrics
from ptmt_lightning.models.base import HTCModel
from ptmt_lightning.models.bert import BERTClassifier
from ptmt_lightning.models.bert_ml import BERTML
from ptmt_lightning.models.frozen import FrozenEncoder
from ptmt_lightning.models.gacaps import GACaps
from ptmt_lightning.models.hbgl import HBGL
from ptmt_lightning.models.hpt import HPT
from ptmt_lightning.models.ptmt.module import PTMT
from ptmt_lightning.run_folder.paths import RunFolder
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.training.build import BackboneSource, BuildModel, build
from ptmt_lightning.training.train import train
from ptmt_lightning.training.trainer import make_trainer
from ptmt_lightning.utils.checks import check_range

SYSTEMS: Mapping[str, type[HTCModel]] = {
    kind.system: kind for kind in (PTMT, BERTClassifier, BERTML, FrozenEncoder, GACaps, HBGL, HPT)
}
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


class PTMTClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Hierarchical text classification as an estimator of scikit-learn.

    ``fit`` takes texts and their label paths, each entry of which is one of

    - a text, ``"Hardware > Printer"``, several paths as ``"Hardware > Printer | Account"``: the form that all tools of
      scikit-learn take;
    - one path, ``["Hardware", "Printer"]`` or a tuple;
    - a list of paths, ``[["Hardware", "Printer"], ["Account"]]``. With these, and with single paths, tools that divide
      the data need a splitter in the place of a number: ``cv=KFold(3)``.

    ``predict`` returns what ``fit`` was given. The taxonomy is the tree of all paths, unless ``taxonomy`` says it.

    Args:
        backbone: the language model: ``minilm`` for all-MiniLM-L6-v2, a folder, a name of the Hugging Face hub,
            ``tiny`` for a small one with random weights, or an object such as ``Pretrained(name, max_length=128)``.
        model: the system: ``ptmt``, ``bert``, ``bert_ml``, ``frozen``, ``gacaps``, ``hbgl``, ``hpt``; or a class of
            one, or a ``functools.partial`` of a class with settings.
        taxonomy: file of the taxonomy, or all label paths in a form of the above; None for those of the texts.
        max_epochs: passes over the training texts.
        max_steps: training steps after which training ends, if that is sooner; -1 for no such end.
        patience: epochs without a better score on the validation texts after which training ends; None for never.
        batch_size: texts of a training step.
        learning_rate: highest learning rate; None for the system's own, which fits the backbone.
        val_share: share of the texts that is drawn for validation, where ``fit`` is given none: not trained on, it
            decides which epoch is kept.
        level_separator: between the labels of a path that is a text.
        path_separator: between several paths in one text; None where each text is one path.
        device: device to train and predict on, such as ``cpu`` or ``cuda``; None for a GPU where there is one.
        run_dir: folder in which the run is kept, for a single ``fit``: settings, curves, ``model/``. None keeps the
            model alone, as long as the estimator.
        random_state: number, or random state, from which all that is drawn follows; None for another at each ``fit``.
        verbose: show a progress bar.

    Attributes:
        classifier_: the trained :class:`~ptmt_lightning.inference.Classifier`; its ``save_pretrained`` writes a folder
            for ``ptmt predict``, ``serve`` and ``export``.
        taxonomy_: the taxonomy.
        classes_: names of the nodes, in the order of the columns of ``predict_proba``.
        label_form_: the form of the labels that ``fit`` was given.
        result_: content of the run's ``result.json``.
    """

    def __init__(
        self,
        backbone: str | BackboneSource = "minilm",
        *,
        model: str | BuildModel = "ptmt",
        taxonomy: str | Path | Sequence[Any] | None = None,
        max_epochs: int = 20,
        max_steps: int = -1,
        patience: int | None = 10,
        batch_size: int = 32,
        learning_rate: float | None = None,
        val_share: float = 0.1,
        level_separator: str = ">",
        path_separator: str | None = "|",
        device: str | None = None,
        run_dir: str | Path | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.backbone = backbone
        self.model = model
        self.taxonomy = taxonomy
        self.max_epochs = max_epochs
        self.max_steps = max_steps
        self.patience = patience
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.val_share = val_share
        self.level_separator = level_separator
        self.path_separator = path_separator
        self.device = device
        self.run_dir = run_dir
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        """Return what scikit-learn's tools should know: an entry of ``X`` is a text."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags

    def fit(self, X: Any, y: Any, *, validation: tuple[Any, Any] | None = None) -> Self:
        """Train on texts and their label paths.

        Args:
            X: texts, ``N`` of them: a list, an array or a column of a data frame.
            y: the label paths of each, in one of the forms of this class.
            validation: further texts and label paths, which decide which epoch is kept; None to draw them from these.

        Returns:
            The estimator itself.

        Raises:
            ValueError: a text, a label or a setting can't be used; the message says which and what to do.
        """
        self._check_settings()
        seed = self._seed()
        given = self._labelled(X, y)
        if not any(given.paths):
            raise ValueError("y: expected a label path of at least one text, got none; add the labels")
        more = None if validation is None else self._labelled(*validation, ("validation[0]", "validation[1]"))
        with tempfile.TemporaryDirectory(prefix="ptmt-") as work, isolate_rng():
            datamodule = self._datamodule(given, more, seed, Path(work))
            model = build(datamodule, self._backbone(), self._build_model(), seed=seed)
            run_dir = Path(work, "run") if self.run_dir is None else Path(self.run_dir)
            trainer = make_trainer(
                run_dir, patience=self.patience, max_epochs=self.max_epochs, max_steps=self.max_steps,
                enable_progress_bar=self.verbose, **self._hardware(),
            )  # fmt: skip
            draw = self.run_dir is not None
            result = train(datamodule=datamodule, model=model, run_dir=run_dir, trainer=trainer, draw=draw)
            self._open({path.name: path for path in RunFolder(run_dir).model.iterdir()})
        self.result_, self.label_form_ = result, given.form
        return self

    def predict(self, X: Any) -> npt.NDArray[np.object_]:
        """Return the label paths of each text, in the form that ``fit`` was given: objects ``[N]``.

        Raises:
            ValueError: an entry is no text.
        """
        check_is_fitted(self)
        found = list(self.classifier_.predict(iter(entries(X, "X"))))  # without a progress bar
        shaped = np.empty(len(found), dtype=object)
        for row, prediction in enumerate(found):  # NumPy would make a table of lists of one length
            shaped[row] = self.label_form_.shaped([path.labels for path in prediction])
        return shaped

    def predict_proba(self, X: Any) -> npt.NDArray[np.float32]:
        """Return the probability of each node for each text, ``[N, V]``; the columns are ``classes_``.

        Each node has a probability of its own: a row does not add up to 1.

        Raises:
            ValueError: an entry is no text.
        """
        check_is_fitted(self)
        probabilities: npt.NDArray[np.float32] = self.classifier_.probabilities(entries(X, "X")).numpy()
        return probabilities

    def score(self, X: Any, y: Any) -> float:
        """Return the hierarchical macro F1, ``h_f1_macro``, of predictions for texts with known label paths.

        A label that is in no training text counts as one that is never predicted, unless ``taxonomy`` is given.

        Args:
            X: texts, ``N`` of them.
            y: the label paths of each, in one of the forms of this class.

        Raises:
            ValueError: an entry is no text or no label, or is not in the given taxonomy.
        """
        check_is_fitted(self)
        texts, paths, _ = self._labelled(X, y)
        taxonomy = self.taxonomy_
        if self.taxonomy is None:
            known = [taxonomy.path_names(taxonomy.path_to(node)) for node in range(len(taxonomy))]
            taxonomy = Taxonomy.from_paths([*known, *(path for several in paths for path in several)])
        targets = torch.zeros(len(texts), len(taxonomy), dtype=torch.bool)
        for row, nodes in enumerate(nodes_of(taxonomy, paths, "y")):
            targets[row, nodes] = True
        probabilities = self.classifier_.probabilities(texts)
        places = torch.tensor(self.taxonomy_.nodes_in(taxonomy))

        def placed(scores: Tensor) -> Tensor:
            return scores.new_zeros(targets.shape).index_copy(1, places, scores)

        metrics = HierarchicalMetrics(taxonomy)
        metrics.update(placed(self.classifier_.rule.predict(probabilities)), targets, placed(probabilities))
        return metrics.compute().values["h_f1_macro"]

    # ---- the parts of a training ----

    def _check_settings(self) -> None:
        check_range("max_epochs", self.max_epochs, -1, integer=True)
        check_range("max_steps", self.max_steps, -1, integer=True)
        check_range("batch_size", self.batch_size, 1, integer=True)
        if self.learning_rate is not None:
            check_range("learning_rate", self.learning_rate, 0)
        if isinstance(self.model, str) and self.model not in SYSTEMS:
            raise ValueError(
                f"model={self.model!r}: expected one of {', '.join(SYSTEMS)}, a class derived from HTCModel, or a "
                "partial of one; set model to it"
            )
        if self.run_dir is not None and any(Path(self.run_dir).glob("*")):
            raise ValueError(f"run_dir={str(self.run_dir)!r}: there is something in it; give a new folder")

    def _seed(self) -> int:
        if isinstance(self.random_state, Integral):
            check_range("random_state", self.random_state, 0, 2**32 - 1, integer=True)
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31))

    def _options(self) -> TableOptions:
        return TableOptions(level_separator=self.level_separator, path_separator=self.path_separator, prefix="")

    def _labelled(self, X: Any, y: Any, keys: tuple[str, str] = ("X", "y")) -> Labelled:
        labelled = Labelled(read_texts(X, keys[0]), *read_labels(y, keys[1], self._options()))
        check_consistent_length(labelled.texts, labelled.paths)
        return labelled

    def _datamodule(self, given: Labelled, validation: Labelled | None, seed: int, work: Path) -> TableDataModule:
        texts, paths = given.texts, given.paths
        taxonomy = self._taxonomy_file(work)
        if taxonomy is not None:
            nodes_of(Taxonomy.from_tsv(taxonomy), paths, "y")  # refuses others
        splits = ["train"] * len(texts)
        if validation is not None:
            texts, paths = texts + validation.texts, paths + validation.paths
            splits += ["val"] * len(validation.texts)
        return TableDataModule(
            pd.DataFrame({"text": texts, "labels": paths, "split": splits}),
            text="text", paths="labels", split_column=None if validation is None else "split", taxonomy=taxonomy,
            split_seed=seed, val_share=self.val_share, test_share=0, prefix="",
            batch_size=self.batch_size, seed=seed, cache_dir=str(work / "data"),
        )  # fmt: skip

    def _taxonomy_file(self, work: Path) -> str | None:
        if self.taxonomy is None:
            return None
        if isinstance(self.taxonomy, (str, Path)):
            return str(self.taxonomy)
        paths, _ = read_labels(self.taxonomy, "taxonomy", self._options())
        Taxonomy.from_paths([path for several in paths for path in several]).to_tsv(work / "taxonomy.tsv")
        return str(work / "taxonomy.tsv")

    def _backbone(self) -> BackboneSource:
        if not isinstance(self.backbone, str):
            return self.backbone
        if self.backbone == "tiny":
            return FromScratch()
        return Pretrained(MINILM if self.backbone == "minilm" else self.backbone)

    def _build_model(self) -> BuildModel:
        model: Any = SYSTEMS[self.model] if isinstance(self.model, str) else self.model
        if self.learning_rate is None:
            return model  # type: ignore[no-any-return]
        system = getattr(model, "func", model)  # of a partial
        optimizer = getattr(model, "keywords", {}).get("optimizer") or system.published_optimizer()
        return partial(model, optimizer=replace(optimizer, learning_rate=self.learning_rate))

    def _hardware(self) -> dict[str, Any]:
        if self.device is None:
            return {}
        device = present_device(self.device)
        return {"accelerator": device.type, "devices": 1 if device.index is None else [device.index]}

    # ---- the trained model ----

    def _open(self, files: Mapping[str, Path | bytes]) -> None:
        """Open a saved model, of whose files there is a copy as long as the classifier is there."""
        folder = Path(tempfile.mkdtemp(prefix="ptmt-model-"))
        with ExitStack() as unless_opened:
            unless_opened.callback(shutil.rmtree, folder, ignore_errors=True)
            for name, content in files.items():
                if isinstance(content, Path):
                    shutil.copyfile(content, folder / name)
                else:
                    (folder / name).write_bytes(content)
            self.classifier_ = Classifier.from_pretrained(folder, device=self.device)
            unless_opened.pop_all()
        weakref.finalize(self.classifier_, shutil.rmtree, folder, ignore_errors=True)
        self.taxonomy_ = self.classifier_.taxonomy
        self.classes_ = np.array(self.taxonomy_.names)

    def __getstate__(self) -> dict[str, Any]:
        """Return the settings, and in the place of the trained model its files."""
        state: dict[str, Any] = {**super().__getstate__()}  # a copy of what may be the estimator's own dictionary
        if (classifier := state.pop("classifier_", None)) is not None:
            state["_files"] = {path.name: path.read_bytes() for path in classifier.folder.path.iterdir()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over the settings, and open the trained model."""
        files = state.pop("_files", None)
        super().__setstate__(state)
        if files is not None:
            self._open(files)
