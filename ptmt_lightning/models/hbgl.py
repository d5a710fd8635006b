"""HBGL: label embeddings pretrained on the hierarchy, then one decoding step a level (Jiang et al. 2022).

Shape legend: ``B`` documents, ``L`` sequence length of the text, ``S`` slots (levels and the end), ``V`` nodes,
``H`` hidden size, ``N`` copies of the label graph in a batch of the pretraining.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptmt_lightning.backbones import Backbone, name_embeddings
from ptmt_lightning.losses import MeanBCE
from ptmt_lightning.models.encoder import TextBatch, TextClassifier
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.utils.checks import check_range

log = logging.getLogger(__name__)

_COPIES = 32  # of the label graph, each with labels of its own masked
_LABEL_MASK_PROBABILITY = 0.15
_SLOT_MASK_PROBABILITY = 0.5
_NEVER = -30.0  # logit of a label after the end


class HBGL(TextClassifier):
    """Predicts the labels of a level from the text and the labels of the levels above.

    In training all levels are predicted in one pass of three streams: the text, the true labels (*targets*), and a
    ``[MASK]`` beside each (*pseudo*) that sees the text and the targets before its own. Predictions are decoded level
    by level, with the keys and values of what was read before kept; labels above 1/2 are fed back, whatever
    ``threshold`` the final prediction takes, as published.

    Defects of the published code that are left behind: an empty prediction became label 0; the last level was lost
    where no end was predicted; siblings were looked up off by one; the best checkpoint was chosen on the test split.

    Args:
        pretraining_steps: of the label embeddings on the hierarchy, before training; 0 for none.
        pretraining_rate: its learning rate.
        shared: see :class:`~ptmt_lightning.models.base.HTCModel`; the loss is its own, so it takes
            ``loss=mean_bce`` only.
    """

    system = "hbgl"
    uses_transform = True

    def __init__(self, *, pretraining_steps: int, pretraining_rate: float, **shared: Any) -> None:
        super().__init__(**shared)
        check_range("model.pretraining_steps", pretraining_steps, 0, integer=True)
        check_range("model.pretraining_rate", pretraining_rate, 0)
        model_type = self.backbone.model.config.model_type
        if model_type != "bert":
            raise ValueError(
                f"model=hbgl decodes with cached keys and values, which is written for model type 'bert' only, not "
                f"{model_type!r}; set backbone to such a model"
            )
        loss = self.label_loss
        if not isinstance(loss, MeanBCE) or (loss.gamma, loss.weight) != (0, 1):
            raise ValueError(
                f"model=hbgl trains with binary cross-entropy over labels and the end, not with "
                f"loss={type(loss).__name__}; set loss=mean_bce, loss.gamma=0 and loss.weight=1"
            )
        if self.coherent:
            raise ValueError("model.coherent=true: model=hbgl is trained level by level; set model.coherent=false")
        self.pretraining_steps, self.pretraining_rate = pretraining_steps, pretraining_rate
        rows_VH = name_embeddings(self.backbone, self.tokenizer, self.taxonomy.names, reduction="sum")
        self._initial_rows_VH = rows_VH.clone()
        self.label_rows = nn.Parameter(rows_VH)

    @property
    def num_slots(self) -> int:
        """One a level and the end."""
        return self.taxonomy.num_levels + 1

    @property
    def max_text_length(self) -> int:
        return self.max_length - self.num_slots

    def label_embeddings(self) -> tuple[Tensor, Tensor]:
        return self._initial_rows_VH, self.label_rows.detach().cpu()

    # ---- label pretraining ----

    def on_fit_start(self) -> None:
        if self.pretraining_steps and self.trainer.ckpt_path is None:
            losses = pretrain_labels(
                self.backbone, self.label_rows, self.taxonomy, self._token, steps=self.pretraining_steps,
                rate=self.pretraining_rate, seed=self.seed,
            )  # fmt: skip
            with torch.no_grad():  # ranks could differ in the last digit
                self.label_rows.copy_(self.trainer.strategy.broadcast(self.label_rows.detach().cpu()))
            if self.trainer.is_global_zero:
                log.info("label pretraining: loss %.4f at its start, %.4f at its end", losses[0], losses[-1])

    def _token(self, name: str) -> Tensor:
        """The embedding ``[H]`` of ``cls``, ``sep`` or ``mask``."""
        return self.backbone.token_embeddings[getattr(self.tokenizer, f"{name}_token_id")]

    # ---- training ----

    def loss_terms(self, batch: TextBatch) -> dict[str, Tensor]:
        targets_BSX, counts_BS = self.slot_targets(batch.targets)
        hidden = self.slot_states(batch, targets_BSX)
        losses_BSX = F.binary_cross_entropy_with_logits(
            self._scores(hidden).float(), targets_BSX.float(), reduction="none"
        )
        loss = (losses_BSX.mean(dim=-1) * counts_BS).sum() / counts_BS.sum()
        return {"loss": loss}

    def slot_targets(self, targets_BV: Tensor) -> tuple[Tensor, Tensor]:
        """What each slot should predict, bool ``[B, S, V + 1]`` with the end as last class, and the slots that count.

        The slot after a document's deepest level has the end; later slots do not count.
        """
        levels = torch.tensor(self.taxonomy.levels, device=targets_BV.device)
        slots = torch.arange(1, self.num_slots + 1, device=targets_BV.device)
        labels_BSV = targets_BV[:, None] & (levels == slots[:, None])
        depth_B = (targets_BV * levels).amax(dim=1)
        is_end_BS = slots == depth_B[:, None] + 1
        return torch.cat([labels_BSV, is_end_BS[..., None]], dim=-1), slots <= depth_B[:, None] + 1

    def slot_states(self, batch: TextBatch, targets_BSX: Tensor) -> Tensor:
        """States ``[B, S, H]`` of the pseudo slots, given the true labels of earlier slots."""
        masked_BS = torch.rand(targets_BSX.shape[:2], device=self.device) < _SLOT_MASK_PROBABILITY
        contents = self._contents(targets_BSX).where(~(masked_BS & self.training)[..., None], self._token("mask"))
        lengths_B, text_mask_BL = batch.attention_mask.sum(dim=1), batch.attention_mask.bool()
        positions_BS = lengths_B[:, None] + torch.arange(self.num_slots, device=lengths_B.device)
        text = self._embed_text(batch.input_ids)
        target = self._embed_slots(contents, positions_BS)
        pseudo = self._embed_slots(self._token("mask").expand_as(contents), positions_BS)
        mask = three_streams(text_mask_BL, self.num_slots)
        states, _ = self.backbone.attend(torch.cat([text, target, pseudo], dim=1), mask)
        return states[:, -self.num_slots :]

    def _contents(self, labels_BSX: Tensor) -> Tensor:
        """What stands in target slots: the sum of their labels' embeddings, not trained from here."""
        rows = torch.cat([self.label_rows.detach(), self._token("sep").detach()[None]])
        return labels_BSX.to(rows.dtype) @ rows

    def _embed_text(self, input_ids: Tensor) -> Tensor:
        positions = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        tokens = F.embedding(input_ids, self.backbone.token_embeddings)
        return self.backbone.embed(tokens, positions, torch.zeros_like(input_ids))

    def _embed_slots(self, contents: Tensor, positions: Tensor) -> Tensor:
        return self.backbone.embed(contents, positions, torch.ones_like(positions))

    def _scores(self, states: Tensor) -> Tensor:
        """Logits ``[..., V + 1]`` of all labels and the end."""
        rows = torch.cat([self.label_rows, self._token("sep")[None]])
        return self.backbone.transform(states) @ rows.T

    # ---- decoding ----

    def forward(self, batch: TextBatch) -> Tensor:
        """The highest logit ``[B, V]`` of each label over the slots before the end."""
        text_mask_BL = batch.attention_mask.bool()
        lengths_B = text_mask_BL.sum(dim=1)
        text = self._embed_text(batch.input_ids)
        _, past = self.backbone.attend(text, text_mask_BL[:, None].expand(-1, text.shape[1], -1))
        seen_BP = text_mask_BL
        pseudo_B1H = self._token("mask").expand(len(lengths_B), 1, -1)
        best_BV = torch.full((len(lengths_B), len(self.taxonomy)), _NEVER, device=text.device)
        going_B = torch.ones_like(lengths_B, dtype=torch.bool)
        labels_BX: Tensor | None = None
        for slot in range(self.num_slots):
            # the labels of the slot before, and the [MASK] of this one
            new = [self._embed_slots(pseudo_B1H, lengths_B[:, None] + slot)]
            if labels_BX is not None:
                new.insert(0, self._embed_slots(self._contents(labels_BX[:, None]), lengths_B[:, None] + slot - 1))
            own = torch.ones(len(new), len(new), dtype=torch.bool, device=text.device).tril()
            seen = seen_BP[:, None].expand(-1, len(new), -1)
            mask = torch.cat([seen, own.expand(len(lengths_B), -1, -1)], dim=-1)
            states, keys_values = self.backbone.attend(torch.cat(new, dim=1), mask, past)
            if labels_BX is not None:  # the labels stay, the [MASK] does not
                past = [
                    (torch.cat([k, new_k[:, :, :1]], dim=2), torch.cat([v, new_v[:, :, :1]], dim=2))
                    for (k, v), (new_k, new_v) in zip(past, keys_values, strict=True)
                ]
                seen_BP = F.pad(seen_BP, (0, 1), value=True)
            scores_BX = self._scores(states[:, -1]).float()
            going_B = going_B & (scores_BX[:, -1] <= 0)
            best_BV = torch.where(going_B[:, None], torch.maximum(best_BV, scores_BX[:, :-1]), best_BV)
            if not going_B.any():
                break
            labels_BX = F.pad(scores_BX[:, :-1] > 0, (0, 1))
        return best_BV


def three_streams(text_mask_BL: Tensor, num_slots: int) -> Tensor:
    """What each position of text, targets and pseudo slots looks at: bool ``[B, L + 2 S, L + 2 S]``.

    Text: the text. Target i: the text and targets up to i. Pseudo i: the text, targets before i, and itself.
    """
    length = text_mask_BL.shape[1]
    square = torch.ones(num_slots, num_slots, dtype=torch.bool, device=text_mask_BL.device)
    nothing = torch.zeros_like(square)
    slots = torch.cat(
        [
            torch.cat([square.tril(), nothing], dim=1),
            torch.cat([square.tril(-1), torch.eye(num_slots, dtype=torch.bool, device=square.device)], dim=1),
        ]
    )
    mask = F.pad(slots, (length, 0, length, 0)).repeat(len(text_mask_BL), 1, 1)
    mask[:, :, :length] = text_mask_BL[:, None]
    return mask


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def graph_mask(taxonomy: Taxonomy) -> Tensor:
    """Bool ``[V + 2, V + 2]``: ``[CLS]`` is the root; parent and child look at each other, and each at itself."""
    size = len(taxonomy) + 2
    mask = torch.eye(size, dtype=torch.bool)
    for node in range(len(taxonomy)):
        above = [parent + 1 for parent in taxonomy.parents[node]] + [0] * (node in taxonomy.tops)
        mask[node + 1, above] = True
        mask[above, node + 1] = True
    return mask


def sibling_leaves(taxonomy: Taxonomy) -> Tensor:
    """Bool ``[V, V]``: a node itself, and for a leaf the leaves under the same parents.

    Masked leaves of one parent look the same to the encoder, so each may answer for all of them.
    """
    has_child = {parent for parents in taxonomy.parents for parent in parents}
    groups: dict[tuple[int, ...], list[int]] = {}
    same = torch.eye(len(taxonomy), dtype=torch.bool)
    for node, parents in enumerate(taxonomy.parents):
        if node not in has_child:
            key = (taxonomy.levels[node], int(node in taxonomy.tops), *sorted(parents))
            groups.setdefault(key, []).append(node)
    for group in groups.values():
        for node in group:
            same[node, group] = True
    return same


def pretrain_labels(
    backbone: Backbone,
    rows: nn.Parameter,
    taxonomy: Taxonomy,
    token: Callable[[str], Tensor],
    *,
    steps: int,
    rate: float,
    seed: int,
) -> list[float]:
    """Train the label embeddings alone to fill masked places of the label graph; gives the losses.

    Args:
        rows: ``[V, H]``, changed in place.
        token: gives the embedding ``[H]`` of ``cls``, ``sep`` and ``mask``.
    """
    device, num_nodes = rows.device, len(taxonomy)
    draw = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW([rows], lr=rate)
    attention = graph_mask(taxonomy).to(device).expand(_COPIES, -1, -1)
    alike = sibling_leaves(taxonomy).to(device)
    positions = torch.tensor([0, *taxonomy.levels, taxonomy.num_levels + 1], device=device).expand(_COPIES, -1)
    cls, sep, mask = (token(name).detach() for name in ("cls", "sep", "mask"))
    losses = []
    with _evaluating(backbone), torch.enable_grad():
        for _ in range(steps):
            masked_NV = (torch.rand(_COPIES, num_nodes, generator=draw) < _LABEL_MASK_PROBABILITY).to(device)
            if not masked_NV.any():
                continue
            contents = rows.expand(_COPIES, -1, -1).where(~masked_NV[..., None], mask)
            ends = [end.expand(_COPIES, 1, -1) for end in (cls, sep)]
            embedded = backbone.embed(
                torch.cat([ends[0], contents, ends[1]], dim=1), positions, torch.zeros_like(positions)
            )
            states, _ = backbone.attend(embedded, attention)
            scores = backbone.transform(states[:, 1:-1][masked_NV]) @ rows.T
            copies, nodes = masked_NV.nonzero(as_tuple=True)
            targets = alike[nodes] & masked_NV[copies]
            loss = F.binary_cross_entropy_with_logits(scores, targets.to(scores.dtype))
            (rows.grad,) = torch.autograd.grad(loss, [rows])
            optimizer.step()
            losses.append(loss.item())
    rows.grad = None
    return losses
