"""Thresholds chosen on validation: against brute force, in whole runs, and on two ranks."""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from conftest import TOY_EDGES
from helpers import FAST, assert_equal_weights, make, make_trainer, run
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, multiprocessing

from ptmt_lightning import thresholds
from ptmt_lightning.metrics import HierarchicalMetrics
from ptmt_lightning.optim import LinearAdamW
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.thresholds import Tuning, tune_thresholds
from ptmt_lightning.training.train import train

CANDIDATES = [i / 40 for i in range(1, 40)]
FROZEN = LinearAdamW(learning_rate=0.0, new_rate_factor=1, weight_decay=0.0, warmup_ratio=0.0)

DAG_EDGES = [("ROOT", "A"), ("ROOT", "B"), ("A", "C"), ("B", "C"), ("ROOT", "D"), ("B", "D"), ("C", "E"), ("D", "E")]
TREE_EDGES = [("ROOT", "A"), ("ROOT", "B"), ("A", "AA"), ("A", "AB"), ("B", "BA"), ("AA", "AAA")]
FLAT_EDGES = [("ROOT", "A"), ("ROOT", "B"), ("ROOT", "C")]


class Case(NamedTuple):
    """What thresholds are chosen on."""

    probabilities: Tensor  # [N, V]
    targets: Tensor  # bool [N, V]
    taxonomy: Taxonomy


def random_case(taxonomy: Taxonomy, num_documents: int, seed: int, grain: int = 40) -> Case:
    """Probabilities that say something about the truth; with grain 40 many lie exactly on a candidate."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.rand(num_documents, len(taxonomy), generator=generator) < 0.4
    noise = torch.rand(num_documents, len(taxonomy), generator=generator)
    return Case(((0.3 * targets + 0.7 * noise) * grain).floor() / grain, targets, taxonomy)


@st.composite
def cases(draw: st.DrawFn, edges: Sequence[list[tuple[str, str]]] = (TREE_EDGES, DAG_EDGES, FLAT_EDGES)) -> Case:
    taxonomy = Taxonomy(draw(st.sampled_from(edges)))
    num_documents, seed = draw(st.integers(1, 6)), draw(st.integers(0, 10_000))
    return random_case(taxonomy, num_documents, seed, draw(st.sampled_from([4, 40, 1000])))


def reached(case: Case, chosen: Sequence[float], *, prune: bool) -> float:
    """The ``h_f1_macro`` of thresholds, by way of what runs report; equal ones are equal in each digit given."""
    limits = torch.tensor([chosen[level - 1] for level in case.taxonomy.levels])
    predicted = case.probabilities > limits
    metrics = HierarchicalMetrics(case.taxonomy)
    metrics.update(case.taxonomy.prune(predicted) if prune else predicted, case.targets, case.probabilities)
    return round(metrics.compute().values["h_f1_macro"], 12)


def distance(chosen: Sequence[float]) -> float:
    return sum(abs(threshold - 0.5) for threshold in chosen)


# ---- against brute force ----


@settings(max_examples=20)
@given(case=cases(), prune=st.booleans())
def test_the_common_threshold_is_the_best_and_of_equals_nearest_to_one_half(case: Case, prune: bool) -> None:
    chosen = tune_thresholds(*case, tuning="global", prune=prune)
    assert chosen == [chosen[0]] * case.taxonomy.num_levels
    assert chosen[0] in CANDIDATES
    quality = {t: reached(case, [t] * case.taxonomy.num_levels, prune=prune) for t in CANDIDATES}
    best = [t for t in CANDIDATES if quality[t] == max(quality.values())]
    assert chosen[0] in best
    assert abs(chosen[0] - 0.5) == pytest.approx(min(abs(t - 0.5) for t in best))


@settings(max_examples=12)
@given(case=cases(), prune=st.booleans())
def test_thresholds_by_level_are_never_worse_and_no_single_change_helps(case: Case, prune: bool) -> None:
    common = tune_thresholds(*case, tuning="global", prune=prune)
    chosen = tune_thresholds(*case, tuning="level", prune=prune)
    quality = reached(case, chosen, prune=prune)
    assert len(chosen) == case.taxonomy.num_levels
    assert quality >= reached(case, common, prune=prune)
    if quality == reached(case, common, prune=prune):
        assert distance(chosen) <= distance(common) + 1e-9
    # The last level was changed last: nothing there is better, nor as good and nearer to 0.5.
    for candidate in CANDIDATES:
        other = [*chosen[:-1], candidate]
        assert reached(case, other, prune=prune) <= quality
        if reached(case, other, prune=prune) == quality:
            assert distance(other) >= distance(chosen) - 1e-9


@given(case=cases([FLAT_EDGES]), prune=st.booleans())
@settings(max_examples=15)
def test_on_one_level_both_ways_choose_the_same(case: Case, prune: bool) -> None:
    assert tune_thresholds(*case, tuning="level", prune=prune) == tune_thresholds(*case, tuning="global", prune=prune)


def test_levels_that_are_apart_get_the_thresholds_of_an_exhaustive_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Level 1 needs a high threshold, level 2 a low one; no common one does for both."""
    taxonomy = Taxonomy([("ROOT", "A"), ("ROOT", "B"), ("A", "AA"), ("B", "BA")])
    targets = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.bool)
    top, below = torch.where(targets[:, :2], 0.9, 0.7), torch.where(targets[:, 2:], 0.3, 0.1)
    case = Case(torch.cat([top, below], dim=1), targets, taxonomy)
    few = (0.2, 0.4, 0.5, 0.6, 0.8)
    monkeypatch.setattr(thresholds, "_CANDIDATES", few)
    for prune in (True, False):
        pairs = list(itertools.product(few, repeat=2))
        best = max(pairs, key=lambda pair: (reached(case, pair, prune=prune), -distance(pair)))
        assert reached(case, best, prune=prune) == 1
        assert tuple(tune_thresholds(*case, tuning="level", prune=prune)) == best == (0.8, 0.2)
        common = tune_thresholds(*case, tuning="global", prune=prune)
        assert reached(case, common, prune=prune) < 1


def test_the_choice_is_by_the_average_that_is_reported() -> None:
    taxonomy = Taxonomy([("ROOT", name) for name in "ABCD"])
    # A is found best at 0.5; below that B is found as well, and C and D, which never occur, come in.
    probabilities = torch.tensor([[0.9, 0.3, 0.35, 0.35], [0.6, 0.1, 0.1, 0.1]])
    targets = torch.tensor([[True, True, False, False], [True, False, False, False]])
    chosen = {
        classes: tune_thresholds(probabilities, targets, taxonomy, tuning="global", prune=True, classes=classes)
        for classes in ("present", "all")
    }
    for classes, [threshold, *_] in chosen.items():
        quality = {}
        for candidate in (threshold, 0.25, 0.5):
            metrics = HierarchicalMetrics(taxonomy, classes=classes)
            metrics.update(probabilities > candidate, targets, probabilities)
            quality[candidate] = metrics.compute().values["h_f1_macro"]
        assert quality[threshold] == max(quality.values())
    assert chosen["present"] == [0.5] != chosen["all"]


def test_pruning_is_part_of_the_choice() -> None:
    taxonomy = Taxonomy([("ROOT", "A"), ("A", "AA")])
    # AA never is true, but probable below a parent that is not predicted at 0.5: pruning drops it there.
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.3, 0.6]])
    targets = torch.tensor([[True, False], [True, False], [False, False]])
    pruned = tune_thresholds(probabilities, targets, taxonomy, tuning="global", prune=True)
    unpruned = tune_thresholds(probabilities, targets, taxonomy, tuning="global", prune=False)
    assert pruned == [0.5, 0.5]
    assert unpruned == pytest.approx([0.6, 0.6])


@pytest.mark.parametrize("tuning", ["global", "level"])
def test_a_probability_on_the_threshold_is_not_predicted(tuning: Tuning) -> None:
    probabilities, targets = torch.tensor([[0.525], [0.5]]), torch.tensor([[True], [False]])
    taxonomy = Taxonomy([("ROOT", "A")])
    assert tune_thresholds(probabilities, targets, taxonomy, tuning=tuning, prune=True) == [0.5]
    assert tune_thresholds(probabilities - 0.025, targets, taxonomy, tuning=tuning, prune=True) == [0.475]


@pytest.mark.parametrize("tuning", ["global", "level"])
@pytest.mark.parametrize("targets", [torch.zeros(3, 11).bool(), torch.ones(3, 11).bool()], ids=["none", "all"])
def test_where_every_threshold_is_as_good_it_is_one_half(
    tuning: Tuning, targets: Tensor, toy_taxonomy: Taxonomy
) -> None:
    probabilities = targets.float()
    assert tune_thresholds(probabilities, targets, toy_taxonomy, tuning=tuning, prune=True) == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("tuning", ["global", "level"])
@pytest.mark.parametrize("chunk", [1, 3, 7, 50])
def test_the_choice_does_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch, tuning: Tuning, chunk: int) -> None:
    case = random_case(Taxonomy(TOY_EDGES), 20, seed=1, grain=1000)
    before = case.probabilities.clone(), case.targets.clone()
    expected = tune_thresholds(*case, tuning=tuning, prune=True)
    monkeypatch.setattr(thresholds, "_CHUNK", chunk)
    assert tune_thresholds(*case, tuning=tuning, prune=True) == expected
    assert torch.equal(case.probabilities, before[0])
    assert torch.equal(case.targets, before[1])


@given(st.integers(0, 1000))
@settings(max_examples=6)
def test_the_choice_does_not_depend_on_the_order_of_documents(seed: int) -> None:
    case = random_case(Taxonomy(DAG_EDGES), 9, seed)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
    shuffled = Case(case.probabilities[order], case.targets[order], case.taxonomy)
    assert tune_thresholds(*shuffled, tuning="level", prune=True) == tune_thresholds(*case, tuning="level", prune=True)


# Not tested: model.metric_classes=all. The choice then is not that of the highest reported h_f1_macro, because
# tune_thresholds always averages over present classes.


# ---- whole runs ----


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
