"""A model that begins where another one ended: labels that both know keep what was learnt of them.

Shape legend: ``N`` new tokens of the backbone (a mask and a slot token or none, prompts, labels), ``E`` size of token
embeddings.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

from lightning_utilities.core.rank_zero import rank_zero_only
from torch import Tensor

from ptmt_lightning.backbones.learned import Learned
from ptmt_lightning.models.ptmt.template import Template
from ptmt_lightning.taxonomy import Taxonomy

log = logging.getLogger(__name__)


class Rows(NamedTuple):
    """The parameters with which new tokens start."""

    rows: Tensor  # input embeddings [N, E]
    output_rows: Tensor | None  # output embeddings [N, E]; None where both share one matrix
    bias: Tensor  # output biases [N]


def keep_learned(
    learned: Learned, new: Rows, taxonomy: Taxonomy, template: Template, *, decision: str, random_labels: bool
) -> None:
    """Put what a trained model has learnt into the rows of new tokens, in place, and log how much that is.

    Labels are known by their paths. Prompts are kept where there are as many as before, biases where scores are trained
    for the same decision as before.

    Args:
        learned: of the trained model.
        new: the rows as they start without it, label tokens last.
        taxonomy: hierarchy of the labels to be trained.
        template: the template to be trained.
        decision: name of the decision that scores are to be trained for.
        random_labels: leave all labels as they start.
    """
    known = [None] * len(taxonomy) if random_labels else taxonomy.nodes_in(learned.taxonomy)
    first, first_before = len(new.rows) - len(taxonomy), len(learned.rows) - len(learned.taxonomy)
    pairs = [(first + node, first_before + before) for node, before in enumerate(known) if before is not None]
    num_prompt_tokens = len(template.prompt_ids)
    same_prompts = num_prompt_tokens == learned.num_prompt_tokens
    if same_prompts:
        pairs += [(first - back, first_before - back) for back in range(1, num_prompt_tokens + 1)]
    for row, row_before in (
        (template.mask_id - template.num_text_tokens, learned.mask_row),
        (None if template.slot_id is None else template.slot_id - template.num_text_tokens, learned.slot_row),
    ):
        if row is not None and row >= 0 and row_before is not None:  # both have added such a token
            pairs.append((row, row_before))
    if pairs:
        now, before = map(list, zip(*pairs, strict=True))
        new.rows[now] = learned.rows[before]
        if new.output_rows is not None and learned.output_rows is not None:
            new.output_rows[now] = learned.output_rows[before]
        if decision == learned.decision:
            new.bias[now] = learned.bias[before]
    if random_labels:
        labels = f"all {len(taxonomy)} labels start at random (model.label_init=random)"
    else:
        kept = {before for before in known if before is not None}
        num_known = len(known) - known.count(None)
        labels = (
            f"{num_known} labels are known and keep what was learnt, {known.count(None)} are new and start from their "
            f"names, {len(learned.taxonomy) - len(kept)} are gone"
        )
    prompts = "are kept" if same_prompts else f"start anew ({num_prompt_tokens}, not {learned.num_prompt_tokens})"
    rank_zero_only(log.info)("warm start from %s: %s; prompts %s", learned.source, labels, prompts)
