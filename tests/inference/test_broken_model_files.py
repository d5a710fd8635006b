"""Files of a saved model that are broken, huge or of another kind: one line that names the file, and no allocation."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import drop_digest, saved_ptmt
from safetensors.torch import save_file

from ptmt_lightning.inference import Classifier
from ptmt_lightning.taxonomy import Taxonomy


@pytest.fixture
def model(tmp_path: Path, toy_taxonomy: Taxonomy) -> Path:
    saved_ptmt(tmp_path, toy_taxonomy)
    drop_digest(tmp_path / "model")  # else whatever is changed is refused as such
    return tmp_path / "model"


def refused(model: Path) -> str:
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        Classifier.from_pretrained(model, device="cpu")
    assert len(str(caught.value)) < 1000
    return str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "ptmt.json", "taxonomy.json", "tokenizer.json"])
@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b"{", b"\xff\xfe\x00", b"3", b'{"a": ' * 5000, b'{"model_type": 3}', b'{"model": {}}'],
)
def test_a_broken_file_is_named_in_one_line(model: Path, name: str, content: bytes) -> None:
    (model / name).write_bytes(content)
    assert name in refused(model)


@pytest.mark.parametrize("name", ["config.json", "ptmt.json", "taxonomy.json"])
def test_a_folder_or_a_dead_link_in_place_of_a_file_is_named(model: Path, name: str) -> None:
    (model / name).unlink()
    (model / name).symlink_to("nowhere")
    assert name in refused(model)
    (model / name).unlink()
    (model / name).mkdir()
    assert name in refused(model)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": 1e9},
        {"hidden_size": 10**9},
        {"vocab_size": 10**12},
        {"vocab_size": 2**24},
        {"intermediate_size": 2**24},
        {"max_position_embeddings": 2**24},
        {"num_hidden_layers": None},
        {"hidden_size": "32"},
        {"hidden_size": [32]},
        {"hidden_size": -1},
        {"num_attention_heads": 0},
        {"num_attention_heads": -1},
        {"hidden_act": "no such thing"},
        {"hidden_act": {}},
        {"vocab_size": {"a": 1}},
        {"model_type": None},
    ],
)
def test_sizes_and_kinds_in_config_json_are_bounded_before_anything_is_made(
    model: Path, changes: dict[str, Any]
) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | changes))
    tracemalloc.start()
    message = refused(model)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "config.json" in message
    assert peak < 2**26


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t | {"first_label_id": 10**12},
        lambda t: t | {"max_length": 10**12},
        lambda t: t | {"max_length": 2},
        lambda t: t | {"mask_id": None},
        lambda t: t | {"mask_id": 10**6},
        lambda t: t | {"prefix_ids": 3},
        lambda t: t | {"prefix_ids": [[0]]},
        lambda t: t | {"prompt_ids": "abc"},
        lambda t: t | {"pad_id": float("nan")},
        lambda t: t | {"form": []},
        lambda t: {name: value for name, value in t.items() if name != "end_ids"},
    ],
)
def test_a_template_that_none_is_names_ptmt_json(model: Path, change: Callable[[Any], Any]) -> None:
    settings = json.loads((model / "ptmt.json").read_text())
    (model / "ptmt.json").write_text(json.dumps(settings | {"template": change(settings["template"])}))
    assert "ptmt.json" in refused(model)


def test_ids_of_a_tokenizer_with_gaps_larger_than_a_vocabulary_are_refused(model: Path) -> None:
    content = json.loads((model / "tokenizer.json").read_text())
    content["model"]["vocab"]["zzz"] = 4_000_000_000
    (model / "tokenizer.json").write_text(json.dumps(content))
    assert "tokenizer.json can't be used (ids up to 4000000000 for" in refused(model)


def test_pickled_weights_alone_are_said_to_be_that(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert refused(model) == (
        f"{model}: its weights are pickled in pytorch_model.bin, which could run code; expected model.safetensors, as "
        "save_pretrained of Transformers writes it"
    )
    (model / "pytorch_model.bin").unlink()
    assert "it has no weights; expected model.safetensors" in refused(model)


def test_tables_of_another_model_are_named(model: Path) -> None:
    save_file({"other": torch.zeros(1)}, model / "label_bias.safetensors")
    assert "label_bias.safetensors or prompts.safetensors does not fit the model" in refused(model)
    (model / "label_bias.safetensors").write_bytes(b"garbage")
    assert "label_bias.safetensors or prompts.safetensors does not fit the model" in refused(model)


@pytest.mark.parametrize("case", [116231])
def test_cases_that_the_fuzzer_has_found_stay_mended(model: Path, case: int) -> None:
    """Numbers of faults of ``experiments/fuzz``, which changes a model's files at random: here one of config.json."""
    changes = {116231: {"num_attention_heads": -1}}[case]
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | changes))
    assert "num_attention_heads=-1 in config.json: expected at least 0" in refused(model)
