"""Searches in a report: trials counted, and best settings at the ends of their ranges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from run_folders import write_run

from ptmt_lightning.cli import main
from ptmt_lightning.reporting.searches import Search, find_searches
from ptmt_lightning.run_folder.finished import find_runs
from ptmt_lightning.search.ranges import edge_of

RESULTS = """
study: toy-ptmt
trials: {complete: 2, failed: 1}
at_edge: {optimizer.learning_rate: highest}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run, and a search with two trials."""
    write_run(tmp_path / "run", 0.5)
    for trial in range(2):
        write_run(tmp_path / "search" / str(trial), 0.4, loss__margin=trial)
    (tmp_path / "search/optimization_results.yaml").write_text(RESULTS)
    return tmp_path


@pytest.mark.parametrize(
    ("distribution", "edges"),
    [
        (FloatDistribution(0, 1), {0.0: "lowest", 0.04: "lowest", 0.5: None, 0.94: None, 0.96: "highest"}),
        (FloatDistribution(1e-5, 1e-3, log=True), {1.2e-5: "lowest", 2e-5: None, 5e-4: None, 1e-3: "highest"}),
        (IntDistribution(2, 10, step=4), {2: "lowest", 6: None, 10: "highest"}),
        (IntDistribution(3, 3), {3: None}),
        (CategoricalDistribution(["100", "50", "200"]), {"50": "lowest", "100": None, "200": "highest"}),
        (CategoricalDistribution(["50", "100"]), {"50": None, "100": None}),  # either would be an end
        (CategoricalDistribution(["1", "2", "3", "null"]), {"1": None, "null": None}),
    ],
)
def test_ends_of_ranges(distribution: BaseDistribution, edges: dict[Any, str | None]) -> None:
    assert {value: edge_of(distribution, value) for value in edges} == edges


def test_trials_are_counted(folder: Path) -> None:
    runs, _ = find_runs([folder])
    assert find_searches(runs) == [Search("toy", "ptmt", "toy-ptmt", 3, 2, {"optimizer.learning_rate": "highest"})]


def test_they_are_a_table_of_their_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["report", str(folder), "--format", "markdown"])
    assert capsys.readouterr().out.split("\n\n")[1].splitlines() == [
        "| dataset | system | search | trials | complete | best at an end of its range |",
        "| --- | --- | --- | --- | --- | --- |",
        "| toy | ptmt | toy-ptmt | 3 | 2 | optimizer.learning_rate (highest) |",
    ]
    main(["report", str(folder), "--html", str(folder / "page.html")])
    assert "<td>optimizer.learning_rate (highest)</td>" in (folder / "page.html").read_text()


def test_searches_of_earlier_versions_and_broken_ones(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = folder / "search/optimization_results.yaml"
    path.write_text("study: old\ntrials: {complete: 2}\n")
    runs, _ = find_runs([folder])
    assert [search.edges for search in find_searches(runs)] == [None]
    for content in ("trials: 3", "[", "study: x\ntrials: {complete: many}\n"):
        path.write_text(content)
        assert find_searches(runs) == []
        assert caplog.messages[-1].startswith(f"{path} is broken (")
