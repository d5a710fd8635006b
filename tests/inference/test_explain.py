"""Explanations: their values add up, they belong to the words of the text, and every system has them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TOY_DOCUMENTS, saved_ptmt
from every_system import SYSTEMS, saved
from torch import Tensor

from ptmt_lightning.cli import main
from ptmt_lightning.data.document import Example
from ptmt_lightning.inference import Classifier
from ptmt_lightning.inference.explain import Explainer, LabelExplanation, Word, describe
from ptmt_lightning.inference.explain_page import explanation_page
from ptmt_lightning.inference.export import export_model
from ptmt_lightning.taxonomy import Taxonomy

TEXT = str(TOY_DOCUMENTS[0]["text"])


def opened(folder: Path) -> Classifier:
    return Classifier.from_pretrained(folder / "model", device="cpu")


def batch_of(classifier: Classifier, ids: list[int]) -> Any:
    return classifier.collate([Example(0, 0, np.array(ids, dtype=np.int32), np.array([], dtype=np.int32))])


def by_hand(classifier: Classifier, text: str, node: int, steps: int) -> Tensor:
    """Integrated gradients of each token by the rule of midpoints, with a hook on the table of embeddings."""
    [ids] = classifier.token_ids([text])
    batch = batch_of(classifier, ids)
    table = classifier.score.backbone.model.get_input_embeddings()
    text_at = torch.zeros_like(batch.input_ids[0], dtype=torch.bool)
    text_at[1 : 1 + len(ids)] = True
    mask = table.weight[classifier.tokenizer.mask_token_id].detach()
    full = classifier.score.backbone.embed_tokens(batch.input_ids)[0].detach()
    total: Tensor = torch.zeros(len(ids))
    for step in range(steps):
        share = (step + 0.5) / steps
        mixed = torch.where(text_at[:, None], mask + share * (full - mask), full)[None].requires_grad_()
        with table.register_forward_hook(lambda *_, read=mixed: read):
            score = classifier.score(batch)[0, node]
        [gradient] = torch.autograd.grad(score, mixed)
        total += ((full - mask) * gradient[0]).sum(-1)[text_at] / steps
    return total


def test_values_are_integrated_gradients_of_the_tokens(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    saved_ptmt(tmp_path, toy_taxonomy)
    classifier = opened(tmp_path)
    for label in Explainer(classifier).explain(TEXT, [["A"], ["B", "BA"]]):
        node = toy_taxonomy.encode([label.path])[-1]
        expected = by_hand(classifier, TEXT, node, steps=400)
        assert [word.value for word in label.words] == pytest.approx(expected.tolist(), abs=2e-3)


@pytest.mark.parametrize("system", SYSTEMS)
def test_values_add_up_to_the_difference_that_the_words_make(system: str, tmp_path: Path) -> None:
    saved(tmp_path, system)
    classifier = opened(tmp_path)
    before = classifier.predict(TEXT)
    taxonomy = classifier.taxonomy
    [ids] = classifier.token_ids([TEXT])
    unknown = [classifier.tokenizer.mask_token_id] * len(ids)
    with torch.no_grad():
        logits = [classifier.score(batch_of(classifier, tokens))[0] for tokens in (ids, unknown)]
    found = Explainer(classifier).explain(TEXT, [[name] for name in taxonomy.names[: taxonomy.level_sizes[0]]])
    assert len(found) == taxonomy.level_sizes[0]
    for node, label in enumerate(found):
        assert [word.text for word in label.words] == TEXT.split()
        made = (logits[0][node] - logits[1][node]).item()
        if system not in ("gacaps", "hbgl"):  # these choose capsules and labels on the way
            assert sum(word.value for word in label.words) == pytest.approx(made, abs=0.05 * max(1, abs(made)))
    assert classifier.predict(TEXT) == before


@pytest.mark.parametrize("model_type", ["roberta", "gpt2", "t5"])
def test_tokens_are_put_together_to_words(model_type: str, tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    saved_ptmt(tmp_path, toy_taxonomy, model_type)
    text = "x won't\n crash,  日本 naïve"
    [label, *_] = Explainer(opened(tmp_path)).explain(text, [["A"]])
    read = [word.text for word in label.words]
    assert read == ["x", "won", "'", "t", "crash", ",", "日", "本", "naïve"][: len(read)]
    assert len(read) > 4
    assert all(text[word.start :].startswith(word.text) for word in label.words)


def test_a_text_without_words_has_none(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    saved_ptmt(tmp_path, toy_taxonomy)
    [label] = Explainer(opened(tmp_path)).explain(" ", [["A"]])
    assert label.words == []


def test_the_page_marks_words_and_holds_no_markup_of_the_text() -> None:
    text = "<b> & battery swells"
    words = [Word("battery", 6, 2.0), Word("swells", 14, -1.0)]
    page = explanation_page(text, [LabelExplanation(("A & B", "C"), 0.9, words)])
    assert "A &amp; B &gt; C" in page
    assert (
        '<p class="text" dir="auto">&lt;b&gt; &amp; <mark class="for" style="--v: 1.00" title="+2.00">battery' in page
    )
    assert 'class="against" style="--v: 0.50" title="-1.00">swells</mark>' in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)


def test_the_words_that_say_most_are_named() -> None:
    words = [Word("a", 0, 0.1), Word("b", 2, 2.0), Word("c", 4, -0.5)]
    text = describe([LabelExplanation(("A", "B"), 0.9, words)], number=1)
    assert text.splitlines() == ["A > B  0.9000", "  for:     b +2.00", "  against: c -0.50"]
    assert describe([]) == "no label is predicted"


def test_the_command_shows_writes_and_refuses(
    tmp_path: Path, toy_taxonomy: Taxonomy, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved_ptmt(tmp_path, toy_taxonomy)
    model = str(tmp_path / "model")
    main(["explain", model, TEXT, "--label", "B > BA", "--json"])
    [label] = json.loads(capsys.readouterr().out)
    assert label["path"] == ["B", "BA"]
    assert [word["word"] for word in label["words"]] == TEXT.split()
    main(["explain", model, TEXT, "--html", str(tmp_path / "page.html")])
    assert "<mark class=" in (tmp_path / "page.html").read_text()
    main(["explain", model, TEXT, "--label", "A"])
    assert capsys.readouterr().out.splitlines()[1].startswith("A  0.")
    for arguments, reason in (
        (["--label", "Z"], "'Z'"), (["--words", "0"], "--words=0"),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            main(["explain", model, TEXT, *arguments])
        assert str(ended.value.code).startswith("error: ")
        assert reason in str(ended.value.code)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(SystemExit, match=r"pip install 'ptmt_lightning\[explain\]'"):
        main(["explain", model, TEXT])


@pytest.mark.slow
def test_an_exported_model_is_refused(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    """Slow: an export takes seconds."""
    saved_ptmt(tmp_path, toy_taxonomy)
    export_model(str(tmp_path / "model"), tmp_path / "exported")
    with pytest.raises(ValueError, match="is exported, and an exported model can't be explained"):
        Explainer(Classifier.from_pretrained(tmp_path / "exported"))
