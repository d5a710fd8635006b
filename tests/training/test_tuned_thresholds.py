"""Runs that choose their thresholds on validation, on one rank and on two."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import FAST, assert_equal_weights, make, make_trainer, run
from threshold_cases import CANDIDATES, Case, reached
from torch import multiprocessing

from ptmt_lightning.optim import LinearAdamW
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.thresholds import Tuning, tune_thresholds
from ptmt_lightning.training.train import train

FROZEN = LinearAdamW(learning_rate=0.0, new_rate_factor=1, weight_decay=0.0, warmup_ratio=0.0)


def predicted_nodes(run_dir: Path, taxonomy: Taxonomy) -> list[set[int]]:
    """Of each test document."""
    lines = [json.loads(line) for line in (run_dir / "predictions.jsonl").read_text().splitlines()]
    return [{taxonomy.index[name] for path in line["predicted"] for name in path["path"]} for line in lines]


@pytest.fixture(scope="module")
def short_run() -> dict[str, Any]:
    """Enough to learn something, too little to be sure at 0.5."""
    return {"optimizer": FAST, "trainer": {"max_epochs": 6}}


def test_without_tuning_thresholds_are_the_configured_ones(toy_folder: Path, tmp_path: Path) -> None:
    result, model = run(toy_folder, tmp_path, tmp_path / "run", trainer={"max_epochs": 1})
    assert result["thresholds"] == list(model.rule.thresholds or ()) == [0.5, 0.5, 0.5]
    settings: dict[str, Any] = {"threshold": [0.3, 0.4, 0.6], "trainer": {"max_epochs": 1}}
    result, model = run(toy_folder, tmp_path, tmp_path / "other", **settings)
    assert result["thresholds"] == list(model.rule.thresholds or ()) == [0.3, 0.4, 0.6]
    assert json.loads((tmp_path / "other/model/ptmt.json").read_text())["thresholds"] == [0.3, 0.4, 0.6]


@pytest.mark.parametrize("prune", [True, False])
@pytest.mark.parametrize("tuning", ["global", "level"])
def test_a_run_uses_the_thresholds_it_chose(
    toy_folder: Path, tmp_path: Path, short_run: dict[str, Any], tuning: Tuning, prune: bool
) -> None:
    run_dir = tmp_path / "run"
    result, model = run(toy_folder, tmp_path, run_dir, tune_threshold=tuning, prune=prune, **short_run)
    chosen = result["thresholds"]
    assert chosen != [0.5, 0.5, 0.5]
    assert (
        json.loads((run_dir / "result.json").read_text())["thresholds"] == chosen == list(model.rule.thresholds or ())
    )
    assert json.loads((run_dir / "model/ptmt.json").read_text())["thresholds"] == chosen

    # The choice, from scores taken anew; then what it reaches, as a plain validation and test see it.
    module, _ = make(toy_folder, tmp_path)
    model.eval()
    with torch.no_grad():
        scored = [(model.probabilities(model(batch)), batch.targets) for batch in module.val_dataloader()]
    probabilities, targets = (torch.cat(parts) for parts in zip(*scored, strict=True))
    assert len(probabilities) == result["num_documents"]["val"]
    assert chosen == tune_thresholds(probabilities, targets, model.taxonomy, tuning=tuning, prune=prune)
    best = max(reached(Case(probabilities, targets, model.taxonomy), [t] * 3, prune=prune) for t in CANDIDATES)
    assert result["val"]["h_f1_macro"] >= best - 1e-12
    if tuning == "global":
        assert result["val"]["h_f1_macro"] == pytest.approx(best)
    make_trainer(tmp_path / "again").validate(model, module, verbose=False)
    assert model.val_metrics.compute().values == result["val"]
    make_trainer(tmp_path / "again").test(model, module, verbose=False)
    assert model.test_metrics.compute().values == result["test"]

    limits = torch.tensor([chosen[level - 1] for level in model.taxonomy.levels])
    expected: dict[int, set[int]] = {}
    for batch in module.test_dataloader():
        with torch.no_grad():
            kept = model.probabilities(model(batch)) > limits
        kept = model.taxonomy.prune(kept) if prune else kept
        for row, nodes in zip(batch.rows.tolist(), kept, strict=True):
            expected[row] = set(nodes.nonzero().flatten().tolist())
    assert predicted_nodes(run_dir, model.taxonomy) == [expected[row] for row in range(7)]


def test_tuning_changes_neither_training_nor_the_choice_of_checkpoint(
    toy_folder: Path, tmp_path: Path, short_run: dict[str, Any]
) -> None:
    plain, one = run(toy_folder, tmp_path, tmp_path / "plain", **short_run)
    common, two = run(toy_folder, tmp_path, tmp_path / "global", tune_threshold="global", **short_run)
    by_level, three = run(toy_folder, tmp_path, tmp_path / "level", tune_threshold="level", **short_run)
    assert plain["thresholds"] == [0.5, 0.5, 0.5]
    assert by_level["val"]["h_f1_macro"] >= common["val"]["h_f1_macro"] > plain["val"]["h_f1_macro"]
    assert plain["val"]["h_auprc"] == common["val"]["h_auprc"] == by_level["val"]["h_auprc"]
    assert plain["test"]["h_auprc"] == common["test"]["h_auprc"] == by_level["test"]["h_auprc"]
    for tuned, model in ((common, two), (by_level, three)):
        assert_equal_weights(one, model)
        assert set(tuned) == set(plain)
        same = ("best_checkpoint", "best_score", "epochs", "steps", "num_documents", "num_parameters", "seed")
        assert {name: tuned[name] for name in same} == {name: plain[name] for name in same}


def test_tuning_starts_from_the_best_checkpoint_whatever_the_configured_threshold(
    toy_folder: Path, tmp_path: Path
) -> None:
    """The configured threshold decides which checkpoint is best, and nothing after that."""
    runs: dict[str, Any] = {}
    for name, threshold in (("low", 0.1), ("high", [0.9, 0.8, 0.7])):
        trainer = {"max_epochs": 1}
        settings = {"tune_threshold": "level", "threshold": threshold, "optimizer": FROZEN, "trainer": trainer}
        runs[name], _ = run(toy_folder, tmp_path, tmp_path / name, **settings)
    for key in ("thresholds", "val", "test"):
        assert runs["low"][key] == runs["high"][key]


def test_tuning_works_without_a_test_split_and_before_the_first_validation(toy_folder: Path, tmp_path: Path) -> None:
    (toy_folder / "test.jsonl").unlink()
    result, model = run(toy_folder, tmp_path, tmp_path / "run", tune_threshold="global", trainer={"max_steps": 1})
    assert result["test"] == {}
    assert result["thresholds"] == list(model.rule.thresholds or ())
    assert set(result["val"]) >= {"h_f1_macro", "h_auprc"}


def test_a_fast_dev_run_tunes_too(toy_folder: Path, tmp_path: Path) -> None:
    trainer = {"fast_dev_run": True}
    result, _ = run(toy_folder, tmp_path, tmp_path / "run", tune_threshold="level", trainer=trainer)
    assert len(result["thresholds"]) == 3
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]


# ---- two ranks ----


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def whole_run(folder: Path, tmp_path: Path, run_dir: Path, tuning: Tuning, **trainer: Any) -> dict[str, Any]:
    """A run whose rate is 0, so that its weights do not depend on the number of ranks; its scores are spread out."""
    run_dir.mkdir(exist_ok=True)
    module, model = make(folder, tmp_path, optimizer=FROZEN, tune_threshold=tuning)
    with torch.no_grad():
        model.backbone.new_bias[-11:] = torch.linspace(-2, 2, 11)[torch.randperm(11)]
    return train(
        datamodule=module,
        model=model,
        trainer=make_trainer(run_dir, max_epochs=1, **trainer),
        run_dir=run_dir,
        config={"run": {"model": "ptmt", "backbone": "tiny", "loss": "wasl"}},
    )


def run_on_rank(
    rank: int, port: int, folder: Path, tmp_path: Path, tuning: Tuning, environment: dict[str, str]
) -> None:
    """One of two processes that Lightning takes for started by a launcher."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setenv("LOCAL_RANK", str(rank))
        patch.setenv("MASTER_PORT", str(port))
        result = whole_run(folder, tmp_path, tmp_path / "two", tuning, devices=2, strategy="ddp")
    (tmp_path / f"{rank}.json").write_text(json.dumps(result))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("tuning", ["global", "level"])
def test_two_ranks_choose_and_report_as_one(toy_folder: Path, tmp_path: Path, tuning: Tuning) -> None:
    expected = whole_run(toy_folder, tmp_path, tmp_path / "one", tuning)
    assert expected["thresholds"] != [0.5, 0.5, 0.5]
    environment = {"WORLD_SIZE": "2", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    arguments = (free_port(), toy_folder, tmp_path, tuning, environment)
    multiprocessing.start_processes(run_on_rank, args=arguments, nprocs=2, start_method="fork")
    for rank in (0, 1):
        result = json.loads((tmp_path / f"{rank}.json").read_text())
        assert result["num_devices"] == 2
        assert result["thresholds"] == expected["thresholds"]
        assert result["val"] == pytest.approx(expected["val"], abs=1e-12)
        assert result["test"] == pytest.approx(expected["test"], abs=1e-12)
    written = json.loads((tmp_path / "two/model/ptmt.json").read_text())
    assert written["thresholds"] == expected["thresholds"]
