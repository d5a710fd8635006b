"""What a run says at its start about its data and settings: what was chosen and why, and what may surprise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ptmt_lightning.data.datamodule import HTCDataModule
from ptmt_lightning.models.base import HTCModel
from ptmt_lightning.utils.checks import shortened

_FEW = 5  # training documents of a label below which little can be learnt of it
_SHOWN = 3  # names that are listed


def advice(datamodule: HTCDataModule, model: HTCModel) -> list[str]:
    """Return a few lines for the user about a run that is about to begin.

    Args:
        datamodule: connected to the model.
        model: not yet trained.
    """
    return [
        *_about_rates(model),
        *_about_paths(datamodule, model),
        *_about_rare_labels(datamodule, model),
        *_about_parents(model),
        *_about_cut_texts(datamodule, model),
    ]


def _about_rates(model: HTCModel) -> Iterator[str]:
    if model.chose_rate:
        backbone = model.backbone
        kind = "a pretrained" if backbone.is_pretrained else "an untrained"
        layers = backbone.model.config.num_hidden_layers
        yield (
            f"learning rate {model.optimizer.learning_rate:g}, chosen for {kind} backbone of {layers} layers and "
            f"hidden size {backbone.hidden_size}, {model.optimizer.new_rate_factor:g} times that for new parameters; "
            "optimizer.learning_rate sets another"
        )


def _about_paths(datamodule: HTCDataModule, model: HTCModel) -> Iterator[str]:
    most, _, _ = datamodule.most_labels_at_a_level("train")
    if most > 1:
        yield f"documents have several paths, up to {most} labels on a level"
    elif model.rule.decision.single_label:
        yield "each training document has one path"
    else:
        yield "each training document has one path: loss=cross_entropy is made for that, and predicts one label a level"


def _about_rare_labels(datamodule: HTCDataModule, model: HTCModel) -> Iterator[str]:
    counts = datamodule.label_counts("train")
    rare = [model.taxonomy.names[node] for node in (counts < _FEW).nonzero()[0]]
    if rare:
        never = int((counts == 0).sum())
        yield (
            f"{len(rare)} of {len(counts)} labels have fewer than {_FEW} training documents"
            f"{f', {never} of them none' if never else ''}: {_listed(rare)}"
        )


def _about_parents(model: HTCModel) -> Iterator[str]:
    taxonomy = model.taxonomy
    several = [taxonomy.names[node] for node, parents in enumerate(taxonomy.parents) if len(parents) > 1]
    if several:
        yield (
            f"labels with several parents: {_listed(several)}; each is one label, wherever it stands. "
            "If they are different ones of one name, write taxonomy.tsv with the columns level1, level2, ..."
        )


def _about_cut_texts(datamodule: HTCDataModule, model: HTCModel) -> Iterator[str]:
    most = model.max_text_tokens
    lengths = datamodule.text_lengths("train")
    num_cut = int((lengths > most).sum())
    if num_cut:
        yield (
            f"{num_cut} of {len(lengths)} training texts are longer than {most} tokens, and cut there; "
            "backbone.max_length decides"
        )


def _listed(names: Sequence[str]) -> str:
    listed = ", ".join(repr(shortened(name, 40)) for name in names[:_SHOWN])
    return f"{listed}, ..." if len(names) > _SHOWN else listed
