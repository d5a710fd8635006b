"""Measures which share of a GPU's matrix rate a training step of PTMT reaches, plain and compiled.

    python experiments/gpu/utilisation.py [--layers 12] [--width 768] [--length 512] [--batch-size 32] [--device cuda]

The rate is that of a product of two square bf16 matrices, measured in the same process. The step is forward, backward,
clipping and AdamW under bf16 autocast, with random weights; its floating-point operations are those of its matrix
products and attention, counted by PyTorch in an eager step. Texts all have the full length.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lightning.fabric.utilities import move_data_to_device
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from ptmt_lightning.backbones import FromScratch
from ptmt_lightning.data.document import Example
from ptmt_lightning.losses import WASL
from ptmt_lightning.models.ptmt.module import PTMT
from ptmt_lightning.optim import LinearAdamW
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.taxonomy.edges import ROOT

TAXONOMY = Taxonomy([(ROOT, f"top{i}") for i in range(17)] + [(f"top{i % 17}", f"leaf{i}") for i in range(85)])
WORDS = [f"word{i}" for i in range(500)]


def main() -> None:
    """Measure, and write rows into a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--matrix", type=int, default=8192, help="rows of the matrices whose product gives the rate")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("utilisation.csv"))
    options = parser.parse_args()
    rate = _matrix_rate(options)
    size = f"{options.layers}x{options.width} {options.length} tokens batch {options.batch_size}"
    setting = f"{_name(options.device)} {size} bf16"
    rows = [("matrix_rate", setting, rate / 1e12, "TFLOP/s", 0.0)]
    for is_compiled in (False, True):
        step, flops = _step(options, compiled=is_compiled)
        times = _times(step, options.steps)
        name = f"{setting} {'compiled' if is_compiled else 'eager'}"
        low, middle, high = np.quantile(times, (0.25, 0.5, 0.75))
        rows.append(("step", name, 1000 * middle, "ms", 1000 * (high - low)))
        rows.append(("model_flops_utilisation", name, flops / middle / rate, "share", 0.0))
    table = pd.DataFrame(rows, columns=["measure", "setting", "value", "unit", "spread"])
    table.to_csv(options.out, index=False, float_format="%.4g")
    print(table.to_string(index=False))


def _name(device: str) -> str:
    return torch.cuda.get_device_name() if device.startswith("cuda") else device


def _matrix_rate(options: argparse.Namespace) -> float:
    """Return the operations a second of a product of square bf16 matrices of random numbers."""
    size = options.matrix
    a, b = torch.randn(2, size, size, device=options.device).bfloat16()
    operations: float = 2 * size**3
    return operations / statistics.median(_times(lambda: a @ b, 10))


def _step(options: argparse.Namespace, *, compiled: bool) -> tuple[Callable[[], object], int]:
    """Return a function that makes one training step, and the operations of one."""
    torch.manual_seed(0)
    source = FromScratch(
        name="random", hidden_size=options.width, num_layers=options.layers, num_heads=options.width // 64,
        intermediate_size=4 * options.width, vocabulary_size=len(WORDS), max_length=options.length,
    )  # fmt: skip
    backbone, tokenizer, max_length = source.load(WORDS)
    optimizer = LinearAdamW(learning_rate=1e-5)
    model = PTMT(
        taxonomy=TAXONOMY, backbone=backbone, tokenizer=tokenizer, max_length=max_length, label_loss=WASL(),
        optimizer=optimizer, alpha=0.1,
    ).to(options.device)  # fmt: skip
    rng = np.random.default_rng(0)
    labels = np.array([0, 17], dtype=np.int32)
    examples = [
        Example(row, 0, rng.integers(5, 400, options.length, dtype=np.int32), labels)
        for row in range(options.batch_size)
    ]
    batch = move_data_to_device(model.collator(training=True)(examples), options.device)
    adamw, _ = optimizer.build(model, 1000, fused=True)

    def step() -> None:
        adamw.zero_grad()
        with torch.autocast(torch.device(options.device).type, torch.bfloat16):
            loss = model.loss_terms(batch)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        adamw.step()

    with FlopCounterMode(display=False) as counter:
        step()
    flops = counter.get_total_flops()
    if compiled:
        model.backbone.compile_passes()
    return step, flops


def _times(work: Callable[[], object], count: int) -> list[float]:
    """Return the seconds of each call after three that warm up; the timer waits for the GPU."""
    timer = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    timer.timeit(3)
    return [timer.timeit(1).mean for _ in range(count)]


if __name__ == "__main__":
    main()
