"""A saved model of any system is opened, checked, used and exported in one way."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TOY_DOCUMENTS, TOY_EDGES, toy_examples, write_folder
from every_system import MORE, PEERS, SYSTEMS, TEXTS, check_exported, labels, saved
from safetensors.torch import load_file, save_file
from warm import warm_ptmt

from ptmt_lightning.cli import main
from ptmt_lightning.inference import Classifier
from ptmt_lightning.inference.export import FileFormat
from ptmt_lightning.losses import CrossEntropy
from ptmt_lightning.metrics import HierarchicalMetrics
from ptmt_lightning.models.base import HTCModel


def expected(model: HTCModel) -> torch.Tensor:
    """The trained model's own probabilities of the toy texts."""
    with torch.no_grad():
        batch = model.collator(training=False)(toy_examples(model.tokenizer, model.taxonomy))
        return model.probabilities(model(batch))


def change_settings(folder: Path, system: str, *, keep_digest: bool = False, **changes: Any) -> None:
    path = folder / f"{system}.json"
    settings = json.loads(path.read_text()) | changes
    if not keep_digest:  # as a version before 0.2 wrote it
        del settings["digest"]
    path.write_text(json.dumps(settings))


# ---- predictions ----


@pytest.mark.parametrize(
    ("system", "model_type", "changes"),
    [
        *((system, None, {}) for system in SYSTEMS),
        ("bert", None, {"label_loss": CrossEntropy()}),
        ("bert", None, {"num_layers": 2, "decoding": "top_k", "top_k": 2}),
        ("bert", "roberta", {"pooling": "mean"}),
        ("bert_ml", "roberta", {"coherent": True}),
        ("gacaps", "distilbert", {"decoding": "best_path"}),
    ],
)
def test_predictions_equal_the_trained_models(
    tmp_path: Path, system: str, model_type: str | None, changes: dict[str, Any]
) -> None:
    model = saved(tmp_path, system, model_type, **changes)
    classifier = Classifier.from_pretrained(tmp_path / "model", device="cpu")
    probabilities = expected(model)
    assert probabilities.std() > 0.02
    scale = 20 if system == "gacaps" else 1  # whose routing multiplies the rounding of another batch
    torch.testing.assert_close(classifier.probabilities(TEXTS), probabilities, rtol=scale * 1e-5, atol=scale * 1e-6)
    nodes = [{classifier.taxonomy.index[name] for path in p for name in path.labels} for p in classifier.predict(TEXTS)]
    assert nodes == [set(row.nonzero().flatten().tolist()) for row in model.predict_nodes(probabilities)]
    assert any(nodes)


@pytest.mark.parametrize("system", PEERS)
def test_a_prediction_does_not_depend_on_its_batch(tmp_path: Path, system: str) -> None:
    saved(tmp_path, system)
    classifier = Classifier.from_pretrained(tmp_path / "model")
    alone = torch.cat([classifier.probabilities(text) for text in MORE])
    for size in (2, 5, 32):
        together = classifier.probabilities(MORE[::-1], batch_size=size).flip(0)
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert labels(classifier.predict(MORE, batch_size=4)) == labels(classifier.predict(text) for text in MORE)


@pytest.mark.parametrize("system", PEERS)
def test_the_command_line_predicts_the_same(tmp_path: Path, system: str) -> None:
    saved(tmp_path, system)
    command = [*warm_ptmt(), "predict", str(tmp_path / "model"), "-"]
    done = subprocess.run(command, input="\n".join([*TEXTS, ""]), capture_output=True, text=True, check=True)
    found = [[tuple(path["path"]) for path in json.loads(line)["predicted"]] for line in done.stdout.splitlines()]
    assert found == labels(Classifier.from_pretrained(tmp_path / "model").predict(TEXTS))


@pytest.mark.parametrize("system", PEERS)
def test_an_evaluation_has_the_trained_models_scores(tmp_path: Path, system: str) -> None:
    model = saved(tmp_path, system)
    probabilities = expected(model)
    metrics = HierarchicalMetrics(model.taxonomy, classes="present")
    targets = torch.zeros(probabilities.shape, dtype=torch.bool)
    for row, document in enumerate(TOY_DOCUMENTS):
        targets[row, model.taxonomy.encode(document["labels"])] = True  # type: ignore[arg-type]
    metrics.update(model.predict_nodes(probabilities), targets, probabilities)
    data = write_folder(tmp_path / "data", TOY_EDGES, test=TOY_DOCUMENTS)
    main(["evaluate", str(tmp_path / "model"), str(data), "-o", str(tmp_path / "scores")])
    found = json.loads((tmp_path / "scores/evaluation.json").read_text())["metrics"]
    assert found == pytest.approx(metrics.compute().values, abs=1e-6)


def test_reduced_precision(tmp_path: Path) -> None:
    for system in PEERS:
        saved(tmp_path / system, system)
        full, reduced = (
            Classifier.from_pretrained(tmp_path / system / "model", precision=precision).probabilities(TEXTS)
            for precision in ("float32", "bfloat16")
        )
        assert reduced.isfinite().all()
        assert not torch.equal(reduced, full)
        if system != "hbgl":  # whose decoding may take another turn
            torch.testing.assert_close(reduced, full, rtol=0, atol=0.1)


@pytest.mark.slow
def test_no_training_code_is_imported(tmp_path: Path) -> None:
    for system in PEERS:
        saved(tmp_path / system, system)
    code = (
        "import sys; from ptmt_lightning.inference import Classifier; "
        f"[Classifier.from_pretrained(f'{tmp_path}/{{name}}/model').predict('m n') for name in {list(PEERS)}]; "
        "print([name for name in ('lightning', 'hydra', 'torchmetrics', 'wandb', 'optuna', 'peft') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]"]


# ---- exported models ----


@pytest.mark.parametrize(
    ("system", "file_format"),
    [
        ("bert", "onnx"),
        ("bert", "torch_export"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                ("bert", "openvino"),
                ("bert_ml", "torch_export"),
                ("frozen", "openvino"),
                ("hbgl", "onnx"),
                ("hbgl", "openvino"),
                ("gacaps", "torch_export"),  # as an ONNX file it takes minutes, of forty routing steps
            ]
        ),
    ],
)
def test_exported_models_score_what_the_trained_ones_do(tmp_path: Path, system: str, file_format: FileFormat) -> None:
    saved(tmp_path, system)
    check_exported(tmp_path, file_format)
    change_settings(tmp_path / "exported", system, keep_digest=True, max_length=20)
    with pytest.raises(ValueError, match=rf"exported: {system}\.json: not as version"):
        Classifier.from_pretrained(tmp_path / "exported", trust=True)


@pytest.mark.slow
@pytest.mark.parametrize(("system", "file_format"), [("bert", "openvino"), ("bert_ml", "onnx"), ("hbgl", "onnx")])
def test_exported_models_in_8_bits(tmp_path: Path, system: str, file_format: FileFormat) -> None:
    saved(tmp_path, system)
    trained = Classifier.from_pretrained(tmp_path / "model", device="cpu").probabilities(MORE)
    main(["export", str(tmp_path / "model"), "-o", str(tmp_path / "int8"), "--int8", "--format", file_format])
    reduced = Classifier.from_pretrained(tmp_path / "int8").probabilities(MORE)
    assert not torch.allclose(reduced, trained, rtol=0, atol=1e-5)
    assert (reduced - trained).abs().mean() < 0.05


# ---- parts that belong together ----

HEADS = {
    "bert": {"head.weight", "head.bias"},
    "bert_ml": {"head.weight", "head.bias"},
    "frozen": {"head.weight", "head.bias"},
    "gacaps": {
        "convolution.weight", "convolution.bias", "graph.project.weight", "graph.project.bias", "graph.query.weight",
        "graph.key.weight", "gate.inner.weight", "gate.inner.bias", "gate.outer.weight", "gate.outer.bias",
        "capsules.weight", "capsules.bias", "capsules.vote_scale",
    },
    "hbgl": {"label_rows", "output_bias"},
    "hpt": {
        "label_rows", "prompt_rows", "slot_row", "label_bias", "graph.0.project.weight", "graph.0.bias",
        "graph.0.of_node.weight", "graph.0.of_neighbour.weight", "graph.0.norm.weight", "graph.0.norm.bias",
    },
}  # fmt: skip


@pytest.mark.parametrize("system", PEERS)
def test_names_in_saved_folders_are_those_of_the_layout(tmp_path: Path, system: str) -> None:
    model = saved(tmp_path, system)
    assert load_file(tmp_path / "model/head.safetensors").keys() == HEADS[system]
    assert {name for name in model.state_dict() if not name.startswith("backbone.")} == HEADS[system]
    change_settings(tmp_path / "model", system)  # a folder without digests is opened all the same
    torch.testing.assert_close(
        Classifier.from_pretrained(tmp_path / "model").probabilities(TEXTS), expected(model), rtol=1e-5, atol=1e-6
    )


def swap_labels(model: Path) -> None:
    tensors = load_file(model / "head.safetensors")
    save_file({name: tensor.flip(0).contiguous() for name, tensor in tensors.items()}, model / "head.safetensors")


@pytest.mark.parametrize("system", PEERS)
def test_whatever_decides_the_scores_must_be_as_it_was_saved(tmp_path: Path, system: str) -> None:
    saved(tmp_path, system)
    model = tmp_path / "model"
    changes: list[tuple[str, Callable[[], object]]] = [
        (f"{system}.json", lambda: change_settings(model, system, keep_digest=True, decision="level_softmax")),
        (f"{system}.json", lambda: change_settings(model, system, keep_digest=True, max_length=12)),
        ("head.safetensors", lambda: swap_labels(model)),
        ("head.safetensors", lambda: (model / "head.safetensors").unlink()),
        ("tokenizer_config.json", lambda: (model / "tokenizer_config.json").write_text("{}")),
    ]
    for name, change in changes:
        path = model / name
        content = path.read_bytes()
        change()
        with pytest.raises(ValueError, match=rf"/model: {name}: not as version \S+ of ptmt_lightning saved the model"):
            Classifier.from_pretrained(model)
        path.write_bytes(content)
    change_settings(model, system, keep_digest=True, thresholds=[0.1, 0.2, 0.3], prune=False)
    rule = Classifier.from_pretrained(model).rule
    assert (rule.thresholds, rule.prune) == ((0.1, 0.2, 0.3), False)
    taxonomy = json.loads((model / "taxonomy.json").read_text())
    (model / "taxonomy.json").write_text(json.dumps(taxonomy | {"edges": sorted(taxonomy["edges"], reverse=True)}))
    with pytest.raises(ValueError, match=r"taxonomy\.json: not the taxonomy that the model was saved with"):
        Classifier.from_pretrained(model)


@pytest.mark.parametrize(
    ("system", "changes", "message"),
    [
        ("bert", {"max_length": 2}, r"bert\.json: max_length=2: expected an integer in \[3, "),
        ("bert", {"max_length": 10**12}, r"bert\.json: max_length=10+: expected an integer in"),
        ("bert", {"max_length": 33}, r"backbone\.max_length=33: .* holds 32 positions"),
        ("bert", {"pooling": "first"}, r"bert\.json: pooling='first': expected one of cls, mean, max"),
        ("bert", {"num_layers": "1"}, r"bert\.json: num_layers='1': expected an integer in \[1, "),
        ("bert", {"num_layers": 2}, r"head\.safetensors: .*head\.weight: \(11, 32\), not \(11, 64\)"),
        ("bert_ml", {"num_layers": 9}, r"head\.safetensors: .*num_layers=9: expected an integer in \[1, 2\]"),
        ("gacaps", {"num_features": 10**9}, r"gacaps\.json: num_features=10+: expected an integer in \[1, 65536\]"),
        ("gacaps", {"num_features": 65_536, "capsule_size": 65_536}, r"head\.safetensors: does not fit the model \("),
        ("gacaps", {"capsule_size": True}, r"gacaps\.json: capsule_size=True: expected an integer"),
        ("gacaps", {"layout": 1}, r"gacaps\.json: layout=1: the layers of this system have changed since \(now 2\)"),
        ("hbgl", {"max_length": 6}, r"hbgl\.json: max_length=6: expected an integer in \[7, "),
        ("hbgl", {"coherent": "no"}, r"hbgl\.json: coherent='no': expected true or false"),
    ],
)
def test_settings_that_no_model_has_take_no_memory(
    tmp_path: Path, system: str, changes: dict[str, Any], message: str
) -> None:
    saved(tmp_path, system)
    change_settings(tmp_path / "model", system, **changes)
    tracemalloc.start()
    with pytest.raises(ValueError, match=rf"^[^\n]*{message}[^\n]*$"):
        Classifier.from_pretrained(tmp_path / "model", device="cpu")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**26


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    saved(tmp_path, "bert")
    model = tmp_path / "model"
    change_settings(model, "bert")
    head = model / "head.safetensors"
    tensors = load_file(head)
    for content in ({**tensors, "more": torch.zeros(1)}, {"head.weight": tensors["head.weight"]}):
        save_file(content, head)
        with pytest.raises(ValueError, match=r"head\.safetensors: does not fit the model \((more|head\.bias): "):
            Classifier.from_pretrained(model)
    head.write_bytes(b"garbage")
    with pytest.raises(ValueError, match=r"head\.safetensors: does not fit the model \(.*\); restore the files$"):
        Classifier.from_pretrained(model)
    head.unlink()
    with pytest.raises(ValueError, match=r"head\.safetensors: no such file; restore it"):
        Classifier.from_pretrained(model)
    save_file(tensors, head)
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"].popitem()
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match=r"/model: tokenizer and encoder do not belong together \(\d+ tokens, not \d+"):
        Classifier.from_pretrained(model)


def test_missing_settings_and_two_systems_are_named(tmp_path: Path) -> None:
    saved(tmp_path, "gacaps")
    model = tmp_path / "model"
    (model / "bert.json").write_text("{}")
    with pytest.raises(ValueError, match=r"/model' has bert\.json and gacaps\.json; expected one of them$"):
        Classifier.from_pretrained(model)
    (model / "bert.json").unlink()
    settings = json.loads((model / "gacaps.json").read_text())
    (model / "gacaps.json").write_text(
        json.dumps({k: v for k, v in settings.items() if k not in ("digest", "decision")})
    )
    with pytest.raises(
        ValueError, match=r"gacaps\.json was written by version .* lacks what this one needs \(decision"
    ):
        Classifier.from_pretrained(model)
