"""A saved model opens only with the parts that it was saved with, and nothing of it runs code."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TOY_EDGES, drop_digest, saved_ptmt
from safetensors.torch import load_file, save_file

from ptmt_lightning.cli import main
from ptmt_lightning.inference import Classifier
from ptmt_lightning.inference.export import export_model
from ptmt_lightning.inference.model_folder import WANTED, ModelFolder
from ptmt_lightning.taxonomy import Taxonomy


@pytest.fixture
def model(tmp_path: Path, toy_taxonomy: Taxonomy) -> Path:
    saved_ptmt(tmp_path, toy_taxonomy)
    return tmp_path / "model"


@pytest.fixture(scope="module")
def exported_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX model, to copy."""
    folder = tmp_path_factory.mktemp("exported")
    saved_ptmt(folder, Taxonomy(TOY_EDGES))
    export_model(str(folder / "model"), folder / "exported")
    return folder / "exported"


@pytest.fixture(scope="module")
def openvino_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OpenVINO model, to copy."""
    folder = tmp_path_factory.mktemp("openvino")
    saved_ptmt(folder, Taxonomy(TOY_EDGES))
    export_model(str(folder / "model"), folder / "exported", file_format="openvino")
    return folder / "exported"


@pytest.fixture
def openvino(openvino_once: Path, tmp_path: Path) -> Path:
    """A copy of an OpenVINO model."""
    return Path(shutil.copytree(openvino_once, tmp_path / "openvino"))


@pytest.fixture
def exported(exported_once: Path, tmp_path: Path) -> Path:
    """A copy of an ONNX model."""
    return Path(shutil.copytree(exported_once, tmp_path / "exported"))


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def without_a_leaf(content: dict[str, Any]) -> dict[str, Any]:
    return content | {"edges": [edge for edge in content["edges"] if edge[1] != "BC"]}


def with_an_edge(content: dict[str, Any]) -> dict[str, Any]:
    return content | {"edges": [*content["edges"], ["C", "CB"]]}


def sorted_edges(content: dict[str, Any]) -> dict[str, Any]:
    return content | {"edges": sorted(content["edges"], reverse=True)}


def another_parent(content: dict[str, Any]) -> dict[str, Any]:
    return content | {"edges": [["C", "BA"] if edge == ["B", "BA"] else edge for edge in content["edges"]]}


@pytest.mark.parametrize("change", [without_a_leaf, with_an_edge, sorted_edges, another_parent])
@pytest.mark.parametrize("form", ["model", "exported"])
def test_another_taxonomy_is_refused(form: str, change: Callable[[Any], Any], request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(form)
    rewrite(model / "taxonomy.json", change)
    with pytest.raises(ValueError, match=r"taxonomy\.json: not the taxonomy that the model was saved with .*restore"):
        Classifier.from_pretrained(model)


@pytest.mark.parametrize("change", [without_a_leaf, with_an_edge, sorted_edges])
def test_another_taxonomy_is_seen_without_a_fingerprint_too(model: Path, change: Callable[[Any], Any]) -> None:
    """Folders of earlier versions have none: there the tokens of labels tell."""
    rewrite(model / "ptmt.json", lambda content: {k: v for k, v in content.items() if k != "taxonomy_fingerprint"})
    assert Classifier.from_pretrained(model)
    rewrite(model / "taxonomy.json", change)
    with pytest.raises(ValueError, match="labels would shift; restore"):
        Classifier.from_pretrained(model)


def without_the_last_token(content: dict[str, Any]) -> dict[str, Any]:
    content["added_tokens"].pop()
    return content


def with_swapped_tokens(content: dict[str, Any]) -> dict[str, Any]:
    one, other = content["added_tokens"][-2:]
    one["content"], other["content"] = other["content"], one["content"]
    return content


@pytest.mark.parametrize("change", [without_the_last_token, with_swapped_tokens])
def test_another_tokenizer_is_refused(model: Path, change: Callable[[Any], Any]) -> None:
    rewrite(model / "tokenizer.json", change)
    with pytest.raises(ValueError, match=r"/model: tokenizer\.json: not as version"):
        Classifier.from_pretrained(model)
    drop_digest(model)
    with pytest.raises(ValueError, match=r"^.*/model: tokenizer and taxonomy do not belong together \(.*\), so that"):
        Classifier.from_pretrained(model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"thresholds": [0.5, 0.5]}, "thresholds=[0.5, 0.5]: expected a number, or 3 numbers"),
        ({"thresholds": [0.5, 0.5, float("nan")]}, "thresholds=nan: expected a number in [0, 1]"),
        ({"thresholds": "0.5"}, "expected a number"),
        ({"thresholds": None}, "expected a number, or 3 numbers"),
        ({"coherent": "false"}, "coherent='false': expected true or false"),
        ({"prune": "no"}, "prune='no': expected true or false"),
        (
            {"decision": "argmax"},
            "decision 'argmax' is not known; expected one of sigmoid, level_softmax, conditional_softmax",
        ),
        ({"template": []}, "lacks what this one needs"),
        ({"template": None}, "lacks what this one needs"),
    ],
)
def test_settings_that_do_not_fit_name_file_and_value(model: Path, changes: dict[str, Any], message: str) -> None:
    drop_digest(model)
    rewrite(model / "ptmt.json", lambda content: content | changes)
    with pytest.raises(ValueError, match=r"ptmt\.json") as caught:
        Classifier.from_pretrained(model)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("ptmt.json", lambda c: c | {"template": c["template"] | {"mask_id": 5}}),
        ("ptmt.json", lambda c: c | {"template": c["template"] | {"prefix_ids": [-1]}}),
        ("ptmt.json", lambda c: c | {"template": c["template"] | {"first_label_id": "9"}}),
        ("ptmt.json", lambda c: c | {"template": c["template"] | {"prompt_ids": c["template"]["prompt_ids"][::-1]}}),
        ("ptmt.json", lambda c: c | {"decision": "level_softmax"}),
        ("ptmt.json", lambda c: c | {"prompts": "per_document"}),
        ("ptmt.json", lambda c: c | {"coherent": True}),
        ("config.json", lambda c: c | {"hidden_act": "relu"}),
        ("tokenizer.json", lambda c: c | {"normalizer": None}),
    ],
)
def test_whatever_decides_the_scores_must_be_as_it_was_saved(
    model: Path, name: str, change: Callable[[Any], Any]
) -> None:
    rewrite(model / name, change)
    with pytest.raises(
        ValueError, match=rf"/model: {name}: not as version \S+ of ptmt_lightning saved the model, so that"
    ):
        Classifier.from_pretrained(model)


def swap_rows(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    embeddings = tensors["bert.embeddings.word_embeddings.weight"]
    tensors["bert.embeddings.word_embeddings.weight"] = torch.cat([embeddings[:-4], embeddings[-4:].flip(0)])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("model.safetensors", swap_rows),
        ("label_bias.safetensors", lambda m: save_file({"bias": torch.ones(11)}, m / "label_bias.safetensors")),
        ("special_tokens_map.json", lambda m: (m / "special_tokens_map.json").write_text('{"mask_token": "[UNK]"}')),
        (
            "tokenizer_config.json",
            lambda m: rewrite(m / "tokenizer_config.json", lambda c: c | {"do_lower_case": False}),
        ),
        ("tokenizer_config.json", lambda m: (m / "tokenizer_config.json").unlink()),
        ("model.onnx", lambda m: (m / "model.onnx").write_bytes(b"")),
    ],
)
def test_files_are_those_that_were_saved(model: Path, name: str, change: Callable[[Path], object]) -> None:
    change(model)
    with pytest.raises(ValueError, match=rf"/model: {name}: not as version \S+ of ptmt_lightning saved the model"):
        Classifier.from_pretrained(model)


def test_files_that_nobody_reads_may_be_there(model: Path) -> None:
    (model / "notes.txt").write_text("mine")
    assert Classifier.from_pretrained(model).predict("m n", top_k=1)


def test_labels_before_the_first_token_are_refused(model: Path) -> None:
    drop_digest(model)
    rewrite(model / "ptmt.json", lambda c: c | {"template": c["template"] | {"first_label_id": 0}})
    with pytest.raises(ValueError, match=r"tokenizer and taxonomy do not belong together \(token -\d+ is 'None', not"):
        Classifier.from_pretrained(model)


def test_thresholds_and_pruning_may_be_changed(model: Path) -> None:
    rewrite(model / "ptmt.json", lambda c: c | {"thresholds": [0.1, 0.2, 0.3], "prune": False})
    rule = Classifier.from_pretrained(model).rule
    assert (rule.thresholds, rule.prune) == ((0.1, 0.2, 0.3), False)


def test_fields_of_a_newer_version_ask_for_an_update(model: Path) -> None:
    drop_digest(model)
    rewrite(model / "ptmt.json", lambda c: c | {"template": c["template"] | {"new_field": 1}, "version": "9.0"})
    with pytest.raises(ValueError, match=r"ptmt\.json: .*new_field.*version 9\.0 of ptmt_lightning wrote; update"):
        Classifier.from_pretrained(model)


def test_other_sizes_of_levels_are_refused(model: Path) -> None:
    drop_digest(model)
    rewrite(model / "ptmt.json", lambda c: c | {"template": c["template"] | {"level_sizes": [3, 6, 2]}})
    with pytest.raises(ValueError, match="not the taxonomy that the model was saved with"):
        Classifier.from_pretrained(model)


@pytest.mark.parametrize("name", ["ptmt.json", "taxonomy.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"a"', "{}", '{"edges": 3}', '{"edges": [["A"]]}', "\x00"])
def test_broken_json_names_its_file(model: Path, name: str, content: str) -> None:
    (model / name).write_text(content)
    with pytest.raises(ValueError, match=rf"/{name}"):
        Classifier.from_pretrained(model)


def test_garbage_in_place_of_an_onnx_file_is_one_line(exported: Path) -> None:
    (exported / "model.onnx").write_bytes(b"no onnx" * 100)
    with pytest.raises(ValueError, match=r"model\.onnx: not as version \S+ of ptmt_lightning saved the model"):
        Classifier.from_pretrained(exported)
    drop_digest(exported)
    with pytest.raises(
        ValueError, match=r"model\.onnx: not an ONNX file that can be run \(.*\); export the model again"
    ):
        Classifier.from_pretrained(exported)


def replaced(name: str, old: str, new: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(re.sub(old, new, (folder / name).read_text()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: (m / "openvino_model.xml").write_bytes(b"no layers" * 100), "No document element found"),
        (lambda m: (m / "openvino_model.bin").unlink(), "Empty weights data"),
        (lambda m: (m / "openvino_model.bin").write_bytes(b"0" * 100), "Incorrect weights in bin file"),
        (replaced("openvino_model.xml", r'offset="\d+"', 'offset="99999999999"'), "Incorrect weights in bin file"),
        # A layer with code of its own, and a library that has it, as its maker might hope to have loaded.
        (replaced("openvino_model.xml", 'type="Gelu" version="opset7"', 'type="Mine" version="extension"'), "opset"),
    ],
)
def test_damaged_openvino_files_are_one_line(
    openvino: Path, change: Callable[[Path], object], reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (openvino / "libextension.so").write_bytes(b"no library")
    assert Classifier.from_pretrained(openvino).predict("m n", top_k=1)
    change(openvino)
    with pytest.raises(ValueError, match=r"/openvino: openvino_model\.(xml|bin): not as version \S+ of ptmt_lightning"):
        Classifier.from_pretrained(openvino)
    drop_digest(openvino)
    with pytest.raises(
        ValueError, match=rf"^\S+\.xml: not an OpenVINO file that can be run \(.*{reason}.*\); export the model again$"
    ):
        Classifier.from_pretrained(openvino)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("form", ["exported", "openvino"])
def test_an_exported_file_of_another_model_is_refused(
    form: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """As of a model that was trained on another taxonomy: a leaf less."""
    folder = request.getfixturevalue(form)
    saved_ptmt(tmp_path / "other", Taxonomy([edge for edge in TOY_EDGES if edge[1] != "BC"]))
    for name in ("ptmt.json", "taxonomy.json", "tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copyfile(tmp_path / "other/model" / name, folder / name)
    drop_digest(folder)
    with pytest.raises(
        ValueError, match=r"/(model\.onnx|openvino_model\.xml): scores 11 labels, taxonomy\.json has 10; "
    ):
        Classifier.from_pretrained(folder)


def test_inputs_that_no_batch_has_are_refused(openvino: Path) -> None:
    replaced("openvino_model.xml", "attention_mask", "elsewhere")(openvino)
    drop_digest(openvino)
    with pytest.raises(ValueError, match=r"openvino_model\.xml: reads 'elsewhere', of input_ids, attention_mask, "):
        Classifier.from_pretrained(openvino)


# ---- nothing that is opened runs code ----


@pytest.mark.slow
def test_a_program_is_opened_only_where_it_is_trusted(model: Path, tmp_path: Path) -> None:
    export_model(str(model), tmp_path / "program", file_format="torch_export")
    with pytest.raises(ValueError, match=r"model\.pt2 can run code when it is opened; give --trust \(trust=True\)"):
        Classifier.from_pretrained(tmp_path / "program")
    trusted = Classifier.from_pretrained(tmp_path / "program", trust=True)
    assert trusted.predict("m n", top_k=1) == Classifier.from_pretrained(model).predict("m n", top_k=1)
    (tmp_path / "in.txt").write_text("m n\n")
    command = ["predict", str(tmp_path / "program"), str(tmp_path / "in.txt"), "-o", str(tmp_path / "out.jsonl")]
    with pytest.raises(SystemExit, match=r"can run code when it is opened; give --trust"):
        main(command)
    main([*command, "--trust"])
    assert (tmp_path / "out.jsonl").exists()


def test_plain_weights_are_taken_before_a_crafted_program(model: Path) -> None:
    (model / "model.pt2").write_bytes(b"anything at all")
    drop_digest(model)
    assert Classifier.from_pretrained(model).predict("m n", top_k=1)
    assert not ModelFolder.open(str(model)).is_exported


def test_programs_are_not_taken_from_a_hub() -> None:
    assert not any(Path("model.pt2").match(pattern) for pattern in WANTED)
    assert not any(Path(name).match(pattern) for pattern in WANTED for name in ("model.bin", "code.py", "data.pkl"))
