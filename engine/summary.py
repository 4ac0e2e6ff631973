"""The closing words of a run, and the tables of `plan` and `status`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from engine.plan import Plan, State, Status
from store.layout import Layout

if TYPE_CHECKING:
    import pandas as pd

MAX_LAYER_TABLES = 2
"""Cells up to which the closing words give a row for each layer; beyond, a row for each cell."""


def status_rows(statuses: Iterable[Status]) -> list[dict[str, Any]]:
    """Return one plain row for each stage, for `--json`."""
    return [
        {
            "stage": status.stage.id,
            "state": status.state.value,
            "done": status.done,
            "total": status.total,
            "unit": status.unit,
            "bytes": status.size,
            "fingerprint": status.stage.fingerprint,
            "after": list(status.stage.after),
            "finished": status.record.finished if status.record else None,
            "seconds": status.record.seconds if status.record else None,
        }
        for status in statuses
    ]


def print_status(console: Console, statuses: Iterable[Status]) -> None:
    """Print one line for each stage."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("stage", "state", "progress", "size", "fingerprint"):
        table.add_column(column, no_wrap=True, overflow="fold")
    for status in statuses:
        expected = "" if status.state is State.DONE or status.size is None else "about "
        table.add_row(
            status.stage.id,
            status.state.value,
            f"{status.done}/{'?' if status.total is None else status.total} {status.unit}",
            "" if status.size is None else f"{expected}{human_bytes(status.size)}",
            status.stage.fingerprint[:12],
        )
    console.print(table, soft_wrap=True)


def human_bytes(size: float) -> str:
    """Return a size in decimal units, three digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"


def print_results(console: Console, plan: Plan, layout: Layout) -> None:
    """Print what was found: a row for each layer of one or two cells, peaks of more."""
    import pandas as pd

    geometry = pd.read_csv(layout.tables / "geometry.csv")
    contrast = plan.study.manifest.analysis.contrasts[0]
    norms = plan.study.norms[0].name
    chosen = geometry[(geometry["contrast"] == contrast) & (geometry["norms"] == norms)]
    cells = list(dict.fromkeys(zip(chosen["model"], chosen["corpus"], strict=True)))
    if len(cells) <= MAX_LAYER_TABLES:
        for model, corpus in cells:
            here = chosen[(chosen["model"] == model) & (chosen["corpus"] == corpus)]
            _print_layers(console, here, f"{model}@{corpus}", contrast, norms)
    _print_peaks(console, chosen, contrast, norms)
    _print_one_token_layers(console, pd.read_csv(layout.tables / "activations.csv"))


def print_outputs(console: Console, layout: Layout) -> None:
    """Print where pictures and tables are."""
    pictures = sorted(layout.figures.glob("*.png"))
    pages = sorted(layout.tables.glob("*.md"))
    tables = [*pages, *sorted(layout.tables.glob("*.csv"))]
    for title, files in (("pictures", pictures), ("tables, to read (md) and to use", tables)):
        console.print(f"\n{title}")
        for file in files:
            console.print(f"  {_shown(file)}", markup=False, highlight=False, soft_wrap=True)


def _print_layers(
    console: Console, rows: pd.DataFrame, cell: str, contrast: str, norms: str
) -> None:
    windows = list(dict.fromkeys(rows["window"]))
    n = int(rows["n_emotions"].iloc[0])
    console.print(
        f"\n{cell}   contrast {contrast}, norms {norms} (n = {n} emotions)\n"
        "|r| of PC1 with valence and of PC2 with arousal, by token window; "
        "* p < .05  ** p < .01  *** p < .001"
    )
    table = Table(box=None, header_style="bold")
    table.add_column("layer", justify="right")
    table.add_column("depth", justify="right")
    for axis in ("valence", "arousal"):
        for window in windows:
            table.add_column(f"{axis}\n{window}", justify="right")
    table.add_column("PC1 var\n" + windows[0], justify="right")
    for layer, at_layer in rows.groupby("layer"):
        by_window = at_layer.set_index("window")
        cells = [
            _r(by_window.loc[window, f"{axis}_r"], by_window.loc[window, f"{axis}_p"])
            for axis in ("valence", "arousal")
            for window in windows
        ]
        name = "embed" if layer == -1 else str(layer)
        depth = f"{by_window['depth'].iloc[0]:.2f}" if layer != -1 else ""
        variance = f"{by_window.loc[windows[0], 'pc1_variance']:.2f}"
        table.add_row(name, depth, *cells, variance)
    console.print(table)


def _print_peaks(console: Console, rows: pd.DataFrame, contrast: str, norms: str) -> None:
    from analysis.tables import peaks

    console.print(f"\npeaks of PC1 with valence   contrast {contrast}, norms {norms}")
    table = Table(box=None, header_style="bold")
    for column in ("cell", "window", "layer", "depth", "valence |r|", "arousal |r| there"):
        table.add_column(column, justify="left" if column in ("cell", "window") else "right")
    for row in peaks(rows).itertuples():
        table.add_row(
            f"{row.model}@{row.corpus}",
            str(row.window),
            str(row.layer),
            f"{row.depth:.2f}",
            _r(row.valence_r, row.valence_p),
            _r(row.arousal_r, row.arousal_p),
        )
    console.print(table)


def _print_one_token_layers(console: Console, activations: pd.DataFrame) -> None:
    """Warn of layers in which a mean over all tokens is mostly one token's."""
    from analysis.activations import MOSTLY
    from analysis.exclusions import ranges

    massive = activations[activations["peak_share"] > MOSTLY]
    for (model, corpus), rows in massive.groupby(["model", "corpus"], sort=False):
        layers = [int(layer) for layer in rows["layer"]]
        first = rows["first_token_peak"].median()
        console.print(
            f"\n{model}@{corpus}: in layers {ranges(layers)} one token carries most of a text's "
            f"norm (the first token in {first:.0%} of texts, median), so a mean over all tokens "
            "says little of the text there; see activations.csv",
            highlight=False,
            soft_wrap=True,
        )


def _r(r: Any, p: Any) -> str:
    """Return |r| with marks of significance, padded so that the digits align."""
    if r != r:
        return "nan   "
    marks = "***" if p < 0.001 else "**" if p < 0.01 else "*" if p < 0.05 else ""
    return f"{r:.2f}{marks:<3}"


def _shown(file: Path) -> Path:
    """Return a path as short as it can be written from here."""
    try:
        return file.resolve().relative_to(Path.cwd())
    except ValueError:
        return file
