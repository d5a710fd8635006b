"""A whole run of the TF-IDF baseline: fit, choose C and thresholds on validation, test, and leave a run folder.

Shape legend: ``N`` documents, ``V`` nodes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ptmt_lightning.backbones.vocabulary import word_tokenizer
from ptmt_lightning.data.datamodule import HTCDataModule
from ptmt_lightning.data.document import SPLITS
from ptmt_lightning.decisions import DecisionRule
from ptmt_lightning.metrics import HierarchicalMetrics, MetricValues
from ptmt_lightning.models.tfidf import TfidfClassifier, Weights
from ptmt_lightning.run_folder.paths import RunFolder
from ptmt_lightning.run_folder.prediction import DocumentPrediction, document_predictions
from ptmt_lightning.run_folder.result import environment, write_config
from ptmt_lightning.training.artifacts import FinishedRun, Tested, write_model, write_run
from ptmt_lightning.training.build import fit_decoding
from ptmt_lightning.training.checks import check_settings, validation_scores
from ptmt_lightning.training.fit_rule import calibration_summary, fit_rule, uncalibrated_counts
from ptmt_lightning.training.loggers import RunWandbLogger
from ptmt_lightning.utils.secrets import masked

log = logging.getLogger(__name__)

_CHUNK = 4096  # documents that are decided at a time, to bound memory


def build_tfidf(
    datamodule: HTCDataModule, build_model: Callable[..., TfidfClassifier], *, monitor: str = "val/h_f1_macro"
) -> TfidfClassifier:
    """Make the model for the taxonomy of the data, and prepare these.

    Args:
        datamodule: of the documents.
        build_model: the model's class, or a partial of it with settings.
        monitor: the score by which C will be chosen.

    Raises:
        ValueError: the data or a setting can't be used; the message says which and what to do.
    """
    check_settings(build_model)
    datamodule.prepare_data()
    model = build_model(taxonomy=datamodule.taxonomy)
    if monitor not in (known := validation_scores(model.taxonomy)):
        raise ValueError(f"monitor={monitor!r}: model=tfidf has no such metric; set one of {', '.join(known)}")
    # Of the data's cache, ids, nodes and fingerprint are needed, and no tokens.
    datamodule.connect(tokenizer=word_tokenizer([], 0), max_tokens=1, train_collator=list, eval_collator=list)
    fit_decoding(model, datamodule)
    return model


def fit_tfidf(
    *,
    datamodule: HTCDataModule,
    model: TfidfClassifier,
    run_dir: Path | str,
    config: Mapping[str, Any],
    monitor: str = "val/h_f1_macro",
    test: bool = True,
    wandb_logger: RunWandbLogger | None = None,
) -> dict[str, Any]:
    """Fit a model, test it, and write a run folder like that of a trained system, without curves.

    Args:
        datamodule: connected by :func:`build_tfidf`.
        model: of the same function; at the end it has the weights and thresholds that are best on validation.
        run_dir: the folder of the run.
        config: every setting of the run, in plain types, for ``config.yaml`` and W&B. Its part ``run`` (names of model,
            backbone, loss, variant) goes into ``result.json`` as it is.
        monitor: the score by which C is chosen.
        test: score the test split, if there is one.
        wandb_logger: logs the run to W&B.

    Returns:
        The content of ``result.json``.

    Raises:
        ValueError: the folder holds another run, or the texts have no words.
    """
    folder = RunFolder(Path(run_dir))
    folder.check_free()
    folder.clear()
    write_config(folder, masked(dict(config)))
    log.info("run folder: %s", folder.path)
    if wandb_logger:
        wandb_logger.keep_id(folder)
        wandb_logger.log_hyperparams(masked({**config, "dataset_fingerprint": datamodule.fingerprint}))
        if address := getattr(wandb_logger.experiment, "url", None):
            log.info("W&B: %s", address)
    started = time.perf_counter()
    best = _best_fit(datamodule, model, monitor.removeprefix("val/"))
    model.weights, model.rule = best.weights, best.rule
    seconds = {"fit": round(time.perf_counter() - started, 2)}
    write_model(folder, model)
    tested = _test(datamodule, model) if test and datamodule.has_split("test") else None
    if tested:
        seconds["test"] = tested.seconds
    result = {
        "dataset": datamodule.name,
        "dataset_fingerprint": datamodule.fingerprint,
        "dataset_protocol": datamodule.protocol,
        **config.get("run", {}),
        "seed": datamodule.seed,
        "train_fraction": datamodule.train_fraction,
        "val": best.scores,
        "test": tested.metrics.values if tested else {},
        "C": best.C,
        "decoding": model.rule.decoding,
        "thresholds": list(model.rule.thresholds),
        "calibration": calibration_summary(model.rule, *(tested.score_counts if tested else (None, None))),
        "label_embeddings": None,
        "best_checkpoint": None,
        "best_score": best.scores[monitor.removeprefix("val/")],
        "epochs": 0,
        "steps": 0,
        "seconds": seconds,
        "num_documents": {split: datamodule.num_documents(split) for split in SPLITS if datamodule.has_split(split)},
        "num_parameters": model.num_parameters,
        "num_devices": 1,
        "precision": "64-true",
        "backbone_commit": None,
        "wandb_run_id": wandb_logger and str(wandb_logger.version),
        **environment(torch.device("cpu")),
    }
    write_run(FinishedRun(folder, datamodule, model, result, tested), wandb_logger)
    return result


class _Fit(NamedTuple):
    """The model for one value of C."""

    C: float
    weights: Weights
    rule: DecisionRule
    scores: dict[str, float]  # on validation


def _best_fit(datamodule: HTCDataModule, model: TfidfClassifier, score: str) -> _Fit:
    """Return the fit with the highest score on validation; of equally good ones the first."""
    texts, targets = datamodule.labelled_texts("train")
    vectors = model.learn_features(texts)
    log.info(
        "%d training documents, %d labels on %d levels; %d words and sequences of words", *targets.shape,
        model.taxonomy.num_levels, vectors.shape[1],
    )  # fmt: skip
    val_texts, val_targets = datamodule.labelled_texts("val")
    val_vectors = model.vectors(val_texts)
    fits = []
    for C in model.C:
        weights = model.fitted(vectors, targets, C)
        logits, true = model.logits(val_vectors, weights), torch.from_numpy(val_targets)
        rule = fit_rule(
            model.rule, logits, true, tuning=model.tune_threshold, calibrate=model.calibrate,
            classes=model.metric_classes,
        )  # fmt: skip
        fits.append(_Fit(C, weights, rule, _scores(model, rule, logits, true).values))
        log.info(
            "C=%g: val/%s %.4f, thresholds %s", C, score, fits[-1].scores[score],
            ", ".join(f"{threshold:g}" for threshold in rule.thresholds),
        )  # fmt: skip
    return max(fits, key=lambda fit: fit.scores[score])


def _decided(rule: DecisionRule, logits: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield predicted nodes, true nodes and probabilities of some documents at a time."""
    for some_logits, some_targets in zip(logits.split(_CHUNK), targets.split(_CHUNK), strict=True):
        probabilities = rule.probabilities(some_logits)
        yield rule.predict(probabilities), some_targets, probabilities


def _scores(model: TfidfClassifier, rule: DecisionRule, logits: Tensor, targets: Tensor) -> MetricValues:
    metrics = HierarchicalMetrics(model.taxonomy, classes=model.metric_classes)
    for decided in _decided(rule, logits, targets):
        metrics.update(*decided)
    return metrics.compute()


def _test(datamodule: HTCDataModule, model: TfidfClassifier) -> Tested:
    texts, true = datamodule.labelled_texts("test")
    started = time.perf_counter()
    logits, targets = model.logits(model.vectors(texts), model.weights), torch.from_numpy(true)
    metrics = _scores(model, model.rule, logits, targets)
    predictions: list[DocumentPrediction] = []
    for predicted, some_targets, probabilities in _decided(model.rule, logits, targets):
        rows = range(len(predictions), len(predictions) + len(predicted))
        predictions += document_predictions(rows, predicted, probabilities, some_targets)
    seconds = round(time.perf_counter() - started, 2)
    calibrated = model.rule.calibration is not None
    return Tested(
        metrics, predictions, seconds, uncalibrated_counts(model.rule, logits, targets) if calibrated else None
    )
