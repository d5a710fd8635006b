"""HBGL: label embeddings pretrained on the hierarchy, then labels decoded level by level (Jiang et al. 2022).

Shape legend: ``B`` documents, ``L`` sequence length of the text, ``S`` slots (levels and the end), ``V`` nodes,
``X`` nodes and the end (V + 1), ``H`` hidden size, ``N`` copies of the label graph in a batch of the pretraining.
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
from ptmt_lightning.losses import LabelLoss, MeanBCE
from ptmt_lightning.models.encoder import TextBatch, TextClassifier
from ptmt_lightning.models.networks.hbgl import HBGLNetwork
from ptmt_lightning.optim import LinearAdamW
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.utils.checks import check_range

log = logging.getLogger(__name__)

_COPIES = 32  # copies of the label graph in a batch, each with labels of its own masked
_LABEL_MASK_PROBABILITY = 0.15
_SLOT_MASK_PROBABILITY = 0.5


class HBGL(HBGLNetwork, TextClassifier):
    """Predicts the labels of a level from the text and the labels of the levels above.

    In training all levels are predicted in one pass over three streams: the text; one slot a level with its true labels
    (*target*); and beside each of these a ``[MASK]`` (*pseudo*) that attends to the text and to earlier targets, and
    predicts the labels of its level. For predictions the levels are decoded one after the other, with cached keys and
    values. As published, labels above probability 1/2 are fed back, whatever ``threshold`` the final prediction has.

    Defects of the published code that are not reproduced: an empty prediction becomes label 0; the last level is lost
    where no end is predicted; siblings are looked up off by one; the best checkpoint is chosen on the test split.

    Args:
        pretraining_steps: number of steps that train the label embeddings on the hierarchy before training; 0 for none.
        pretraining_rate: learning rate of these steps.
        prune: drop predicted nodes below level 1 without a predicted parent.
        shared: further settings of all systems, see :class:`~ptmt_lightning.models.base.HTCModel`; of the label
            losses only ``MeanBCE()`` is possible.

    Raises:
        ValueError: a backbone other than BERT, another label loss, coherent scores, or a setting out of range.
    """

    system = "hbgl"
    uses_transform = True

    def __init__(
        self, *, pretraining_steps: int = 300, pretraining_rate: float = 1e-3, prune: bool = False, **shared: Any
    ) -> None:
        super().__init__(prune=prune, **shared)
        check_range("model.pretraining_steps", pretraining_steps, 0, integer=True)
        check_range("model.pretraining_rate", pretraining_rate, 0)
        model_type = self.backbone.model.config.model_type
        if model_type not in self.model_types:
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
        if self.rule.coherent:
            raise ValueError("model.coherent=true: model=hbgl is trained level by level; set model.coherent=false")
        self.pretraining_steps, self.pretraining_rate = pretraining_steps, pretraining_rate
        rows_VH = name_embeddings(self.backbone, self.tokenizer, self.taxonomy.words(), reduction="sum")
        self._initial_rows_VH = rows_VH.clone()
        self.label_rows = nn.Parameter(rows_VH)
        self.output_bias = nn.Parameter(self._initial_bias())

    @staticmethod
    def published_loss() -> LabelLoss:
        """Return binary cross-entropy averaged over all labels."""
        return MeanBCE()

    @staticmethod
    def published_optimizer() -> LinearAdamW:
        """Return AdamW with linear decay after a warm-up of 5 % of all steps; the published warm-up is 500 steps."""
        return LinearAdamW(learning_rate=3e-5, new_rate_factor=1)

    def _initial_bias(self) -> Tensor:
        """Return the biases ``[X]`` before training: those of all systems for labels, the pretrained one for the end.

        Published are zeros for labels: with these, training begins by pushing all labels down.
        """
        pretrained = self.backbone.output_bias
        end = torch.zeros(1) if pretrained is None else pretrained.detach()[[self.tokenizer.sep_token_id]].cpu()
        return torch.cat([self.rule.decision.initial_logits(self.taxonomy.level_sizes), end])

    def label_embeddings(self) -> tuple[Tensor, Tensor]:
        """Return the embeddings of nodes before training and now, ``[V, H]`` each on the CPU."""
        return self._initial_rows_VH, self.label_rows.detach().cpu()

    # ---- label pretraining ----

    def on_fit_start(self) -> None:
        """Pretrain the label embeddings on the hierarchy, unless a run is resumed."""
        if self.pretraining_steps and self.trainer.ckpt_path is None:
            losses = pretrain_labels(
                self.backbone, self.label_rows, self.taxonomy, self._token, steps=self.pretraining_steps,
                rate=self.pretraining_rate, seed=self.seed,
            )  # fmt: skip
            with torch.no_grad():  # all ranks take those of the first, as they could differ in the last digit
                self.label_rows.copy_(self.trainer.strategy.broadcast(self.label_rows.detach().cpu()))
            if self.trainer.is_global_zero and losses:  # no step masks a label where there are very few
                log.info("label pretraining: loss %.4f at its start, %.4f at its end", losses[0], losses[-1])

    # ---- training ----

    def loss_terms(self, batch: TextBatch) -> dict[str, Tensor]:
        """Return ``loss``, the cross-entropy averaged over labels and the slots that count."""
        targets_BSX, counts_BS = self.slot_targets(batch.targets)
        hidden = self.slot_states(batch, targets_BSX)
        losses_BSX = F.binary_cross_entropy_with_logits(
            self._scores(hidden).float(), targets_BSX.float(), reduction="none"
        )
        loss = (losses_BSX.mean(dim=-1) * counts_BS).sum() / counts_BS.sum()
        return {"loss": loss}

    def slot_targets(self, targets_BV: Tensor) -> tuple[Tensor, Tensor]:
        """Return what slots are to predict, and which slots count in the loss, from true nodes ``[B, V]``.

        The slot after a document's deepest level is to predict the end; later slots do not count.

        Returns:
            Bool ``[B, S, X]``, the end as last class, and bool ``[B, S]``.
        """
        levels = torch.tensor(self.taxonomy.levels, device=targets_BV.device)
        slots = torch.arange(1, self.num_slots + 1, device=targets_BV.device)
        labels_BSV = targets_BV[:, None] & (levels == slots[:, None])
        depth_B = (targets_BV * levels).amax(dim=1)
        is_end_BS = slots == depth_B[:, None] + 1
        return torch.cat([labels_BSV, is_end_BS[..., None]], dim=-1), slots <= depth_B[:, None] + 1

    def slot_states(self, batch: TextBatch, targets_BSX: Tensor) -> Tensor:
        """Return the states ``[B, S, H]`` of the pseudo slots, given the true labels of earlier slots.

        In training half of the target slots, drawn at random, show ``[MASK]`` in place of their labels.

        Args:
            batch: the texts.
            targets_BSX: the labels of each slot, as :meth:`slot_targets` returns them.
        """
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


def three_streams(text_mask_BL: Tensor, num_slots: int) -> Tensor:
    """Return the attention mask of HBGL's training pass: bool ``[B, L + 2 S, L + 2 S]``, True where a row attends.

    The positions are the text, the target slots and the pseudo slots. Text attends to text, target i to the text and
    to targets up to i, pseudo i to the text, to targets before i, and to itself.

    Args:
        text_mask_BL: bool ``[B, L]``, False for padding.
        num_slots: S.
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
def _with_dropout(module: nn.Module, seed: int) -> Iterator[None]:
    """Put a module into training mode; what it draws is seeded, and leaves no trace on what others draw."""
    training = module.training
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module.train()
        try:
            yield
        finally:
            module.train(training)


def graph_mask(taxonomy: Taxonomy) -> Tensor:
    """Return the attention mask of ``[CLS]``, all nodes and ``[SEP]``: bool ``[V + 2, V + 2]``.

    ``[CLS]`` stands for the root. Parent and child attend to each other, and no label attends to itself.
    """
    size = len(taxonomy) + 2
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[[0, -1], [0, -1]] = True
    for node in range(len(taxonomy)):
        above = [parent + 1 for parent in taxonomy.parents[node]] + [0] * (node in taxonomy.tops)
        mask[node + 1, above] = True
        mask[above, node + 1] = True
    return mask


def sibling_leaves(taxonomy: Taxonomy) -> Tensor:
    """Return which nodes are alike: bool ``[V, V]``, a node and itself, and leaves under the same parents.

    Such leaves look the same to the encoder when they are masked, so each of them is a right answer for the others.
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
    """Train the label embeddings, and nothing else, to predict masked nodes of the label graph, with dropout.

    Args:
        backbone: reads the graph; not changed.
        rows: label embeddings ``[V, H]``, changed in place.
        taxonomy: the label graph.
        token: returns the embedding ``[H]`` of ``cls``, ``sep`` or ``mask``.
        steps: number of batches.
        rate: learning rate.
        seed: seeds the drawing of masks and dropout.

    Returns:
        The loss of each step; steps that mask no node are left out.
    """
    device, num_nodes = rows.device, len(taxonomy)
    draw = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW([rows], lr=rate)
    attention = graph_mask(taxonomy).to(device).expand(_COPIES, -1, -1)
    alike = sibling_leaves(taxonomy).to(device)
    positions = torch.tensor([0, *taxonomy.levels, taxonomy.num_levels + 1], device=device).expand(_COPIES, -1)
    cls, sep, mask = (token(name).detach() for name in ("cls", "sep", "mask"))
    losses = []
    with _with_dropout(backbone, seed), torch.enable_grad():
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
