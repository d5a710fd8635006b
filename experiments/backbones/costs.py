"""Costs of each model family beside a BERT of equal size: time of a training step, and latency for one document.

    python experiments/backbones/costs.py [--families gpt2 t5 ...] [--rounds 5] [--device cuda]

The two models take turns. Weights are random and texts made up, as only shapes matter for time. All models have 12
layers of width 768 (encoder-decoders 6 + 6) and a vocabulary of 30,000; PTMT has a taxonomy of 17/85 nodes, texts of
128 tokens, and the language-modelling loss.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.fabric.utilities import move_data_to_device
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from ptmt_lightning.backbones import FAMILIES, Backbone, word_tokenizer
from ptmt_lightning.data.document import Example
from ptmt_lightning.models.ptmt.module import PTMT
from ptmt_lightning.optim import LinearAdamW
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.taxonomy.edges import ROOT

LENGTH, VOCABULARY = 128, 30_000
COMMON = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "max_position_embeddings": 514,
}  # fmt: skip
# The settings of families that name them otherwise or have further ones, with the sizes of the family's base model.
OWN: dict[str, dict[str, Any]] = {
    "electra": {"embedding_size": 768},
    "albert": {"embedding_size": 128},
    "distilbert": {"dim": 768, "n_layers": 12, "n_heads": 12, "hidden_dim": 3072},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": {
        "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 256, "share_att_key": True,
        "norm_rel_ebd": "layer_norm", "position_biased_input": False, "type_vocab_size": 0,
    },
    "bart": {
        "d_model": 768, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 12,
        "decoder_attention_heads": 12, "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072,
    },
    "t5": {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 6, "num_heads": 12},
    "gpt2": {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 514},
    "llama": {"num_key_value_heads": 12},
    "qwen2": {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "qwen3": {"num_key_value_heads": 4, "head_dim": 64, "tie_word_embeddings": True},
}  # fmt: skip
CLASSES: dict[str, Any] = {
    "encoder": AutoModelForMaskedLM, "decoder": AutoModelForCausalLM, "encoder-decoder": AutoModelForSeq2SeqLM,
}  # fmt: skip


class Runner:
    """A PTMT model of one family, with a batch to train on and a document to predict.

    Args:
        model_type: name of the family, as Transformers spells it.
        batch_size: number of documents in a training step.
        device: device to run on.
    """

    def __init__(self, model_type: str, batch_size: int, device: str) -> None:
        self.device = device
        self.model = build(model_type).to(device)
        self.parameters = sum(parameter.numel() for parameter in self.model.parameters()) / 1e6
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5)
        rng = np.random.default_rng(0)
        examples = [
            Example(row, 0, rng.integers(5, VOCABULARY // 2, LENGTH, dtype=np.int32), np.array([0, 17], dtype=np.int32))
            for row in range(batch_size)
        ]
        self.training = move_data_to_device(self.model.collator(training=True)(examples), device)
        self.single = move_data_to_device(self.model.collator(training=False)(examples[:1]), device)

    def step(self) -> float:
        """Train one step, and return the seconds that it took."""
        self.model.train()
        started = _now(self.device)
        self.optimizer.zero_grad()
        self.model.loss_terms(self.training)["loss"].backward()
        self.optimizer.step()
        return _now(self.device) - started

    @torch.inference_mode()
    def predict(self) -> float:
        """Predict one document, and return the seconds that it took."""
        self.model.eval()
        started = _now(self.device)
        self.model.predict_nodes(self.model.probabilities(self.model(self.single)))
        return _now(self.device) - started


def main() -> None:
    """Measure the families, and write ``results.csv``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    place = f"threads={options.threads}" if options.device == "cpu" else options.device
    bert = Runner("bert", options.batch_size, options.device)
    rows: list[tuple[str, str, float, str, float | str]] = []
    for model_type in tqdm(options.families):
        other = bert if model_type == "bert" else Runner(model_type, options.batch_size, options.device)
        setting = f"{model_type} shape=12x768 length={LENGTH} taxonomy=17/85 {place}"
        rows.append(("parameters", setting, other.parameters, "million", ""))
        for measure, action, size in (("step", "step", options.batch_size), ("latency", "predict", 1)):
            pairs = np.array(
                [[getattr(runner, action)() for runner in (bert, other)] for _ in range(options.rounds + 1)][1:]
            )
            low, middle, high = np.quantile(pairs[:, 1] / pairs[:, 0], (0.25, 0.5, 0.75))
            rows.append((f"{measure}_over_bert", f"{setting} batch={size}", middle, "ratio", high - low))
        del other
        gc.collect()
    table = pd.DataFrame(rows, columns=["measure", "setting", "value", "unit", "spread"])
    results = Path(__file__).with_name("results.csv")
    if results.exists():  # rows of other settings are kept
        table = pd.concat([table, pd.read_csv(results)]).drop_duplicates(["measure", "setting"])
    table.sort_values(["measure", "setting"]).to_csv(results, index=False, float_format="%.4g")
    print(table.to_string())


def build(model_type: str) -> PTMT:
    """Return PTMT on a model of the given family, with random weights."""
    torch.manual_seed(0)
    tokenizer = word_tokenizer([" ".join(f"w{i}" for i in range(VOCABULARY))], VOCABULARY)
    tokenizer.bos_token, tokenizer.eos_token = tokenizer.cls_token, tokenizer.sep_token
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    settings = COMMON | OWN.get(model_type, {}) | special | {"vocab_size": len(tokenizer)}
    model = CLASSES[FAMILIES[model_type].form].from_config(AutoConfig.for_model(model_type, **settings))
    above, below = ([f"{letter}{i}" for i in range(size)] for letter, size in (("a", 17), ("b", 85)))
    edges = [(ROOT, name) for name in above] + list(zip(itertools.cycle(above), below, strict=False))
    return PTMT(
        taxonomy=Taxonomy(edges), backbone=Backbone(model, trained_head=True), tokenizer=tokenizer, max_length=512,
        alpha=0.1, optimizer=LinearAdamW(learning_rate=0),
    )  # fmt: skip


def _now(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
