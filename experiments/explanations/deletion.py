"""Takes words out of texts: those that an explanation names, or others, and measures the label's probability.

    python experiments/explanations/deletion.py RUN/model DATA [--documents 200] [--split val] --csv results.csv

Of each document, the most probable predicted label of the last level that has one is explained. Of its words, a number
is taken out: those with the highest values, as many drawn at random (mean over five draws), or those with the lowest.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from ptmt_lightning.inference import Classifier
from ptmt_lightning.inference.evaluate import documents_of
from ptmt_lightning.inference.explain import Explainer, Word

_NUMBERS = (1, 3, 10)  # words that are taken out
_DRAWS = 5


def main() -> None:
    """Measure documents drawn by seed 0, and write one row a document and number of words."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--most-words", type=int, default=60, help="longer texts are left out (default: %(default)s)")
    parser.add_argument("--split", default="val")
    parser.add_argument("--csv", type=Path, required=True)
    options = parser.parse_args()
    classifier = Classifier.from_pretrained(options.model, device="cpu")
    explainer, taxonomy = Explainer(classifier), classifier.taxonomy
    texts = [document.text for document in documents_of(options.data, options.split, taxonomy)]
    random = np.random.default_rng(0)
    rows, done = [], 0
    with tqdm(total=options.documents) as bar:
        for row in random.permutation(len(texts)):
            paths = classifier.predict(texts[row]) if len(texts[row].split()) <= options.most_words else []
            if not paths:
                continue
            path = max(paths, key=lambda path: len(path.labels)).labels
            [label] = explainer.explain(texts[row], [path])
            if len(label.words) <= max(_NUMBERS):  # nothing would be left
                continue
            node = taxonomy.encode([path])[-1]
            ranked = sorted(label.words, key=lambda word: -word.value)
            for number in _NUMBERS:
                drawn = [[ranked[i] for i in random.permutation(len(ranked))[:number]] for _ in range(_DRAWS)]
                changed = [_without(texts[row], words) for words in (ranked[:number], ranked[-number:], *drawn)]
                named, least, *others = classifier.probabilities(changed)[:, node].tolist()
                rows.append(
                    {"document": int(row), "words": len(ranked), "taken_out": number, "before": label.probability,
                     "named": named, "random": float(np.mean(others)), "least": least}
                )  # fmt: skip
            done += 1
            bar.update()
            if done == options.documents:
                break
    table = pd.DataFrame(rows)
    table.round(4).to_csv(options.csv, index=False)
    print(table.groupby("taken_out")[["before", "named", "random", "least"]].mean().round(4))
    drops = table["random"] - table["named"]
    for number, found in drops.groupby(table["taken_out"]):
        draws = random.choice(found.to_numpy(), (2000, len(found))).mean(axis=1)
        low, high = np.quantile(draws, [0.025, 0.975])
        print(f"{number} words: named ones lower it by {found.mean():.4f} more than random ones, 95 % interval over "
              f"{len(found)} documents {low:.4f} to {high:.4f}; more in {(found > 0).mean():.1%} of them")  # fmt: skip


def _without(text: str, words: list[Word]) -> str:
    for word in sorted(words, key=lambda word: -word.start):
        text = text[: word.start] + text[word.start + len(word.text) :]
    return re.sub(r"\s+", " ", text).strip()


if __name__ == "__main__":
    main()
