"""Reports over run folders."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from run_folders import write_predictions, write_run

from ptmt_lightning.cli import main
from ptmt_lightning.reporting.report import cells, latex, markdown, table
from ptmt_lightning.run_folder.finished import differing, find_runs


@pytest.fixture
def runs_folder(tmp_path: Path) -> Path:
    """Two margins with two seeds each, and one run of another loss."""
    for margin in (0.05, 0.1):
        for seed in (0, 1):
            write_run(tmp_path / f"runs/{margin}-{seed}", margin + 0.2 * seed, seed, loss__margin=margin)
    write_run(tmp_path / "runs/other", 0.4, run__loss="b&w_|e", loss__margin=None)
    return tmp_path / "runs"


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 200 columns."""
    monkeypatch.setenv("COLUMNS", "200")


def test_runs_are_grouped_by_what_differs_with_mean_and_deviation(runs_folder: Path) -> None:
    runs, left_out = find_runs([runs_folder, runs_folder / "other"])  # found twice, counted once
    assert left_out == []
    assert len(runs) == 5
    assert differing(runs) == ["run.loss", "loss.margin"]
    rows = table(runs)
    assert rows["loss.margin"].tolist() == ["-", "0.1", "0.05"]
    assert rows["runs"].tolist() == [1, 2, 2]
    assert rows["h_f1_macro_mean"].tolist() == pytest.approx([0.4, 0.2, 0.15])
    assert rows["h_f1_macro_std"].tolist()[1:] == pytest.approx([0.2 / 2**0.5] * 2)
    assert pd.isna(rows["h_f1_macro_std"][0])
    assert table(runs, split="val")["h_f1_macro_mean"].tolist() == pytest.approx([0.5, 0.3, 0.25])


def test_settings_that_follow_from_others_are_not_shown(tmp_path: Path) -> None:
    for model, prompts in (("ptmt", 4), ("ptmt", 8), ("bert", None)):
        write_run(tmp_path / f"{model}{prompts}", 0.5, run__model=model, model__prompts=prompts, loss__x=f"of {model}")
    runs, _ = find_runs([tmp_path])
    assert differing(runs) == ["run.model", "model.prompts"]


def test_one_configuration_is_one_row(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path / str(seed), 0.5, seed, run__group=f"g{seed}")
    rows = table(find_runs([tmp_path])[0])
    assert rows["run.model"].tolist() == ["ptmt"]
    assert rows["runs"].tolist() == [3]


def test_equal_names_in_other_folders_and_equal_numbers(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 0.5, run__backbone="one/bert", loss__margin=1)
    write_run(tmp_path / "b", 0.6, run__backbone="two/bert", loss__margin=1.0)
    rows = table(find_runs([tmp_path])[0])
    assert list(rows.columns[:2]) == ["run.backbone", "runs"]
    assert rows["run.backbone"].tolist() == ["two/bert", "one/bert"]


def test_what_does_not_change_what_is_learnt_is_no_difference(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 0.5, trainer__enable_progress_bar=False, callbacks__vitals__x=1, dataset__path="here")
    write_run(tmp_path / "b", 0.6, dataset__path="there", model__optimizer__rate=1, test=True)
    rows = table(find_runs([tmp_path])[0])
    assert rows["runs"].tolist() == [2]


def test_runs_behind_links_are_found_once(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    run = write_run(tmp_path / "elsewhere/run", 0.5)
    (tmp_path / "all/link").symlink_to(run)
    (tmp_path / "all/loop").symlink_to(tmp_path / "all")
    runs, left_out = find_runs([tmp_path / "all", run, tmp_path / "all"])
    assert [found.folder for found in runs] == [tmp_path / "all/link"]
    assert left_out == []


@pytest.mark.parametrize("score", [None, float("nan")])
def test_a_score_that_is_none_is_said(tmp_path: Path, score: float | None, caplog: pytest.LogCaptureFixture) -> None:
    for seed in (0, 1):
        run = write_run(tmp_path / str(seed), 0.5, seed)
    result = json.loads((run / "result.json").read_text())
    result["test"]["h_f1_macro"] = score
    (run / "result.json").write_text(json.dumps(result))
    rows = table(find_runs([tmp_path])[0])
    assert rows["h_f1_macro_mean"].tolist() == [0.5]
    assert "nan" not in markdown(cells(rows))
    assert caplog.messages == [f"{tmp_path}/1 has no h_f1_macro, and does not count there"]


def test_a_metric_that_older_runs_lack(tmp_path: Path) -> None:
    old, _ = write_run(tmp_path / "a", 0.5, loss__margin=1), write_run(tmp_path / "b", 0.6, loss__margin=2)
    result = json.loads((old / "result.json").read_text())
    del result["test"]["h_auprc"]
    (old / "result.json").write_text(json.dumps(result))
    rows = table(find_runs([tmp_path])[0])
    assert rows["h_auprc_mean"].isna().tolist() == [False, True]
    assert "| 0.5000 | 0.2500 | - |" in markdown(cells(rows))


def test_markdown_and_latex_mark_the_best_and_escape(runs_folder: Path) -> None:
    rows = table(find_runs([runs_folder])[0], metrics=["h_f1_macro"])
    assert markdown(cells(rows)).splitlines() == [
        "| loss | margin | runs | h_f1_macro | minutes |",
        "| --- | --- | --- | --- | --- |",
        "| b&w_\\|e | - | 1 | **0.4000** | 2.0 |",
        "| wasl | 0.1 | 2 | 0.2000 ± 0.1414 | 2.0 |",
        "| wasl | 0.05 | 2 | 0.1500 ± 0.1414 | 2.0 |",
    ]
    lines = latex(cells(rows)).splitlines()
    assert lines[2] == r"loss & margin & runs & h\_f1\_macro & minutes \\"
    assert lines[4] == r"b\&w\_|e & - & 1 & \textbf{0.4000} & 2.0 \\"
    assert lines[5] == r"wasl & 0.1 & 2 & 0.2000 $\pm$ 0.1414 & 2.0 \\"


def test_the_best_is_that_of_its_data_set(tmp_path: Path) -> None:
    for dataset, margin, score in (("a", 0.1, 0.9), ("a", 0.2, 0.8), ("b", 0.1, 0.3), ("b", 0.2, 0.5)):
        folder = tmp_path / f"{dataset}{margin}"
        write_run(folder, score, dataset__name=dataset, loss__margin=margin)
    lines = markdown(cells(table(find_runs([tmp_path])[0], metrics=["h_f1_macro"]))).splitlines()[2:]
    assert [line.split(" | ")[:2] for line in lines] == [["| a", "0.1"], ["| a", "0.2"], ["| b", "0.2"], ["| b", "0.1"]]
    assert ["**" in line for line in lines] == [True, False, True, False]


def test_other_data_of_the_same_name_are_another_data_set(tmp_path: Path) -> None:
    for fingerprint, score in (("1" * 16, 0.9), ("2" * 16, 0.4)):
        for variant, add in (("a", 0.0), ("b", 0.05)):
            for seed in (0, 1):
                folder = tmp_path / f"{fingerprint}{variant}{seed}"
                write_run(folder, score + add, seed, fingerprint, run__variant=variant)
    write_run(tmp_path / "old", 0.1, run__variant="a")
    lines = markdown(cells(table(find_runs([tmp_path])[0], metrics=["h_f1_macro"]))).splitlines()[2:]
    assert [line.split(" | ")[:3] for line in lines] == [
        ["| toy (1111111)", "b", "2"], ["| toy (1111111)", "a", "2"],
        ["| toy (2222222)", "b", "2"], ["| toy (2222222)", "a", "2"], ["| toy (unknown)", "a", "1"],
    ]  # fmt: skip
    assert ["**" in line for line in lines] == [True, False, True, False, False]


def test_other_data_are_told_apart_where_a_setting_differs_as_well(tmp_path: Path) -> None:
    write_run(tmp_path / "one", 0.9, 0, "1" * 16, run__model="bert")
    write_run(tmp_path / "two", 0.5, 0, "2" * 16, run__model="ptmt")
    with pytest.raises(ValueError, match="--baseline model=bert"):
        table(find_runs([tmp_path])[0], baseline="model=bert")
    rows = table(find_runs([tmp_path])[0])
    assert rows["dataset.name"].tolist() == ["toy (1111111)", "toy (2222222)"]


def test_the_folds_of_one_data_set_keep_its_name(tmp_path: Path) -> None:
    for fold in (1, 2):
        write_run(tmp_path / str(fold), 0.5, 0, str(fold) * 16, dataset__fold=fold)
    assert "dataset.name" not in table(find_runs([tmp_path])[0])


def test_broken_unfinished_and_foreign_folders_are_named_and_left_out(
    runs_folder: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs_folder / "0.05-0/result.json").write_text('{"dataset": ')
    (runs_folder / "0.05-1/result.json").unlink()
    (runs_folder / "0.05-1/checkpoints").mkdir()
    (runs_folder / "0.1-0/result.json").write_text('{"accuracy": 1}')
    (runs_folder / "0.1-1/config.yaml").unlink()
    (runs_folder / "other/config.yaml").write_text("run: [")
    for name, content in (("null", "null"), ("untimed", "{}")):
        write_run(runs_folder / name, 0.5)
        (runs_folder / name / "result.json").write_text(content)
    untimed = '{"dataset": "a", "model": "b", "seed": 0, "val": {}, "test": {}, "seconds": null}'
    (runs_folder / "untimed/result.json").write_text(untimed)
    (runs_folder / "cut_off").mkdir()  # before its first checkpoint
    for name in ("config.yaml", "metrics.csv"):
        (runs_folder / "cut_off" / name).write_text("")
    unscored = write_run(runs_folder / "unscored", 0.4)
    result = json.loads((unscored / "result.json").read_text())
    (unscored / "result.json").write_text(json.dumps(result | {"test": {}}))
    (runs_folder / "notes").mkdir()
    write_run(runs_folder / "whole", 0.4)
    main(["report", str(runs_folder), "--format", "csv"])
    *lines, last = (record.getMessage() for record in caplog.records)
    assert last == "left out: 1 runs without scores on --split test"
    lines.sort()
    assert [line.removeprefix(f"left out: {runs_folder}/").split(" (while parsing")[0] for line in lines] == [
        "0.05-0: result.json is broken (Expecting value: line 1 column 13 (char 12))",
        "0.05-1: not finished, there is no result.json",
        "0.1-0: result.json is not of a run of this project: no dataset, model, seed, val, test, seconds",
        "0.1-1: no config.yaml",
        "cut_off: not finished, there is no result.json",
        "null: result.json is not of a run of this project: no dataset, model, seed, val, test, seconds",
        "other: config.yaml is broken",  # in the words of the one YAML reader or of the other
        "untimed: result.json is not of a run of this project: no seconds of the training",
    ]
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("run.model,runs,h_f1_macro_mean,h_f1_macro_std,")
    assert shown[1].startswith("ptmt,1,0.4,,")
    assert len(shown) == 2


def test_the_terminals_table(
    runs_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    main(["report", str(runs_folder), "--metrics", "h_f1_micro,h_f1_macro"])
    shown = capsys.readouterr().out
    assert "│ wasl   │ 0.1    │ 2    │ 0.1000 ± 0.0707 │ 0.2000 ± 0.1414 │ 2.0     │" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "error: nowhere: no such folder; expected a run's folder or one with runs below it"),
        (["{runs}", "--metrics", "f1"], "error: --metrics f1: no such metric; known: h_f1_macro, h_f1_micro, h_auprc"),
        (["{runs}/other/nothing"], "no such folder"),
    ],
)
def test_what_cannot_be_reported(runs_folder: Path, arguments: list[str], message: str) -> None:
    (runs_folder / "empty").mkdir()
    with pytest.raises(SystemExit, match=message.replace("(", r"\(")):
        main(["report", *(argument.format(runs=runs_folder) for argument in arguments)])
    with pytest.raises(SystemExit, match="error: no finished run in"):
        main(["report", str(runs_folder / "empty")])


def two_sides(folder: Path) -> None:
    """Ten documents, of which variant a finds the path and b only its beginning; c was not tested."""
    right, half = [["A", "AA"]], [["A"]]
    for name, predicted in (("a", right), ("b", half), ("c", None)):
        write_run(folder / name, 0.5, run__variant=name)
        if predicted:
            documents = {f"d{i}": (right, predicted) for i in range(10)}
            write_predictions(folder / name, [("ROOT", "A"), ("A", "AA")], documents)


def test_differences_to_a_baseline(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    two_sides(tmp_path)
    rows = table(find_runs([tmp_path])[0], metrics=["h_f1_macro"], baseline="variant=b")
    lines = {line.split(" | ")[0]: line for line in markdown(cells(rows)).splitlines()}
    assert "| h_f1_macro to baseline | over documents, p (Holm of 1) | minutes |" in lines["| variant"]
    assert "| +0.5000 | [+0.5000, +0.5000] <0.001 (<0.001) |" in lines["| a"]
    assert "| - | - |" in lines["| b"]
    assert "| +0.0000 | - |" in lines["| c"]
    assert [record.getMessage() for record in caplog.records] == [
        "not tested over seeds, paired; seeds, Welch; both: one side has a single seed (a, c)",
        f"not tested over documents; both: {tmp_path / 'c'} lacks taxonomy.json, as a run with test=true leaves (c)",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["variant=d"], "--baseline variant=d: no run has it; known: variant: a, b, c"),
        (["color=b"], "--baseline color=b: color does not differ; these do: variant, seedless"),
        (["seedless=1"], "--baseline seedless=1: fits a / 1 and b / 1; name more settings, separated by commas"),
        (
            ["variant=a", "--metrics", "h_auprc"],
            "--baseline: h_auprc can't be had from saved predictions; name h_f1_macro or h_f1_micro first in --metrics",
        ),
        (["variant=b", "--split", "val"], "--baseline with --split val: predictions are saved of the test split alone"),
    ],
)
def test_baselines_that_are_none(tmp_path: Path, arguments: list[str], message: str) -> None:
    for name, seedless in (("a", 1), ("b", 1), ("c", 2), ("a", 2)):
        write_run(tmp_path / f"{name}{seedless}", 0.5, run__variant=name, model__seedless=seedless)
    with pytest.raises(SystemExit) as stop:
        main(["report", str(tmp_path), "--baseline", *arguments])
    assert str(stop.value) == f"error: {message}"


def test_a_page_of_one_run_without_curves_and_tables(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 0.5)
    (run / "metrics.csv").touch()
    main(["report", str(run), "--split", "val", "--html", str(tmp_path / "page.html")])
    assert "<title>1 system on 1 data set, 1 run</title>" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("per_label.csv", "x,y\n1,2\n"),
        ("per_label.csv", "label,f1\na,b\n"),
        ("metrics.csv", "step,train/loss\n1,abc\n"),
    ],
)
def test_a_page_without_a_table_that_is_broken(
    tmp_path: Path, name: str, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = write_run(tmp_path / "run", 0.5)
    (run / name).write_text(content)
    main(["report", str(run), "--html", str(tmp_path / "page.html")])
    assert "<title>1 system on 1 data set, 1 run</title>" in (tmp_path / "page.html").read_text()
    [message] = caplog.messages
    assert message.startswith(f"{run / name} is broken (")


def test_a_page_for_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["report", str(tmp_path), "--html", str(tmp_path / "nowhere/page.html")])
    folder = str(tmp_path / "nowhere")
    assert str(stop.value) == f"error: --html {folder}/page.html: no folder {folder!r}; make it first"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"test": [1]}, "val or test is no table of scores"),
        ({"seconds": {"fit": "x"}}, "a score or a time is no number"),
        ({"test": {"h_f1_macro": "0.9"}}, "a score or a time is no number"),
        ({"dataset_fingerprint": 5}, "a name is no text"),
    ],
)
def test_results_of_other_kinds_are_left_out(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    for name in ("whole", "broken"):
        write_run(tmp_path / name, 0.5)
    result = json.loads((tmp_path / "broken/result.json").read_text())
    (tmp_path / "broken/result.json").write_text(json.dumps(result | change))
    runs, left_out = find_runs([tmp_path])
    assert [run.folder.name for run in runs] == ["whole"]
    assert left_out == [f"{tmp_path}/broken: result.json is broken ({reason})"]


def test_nesting_without_end_is_left_out(tmp_path: Path) -> None:
    for name in ("whole", "deep", "loop"):
        write_run(tmp_path / name, 0.5)
    (tmp_path / "deep/result.json").write_text("[" * 100_000)
    (tmp_path / "loop/config.yaml").write_text("run: {dir: &a [*a]}")
    runs, left_out = find_runs([tmp_path])
    assert [run.folder.name for run in runs] == ["whole"]
    assert len(left_out) == 2
