"""The README of a trained model's folder, in the form that a model hub shows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from ptmt_lightning.models.saved.registry import SYSTEMS
from ptmt_lightning.taxonomy import Taxonomy

_METRICS = ("h_f1_macro", "h_f1_micro", "h_precision_micro", "h_recall_micro", "h_auprc", "exact_match")


def model_card(result: Mapping[str, Any], taxonomy: Taxonomy) -> str:
    """Return the README of a trained model, made from the content of ``result.json``.

    It tells the data, the scores, the thresholds, how to use the model, and its limits.
    """
    splits = [split for split in ("val", "test") if result[split]]
    documents = result["num_documents"]
    is_folder = Path(result["backbone"]).is_dir()
    backbone = Path(result["backbone"]).name if is_folder else result["backbone"]
    hub = ModelCardData(
        library_name="ptmt_lightning",
        pipeline_tag="text-classification",
        tags=["hierarchical-text-classification", result["model"]],
    )
    steps = f", {result['epochs']} epochs, {result['steps']:,} steps" if result["steps"] else ""  # a fit has none
    card = f"""---
{hub.to_yaml()}
---

# {result["model"]} on {result["dataset"]}

Puts a text into a taxonomy of {len(taxonomy)} labels on {taxonomy.num_levels} levels
({" / ".join(map(str, taxonomy.level_sizes))}): label paths, each label with a probability.

| | |
|---|---|
| system | `{result["model"]}`, loss `{result["loss"]}` |
| backbone | `{backbone}`, {result["num_parameters"] / 1e6:.1f} million parameters in all |
| training | {documents["train"]:,} documents{steps} |
| seed | {result["seed"]} |
| predicts | {_decided(result)} |
| made with | ptmt_lightning {result["versions"]["ptmt_lightning"]}, commit {result["git_sha"] or "unknown"} |

## Scores

| | {" | ".join(f"{split}, {documents[split]:,} documents" for split in splits)} |
|---|{"---|" * len(splits)}
"""
    levels = [f"f1_{kind}_level_{level}" for level in range(1, taxonomy.num_levels + 1) for kind in ("macro", "micro")]
    for name in (*_METRICS, *levels):
        if name in result[splits[0]]:
            card += f"| `{name}` | {' | '.join(f'{result[split][name]:.4f}' for split in splits)} |\n"
    card += """
`h_f1_macro`: predictions and truth are augmented with all ancestors, then F1 is averaged over the labels that occur in
either.
"""
    if result["model"] in SYSTEMS:  # else it is of the user's own
        card += """
## Use

```python
from ptmt_lightning.inference import Classifier

Classifier.from_pretrained("this folder, or its name on a hub").predict("a text")
```
"""
    return card + (
        "\n## Limits\n\nIt knows the labels of its taxonomy and texts like those that it was trained on; on others its "
        "probabilities mean little. Scores of rare labels rest on few documents: see `per_label.csv` of the run.\n"
    )


def _decided(result: Mapping[str, Any]) -> str:
    """Return how labels are chosen by their probabilities."""
    thresholds = ", ".join(f"{value:g}" for value in result["thresholds"])
    return {
        "threshold": f"labels above thresholds, by level: {thresholds}",
        "best_path": "the most probable path of each text",
        "top_k": "the most probable labels of each level",
    }[result["decoding"]]
