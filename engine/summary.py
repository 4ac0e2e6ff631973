"""The closing words of a run, and the stages of `plan` and `status`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from engine.costs.architecture import model_sizes
from engine.plan import Plan, State, Status
from engine.shown_tables import MEND, refuse_odd_tables
from manifests.builtin import BUILTIN_MODELS
from manifests.errors import InputError, Problem, one_line
from manifests.families import FAMILIES, readers
from manifests.resolve import Study
from store.digests import changed_files
from store.layout import Layout

if TYPE_CHECKING:
    import pandas as pd

MAX_STAGES = 30
"""Stages up to which each has a row; beyond, a row for each kind, and costs by model."""

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
            table.add_row(name, one_line(origin), "?", "?", "?", "its config is not here")
            continue
        proved = ", ".join(readers(size.family)) or "transformer_lens (unproved)"
        parameters = f"{size.parameters / 1e9:,.2f} B"
        table.add_row(name, one_line(origin), size.family, str(size.n_layers), parameters, proved)
    console.print(table)
    if unknown:
        console.print(f"\n{unknown} configs are not here: emovec fetch --plan-only brings them")


def status_rows(statuses: Iterable[Status], run: str) -> list[dict[str, Any]]:
    """Return one plain row for each stage of a run, for `--json`."""
    return [
        {
            "run": run,
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


def print_status(console: Console, statuses: Sequence[tuple[str, Status]], every: bool) -> None:
    """Print one line for each stage, or for each kind of stage where there are many.

    Args:
        console: to print on.
        statuses: of stages, and what to put before their ids.
        every: print each stage's line, however many there are.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    by_kind = len(statuses) > MAX_STAGES and not every
    last = "" if by_kind else "fingerprint"
    for column in ("stage", "state", "progress", "size", last):
        table.add_column(column, no_wrap=True, overflow="fold")
    for row in _kind_rows(statuses) if by_kind else _stage_rows(statuses):
        table.add_row(*row)
    console.print(table, soft_wrap=True)
    if by_kind:
        console.print(f"{len(statuses)} stages, by kind; --all lists each", soft_wrap=True)


def _stage_rows(statuses: Iterable[tuple[str, Status]]) -> Iterator[tuple[str, ...]]:
    for label, status in statuses:
        expected = "" if status.state is State.DONE or status.size is None else "about "
        yield (
            f"{label}{status.stage.id}",
            status.state.value,
            f"{status.done}/{'?' if status.total is None else status.total} {status.unit}",
            "" if status.size is None else f"{expected}{human_bytes(status.size)}",
            status.stage.fingerprint[:12],
        )


def _kind_rows(statuses: Iterable[tuple[str, Status]]) -> Iterator[tuple[str, ...]]:
    kinds: dict[str, list[Status]] = {}
    for _, status in statuses:
        kinds.setdefault(status.stage.kind, []).append(status)
    for kind, some in kinds.items():
        states = Counter(status.state for status in some)
        known = [status.size for status in some if status.size is not None]
        said = "about " if len(known) == len(some) else "at least "
        yield (
            kind,
            ", ".join(
                state.value if len(states) == 1 else f"{states[state]} {state.value}"
                for state in State
                if states[state]
            ),
            f"{states[State.DONE]}/{len(some)}",
            ""
            if not known
            else f"{'' if set(states) == {State.DONE} else said}{human_bytes(sum(known))}",
            "",
        )


def human_bytes(size: float) -> str:
    """Return a size in decimal units, three digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"


@contextmanager
def about_tables(layout: Layout) -> Iterator[None]:
    """Turn what comes of showing damaged tables into one line that names one.

    Raises:
        InputError: in place of any other error, where a table is not as it was written, or holds
            other things than a run writes.
    """
    try:
        yield
    except Exception:
        stages = ("tables", "effects", "describe")
        changed = [key for kind in stages for key in changed_files(layout, kind, "all")]
        if not changed:
            refuse_odd_tables(layout.tables)
            raise
        what = "damaged; after `emovec verify MANIFEST --repair` the next run makes it again"
        raise InputError(Problem(layout.run / changed[0], None, "", what)) from None


def print_results(console: Console, plan: Plan, layout: Layout) -> None:
    """Print what was found: a row for each layer of one or two cells, peaks of more."""
    import pandas as pd

    geometry = pd.read_csv(layout.tables / "geometry.csv")
    contrast = plan.study.manifest.analysis.contrasts[0]
    norms = plan.study.norms[0].name
    chosen = geometry[(geometry["contrast"] == contrast) & (geometry["norms"] == norms)]
    if chosen.empty:
        what = f"no rows of {contrast} with {norms}; {MEND}"
        raise InputError(Problem(layout.tables / "geometry.csv", None, "contrast", what))
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

    names = ("geometry", "claim_summary", "activations", "detection", "profiles")
    tables = [
        pd.read_csv(layout.tables / f"{name}.csv", keep_default_na=False, na_values=["nan"])
        for name in names
    ]
    twins = {(plan.random_twin(cell), cell.corpus) for cell in plan.study.cells}
    for said in summary(*tables, twins):
        console.print(f"\n{said.about}", style="bold", soft_wrap=True)
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
