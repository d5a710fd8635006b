"""Measures the time of a training step of the bare encoder, of PTMT, and of PTMT computed in the naive way.

Each batch of real texts of similar length goes through all three variants before the next batch, in rotating order, so
that other load on the machine affects all alike.

    python experiments/throughput/step_time.py --backbone FOLDER --data FOLDER
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from ptmt_lightning.backbones import Pretrained
from ptmt_lightning.data.datamodule import HTCDataModule
from ptmt_lightning.models.base import HTCModel
from ptmt_lightning.models.ptmt.collator import PTMTBatch
from ptmt_lightning.models.ptmt.module import PTMT
from ptmt_lightning.optim import LinearAdamW
from ptmt_lightning.training.build import build

MAX_NORM = 5.0  # gradients are clipped to it


def main() -> None:
    """Measure the variants, and write ``results.csv``."""
    arguments = _arguments()
    torch.manual_seed(0)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as cache_dir:
        datamodule = HTCDataModule(
            name="data", path=arguments.data, batch_size=arguments.batch_size, cache_dir=cache_dir
        )
        optimizer = LinearAdamW(learning_rate=1e-4, new_rate_factor=1, weight_decay=0.01, warmup_ratio=0.0)
        build_model = partial(PTMT, alpha=0.1, optimizer=optimizer)  # alpha as with a trained head
        lean = build(datamodule, Pretrained(name=arguments.backbone), build_model).to(arguments.device)
        naive = build(datamodule, Pretrained(name=arguments.backbone), build_model).to(arguments.device)
        naive.backbone.model = naive.backbone.merged()  # with rows for label tokens, as published code has them
        encoder = AutoModel.from_pretrained(arguments.backbone, add_pooling_layer=False).train().to(arguments.device)
        variants: dict[str, Callable[[PTMTBatch], None]] = {
            "encoder": _stepper(encoder, optimizer, partial(_encoder_loss, encoder, lean), arguments),
            "step": _stepper(lean, optimizer, lambda batch: lean.loss_terms(batch)["loss"], arguments),
            "naive": _stepper(naive, optimizer, partial(_naive_loss, naive), arguments),
        }
        loader = iter(datamodule.train_dataloader())
        batches = [move_data_to_device(next(loader), arguments.device) for _ in range(arguments.batches + 1)]
        seconds = _measure(variants, batches, arguments.device)
    setting = (
        f"{Path(arguments.data).name}, batch {arguments.batch_size}, {arguments.precision}, "
        f"{arguments.device} x {torch.get_num_threads()} threads"
    )
    rows = [
        _row("step_over_encoder", setting, seconds["step"], seconds["encoder"]),
        _row("naive_over_step", setting, seconds["naive"], seconds["step"]),
    ]
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    print({name: f"{statistics.median(values):.3f} s" for name, values in seconds.items()})
    out = Path(arguments.out)
    if out.exists():
        earlier = pd.read_csv(out)
        table = pd.concat([earlier[earlier["setting"] != setting], table])
    table.to_csv(out, index=False)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", required=True, help="name or folder of a BERT-type model")
    parser.add_argument("--data", required=True, help="folder in the project's data format")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", default=str(Path(__file__).parent / "results.csv"))
    return parser.parse_args()


def _stepper(
    module: nn.Module, optimizer: LinearAdamW, loss_of: Callable[[PTMTBatch], Tensor], arguments: argparse.Namespace
) -> Callable[[PTMTBatch], None]:
    """Return a function that makes one training step: forward, backward, clipping and optimiser, for all alike."""
    adamw, _ = optimizer.build(module, 1000, fused=True)
    autocast = torch.autocast(torch.device(arguments.device).type, torch.bfloat16)

    def step(batch: PTMTBatch) -> None:
        adamw.zero_grad()
        with autocast if arguments.precision == "bf16" else contextlib.nullcontext():
            loss = loss_of(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), MAX_NORM)
        adamw.step()

    return step


def _encoder_loss(encoder: PreTrainedModel, model: HTCModel, batch: PTMTBatch) -> Tensor:
    """Return a loss of the encoder on ``[CLS] text [SEP]`` alone: the least that fine-tuning the encoder can cost."""
    assert isinstance(model, PTMT)
    ends_B = batch.attention_mask.sum(dim=1) - model.template.overhead + 1
    width = int(ends_B.max()) + 1
    mask_BL = torch.arange(width, device=ends_B.device) <= ends_B[:, None]
    input_ids_BL = batch.input_ids[:, :width].where(mask_BL, model.template.pad_id)
    states: Tensor = encoder(input_ids=input_ids_BL, attention_mask=mask_BL.long()).last_hidden_state
    return states.square().mean()


def _naive_loss(model: HTCModel, batch: PTMTBatch) -> Tensor:
    """Return PTMT's loss from logits over the whole vocabulary at all positions, padded to the maximum length."""
    assert isinstance(model, PTMT)
    padding = model.max_length - batch.input_ids.shape[1]
    logits_BLT = model.backbone.model(
        input_ids=F.pad(batch.input_ids, (0, padding)), attention_mask=F.pad(batch.attention_mask, (0, padding))
    ).logits
    rows = torch.arange(len(batch.rows), device=logits_BLT.device)[:, None]
    slots_BD = batch.positions[:, : model.taxonomy.num_levels]
    slot_logits_BDT = logits_BLT[rows, slots_BD]
    first = model.template.first_label_id
    levels = [slot_logits_BDT[:, i, first:][:, nodes] for i, nodes in enumerate(model.taxonomy.level_slices)]
    label = model.label_loss(torch.cat(levels, dim=-1), batch.targets, model.taxonomy.level_sizes).sum(-1).mean()
    targets_BL = torch.full(logits_BLT.shape[:2], -100, device=logits_BLT.device)
    width = batch.positions.shape[1]
    masked_rows, places = batch.mlm_index // width, batch.mlm_index % width
    targets_BL[masked_rows, batch.positions[masked_rows, places]] = batch.mlm_ids
    mlm = F.cross_entropy(logits_BLT.float().flatten(0, 1), targets_BL.flatten())
    loss: Tensor = model.alpha * mlm + (1 - model.alpha) * label
    return loss


def _measure(
    variants: dict[str, Callable[[PTMTBatch], None]], batches: list[PTMTBatch], device: str
) -> dict[str, list[float]]:
    names = list(variants)
    for name in names:  # warm-up
        variants[name](batches[0])
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for index, batch in enumerate(batches[1:]):
        for name in names[index % len(names) :] + names[: index % len(names)]:
            started = _now(device)
            variants[name](batch)
            seconds[name].append(_now(device) - started)
    return seconds


def _now(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def _row(measure: str, setting: str, numerator: list[float], denominator: list[float]) -> dict[str, object]:
    """Return a row with the ratio of the summed times; its spread is the interquartile range of the batches' ratios."""
    ratios = [a / b for a, b in zip(numerator, denominator, strict=True)]
    lower, _, upper = statistics.quantiles(ratios, n=4)
    value = sum(numerator) / sum(denominator)
    return {
        "measure": measure,
        "setting": setting,
        "value": round(value, 3),
        "unit": "ratio",
        "spread": round(upper - lower, 3),
    }


if __name__ == "__main__":
    main()
