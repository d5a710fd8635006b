"""Mean and standard deviation over seeds of an experiment's test scores, as a table and a picture.

    python experiments/summarize.py experiments/NAME/results.csv [--against VARIANT] [--split val]

The table goes to standard output, the picture beside the results: curves over the share of the training set where
there are several, else a dot a variant. ``--against`` adds the differences from one variant, seed by seed, and draws
them. Where ``paper.csv`` lies beside the results, its scores (``dataset``, ``variant``, ``train_fraction``,
``h_f1_macro``) are drawn as well.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from pictures import curves, dots

METRICS = ["h_f1_macro", "h_f1_micro", "h_auprc"]
MAIN = METRICS[0]
ALIKE = ("model", "backbone", "steps", "learning_rate", "new_rate_factor")  # must be the same in all seeds of a variant


def main() -> None:
    """Print the table of an experiment, and draw its picture.

    Raises:
        SystemExit: there are no such scores, or the rows can't be compared.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--against", metavar="VARIANT")
    parser.add_argument("--split", default="test", choices=("val", "test"))
    options = parser.parse_args()
    runs = pd.read_csv(options.results)
    runs = runs[runs["split"] == options.split].sort_values("train_fraction", kind="stable")
    if runs.empty:
        raise SystemExit(f"error: {options.results} has no rows of --split {options.split}")
    runs["variant"] = runs["variant"].astype(object).where(runs["variant"].notna(), runs["model"])
    table = summary(runs, options.against)
    print(markdown(table))
    has_curves = table.groupby(["dataset", "variant"])["train_fraction"].nunique().max() > 1
    paper = _paper(options.results.with_name("paper.csv"))
    figure = curves(table, MAIN, paper) if has_curves else dots(table, MAIN, paper, options.against)
    figure.savefig(options.results.with_suffix(".png"), dpi=120)


def _paper(path: Path) -> pd.DataFrame:
    """Return the scores that the paper has of this experiment; none where there is no such file."""
    columns = ["dataset", "variant", "train_fraction", MAIN]
    return pd.read_csv(path)[columns] if path.exists() else pd.DataFrame(columns=columns)


def summary(runs: pd.DataFrame, against: str | None = None) -> pd.DataFrame:
    """Return mean and deviation over seeds, one row for each dataset, variant and share of the training set.

    Rows come in the order of their first runs.

    Args:
        runs: one row for each run, as in ``results.csv``.
        against: variant to take the differences from, seed by seed; None for no differences.

    Raises:
        SystemExit: runs of one row differ in more than their seeds, or the variant is not there or not unique.
    """
    keys = ["dataset", "variant", "train_fraction"]
    _check_seeds(runs, keys)
    if against:
        place = ["dataset", "train_fraction", "seed"]
        base = runs[runs["variant"] == against].set_index(place)[MAIN]
        if base.empty:
            raise SystemExit(
                f"error: --against {against}: no such variant; known: {', '.join(runs['variant'].unique())}"
            )
        if base.index.has_duplicates:
            raise SystemExit(f"error: --against {against}: several models have that variant; give each one of its own")
        runs = runs.assign(difference=runs[MAIN] - base.reindex(pd.MultiIndex.from_frame(runs[place])).to_numpy())
    scores = runs.groupby(keys, sort=False)[[*METRICS, *(["difference"] if against else [])]].agg(["mean", "std"])
    scores.columns = ["_".join(column) for column in scores.columns]
    counts = runs.groupby(keys, sort=False).agg(seeds=("seed", "nunique"), steps=("steps", "max"))
    return counts.join(scores).reset_index()


def _check_seeds(runs: pd.DataFrame, keys: list[str]) -> None:
    for key, rows in runs.groupby(keys, sort=False):
        unlike = [f"{name} {', '.join(map(str, rows[name].dropna().unique()))}" for name in ALIKE if name in rows]
        unlike = [text for text in unlike if "," in text]
        if rows["seed"].duplicated().any():
            unlike.append("a seed twice")
        if unlike:
            place = ", ".join(map(str, key)) if isinstance(key, tuple) else str(key)
            raise SystemExit(f"error: {place}: {'; '.join(unlike)}; expected runs that differ in their seeds alone")


def markdown(table: pd.DataFrame) -> str:
    """Return the table of :func:`summary` in Markdown, with ``mean ± deviation`` in a cell, or the score of one seed.

    Args:
        table: the table of :func:`summary`.
    """
    names = [column.removesuffix("_mean") for column in map(str, table) if column.endswith("_mean")]
    lines = [
        "| dataset | variant | share | steps | seeds | " + " | ".join(names) + " |",
        "|---" * (5 + len(names)) + "|",
    ]
    for row in table.to_dict("records"):
        cells = [row["dataset"], row["variant"], f"{row['train_fraction']:.4g}", row["steps"], row["seeds"]]
        for name in names:
            sign = "+" if name == "difference" else ""
            if row[f"{name}_mean"] != row[f"{name}_mean"]:  # the other variant has no such run
                cells.append("-")
                continue
            deviation = f" ± {row[f'{name}_std']:.4f}" if row["seeds"] > 1 else ""
            cells.append(f"{row[f'{name}_mean']:{sign}.4f}{deviation}")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
