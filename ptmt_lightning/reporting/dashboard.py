"""The W&B views of a project as code: runs side by side, and the trials of its searches.

There are two views because W&B groups runs by view, not by panel: a comparison needs the seeds of a configuration
together, while parallel coordinates would then show the mean of a search's trials.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from omegaconf import OmegaConf
from wandb_workspaces import expr
from wandb_workspaces.utils.validators import validate_no_emoji

from ptmt_lightning.reporting.report import HEADLINE_METRICS
from ptmt_lightning.run_folder.curves import RATES

SEARCH_METRIC = "best_score"  # of the best checkpoint; of a curve, W&B would take the last epoch's value
# Grouping by test keeps the trials of a search, which have no test scores, out of the means.
GROUPS = ("dataset.name", "run.model", "run.variant", "dataset.train_fraction", "test")
LOSS_TERMS = ("loss", "label", "count_l1", "mlm", "gaps", "distances")  # others: see _other_terms
SYSTEM = ("gpu.0.gpu", "gpu.0.memoryAllocated", "cpu", "memory_percent")

Spaces = Mapping[str, Mapping[str, bool]]  # by name of the search: its keys, and whether their axes are logarithmic


def search_spaces(folder: Path) -> Spaces:
    """Return the search space of each ``*.yaml`` in a folder such as ``conf/search``, by the name of the file."""
    spaces = {}
    for path in sorted(folder.glob("*.yaml")):
        ranges = OmegaConf.load(path).hydra.sweeper.params
        spaces[path.stem] = {str(key): str(value).startswith("tag(log") for key, value in ranges.items()}
    return spaces


def views(*, entity: str, project: str, name: str, spaces: Spaces) -> list[ws.Workspace]:
    """Return the views ``<name>: comparison`` and ``<name>: search``; nothing is sent to W&B.

    Raises:
        ValueError: W&B would not take that name.
    """
    try:
        validate_no_emoji(name)
    except ValueError as error:
        raise ValueError(f"--name {name!r}: expected no emoji and no symbols such as + or |") from error
    comparison = _view(entity, project, f"{name}: comparison", _comparison(), groups=GROUPS)
    return [comparison, _view(entity, project, f"{name}: search", _search(spaces))]


def specification(workspaces: Sequence[ws.Workspace]) -> dict[str, Any]:
    """Return what would be sent to W&B for these views, in plain types."""
    models = [workspace._to_model() for workspace in workspaces]
    return {"views": [model.model_dump(mode="json", by_alias=True, exclude_none=True) for model in models]}


def _view(
    entity: str, project: str, name: str, sections: list[ws.Section], *, groups: Sequence[str] = ()
) -> ws.Workspace:
    workspace = ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=sections,
        settings=ws.WorkspaceSettings(max_runs=50),
        runset_settings=ws.RunsetSettings(groupby=[expr.Config(key) for key in groups]),
    )
    # Made from the title instead of at random, so that the same command finds the view again.
    workspace._internal_name = f"nw-{hashlib.sha256(name.encode()).hexdigest()[:11]}-v"
    return workspace


def _comparison() -> list[ws.Section]:
    tested = [f"test/{metric}" for metric in HEADLINE_METRICS]
    fraction = wr.Config("dataset.train_fraction")
    train = [f"train/{name}" for name in (*LOSS_TERMS, "learning_rate", "gradient_norm")]
    speed = [f"train/{name}" for name in ("documents_per_second", "tokens_per_second", "memory_gib")]
    return [
        _section("Quality by data set and system", [_bars(metric) for metric in tested], is_open=True),
        _section(
            "Label efficiency",
            [wr.ScatterPlot(title=f"{y} by {fraction.name}", x=fraction, y=wr.SummaryMetric(y)) for y in tested],
        ),
        _section("Learning curves", [_curve("val/h_f1_macro"), _curve("val/label_loss")], is_open=True),
        _section("F1 by level", [_levels("f1_macro"), _levels("f1_micro")]),
        _section("Loss terms", [*map(_curve, train), _other_terms()]),
        _section("Speed and memory", [*map(_curve, speed), *(_system(name) for name in SYSTEM)]),
    ]


def _search(spaces: Spaces) -> list[ws.Section]:
    importance = wr.ParameterImportancePlot(with_respect_to=SEARCH_METRIC)
    coordinates = [_coordinates(name, keys) for name, keys in spaces.items()]
    return [
        _section("Trials", [importance, _curve("val/h_f1_macro")], is_open=True),
        _section("Search spaces", coordinates, columns=1, is_open=True),
    ]


def _section(name: str, panels: list[Any], *, columns: int = 3, is_open: bool = False) -> ws.Section:
    layout = ws.SectionLayoutSettings(columns=columns, rows=-(-len(panels) // columns))
    return ws.Section(name=name, panels=panels, is_open=is_open, layout_settings=layout)


def _bars(metric: str) -> wr.BarPlot:
    return wr.BarPlot(title=metric, metrics=[metric], range_x=(0, 1), max_bars_to_show=100)


def _curve(metric: str) -> wr.LinePlot:
    return wr.LinePlot(title=metric, x="trainer/global_step", y=[metric])


def _levels(metric: str) -> wr.LinePlot:
    # A pattern, because the number of levels depends on the taxonomy.
    return wr.LinePlot(title=f"val/{metric} by level", x="trainer/global_step", metric_regex=rf"val/{metric}_level_\d+")


def _other_terms() -> wr.LinePlot:
    """Return a plot of the loss terms that are not in ``LOSS_TERMS``: those of systems that were added later."""
    known = "|".join((*LOSS_TERMS, *RATES))
    return wr.LinePlot(title="other terms", x="trainer/global_step", metric_regex=rf"train/(?!({known})$).+")


def _system(name: str) -> wr.LinePlot:
    return wr.LinePlot(title=f"system/{name}", x="RelativeTime(Process)", y=[f"system/{name}"])  # has no steps


def _coordinates(name: str, keys: Mapping[str, bool]) -> wr.ParallelCoordinatesPlot:
    columns = [wr.ParallelCoordinatesPlotColumn(wr.Config(key), log=log or None) for key, log in keys.items()]
    columns.append(wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(SEARCH_METRIC)))
    return wr.ParallelCoordinatesPlot(title=f"search={name}", columns=columns)
