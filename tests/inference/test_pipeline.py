"""Saved models in Transformers' pipelines: the labels of ``Classifier.predict``, in Transformers' form."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_source
from every_system import MORE, SYSTEMS, TEXTS, saved
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset

from ptmt_lightning.inference import Classifier
from ptmt_lightning.inference.export import FileFormat, export_model
from ptmt_lightning.inference.pipeline import TASK, HierarchicalTextClassificationPipeline, _SavedModel


def opened(model: Any, **settings: Any) -> HierarchicalTextClassificationPipeline:
    found = pipeline(TASK, model=model, **settings)
    assert isinstance(found, HierarchicalTextClassificationPipeline)
    return found


def expected(classifier: Classifier, texts: list[str], **options: Any) -> list[list[dict[str, Any]]]:
    return [
        [{"label": p.labels[-1], "score": p.probabilities[-1], "path": list(p.labels)} for p in prediction]
        for prediction in classifier.predict(texts, **options)
    ]


def assert_same(found: Iterable[Any], wanted: list[Any]) -> None:
    """The same paths; the batch of a text changes scores by rounding only."""
    for ours, theirs in zip(found, wanted, strict=True):
        assert [path["path"] for path in ours] == [path["path"] for path in theirs]
        assert [path["score"] for path in ours] == pytest.approx([path["score"] for path in theirs], abs=1e-5)


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_predicts_the_same(tmp_path: Path, system: str) -> None:
    saved(tmp_path, system)
    classify = opened(str(tmp_path / "model"), device="cpu")
    classifier = Classifier.from_pretrained(tmp_path / "model", device="cpu")
    assert classify(MORE) == expected(classifier, MORE)
    assert any(classify(MORE))


def test_all_kinds_of_calls(tmp_path: Path) -> None:
    saved(tmp_path, "ptmt")
    classifier = Classifier.from_pretrained(tmp_path / "model")
    classify = opened(classifier)
    every = expected(classifier, MORE)
    columns: Any = [{"text": text} for text in MORE]
    assert_same([classify(MORE[0])], every[:1])
    assert_same(opened(tmp_path / "model", batch_size=2)(MORE), every)
    assert_same(classify(MORE, batch_size=3), every)
    assert_same(classify(text for text in MORE), every)
    assert_same(classify(KeyDataset(columns, "text")), every)
    for options in ({"top_k": 2}, {"threshold": 0.2}, {"threshold": [0.1, 0.2, 0.9], "prune": False, "top_k": 1}):
        assert classify(MORE, **options) == expected(classifier, MORE, **options)
        assert_same([opened(classifier, **options)(MORE[0])], expected(classifier, MORE[:1], **options))
    assert "HierarchicalTextClassificationPipeline" in repr(classify)


def test_a_stream_is_read_as_it_is_used(tmp_path: Path) -> None:
    saved(tmp_path, "bert")
    read = []

    def texts() -> Iterator[str]:
        for text in itertools.cycle(TEXTS):
            read.append(text)
            yield text

    classify = opened(tmp_path / "model", batch_size=2)
    assert_same([next(classify(texts()))], [classify(TEXTS[0])])
    assert len(read) < 200


def test_a_revision_is_that_of_the_hub(tmp_path: Path) -> None:
    assert _SavedModel.from_pretrained("team/topics", revision="v2", dtype="auto").name == "team/topics@v2"
    assert _SavedModel.from_pretrained("team/topics", revision=None).name == "team/topics"
    assert _SavedModel.from_pretrained(str(tmp_path), revision="v2").name == str(tmp_path)


def test_a_copy_has_the_models_files_and_no_code(tmp_path: Path) -> None:
    saved(tmp_path, "gacaps")
    (tmp_path / "model/notes.docx").write_bytes(b"private")
    (tmp_path / "model/README.md").write_text("# A card\n")
    classify = opened(tmp_path / "model", dtype=torch.bfloat16)
    assert classify.dtype == torch.bfloat16
    classify.save_pretrained(tmp_path / "new/copy")
    files = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir() if path.suffix != ".docx"}
    assert {path.name: path.read_bytes() for path in (tmp_path / "new/copy").iterdir()} == files


def test_what_cannot_be_opened_or_predicted(tmp_path: Path) -> None:
    backbone, tokenizer, _ = tiny_source().load(TEXTS)
    backbone.save_pretrained(tmp_path / "plain")
    tokenizer.save_pretrained(tmp_path / "plain")
    with pytest.raises(ValueError, match=r"^'.*/plain' has no ptmt\.json, .*; expected the model/ folder of a run$"):
        opened(str(tmp_path / "plain"))
    with pytest.raises(ValueError, match=r"^model: expected a saved model, or an open Classifier, got BertForMaskedLM"):
        opened(backbone.model)
    saved(tmp_path, "bert")
    with pytest.raises(ValueError, match=r"^device='cuda:7': not there"):
        opened(str(tmp_path / "model"), device=7)
    classify = opened(str(tmp_path / "model"), device=-1)
    with pytest.raises(ValueError, match=r"^texts\[1\]: expected a string, got int 3$"):
        classify(["a", 3])
    with pytest.raises(ValueError, match=r"^expected a text, or a list, a generator or a data set of texts, got tuple"):
        classify(("a", "b"))
    with pytest.raises(ValueError, match=r"^top_k=0: expected an integer >= 1"):
        classify("a", top_k=0)


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["onnx", "torch_export"])
def test_exported_models(tmp_path: Path, file_format: FileFormat) -> None:
    """The export."""
    saved(tmp_path, "ptmt")
    export_model(str(tmp_path / "model"), tmp_path / "exported", file_format=file_format)
    trust = {"trust": file_format == "torch_export"}
    classify = opened(str(tmp_path / "exported"), model_kwargs={**trust})  # which Transformers adds to
    assert classify(MORE) == expected(Classifier.from_pretrained(tmp_path / "exported", **trust), MORE)
