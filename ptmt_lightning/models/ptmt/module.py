"""The system PTMT: learnable prompt tokens, one mask a level, and learnable label tokens (sections 2.1-2.3).

Shape legend: ``B`` documents, ``D`` levels, ``V`` nodes, ``K`` positions of interest, ``H`` hidden size,
``N`` masked text tokens in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ptmt_lightning.backbones import start_at_identity
from ptmt_lightning.chunked_loss import LabelSums, goes_in_chunks, label_sums
from ptmt_lightning.losses import CountScope, count_l1, label_excess, masked_lm, masked_mean
from ptmt_lightning.models.base import HTCModel
from ptmt_lightning.models.ptmt.collator import PTMTBatch, PTMTCollator
from ptmt_lightning.models.ptmt.network import DocumentPrompts, label_logits, slot_states
from ptmt_lightning.models.ptmt.starting import LabelInit, SlotInit, first_rows, frequency_bias
from ptmt_lightning.models.ptmt.template import Template
from ptmt_lightning.models.ptmt.warm_start import keep_learned
from ptmt_lightning.utils.checks import check_range

BiasInit = Literal["level", "frequency"]
Prompts = Literal["shared", "per_document"]
SlotPlace = Literal["after", "before"]

_ALPHA = 0.1  # weight of the masked-LM loss where the head is pretrained
_SHIFT = 4.0  # bias of a new head, with which GELU passes on all of a state


class PTMT(HTCModel):
    """Predicts labels by filling one ``[MASK]`` a level with label tokens, all in one pass of the backbone.

    Args:
        num_prompt_tokens: number of prompt tokens, m of section 2.1.
        prompts: ``shared`` for the same embeddings of prompt tokens in all documents; ``per_document`` to add to them
            what :class:`~ptmt_lightning.models.ptmt.network.DocumentPrompts` computes from the text (the paper's
            outlook).
        alpha: share of the masked-LM loss in the total (Eq. 3); with 0 no text token is masked. None for 0.1 where the
            backbone's masked-LM head is trained, and 0 where it is new: there the loss does not preserve what the
            backbone knows, but is one more task to learn (experiments/defaults).
        alpha_l1: weight of the count loss beside the label loss (Eq. 3).
        count_scope: compare numbers of labels on each ``level``, or over ``all`` levels together.
        mlm_slots: whether the masked-LM loss also covers the label slots, each with one of its true label tokens,
            drawn at random.
        mlm_probability: see :class:`~ptmt_lightning.models.ptmt.collator.PTMTCollator`.
        p_label: see :class:`~ptmt_lightning.models.ptmt.collator.PTMTCollator`.
        label_init: label tokens start as the mean embedding of the word pieces of their ``label_name``; as the
            ``label_state`` that the backbone has of that name, less the mean of its level and scaled to length 1; or
            ``random``. Where the backbone is a trained PTMT model, labels that it knows by their paths keep its
            embeddings and biases unless all are drawn anew with ``random``.
        bias_init: biases of labels start so that one label a ``level`` is expected, or at the ``frequency`` of each
            label in the training documents.
        slot_place: whether slots and prompts stand ``after`` the text, as in the paper, or ``before`` it, where a
            backbone that was trained on its first token has learned to gather what a text says; encoders only.
        slot_init: what slots hold and start from: the ``mask`` token, as in the paper, or a token of their own that
            starts as the backbone's ``cls`` token; encoders only.
        slot_dropout: dropout probability of the slots' states before labels are scored.
        identity_head: start a new masked-LM head so that it passes states on unchanged, where its activation would
            lose their negative half; for backbones without a trained head.
        shared: settings of all systems, see :class:`~ptmt_lightning.models.base.HTCModel`.

    Raises:
        ValueError: a setting that is not valid, or a tokenizer or maximum length that the template does not fit.
    """

    system = "ptmt"

    def __init__(
        self,
        *,
        num_prompt_tokens: int = 4,
        prompts: Prompts = "shared",
        alpha: float | None = None,
        alpha_l1: float = 0.3,
        count_scope: CountScope = "level",
        mlm_slots: bool = False,
        mlm_probability: float = 0.15,
        p_label: float = 1.0,
        label_init: LabelInit = "label_name",
        bias_init: BiasInit = "level",
        slot_place: SlotPlace = "after",
        slot_init: SlotInit = "mask",
        slot_dropout: float = 0.0,
        identity_head: bool = False,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if alpha is None:
            alpha = _ALPHA if self.backbone.trained_head else 0.0
        check_range("model.alpha", alpha, 0, 1)
        check_range("model.alpha_l1", alpha_l1, 0)
        check_range("model.slot_dropout", slot_dropout, 0, 1, high_open=True)
        for key, value, choices in (
            ("label_init", label_init, LabelInit), ("count_scope", count_scope, CountScope),
            ("bias_init", bias_init, BiasInit), ("slot_place", slot_place, SlotPlace),
            ("slot_init", slot_init, SlotInit), ("prompts", prompts, Prompts),
        ):  # fmt: skip
            if value not in get_args(choices):
                raise ValueError(f"model.{key}={value!r}: expected {' or '.join(map(repr, get_args(choices)))}")
        form = self.backbone.family.form
        for key, value, usual in (("slot_place", slot_place, "after"), ("slot_init", slot_init, "mask")):
            if value != usual and form != "encoder":
                raise ValueError(f"model.{key}={value}: expected {usual} with a backbone that is a {form}; set that")
        if identity_head:
            self._pass_states_on()
        self.label_init, self.bias_init, self.slot_dropout = label_init, bias_init, slot_dropout
        self.alpha, self.alpha_l1, self.count_scope, self.mlm_slots = alpha, alpha_l1, count_scope, mlm_slots
        self.mlm_probability, self.p_label = mlm_probability, p_label
        self.template = Template.add_to(
            self.tokenizer,
            self.taxonomy,
            num_prompt_tokens=num_prompt_tokens,
            max_length=self.max_length,
            form=form,
            decoder_start_id=getattr(self.backbone.model.config, "decoder_start_token_id", None),
            slots_first=slot_place == "before",
            slot_token=slot_init == "cls",
        )
        self._add_rows()
        self._initial_labels_VH = self.backbone.new_output_rows[-len(self.taxonomy) :].detach().clone()
        if alpha == 0:
            self.backbone.freeze_output()
        self.document_prompts = None
        if prompts == "per_document":
            if num_prompt_tokens == 0:
                raise ValueError("model.prompts=per_document: expected model.num_prompt_tokens of 1 or more; raise it")
            self.document_prompts = DocumentPrompts(self._initial_labels_VH.shape[1], self.template)
            learned = self.backbone.learned
            if learned and learned.document_prompts and learned.num_prompt_tokens == num_prompt_tokens:
                try:
                    self.document_prompts.load_state_dict(learned.document_prompts)
                except RuntimeError as error:
                    raise ValueError(
                        f"backbone.name={learned.source!r}: prompts.safetensors does not fit the model; restore it"
                    ) from error

    def _pass_states_on(self) -> None:
        """Start a new head at the identity, its activation included.

        Raises:
            ValueError: the head is trained, or there is none that could be so started.
        """
        head = self.backbone.family.head(self.backbone.model)
        if self.backbone.trained_head or not head:
            raise ValueError(
                "model.identity_head=true: expected a backbone whose masked-LM head is new, and this one's is trained "
                "or has no layers; set model.identity_head=false"
            )
        try:
            start_at_identity(head, shift=_SHIFT)
        except ValueError as error:
            raise ValueError(f"model.identity_head=true: {error}; set model.identity_head=false") from error

    def _add_rows(self) -> None:
        """Add embeddings and biases of the template's tokens to the backbone."""
        bias_V = self.rule.decision.initial_logits(self.taxonomy.level_sizes)
        new = first_rows(self.backbone, self.tokenizer, self.taxonomy, self.template, self.label_init, bias_V)
        if self.backbone.learned is not None:
            keep_learned(
                self.backbone.learned, new, self.taxonomy, self.template, decision=self.rule.decision.name,
                random_labels=self.label_init == "random",
            )  # fmt: skip
        self.backbone.add_token_rows(new.rows, new.bias, new.output_rows)

    def start_from(self, counts: Sequence[int], num_documents: int) -> None:
        """Start biases at the frequencies of labels, if they are to; those that a trained model has learnt stay.

        Args:
            counts: number of training documents of each node.
            num_documents: number of training documents.

        Raises:
            ValueError: the loss has such a prior itself.
        """
        if self.bias_init == "level":
            return
        decision, learned = self.rule.decision, self.backbone.learned
        bias_V = frequency_bias(decision, counts, num_documents, self.taxonomy.level_sizes)
        known: list[int | None] = [None] * len(self.taxonomy)
        if learned is not None and learned.decision == decision.name and self.label_init != "random":
            known = self.taxonomy.nodes_in(learned.taxonomy)
        anew_V = torch.tensor([before is None for before in known])
        with torch.no_grad():
            labels_V = self.backbone.new_bias[-len(known) :]
            labels_V[anew_V] = bias_V[anew_V]

    @property
    def max_text_tokens(self) -> int:
        """Number of tokens at which texts are cut."""
        return self.template.text_budget

    def collator(self, *, training: bool, pad_to_multiple_of: int = 1) -> PTMTCollator:
        """Return the collator; only in training it masks text tokens and shows labels."""
        return PTMTCollator(
            self.template,
            mlm_probability=self.mlm_probability if training and self.alpha > 0 else 0.0,
            p_label=self.p_label if training else 1.0,
            mlm_slots=self.mlm_slots and training,
            seed=self.seed,
            pad_to_multiple_of=pad_to_multiple_of,
        )

    def forward(self, batch: PTMTBatch) -> Tensor:
        """Return the scores (logits) of all nodes, ``[B, V]``."""
        return self.label_logits(self.states(batch))

    def states(self, batch: PTMTBatch) -> Tensor:
        """Return the states at the positions of interest, after the head's transform: ``[B, K, H]``, slots first."""
        return slot_states(self.backbone, batch, self.document_prompts)

    def label_logits(self, states: Tensor) -> Tensor:
        """Return the scores of all nodes ``[B, V]`` from states ``[B, K, H]``.

        Slot i scores the label tokens of level i (section A.4).
        """
        return label_logits(self.backbone, self.taxonomy, states)

    def label_embeddings(self) -> tuple[Tensor, Tensor]:
        """Return the embeddings of label tokens before training and now, ``[V, H]`` each on the CPU."""
        after_VH = self.backbone.new_output_rows[-len(self.taxonomy) :]
        return self._initial_labels_VH, after_VH.detach().cpu()

    def loss_terms(self, batch: PTMTBatch) -> dict[str, Tensor]:
        """Return ``loss`` (Eq. 3) and its terms; slots that show a true label do not count."""
        states_BKH = self.states(batch)
        slots_BDH = F.dropout(states_BKH[:, : self.template.num_levels], self.slot_dropout, self.training)
        losses_BD, excess_BD = self._label_sums(slots_BDH, batch)
        label = masked_mean(losses_BD, batch.slots)
        count = count_l1(excess_BD, batch.slots, self.count_scope)
        loss = (1 - self.alpha) * (label + self.alpha_l1 * count)
        terms = {"label": label, "count_l1": count}
        if self.alpha > 0:
            states_NH = states_BKH.flatten(0, 1)[batch.mlm_index]
            terms["mlm"] = masked_lm(self.backbone.token_logits(states_NH), batch.mlm_ids)
            loss = loss + self.alpha * terms["mlm"]
        return {"loss": loss, **terms}

    def _label_sums(self, slots_BDH: Tensor, batch: PTMTBatch) -> LabelSums:
        """Return the label losses and the excess of labels of each document and level, of many in chunks."""
        level_sizes, loss = self.taxonomy.level_sizes, self.label_loss
        if goes_in_chunks(loss, batch.targets.numel()) and not self.rule.coherent and self.rule.calibration is None:
            rows, bias = self.backbone.new_output_rows, self.backbone.new_bias
            focusing = loss.focusing(level_sizes, slots_BDH.device)
            return label_sums(slots_BDH, rows, bias, batch.targets, level_sizes, focusing)
        logits_BV = self.label_logits(slots_BDH)
        if self.rule.coherent:  # else the loss of other levels would train the slots that show a true label
            masked_BV = batch.slots[:, torch.tensor(self.taxonomy.levels, device=logits_BV.device) - 1]
            logits_BV = torch.where(masked_BV, logits_BV, logits_BV.detach())
        return LabelSums(
            self.label_losses(logits_BV, batch.targets),
            label_excess(self.probabilities(logits_BV), batch.targets, level_sizes),
        )

    def settings(self) -> dict[str, Any]:
        """Return the settings that are needed to rebuild the saved system, as plain types."""
        return {
            "template": asdict(self.template),
            "prompts": "shared" if self.document_prompts is None else "per_document",
            "trained_head": self.backbone.trained_head or self.alpha > 0,
        }

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return the network of per-document prompts, and the bias of labels where the backbone has no output bias."""
        tensors = {} if self.document_prompts is None else {"prompts": self.document_prompts.state_dict()}
        if self.backbone.output_bias is None:  # then the saved backbone has no place for it
            tensors["label_bias"] = {"bias": self.backbone.new_bias.detach()[-len(self.taxonomy) :]}
        return tensors
