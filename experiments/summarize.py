"""Mean and standard deviation over seeds of an experiment's test scores, as a table and a picture.

    python experiments/summarize.py experiments/NAME/results.csv [--against VARIANT] [--split val]

The table goes to standard output, the picture beside the results: curves over the share of the training set where
there are several, else a bar a variant. ``--against`` adds the differences from one variant, seed by seed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

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
    figure = curves(table) if has_curves else bars(table)
    figure.savefig(options.results.with_suffix(".png"), dpi=120)


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


def curves(table: pd.DataFrame) -> Figure:
    """Draw the main score of each variant over the share of the training set, as in Figure 2 of the paper.

    Args:
        table: the table of :func:`summary`.
    """
    datasets = list(table["dataset"].unique())
    figure = Figure(figsize=(6 * len(datasets), 4.5), layout="constrained")
    for axes, dataset in zip(figure.subplots(1, len(datasets), squeeze=False)[0], datasets, strict=True):
        for variant, rows in table[table["dataset"] == dataset].groupby("variant", sort=False):
            points = rows.sort_values("train_fraction")
            errors = points[f"{MAIN}_std"].fillna(0)
            axes.errorbar(
                points["train_fraction"], points[f"{MAIN}_mean"], errors, marker="o", capsize=3, label=variant
            )
        axes.set(title=dataset, xlabel="share of the training set", ylabel=MAIN, xscale="log")
        shares = sorted(table["train_fraction"].unique())
        axes.set_xticks(shares, [f"{share * 32:.3g}/32" for share in shares], minor=False)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def bars(table: pd.DataFrame) -> Figure:
    """Draw the main score of each variant as a bar, with its deviation over seeds.

    Args:
        table: the table of :func:`summary`.
    """
    datasets = list(table["dataset"].unique())
    most = int(table["dataset"].value_counts().max())
    figure = Figure(figsize=(6 * len(datasets), 1 + 0.3 * most), layout="constrained")
    for axes, dataset in zip(figure.subplots(1, len(datasets), squeeze=False)[0], datasets, strict=True):
        rows = table[table["dataset"] == dataset][::-1]
        axes.barh(rows["variant"], rows[f"{MAIN}_mean"], xerr=rows[f"{MAIN}_std"].fillna(0), alpha=0.7, capsize=3)
        lowest, highest = rows[f"{MAIN}_mean"].min(), (rows[f"{MAIN}_mean"] + rows[f"{MAIN}_std"].fillna(0)).max()
        axes.set(title=dataset, xlabel=MAIN, xlim=(max(0, lowest - 0.3 * (highest - lowest) - 0.02), highest * 1.01))
        axes.grid(alpha=0.3, axis="x")
    return figure


if __name__ == "__main__":
    main()
