"""Weights that do not fit their configuration are refused, or read without a wrapper's prefix; never random."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import drop_digest, saved_ptmt
from family_backbones import TEXTS
from family_models import save_family
from safetensors.torch import load_file, save_file
from torch import Tensor

from ptmt_lightning.backbones import Pretrained
from ptmt_lightning.inference import Classifier
from ptmt_lightning.models.ptmt.module import Prompts
from ptmt_lightning.taxonomy import Taxonomy

Tensors = dict[str, Tensor]
SOME = ["bert", "roberta", "distilbert", "albert", "deberta-v2", "modernbert", "bart", "t5", "gpt2", "llama"]


def change(folder: Path, changed: Callable[[Tensors], Tensors]) -> Tensors:
    """Rewrite a folder's tensors; gives those that it had."""
    tensors = load_file(folder / "model.safetensors")
    save_file(changed(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    return tensors


def in_a_layer(tensors: Tensors) -> str:
    """Return the name of a matrix in an encoder's layer."""
    return next(name for name, tensor in tensors.items() if ".0." in name and tensor.ndim == 2)


@pytest.mark.parametrize("prefix", ["module.", "backbone.model.", "_orig_mod.module."])
@pytest.mark.parametrize("model_type", SOME)
def test_a_wrappers_prefix_is_left_out(
    tmp_path: Path, model_type: str, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_family(tmp_path, model_type, TEXTS)
    before, _, _ = Pretrained(str(folder)).load([])
    change(folder, lambda tensors: {f"{prefix}{name}": tensor for name, tensor in tensors.items()})
    with caplog.at_level(logging.WARNING):
        after, _, _ = Pretrained(str(folder)).load([])
    assert f"the names of its tensors begin with {prefix!r}, which is left out" in caplog.text
    assert after.trained_head == before.trained_head
    weights = after.model.state_dict()
    for name, tensor in before.model.state_dict().items():
        torch.testing.assert_close(weights[name], tensor)


@pytest.mark.parametrize("model_type", SOME)
def test_what_is_missing_unexpected_or_of_another_shape_is_refused(tmp_path: Path, model_type: str) -> None:
    folder = save_family(tmp_path, model_type, TEXTS)
    tensors = load_file(folder / "model.safetensors")
    name = in_a_layer(tensors)
    for changed, message in (
        ({key: value for key, value in tensors.items() if key != name}, "1 tensors not in the files ("),
        (tensors | {"foreign.weight": torch.zeros(2)}, "1 tensors not in the model (foreign.weight)"),
        (tensors | {name: torch.zeros(3, 5)}, "1 tensors of another shape ("),
        (
            {f"strange.{key}": value for key, value in tensors.items()},
            "save them without 'strange.' before their names",
        ),
    ):
        change(folder, lambda _, changed=changed: changed)  # type: ignore[misc]
        with pytest.raises(ValueError, match=r"^backbone\.name='.*': the weights do not fit config\.json: ") as caught:
            Pretrained(str(folder)).load([])
        assert message in str(caught.value)


@pytest.mark.parametrize("name", ["bert.pooler.dense.weight", "classifier.weight", "cls.seq_relationship.bias"])
def test_heads_for_another_task_may_be_there(tmp_path: Path, name: str) -> None:
    folder = save_family(tmp_path, "bert", TEXTS)
    change(folder, lambda tensors: tensors | {name: torch.zeros(4)})
    assert Pretrained(str(folder)).load([])[0].trained_head


def test_a_bare_encoder_gets_a_new_head(tmp_path: Path) -> None:
    folder = save_family(tmp_path, "bert", TEXTS)
    change(folder, lambda tensors: {key: value for key, value in tensors.items() if not key.startswith("cls.")})
    assert not Pretrained(str(folder)).load([])[0].trained_head


@pytest.mark.parametrize(
    ("key", "value"), [("num_hidden_layers", 10**9), ("hidden_size", 2**40), ("vocab_size", 10**12)]
)
def test_sizes_that_no_model_has_are_refused_before_anything_is_made(tmp_path: Path, key: str, value: int) -> None:
    folder = save_family(tmp_path, "bert", TEXTS)
    config = json.loads((folder / "config.json").read_text()) | {key: value}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=rf"^backbone\.name='.*': {key}={value} in config\.json: expected at most"):
        Pretrained(str(folder)).load([])


@pytest.mark.slow
@pytest.mark.parametrize("prompts", ["shared", "per_document"])
def test_a_trained_model_without_any_one_tensor_does_not_open(
    tmp_path: Path, toy_taxonomy: Taxonomy, prompts: Prompts
) -> None:
    saved_ptmt(tmp_path, toy_taxonomy, prompts=prompts)
    drop_digest(tmp_path / "model")
    whole = load_file(tmp_path / "model/model.safetensors")
    for name in whole:
        change(tmp_path / "model", lambda _, name=name: {k: v for k, v in whole.items() if k != name})  # type: ignore[misc]
        with pytest.raises(ValueError, match=r"the weights do not fit|the weights lack"):
            Classifier.from_pretrained(tmp_path / "model")


def test_a_trained_model_without_the_last_labels_rows_does_not_open(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    saved_ptmt(tmp_path, toy_taxonomy)
    config = json.loads((tmp_path / "model/config.json").read_text())
    size = config["vocab_size"]
    change(tmp_path / "model", lambda all_: {k: v[:-1] if len(v) == size else v for k, v in all_.items()})
    (tmp_path / "model/config.json").write_text(json.dumps(config | {"vocab_size": size - 1}))
    drop_digest(tmp_path / "model")
    with pytest.raises(ValueError, match=r"the weights lack 1 rows of the embedding matrix, which labels are scored"):
        Classifier.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert"])
def test_a_missing_output_matrix_starts_as_the_input_matrix(
    tmp_path: Path, model_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_family(tmp_path, model_type, TEXTS, tie_word_embeddings=False)
    outputs = ("cls.predictions.decoder.weight", "lm_head.decoder.weight", "vocab_projector.weight")
    assert set(outputs) & set(change(folder, lambda all_: {k: v for k, v in all_.items() if k not in outputs}))
    backbone, _, _ = Pretrained(str(folder)).load([])
    assert "has no trained output matrix: a new one starts as the input matrix" in caplog.text
    assert not backbone.is_tied
    torch.testing.assert_close(backbone.output_matrix, backbone.token_embeddings)


def test_weights_that_could_run_code_are_not_read(tmp_path: Path) -> None:
    folder = save_family(tmp_path, "bert", TEXTS)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"cls.predictions.bias": Path("x")}))
    with pytest.raises(ValueError, match=r"^backbone\.name='.*': .*save them as safetensors"):
        Pretrained(str(folder)).load([])


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.bool])
def test_tensors_that_are_no_floating_point_numbers_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    save_family(tmp_path, "bert", TEXTS)
    change(tmp_path, lambda all_: {key: (100 * value).to(dtype) for key, value in all_.items()})
    with pytest.raises(ValueError, match=r"tensors are no floating-point numbers \(.*\), as of a quantised model"):
        Pretrained(name=str(tmp_path)).load([])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_tensors_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    save_family(tmp_path, "bert", TEXTS)
    change(tmp_path, lambda all_: {k: v.index_fill(0, torch.tensor([0]), value) for k, v in all_.items()})
    with pytest.raises(ValueError, match=r"tensors hold values that are no finite numbers \(.*\); restore the weights"):
        Pretrained(name=str(tmp_path)).load([])


@pytest.mark.parametrize("target", ["../out.safetensors", "/tmp/out.safetensors", "evil.bin", None, 3])
def test_an_index_names_files_of_its_folder_alone(tmp_path: Path, target: object) -> None:
    save_family(tmp_path, "bert", TEXTS)
    tensors = load_file(tmp_path / "model.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, target)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"index\.json names .*, expected safetensors files of the same folder"):
        Pretrained(name=str(tmp_path)).load([])
