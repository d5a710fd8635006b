"""Predicts the same documents through Python, the command line, ONNX and HTTP, and compares the labels.

python experiments/serving/same_answers.py RUN/model DATA/newsgroups
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
from model_and_data import PTMT, parser_for, server, test_documents

from ptmt_lightning.inference import Classifier
from ptmt_lightning.inference.export import export_model

Paths = list[dict[str, Any]]


def main() -> None:
    """Compare the predictions of all ways, and write ``same_answers.csv``."""
    parser = parser_for(__doc__)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--port", type=int, default=8766)
    options = parser.parse_args()
    texts = [document["text"] for document in test_documents(options.data)][: options.documents]
    found = {"python": _python(options.model, texts)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found["command line"] = _command_line(options.model, texts, folder)
        export_model(str(options.model), folder / "onnx")
        found["onnx"] = _python(folder / "onnx", texts)
    with server(options.model, options.port) as (url, _):
        found["http"] = _http(url, texts)
    rows = []
    for way, predictions in found.items():
        pairs = list(zip(predictions, found["python"], strict=True))
        labels = sum([path["path"] for path in one] == [path["path"] for path in other] for one, other in pairs)
        rows.append(
            {"way": way, "documents": len(texts), "equal_labels": labels, "largest_difference": _largest(pairs)}
        )
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    table.to_csv(Path(__file__).with_name("same_answers.csv"), index=False)


def _python(model: Path, texts: list[str]) -> list[Paths]:
    return [
        [path.to_json() for path in paths] for paths in Classifier.from_pretrained(model, device="cpu").predict(texts)
    ]


def _command_line(model: Path, texts: list[str], folder: Path) -> list[Paths]:
    source, target = folder / "texts.jsonl", folder / "labels.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    subprocess.run([PTMT, "predict", model, source, "-o", target, "--device", "cpu"], check=True)
    return [json.loads(line)["predicted"] for line in target.read_text().splitlines()]


def _http(url: str, texts: list[str]) -> list[Paths]:
    predictions: list[Paths] = []
    for start in range(0, len(texts), 50):
        answer = httpx.post(f"{url}/predict", json={"texts": texts[start : start + 50]}, timeout=120)
        predictions += answer.raise_for_status().json()["predictions"]
    return predictions


def _largest(pairs: list[tuple[Paths, Paths]]) -> float:
    """Return the largest difference between the probabilities of labels that both predict, on the same path."""
    differences = [0.0]
    for one, other in pairs:
        known = {tuple(path["path"]): path["probabilities"] for path in other}
        for path in one:
            if (labels := tuple(path["path"])) in known:
                differences += [abs(a - b) for a, b in zip(path["probabilities"], known[labels], strict=True)]
    return max(differences)


if __name__ == "__main__":
    main()
