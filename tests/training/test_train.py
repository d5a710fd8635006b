"""The main job in one process and in two: training, evaluation, resuming, the run's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import pytest
import torch
from conftest import TOY_DOCUMENTS, TOY_EDGES, datamodule, write_folder
from helpers import FAST, assert_equal_weights, make, make_trainer, run
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy, Strategy
from transformers import AutoModelForMaskedLM

from ptmt_lightning.data.document import Example
from ptmt_lightning.inference import Classifier
from ptmt_lightning.losses import WASL, CrossEntropy
from ptmt_lightning.models.ptmt.module import PTMT
from ptmt_lightning.training.callbacks import Throughput, Vitals
from ptmt_lightning.training.checks import check_monitor, check_trainer
from ptmt_lightning.training.collectors import RunRecord
from ptmt_lightning.utils.tokens import text_token_ids


def predict(model: PTMT, text: str) -> list[list[str]]:
    """Label paths of one text, as at inference."""
    ids = torch.tensor(text_token_ids(model.tokenizer, [text], model.max_length)[0]).numpy()
    batch = model.collator(training=False)([Example(0, 0, ids, ids[:0])])
    with torch.no_grad():
        kept = model.eval().predict_nodes(model.probabilities(model(batch)))[0]
    names = model.taxonomy.names
    return [[names[node] for node in path] for path in model.taxonomy.label_paths(kept.nonzero().flatten().tolist())]


def test_toy_example_of_the_paper(tmp_path: Path) -> None:
    """Section A.7: two documents, one down to level 3, one that ends on level 1; from text to pruned prediction."""
    documents = TOY_DOCUMENTS[:2]
    folder = write_folder(tmp_path / "a7", TOY_EDGES, train=documents * 8, val=documents, test=documents)
    result, model = run(
        folder, tmp_path, tmp_path / "run", optimizer=FAST, trainer={"max_epochs": 30, "check_val_every_n_epoch": 10}
    )
    tokens = model.tokenizer.convert_ids_to_tokens(
        model.collator(training=False)([Example(0, 0, torch.tensor([7, 8, 9]).numpy(), torch.tensor([0]).numpy())])
        .input_ids[0]
        .tolist()
    )
    assert tokens[4:] == ["[SEP]", "[P1]", "[P2]", "[P3]", "[MASK]", "[MASK]", "[MASK]", "[SEP]"]
    assert predict(model, "m n o") == [["A", "AA", "AAA"]]
    assert predict(model, "x y z") == [["C"]]
    assert result["test"]["exact_match"] == 1.0


def test_the_folder_says_what_the_model_is_and_scores(toy_folder: Path, tmp_path: Path) -> None:
    result, model = run(
        toy_folder,
        tmp_path,
        tmp_path / "run",
        optimizer=FAST,
        trainer={"max_epochs": 20, "check_val_every_n_epoch": 10},
    )
    card = (tmp_path / "run/model/README.md").read_text()
    assert card.startswith("---\nlibrary_name: ptmt_lightning\n")
    assert "a taxonomy of 11 labels on 3 levels\n(3 / 7 / 1)" in card
    assert f"| `h_f1_macro` | {result['val']['h_f1_macro']:.4f} | {result['test']['h_f1_macro']:.4f} |" in card
    assert f"| `f1_macro_level_3` | {result['val']['f1_macro_level_3']:.4f} |" in card
    classifier = Classifier.from_pretrained(tmp_path / "run/model")
    for document in TOY_DOCUMENTS:
        found = classifier.predict(document["text"])
        assert sorted(list(path.labels) for path in found) == sorted(predict(model, document["text"]))


def test_learns_several_paths_and_paths_that_end_early(toy_folder: Path, tmp_path: Path) -> None:
    result, model = run(
        toy_folder,
        tmp_path,
        tmp_path / "run",
        optimizer=FAST,
        trainer={"max_epochs": 60, "check_val_every_n_epoch": 20},
    )
    assert result["test"]["h_f1_micro"] > 0.99
    assert predict(model, "p q p q r") == [["A", "AB"], ["B", "BB"]]


class OnCPU(FSDPStrategy):
    """Lightning refuses FSDP itself where there is no GPU."""


@pytest.mark.parametrize("strategy", [OnCPU(), ModelParallelStrategy()])
def test_strategies_that_split_the_model_are_refused(toy_folder: Path, tmp_path: Path, strategy: Strategy) -> None:
    trainer = make_trainer(tmp_path, strategy=strategy)
    with pytest.raises(ValueError, match=r"trainer\.strategy=\w+: expected one that keeps the model whole on each"):
        check_trainer(trainer, datamodule(toy_folder, tmp_path))


def test_same_seed_gives_identical_metrics_and_weights(toy_folder: Path, tmp_path: Path) -> None:
    first, one = run(toy_folder, tmp_path, tmp_path / "first", p_label=0.7)
    second, two = run(toy_folder, tmp_path, tmp_path / "second", p_label=0.7)
    assert first["test"] == second["test"]
    assert first["val"] == second["val"]
    assert_equal_weights(one, two)


def test_another_seed_gives_other_weights(toy_folder: Path, tmp_path: Path) -> None:
    _, one = run(toy_folder, tmp_path, tmp_path / "first", trainer={"max_epochs": 1})
    _, two = run(toy_folder, tmp_path, tmp_path / "second", seed=1, trainer={"max_epochs": 1})
    assert not torch.equal(one.backbone.token_embeddings, two.backbone.token_embeddings)


def test_run_folder(toy_folder: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    result, model = run(toy_folder, tmp_path, run_dir, optimizer=FAST, trainer={"max_epochs": 10})
    assert {path.name for path in run_dir.iterdir()} == {
        "checkpoints", "config.yaml", "figures", "label_embeddings.csv", "mistakes.csv", "model", "per_label.csv",
        "predictions.jsonl",
        "reliability.csv", "result.json",
    }  # fmt: skip
    assert json.loads((run_dir / "result.json").read_text()) == result
    assert result["num_documents"] == {"train": 24, "val": 6, "test": 7}
    assert {path.name for path in (run_dir / "checkpoints").iterdir()} == {
        "best.ckpt", "last.ckpt", "previous.ckpt"
    }  # fmt: skip
    lines = [json.loads(line) for line in (run_dir / "predictions.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [f"test:{number}" for number in range(1, 8)]
    assert lines[0]["labels"] == [["A", "AA", "AAA"]]
    assert all(
        len(path["path"]) == len(path["probabilities"]) and min(path["probabilities"]) >= 0.5
        for line in lines
        for path in line["predicted"]
    )
    table = pd.read_csv(run_dir / "per_label.csv")
    assert sorted(table["label"]) == sorted(model.taxonomy.names)
    right = table["recall"] * table["support"]
    mistakes = (table["support"] + table["predicted"] - 2 * right).round()
    assert mistakes.is_monotonic_decreasing
    wrong = pd.read_csv(run_dir / "mistakes.csv")
    assert len(wrong) == sum(
        sorted(line["labels"]) != sorted(path["path"] for path in line["predicted"]) for line in lines
    )
    assert wrong["f1"].is_monotonic_increasing
    assert table["support"].sum() == sum(len(model.taxonomy.encode(line["labels"])) for line in lines)
    assert isinstance(AutoModelForMaskedLM.from_pretrained(run_dir / "model"), torch.nn.Module)


def test_a_misspelt_monitor_is_refused(toy_folder: Path, tmp_path: Path) -> None:
    _, model = make(toy_folder, tmp_path)
    with pytest.raises(ValueError, match=r"^monitor='val/h_f1_makro': no such metric; did you mean 'val/h_f1_macro'\?"):
        check_monitor("val/h_f1_makro", model)
    for monitor in ("val/h_auprc", "val/f1_macro_level_3", "val/label_loss", "train/loss"):
        check_monitor(monitor, model)
    trainer = make_trainer(tmp_path / "run")
    trainer.validate(model, make(toy_folder, tmp_path)[0], verbose=False)
    for monitor in trainer.callback_metrics:
        check_monitor(monitor, model)


def test_weights_may_be_kept_once(toy_folder: Path, tmp_path: Path) -> None:
    run(toy_folder, tmp_path, tmp_path / "run", keep_checkpoints=False)
    kept = {path.name for path in (tmp_path / "run").rglob("*") if path.suffix in (".ckpt", ".safetensors")}
    assert kept == {"model.safetensors"}
    assert not (tmp_path / "run/checkpoints").exists()


def test_reported_validation_is_that_of_the_best_checkpoint(toy_folder: Path, tmp_path: Path) -> None:
    result, model = run(toy_folder, tmp_path, tmp_path / "run", optimizer=FAST, trainer={"max_epochs": 6})
    module, _ = make(toy_folder, tmp_path)
    make_trainer(tmp_path / "again").validate(model, module, verbose=False)
    assert model.val_metrics.compute().values == result["val"]


def test_no_test_split(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data", TOY_EDGES, train=TOY_DOCUMENTS * 2, val=TOY_DOCUMENTS)
    result, _ = run(folder, tmp_path, tmp_path / "run")
    assert result["test"] == {}
    assert result["val"]["h_f1_macro"] >= 0
    assert not (tmp_path / "run" / "predictions.jsonl").exists()


def test_cross_entropy_learns_one_path(tmp_path: Path) -> None:
    documents = [document for document in TOY_DOCUMENTS if len(document["labels"]) == 1]
    folder = write_folder(tmp_path / "data", TOY_EDGES, train=documents * 8, val=documents, test=documents)
    settings = {"label_loss": CrossEntropy(), "alpha_l1": 0.0, "optimizer": FAST}
    result, _ = run(
        folder, tmp_path, tmp_path / "run", **settings, trainer={"max_epochs": 25, "check_val_every_n_epoch": 5}
    )
    assert result["test"]["exact_match"] == 1.0


def test_cross_entropy_refuses_several_labels_a_level(toy_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"at most one label a level; document train:3 has 2 on level 1; set loss=wasl"
    ):
        make(toy_folder, tmp_path, label_loss=CrossEntropy())


def test_non_finite_loss_stops_with_step_terms_and_documents(toy_folder: Path, tmp_path: Path) -> None:
    module, model = make(toy_folder, tmp_path)
    with torch.no_grad():
        model.backbone.new_bias[-1] = float("nan")
    expected = (
        r"non-finite loss at step 0 \(epoch 0\): loss=nan, label=nan, count_l1=nan, mlm=.*; documents \['train:\d+'"
    )
    with pytest.raises(ValueError, match=expected):
        make_trainer(tmp_path / "run").fit(model, module)


def test_endless_training_is_refused(toy_folder: Path, tmp_path: Path) -> None:
    module, model = make(toy_folder, tmp_path)
    with pytest.raises(ValueError, match=r"trainer.max_epochs=-1: the linear decay needs an end"):
        make_trainer(tmp_path / "run", max_epochs=-1).fit(model, module)


def test_train_fraction(toy_folder: Path, tmp_path: Path) -> None:
    result, _ = run(toy_folder, tmp_path, tmp_path / "run", data={"train_fraction": 0.25})
    assert result["num_documents"]["train"] == 6
    assert result["steps"] == 2 * 2


def test_throughput_is_logged(toy_folder: Path, tmp_path: Path) -> None:
    module, model = make(toy_folder, tmp_path)
    trainer = make_trainer(tmp_path / "run", callbacks=[Throughput()], log_every_n_steps=1)
    trainer.fit(model, module)
    logged = trainer.callback_metrics
    assert logged["train/tokens_per_second"] > logged["train/documents_per_second"] > 0


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_gradient_norm_is_of_the_whole_gradient_before_clipping(
    toy_folder: Path, tmp_path: Path, accumulate: int
) -> None:
    norms, logged = [], []

    class Record(L.Callback):
        def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: Any, optimizer: Any) -> None:
            gradients = [parameter.grad.flatten() for parameter in pl_module.parameters() if parameter.grad is not None]
            norms.append(torch.cat(gradients).norm().item())

        def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
            logged.append(trainer.logged_metrics.get("train/gradient_norm"))

    module, model = make(toy_folder, tmp_path)
    settings: dict[str, Any] = {"gradient_clip_val": 0.01, "accumulate_grad_batches": accumulate, "max_epochs": 1}
    trainer = make_trainer(tmp_path / "run", callbacks=[Vitals(), Record()], log_every_n_steps=3, **settings)
    trainer.fit(model, module)
    assert min(norms) > 0.01
    assert len(norms) == 6 // accumulate
    assert logged[: 3 * accumulate - 1] == [None] * (3 * accumulate - 1)
    assert logged[3 * accumulate - 1].item() == pytest.approx(norms[2], rel=1e-5)
    assert logged[-1].item() == pytest.approx(norms[-1], rel=1e-5)
    assert 0.05 < trainer.logged_metrics["train/memory_gib"] < 50


def test_nothing_is_logged_at_steps_where_the_trainer_asks_for_none(toy_folder: Path, tmp_path: Path) -> None:
    module, model = make(toy_folder, tmp_path)
    callbacks = [Vitals(), Throughput()]
    trainer = make_trainer(tmp_path / "run", callbacks=callbacks, log_every_n_steps=0, max_epochs=1)
    trainer.fit(model, module)
    assert not {"train/gradient_norm", "train/documents_per_second"} & trainer.callback_metrics.keys()


def test_overfitting_sees_the_same_documents_every_epoch(toy_folder: Path, tmp_path: Path) -> None:
    seen: list[list[int]] = []

    class Record(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            seen.append(batch.rows.tolist())

    module, model = make(toy_folder, tmp_path)
    make_trainer(tmp_path / "run", callbacks=[Record()], overfit_batches=2, max_epochs=3).fit(model, module)
    assert len(seen) == 6
    assert seen[:2] == seen[2:4] == seen[4:]


def test_a_sanity_check_is_not_reported(toy_folder: Path, tmp_path: Path) -> None:
    module, model = make(toy_folder, tmp_path)
    record = RunRecord()
    trainer = make_trainer(tmp_path / "run", callbacks=[record], num_sanity_val_steps=1, max_steps=1)
    trainer.fit(model, module)
    assert record.val_results == {}
    assert not any(name.startswith("val/") for name in trainer.callback_metrics)


def test_level_weights_that_do_not_fit_are_refused_before_training(toy_folder: Path, tmp_path: Path) -> None:
    loss = WASL(gamma_pos=1, gamma_neg=4, margin=0.05, level_weights=[1, 2])
    with pytest.raises(ValueError, match="expected 3 numbers, one a level of the taxonomy"):
        make(toy_folder, tmp_path, label_loss=loss)


def test_fast_dev_run(toy_folder: Path, tmp_path: Path) -> None:
    result, _ = run(toy_folder, tmp_path, tmp_path / "run", trainer={"fast_dev_run": True})
    assert result["steps"] == 1
    assert result["best_checkpoint"] is None
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_bf16_close_to_fp32(toy_folder: Path, tmp_path: Path) -> None:
    module, model = make(toy_folder, tmp_path)
    batch = next(iter(module.val_dataloader()))
    model.eval()
    with torch.no_grad():
        expected = model.probabilities(model(batch))
        with torch.autocast("cpu", torch.bfloat16):
            actual = model.probabilities(model(batch))
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, expected, atol=0.02, rtol=0)
    result, _ = run(toy_folder, tmp_path, tmp_path / "run", trainer={"precision": "bf16-mixed"})
    assert result["precision"] == "bf16-mixed"


@pytest.mark.slow
def test_compiled_backbone_gives_the_same_loss(toy_folder: Path, tmp_path: Path) -> None:
    module, model = make(toy_folder, tmp_path)
    batches = list(module.val_dataloader())
    model.eval()
    expected = [model.loss_terms(batch)["loss"] for batch in batches]
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model.backbone.compile_passes()
    actual = [model.loss_terms(batch)["loss"] for batch in batches]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
    assert not any("_orig_mod" in name for name in model.state_dict())


@pytest.mark.parametrize("num_devices", [2])
def test_two_ranks_evaluate_as_one(toy_folder: Path, tmp_path: Path, num_devices: int) -> None:
    """Seven test documents on two ranks: none counted twice, none left out."""
    module, model = make(toy_folder, tmp_path)
    [expected] = make_trainer(tmp_path / "one").test(model, module, verbose=False)
    module, model = make(toy_folder, tmp_path)
    trainer = make_trainer(tmp_path / "two", devices=num_devices, strategy="ddp_notebook")
    [actual] = trainer.test(model, module, verbose=False)
    assert actual == expected
