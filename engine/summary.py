"""The closing words of a run, and the tables of `plan` and `status`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from engine.costs.architecture import model_sizes
from engine.costs.host import Host
from engine.costs.machines import GPUS, READING, WRITING, Gpu, gpu_hours
from engine.costs.memory import MEMORY_SHARE, Need
from engine.costs.workload import Work
from engine.plan import Plan, State, Status
from manifests.builtin import BUILTIN_MODELS
from manifests.families import FAMILIES, readers
from manifests.resolve import Study
from store.layout import Layout

SPEEDS = {"A100": GPUS["A100-80GB"], "H100, H200": GPUS["H100"]}
"""GPUs of one speed, whatever their memory."""

if TYPE_CHECKING:
    import pandas as pd

MAX_STAGES = 30
"""Stages up to which costs have a row each; beyond, a row for each model."""

MAX_LAYER_TABLES = 2
"""Cells up to which the closing words give a row for each layer; beyond, a row for each cell."""


def print_families(console: Console) -> None:
    """Print the families that are proved to be read right, and the built-in models."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("family", "models", "read by"):
        table.add_column(column, overflow="fold")
    for family, models in FAMILIES.items():
        table.add_row(family, models, ", ".join(readers(family)))
    console.print(table)
    console.print("\nbuilt in", style="bold")
    for name, model in BUILTIN_MODELS.items():
        console.print(f"  {name:<14} {model.description} ({model.licence})", soft_wrap=True)
    console.print("\nothers: transformer_lens may read them, unproved; vllm refuses them")


def print_models(console: Console, study: Study) -> None:
    """Print a manifest's models: their sizes, who reads them, and whether they are here."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("model", "from", "family", "layers", "parameters", "read by"):
        right = "right" if column in ("layers", "parameters") else "left"
        table.add_column(column, no_wrap=column != "read by", justify=right)
    sizes, unknown = model_sizes(study), 0
    for name, entry in study.manifest.models.items():
        origin = entry.hf or entry.path or f"builtin {entry.builtin}"
        size = sizes[name]
        if size is None:
            unknown += 1
            table.add_row(name, origin, "?", "?", "?", "its config is not here")
            continue
        proved = ", ".join(readers(size.family)) or "transformer_lens (unproved)"
        parameters = f"{size.parameters / 1e9:,.2f} B"
        table.add_row(name, origin, size.family, str(size.n_layers), parameters, proved)
    console.print(table)
    if unknown:
        console.print(f"\n{unknown} configs are not here: emovec fetch --plan-only brings them")


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


def print_host(console: Console, host: Host) -> None:
    """Print what is left takes of this machine."""
    free = "" if host.free is None else f", {host.free / 1e9:,.0f} GB are free"
    analysis = (
        "not known yet" if host.core_hours is None else f"about {host.core_hours:,.1f} core-hours"
    )
    size = "about" if host.whole else "at least"
    console.print(
        f"this machine: {size} {host.disk / 1e9:,.2f} GB to write{free}; up to "
        f"{host.memory / 1e9:,.1f} of {host.total / 1e9:,.1f} GB of memory at once; analysis "
        f"{analysis}",
        soft_wrap=True,
    )


def cost_rows(works: Iterable[Work], needs: Iterable[Need], host: Host) -> dict[str, Any]:
    """Return the costs as plain rows, for `--json`: of stages, of models, of this machine."""
    return {
        "host": dataclasses.asdict(host),
        "work": [
            {
                **dataclasses.asdict(work),
                "gpu_hours": {name: _hours(work, gpu) for name, gpu in GPUS.items()},
            }
            for work in works
        ],
        "models": [
            {
                **dataclasses.asdict(need),
                "gpus": {name: need.gpus(gpu, MEMORY_SHARE) for name, gpu in GPUS.items()},
            }
            for need in needs
        ],
    }


def print_costs(
    console: Console, works: list[Work], needs: list[Need], rate: float | None, unknown: list[str]
) -> None:
    """Print what stages have to do and what models need, on named GPUs.

    Args:
        console: to print on.
        works: of the stages that are not done.
        needs: of the models.
        rate: operations a second at which this machine has read in this run, None where it has not.
        unknown: models whose config is not at hand.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("work to do", no_wrap=True, overflow="fold")
    for column in ("requests", "tokens", "written", "PFLOP", *SPEEDS, "here"):
        table.add_column(column, justify="right")
    table.add_column("known from")
    totals = dict.fromkeys(SPEEDS, 0.0)
    for work in works if len(works) <= MAX_STAGES else _by_model(works):
        hours = {name: _hours(work, gpu) for name, gpu in SPEEDS.items()}
        totals = {n: totals[n] + (float("nan") if h is None else h) for n, h in hours.items()}
        here = None if rate is None or work.flops is None else work.flops / rate / 3600
        table.add_row(
            work.stage,
            _count(work.requests),
            _count(work.tokens),
            _count(work.output_tokens),
            "?" if work.flops is None else f"{work.flops / 1e15:,.3g}",
            *(_duration(h) for h in hours.values()),
            "-" if here is None or work.writes else _duration(here),
            work.source,
        )
    if len(works) > 1:
        table.add_row("together", *[""] * 4, *(_duration(h) for h in totals.values()), "", "")
    if works:
        console.print(table)
        console.print(
            f"on one GPU, at {READING:.0%} of the data sheet's peak for reading and {WRITING:.0%} "
            "for writing; here: by what this machine has read in this run",
            soft_wrap=True,
        )
    models = Table(box=None, pad_edge=False, header_style="bold")
    models.add_column("\nmodel", no_wrap=True, overflow="fold")
    for column in ("\nto", "\ndtype", "\nweights", "\ncache"):
        models.add_column(column, justify="right")
    for name in GPUS:
        models.add_column(f"GPUs\n{name}", justify="right")
    for need in needs:
        models.add_row(
            need.model,
            "write" if need.writes else "read",
            need.dtype,
            human_bytes(need.weights),
            human_bytes(need.cache) if need.cache else "-",
            *(str(need.gpus(gpu, MEMORY_SHARE) or "more than 8") for gpu in GPUS.values()),
        )
    if needs:
        console.print(models)
    if unknown:
        console.print(
            f"configs that are not on this machine, so that their models' cost is not known: "
            f"{', '.join(unknown)}",
            soft_wrap=True,
        )


def _by_model(works: list[Work]) -> list[Work]:
    """Return the work of each model, writing and reading apart, over all corpora."""
    found: dict[tuple[bool, str], list[Work]] = {}
    for work in works:
        found.setdefault((work.writes, work.model), []).append(work)

    def together(numbers: Iterable[float | None]) -> Any:
        values = list(numbers)
        return None if None in values else sum(v for v in values if v is not None)

    return [
        dataclasses.replace(
            some[0],
            stage=f"{model} {'writes' if writes else 'reads'} {_corpora(len(some))}",
            requests=together(w.requests for w in some),
            tokens=together(w.tokens for w in some),
            output_tokens=together(w.output_tokens for w in some) if writes else None,
            flops=together(w.flops for w in some),
            source=" and ".join(dict.fromkeys(w.source for w in some)),
        )
        for (writes, model), some in found.items()
    ]


def _corpora(n: int) -> str:
    return "1 corpus" if n == 1 else f"{n} corpora"


def _hours(work: Work, gpu: Gpu) -> float | None:
    if work.flops is None:
        return None
    return gpu_hours(work.flops, gpu, work.dtype, WRITING if work.writes else READING)


def _duration(hours: float | None) -> str:
    """Return hours as `14 h`, `3.2 min` or `8 s`; `?` where they are not known."""
    if hours is None or hours != hours:
        return "?"
    for unit, size in (("h", 1.0), ("min", 1 / 60)):
        if hours >= size:
            return f"{hours / size:,.3g} {unit}"
    return f"{hours * 3600:.2g} s"


def _count(number: float | None) -> str:
    if number is None:
        return ""
    for unit in ("", "k", "M", "G"):
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:,.3g}T"


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


def print_summary(console: Console, plan: Plan, layout: Layout) -> None:
    """Print in sentences what was found, as the page says it."""
    import pandas as pd

    from analysis.report.sentences import summary

    names = ("geometry", "claim_summary", "activations", "detection")
    geometry, claims, activations, detection = (
        pd.read_csv(layout.tables / f"{name}.csv", keep_default_na=False, na_values=["nan"])
        for name in names
    )
    twins = {(plan.random_twin(cell), cell.corpus) for cell in plan.study.cells}
    for said in summary(geometry, claims, activations, detection, twins):
        console.print(f"\n[bold]{escape(said.about)}[/bold]", soft_wrap=True)
        for sentence in said.sentences:
            console.print(Padding(Text(sentence), (0, 0, 0, 2)))


def print_outputs(console: Console, layout: Layout) -> None:
    """Print where the page, the pictures and the tables are."""
    pictures = sorted(layout.figures.glob("*.png"))
    pages = sorted(layout.tables.glob("*.md"))
    tables = [*pages, *sorted(layout.tables.glob("*.csv"))]
    there = [("page", [layout.page] if layout.page.is_file() else [])]
    there += [("pictures", pictures), ("tables, to read (md) and to use", tables)]
    for title, files in there:
        if files:
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
        "* p < .05  ** p < .01  *** p < .001, corrected for the search over blocks"
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
        p = "p" if layer == -1 else "p_corrected"
        cells = [
            _r(by_window.loc[window, f"{axis}_r"], by_window.loc[window, f"{axis}_{p}"])
            for axis in ("valence", "arousal")
            for window in windows
        ]
        name = "embed" if layer == -1 else str(layer)
        depth = f"{by_window['depth'].iloc[0]:.2f}" if layer != -1 else ""
        variance = f"{by_window.loc[windows[0], 'pc1_variance']:.2f}"
        table.add_row(name, depth, *cells, variance)
    console.print(table)


def _print_peaks(console: Console, rows: pd.DataFrame, contrast: str, norms: str) -> None:
    from analysis.geometry_table import peaks

    console.print(f"\npeaks of PC1 with valence   contrast {contrast}, norms {norms}")
    table = Table(box=None, header_style="bold")
    names = [f"{row.model}@{row.corpus}" for row in rows.itertuples()]
    table.add_column("cell", min_width=max(map(len, names)))
    table.add_column("window")
    head = ("layer", "depth", "valence\n|r|", "95 %\ninterval")
    for column in (*head, "embed-\nding", "random\nweights", "bag of\nwords", "arousal\n|r| there"):
        table.add_column(column, justify="right")
    for row in peaks(rows).itertuples():
        table.add_row(
            f"{row.model}@{row.corpus}",
            str(row.window),
            str(row.layer),
            f"{row.depth:.2f}",
            _r(row.valence_r, row.valence_p_corrected),
            f"{row.valence_low:.2f} to {row.valence_high:.2f}",
            *(
                f"{r:.2f}" if r == r else "-"
                for r in (
                    row.valence_embedding_r,
                    row.valence_random_r,
                    row.valence_bag_of_words_r,
                )
            ),
            _r(row.arousal_r, row.arousal_p_corrected),
        )
    console.print(table)
    console.print(
        "* p < .05, ** p < .01, *** p < .001, corrected for the search over layers; the interval "
        "is of what infinitely many stories would give; then baselines without the model's doing",
        highlight=False,
        soft_wrap=True,
    )


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
