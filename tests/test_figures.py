"""Figures, checked as data: what is drawn equals what the tables and results say."""

import dataclasses
import itertools
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from analysis.cell import join_layers
from analysis.figures import (
    beside_baselines,
    cka_estimators,
    cka_grids,
    draw_all,
    emotion_cosines,
    massive_activations,
    pca_maps,
    remove_others,
    save_figures,
    trajectories,
    valence_direction_cosines,
)
from analysis.figures.detection import SHOWN, detection
from analysis.figures.labels import decimal, place_labels
from analysis.figures.palette import contrast, difference
from analysis.figures.style import SCARCE, SIGNED, SIMILARITY, STYLE, looks_of, signed_look
from analysis.geometry_table import geometry_table, peaks
from analysis.layer import analyse_layer
from analysis.paging import CELLS_ON_A_PAGE
from analysis.results import CellResults
from analysis.settings import Settings
from engine.plan import FIGURES
from tests.made import FEW
from tests.test_analysis import text_ids

WINDOWS = ("all", "no-first")
N_LAYERS, D_MODEL, N_EMOTIONS = 6, 24, 14
CONTRAST, NORMS = "neutral-pca", "made-up"
NAN_LAYER = 3
LOOKS = looks_of([("small", "stories"), ("small", "tales"), ("large", "stories")])


def make_cell(model: str, corpus: str, seed: int, n_emotions: int = N_EMOTIONS) -> CellResults:
    """Analyse made-up stories whose vectors carry a valence that grows up to layer 4."""
    rng = np.random.default_rng(seed)
    emotions = [f"emotion-{i}" for i in range(n_emotions)]
    rating_EX = rng.uniform(1, 9, (n_emotions, 2))
    rating_EX[-2:] = np.nan
    labels = [e for e in emotions for _ in range(2)] + [""] * 8
    layers = list(range(-1, N_LAYERS))
    data = rng.normal(size=(len(labels), len(WINDOWS), len(layers), D_MODEL)).astype(np.float32)
    valence = np.nan_to_num(np.repeat(rating_EX[:, 0] - 5, 2))
    for at, layer in enumerate(layers):
        data[: len(valence), :, at, 0] += valence[:, None] * max(0, 4 - abs(layer - 4))
    cell = xr.Dataset(
        {"residual_mean": (("text", "window", "layer", "d_model"), data)},
        coords={
            "text_id": ("text", text_ids(labels)),
            "emotion": ("text", labels),
            "window": list(WINDOWS),
            "layer": layers,
        },
    )
    settings = Settings((CONTRAST, "mean-centered"), 0.5, {NORMS: rating_EX}, **FEW)
    layer_results = {
        (window, layer): analyse_layer(cell, window, layer, settings)
        for window in WINDOWS
        for layer in layers
    }
    activations = {
        "peak_ratio": ("layer", rng.uniform(1, 100, len(layers))),
        "peak_ratio_max": ("layer", rng.uniform(100, 200, len(layers))),
        "peak_share": ("layer", np.linspace(0, 0.9, len(layers))),
        "top_dimension": (("layer", "rank"), rng.integers(D_MODEL, size=(len(layers), 3))),
        "first_token_peak": ("layer", rng.uniform(0, 1, len(layers))),
        "top_dimension_share": (("layer", "rank"), rng.uniform(0, 0.3, (len(layers), 3))),
    }
    results = join_layers(layer_results, emotions, N_LAYERS, settings).assign(activations)
    return CellResults(model, corpus, results, "f")


def with_gap(cell: CellResults) -> CellResults:
    """Take one layer's values away."""
    results = cell.results.copy(deep=True)
    for name in ("r", "p", "p_corrected", "cka", "direction_cosine"):
        results[name].loc[{"layer": NAN_LAYER}] = np.nan
    for name in ("cka", "direction_cosine"):
        results[name].loc[{"layer_b": NAN_LAYER}] = np.nan
    return dataclasses.replace(cell, results=results)


@pytest.fixture(scope="module")
def cells() -> list[CellResults]:
    return [
        make_cell("small", "stories", 1),
        with_gap(make_cell("small", "tales", 2)),
        make_cell("large", "stories", 3),
    ]


@pytest.fixture(scope="module")
def geometry(cells):
    return geometry_table(cells)


@pytest.fixture(scope="module")
def one_window(cells) -> CellResults:
    """Give a cell with one window, opened lazily as a store gives it."""
    return dataclasses.replace(cells[0], results=cells[0].results.sel(window=["all"]).chunk())


@pytest.fixture(scope="module")
def curves(geometry, cells) -> Figure:
    return trajectories(geometry, CONTRAST, NORMS, list(WINDOWS), LOOKS)


def panel(figure: Figure, title: str):
    found = [ax for ax in figure.axes if title in ax.get_title(loc="left")]
    assert found, [ax.get_title(loc="left") for ax in figure.axes]
    return found[0]


def notes(ax) -> list[str]:
    return [text.get_text() for text in ax.texts if isinstance(text, Annotation)]


def label_boxes(figure: Figure, ax) -> list[Bbox]:
    renderer = figure.canvas.get_renderer()
    for text in ax.texts:
        text.update_positions(renderer)
    return [Text.get_window_extent(text, renderer) for text in ax.texts]


def overlapping(boxes: list[Bbox]) -> list[tuple[Bbox, Bbox]]:
    """Pairs of boxes that share more than the quarter of a pixel that rounding explains."""
    small = [Bbox.from_extents(b.x0 + 0.25, b.y0 + 0.25, b.x1 - 0.25, b.y1 - 0.25) for b in boxes]
    return [(a, b) for a, b in itertools.combinations(small, 2) if a.overlaps(b)]


def lines_with_points(ax, n: int) -> list[np.ndarray]:
    lines = [line for line in ax.get_lines() if line.get_linestyle() != "None"]
    return [np.asarray(line.get_ydata()) for line in lines if len(line.get_ydata()) == n]


@pytest.mark.parametrize(("column", "rating"), [(0, "valence"), (1, "arousal")])
@pytest.mark.parametrize("row", [0, 1])
def test_curves_equal_the_table(curves, geometry, row, column, rating):
    ax = curves.axes[2 * row + column]
    table = geometry[
        (geometry["window"] == WINDOWS[row])
        & (geometry["contrast"] == CONTRAST)
        & (geometry["layer"] >= 0)
    ]
    expected = [g[f"{rating}_r"] for _, g in table.groupby(["model", "corpus"], sort=False)]
    for y, values in zip(lines_with_points(ax, N_LAYERS), expected, strict=True):
        np.testing.assert_array_equal(y, values)
    assert rating in ax.get_ylabel()
    assert f"n = {N_EMOTIONS - 2}" in ax.get_ylabel()


def test_missing_layer_is_a_gap_in_the_curve(curves):
    gaps = [np.flatnonzero(np.isnan(y)).tolist() for y in lines_with_points(curves.axes[0], 6)]
    assert gaps == [[], [NAN_LAYER], []]


def test_filled_markers_are_the_significant_layers(curves, geometry):
    table = geometry[
        (geometry["window"] == WINDOWS[0])
        & (geometry["contrast"] == CONTRAST)
        & (geometry["layer"] >= 0)
        & geometry["valence_p_corrected"].notna()
    ]
    marks = [
        line
        for line in curves.axes[0].get_lines()
        if line.get_linestyle() == "None" and line.get_markersize() < 5
    ]
    n_hollow = sum(
        int(np.isfinite(m.get_ydata()).sum()) for m in marks if m.get_markerfacecolor() == "white"
    )
    n_filled = sum(
        int(np.isfinite(m.get_ydata()).sum()) for m in marks if m.get_markerfacecolor() != "white"
    )
    assert n_filled == (table["valence_p_corrected"] < 0.05).sum() > 0
    assert n_hollow == (table["valence_p_corrected"] >= 0.05).sum() > 0


def test_peaks_are_annotated_with_layer_and_r(curves, geometry):
    best = peaks(geometry)
    for row, window in enumerate(WINDOWS):
        rows = best[(best["window"] == window) & (best["contrast"] == CONTRAST)]
        expected = [
            f"layer {layer}: {f'{r:.2f}'.removeprefix('0')}"
            for layer, r in zip(rows["layer"], rows["valence_r"], strict=True)
        ]
        found = [note for note in notes(curves.axes[2 * row]) if "layer" in note]
        assert len(found) == len(expected)
        assert all(text.endswith(e) for text, e in zip(found, expected, strict=True))


def test_peak_labels_do_not_overlap(curves):
    for ax in curves.axes:
        boxes = label_boxes(curves, ax)
        assert len(boxes) == 6  # of three peaks, and of three embedding outputs at the edge
        assert not overlapping(boxes)


def test_embedding_output_is_a_dotted_baseline(curves, geometry):
    baseline = geometry[
        (geometry["window"] == WINDOWS[0])
        & (geometry["contrast"] == CONTRAST)
        & (geometry["layer"] == -1)
    ]
    dotted = [line for line in curves.axes[0].get_lines() if line.get_linestyle() == ":"]
    assert [line.get_ydata()[0] for line in dotted] == baseline["valence_r"].tolist()
    marks = {"stories": "●", "tales": "■"}
    said = [
        f"{marks[corpus]} {decimal(r)}"
        for corpus, r in zip(baseline["corpus"], baseline["valence_r"], strict=True)
    ]
    at_edge = {
        note.get_text(): note.xy[1]
        for note in curves.axes[0].texts
        if isinstance(note, Annotation) and "layer" not in note.get_text()
    }
    assert sorted(at_edge) == sorted(said)
    for text, r in zip(said, baseline["valence_r"], strict=True):
        assert at_edge[text] == pytest.approx(r, abs=0.1)


def test_a_model_keeps_its_colour_and_a_corpus_its_line_style(curves):
    for ax in curves.axes:
        lines = [x for x in ax.get_lines() if len(x.get_ydata()) == N_LAYERS]
        small_stories, small_tales, large_stories = (
            x for x in lines if x.get_linestyle() != "None"
        )
        assert small_stories.get_color() == small_tales.get_color() != large_stories.get_color()
        assert small_stories.get_linestyle() == large_stories.get_linestyle()
        assert small_stories.get_linestyle() != small_tales.get_linestyle()


def test_unknown_contrast_is_refused(geometry, cells):
    with pytest.raises(ValueError, match="no row for contrast 'both'"):
        trajectories(geometry, "both", NORMS, list(WINDOWS), LOOKS)


def test_heat_maps_equal_cka(cells):
    figure = cka_grids(cells, CONTRAST)
    for i, cell in enumerate(cells):
        for j, window in enumerate(WINDOWS):
            ax = figure.axes[i * len(WINDOWS) + j]
            grid = cell.results["cka"].sel(contrast=CONTRAST, window=window)
            expected = grid.sel(layer=slice(0, None), layer_b=slice(0, None)).to_numpy()
            image = ax.get_images()[0].get_array()
            np.testing.assert_array_equal(image.filled(np.nan), expected)
            assert (image.mask == np.isnan(expected)).all()
            assert ax.get_images()[0].get_clim() == (0, 1)
            title = ax.get_title(loc="left")
            name = f"{cell.model}@{cell.corpus}" if j == 0 else ""
            assert title.startswith(f"{name}\n{window}, min ")
            assert title.endswith(f"{np.nanmin(expected):.2f}".removeprefix("0"))


def test_estimators_of_cka_stand_side_by_side(cells):
    figure = cka_estimators(cells, CONTRAST, "all")
    ways = ("cka", "cka_debiased", "without_cka_grid")
    for i, cell in enumerate(cells):
        for j, name in enumerate(ways):
            grid = cell.results[name].sel(contrast=CONTRAST, window="all")
            expected = grid.sel(layer=slice(0, None), layer_b=slice(0, None)).to_numpy()
            shown = figure.axes[i * len(ways) + j].get_images()[0].get_array()
            np.testing.assert_array_equal(shown.filled(np.nan), expected)
    titles = [ax.get_title(loc="left").split("\n")[1] for ax in figure.axes[:3]]
    assert [t.partition(",")[0] for t in titles] == [
        *("plain", "debiased", "3 dimensions left out")
    ]


def test_r_stands_beside_its_interval_and_its_baselines(cells, geometry):
    twin = dataclasses.replace(cells[2], model="small", corpus="tales")
    pair = [dataclasses.replace(cells[0], twin="large"), twin]
    figure = beside_baselines(pair, cells, CONTRAST, NORMS, "all", LOOKS)
    for column, axis in enumerate(("valence", "arousal")):
        ax = figure.axes[column]
        rows = geometry[
            (geometry["model"] == "small")
            & (geometry["corpus"] == "stories")
            & (geometry["window"] == "all")
            & (geometry["contrast"] == CONTRAST)
        ]
        blocks = rows[rows["layer"] >= 0]
        other = geometry[
            (geometry["model"] == "large")
            & (geometry["window"] == "all")
            & (geometry["contrast"] == CONTRAST)
            & (geometry["layer"] >= 0)
        ]
        random, own = lines_with_points(ax, N_LAYERS)
        np.testing.assert_allclose(own, blocks[f"{axis}_r"])
        np.testing.assert_allclose(random, other[f"{axis}_r"])
        _, band = ax.collections  # of the random weights, of the cell
        ends = band.get_paths()[0].get_extents()
        assert ends.y0 == pytest.approx(blocks[f"{axis}_low"].min(), abs=1e-6)
        assert ends.y1 == pytest.approx(blocks[f"{axis}_high"].max(), abs=1e-6)
        embedding = rows.loc[rows["layer"] == -1, f"{axis}_r"].item()
        dotted = [x for x in ax.get_lines() if x.get_linestyle() == ":"]
        assert [line.get_ydata()[0] for line in dotted] == [embedding]
        assert sorted(notes(ax)) == sorted([decimal(embedding), decimal(random[-1])])
        marks = [x for x in ax.get_lines() if x.get_marker() == "o"]
        drawn = [x for line in marks for x in line.get_ydata()]
        np.testing.assert_allclose(sorted(drawn), sorted(blocks[f"{axis}_r"]))
        filled = [x for x in marks if x.get_markerfacecolor() != "white"]
        sure = blocks[blocks[f"{axis}_p_corrected"] < 0.05][f"{axis}_r"]
        np.testing.assert_allclose(sorted(x for m in filled for x in m.get_ydata()), sorted(sure))
        assert ax.get_ylim()[0] <= max(-1, blocks[f"{axis}_low"].min()), "the band is whole"
        assert ax.get_ylabel().startswith(f"r, PC{column + 1} and {axis}")
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "claims' thresholds: r = .70, depth .50" in said
    assert any("p ≥ .05" in text for text in said)


def test_activations_over_depth_are_those_of_the_results(cells):
    figure = massive_activations(cells, LOOKS)
    for at, cell in enumerate(cells):
        blocks = cell.results.sel(layer=slice(0, None))
        wanted = (
            blocks["peak_ratio"],
            100 * blocks["first_token_peak"],
            100 * blocks["top_dimension_share"].sum("rank"),
        )
        for ax, values in zip(figure.axes, wanted, strict=True):
            np.testing.assert_allclose(lines_with_points(ax, N_LAYERS)[at], values)
            assert ax.get_ylabel()
    assert not notes(figure.axes[0]), "the threshold is named in the legend, not on a curve"
    assert "massive: 10 times the mean" in [t.get_text() for t in figure.legends[0].get_texts()]


def test_cosines_of_emotions_are_sorted_by_valence(cells, geometry):
    figure = emotion_cosines(cells[:1], geometry, CONTRAST, NORMS, "all")
    best = peaks(geometry).set_index(["model", "corpus", "window", "contrast", "norms"])["layer"]
    layer = best["small", "stories", "all", CONTRAST, NORMS]
    results = cells[0].results
    rating_E = results["rating"].sel(norms=NORMS, axis="valence").to_numpy()
    order = np.argsort(rating_E)[: N_EMOTIONS - 2]  # the last two are not rated
    gram = results["gram"].sel(contrast=CONTRAST, window="all", layer=layer).to_numpy()
    own = np.sqrt(np.diag(gram))
    expected = (gram / own / own[:, None])[np.ix_(order, order)]
    ax = figure.axes[0]
    np.testing.assert_allclose(ax.get_images()[0].get_array(), expected, atol=1e-12)
    named = [t.get_text() for t in ax.get_yticklabels()]
    assert named == [str(e) for e in results["emotion"].to_numpy()[order]]
    assert f"layer {layer}" in ax.get_title(loc="left")
    widest = np.abs(expected[~np.eye(len(expected), dtype=bool)]).max()
    assert ax.get_images()[0].get_clim() == pytest.approx((-widest, widest))
    assert "(2 unrated or without a vector are left out)" in ax.get_title(loc="left")
    assert "1 on the diagonal" in figure.axes[-1].get_ylabel()


def test_of_many_emotions_one_name_in_some_is_written():
    cell = make_cell("small", "stories", 4, n_emotions=70)
    figure = emotion_cosines([cell], geometry_table([cell]), CONTRAST, NORMS, "all")
    assert "; one name in 3; " in figure.get_suptitle()
    assert len(figure.axes[0].get_yticks()) == 23


def test_the_sign_is_read_in_grey():
    """The lightness of the signed colours rises all the way, with room on both sides of 0."""
    grey = [contrast(tuple(c[:3]), (0, 0, 0)) for c in SIGNED(np.linspace(0, 1, 41))]
    assert (np.diff(grey) > 0).all()
    assert grey[20] / grey[0] > 3
    assert grey[40] / grey[20] > 2


@pytest.mark.parametrize(
    ("values", "cmap", "limits"),
    [
        ([-0.5, 0.2, np.nan, 0.4], SIGNED, (-1, 1)),
        ([0.2, np.nan, 0.4], SIMILARITY, (0.2, 1)),
        ([-0.01, *[0.5] * 200], SIMILARITY, (-0.01, 1)),
        ([np.nan], SIGNED, (-1, 1)),
    ],
)
def test_a_scale_begins_at_the_least_value_where_next_to_none_is_negative(values, cmap, limits):
    found, scale = signed_look(values, 1.0)
    assert found == cmap
    assert (scale.vmin, scale.vmax) == limits


def test_a_random_twin_is_a_baseline_and_has_no_panels(cells):
    run = [dataclasses.replace(cells[0], twin="large"), cells[2]]
    drawn = draw_all(run, geometry_table(run))
    for name in ("cka", "pca_map", "emotion_cosines"):
        (figure,) = drawn[name]
        titles = " ".join(ax.get_title(loc="left") for ax in figure.axes)
        assert "small@stories" in titles
        assert "large@stories" not in titles, name


def test_direction_maps_and_stability_equal_the_cosines(cells):
    figure = valence_direction_cosines(cells, CONTRAST, NORMS, "no-first")
    where = {"contrast": CONTRAST, "norms": NORMS, "window": "no-first", "axis": "valence"}
    shown = ("component", "covariance", "ridge", "least-squares")
    every = [
        c.results["direction_cosine"]
        .sel(where | {"estimator": e})
        .sel(layer=slice(0, None), layer_b=slice(0, None))
        .to_numpy()
        for c in cells
        for e in shown
    ]
    for i, cell in enumerate(cells):
        for j, estimator in enumerate(shown):
            ax = figure.axes[i * len(shown) + j]
            grid = cell.results["direction_cosine"].sel(where | {"estimator": estimator})
            expected = grid.sel(layer=slice(0, None), layer_b=slice(0, None)).to_numpy()
            image = ax.get_images()[0]
            np.testing.assert_array_equal(image.get_array().filled(np.nan), expected)
            least = min(np.nanmin(x) for x in every)
            negative = np.mean([x < 0 for x in np.concatenate([x[np.isfinite(x)] for x in every])])
            assert image.get_clim() == ((least, 1) if negative <= SCARCE else (-1, 1))
            below = ax.child_axes[0]
            (step,) = lines_with_points(below, N_LAYERS - 1)
            np.testing.assert_array_equal(step, np.diagonal(expected, 1))
            assert below.get_ylim()[0] <= np.nanmin(step)
    assert np.isnan(lines_with_points(figure.axes[4].child_axes[0], 5)[0]).tolist() == [
        *(False, False, True, True, False)
    ]


def test_maps_show_every_corpus_at_every_peak_of_its_model_with_components_flipped(cells, geometry):
    geometry = geometry.copy()
    geometry.loc[(geometry["corpus"] == "tales") & (geometry["layer"] == 2), "valence_r"] = 1.0
    figure = pca_maps(cells, geometry, CONTRAST, NORMS, "all")
    best = peaks(geometry).set_index(["model", "corpus", "window", "contrast", "norms"])["layer"]
    peak_of = {(c.model, c.corpus): best[c.model, c.corpus, "all", CONTRAST, NORMS] for c in cells}
    titles = [ax.get_title(loc="left") for ax in figure.axes if ax.get_title(loc="left")]
    wanted = {
        (cell.model, cell.corpus, layer)
        for cell in cells
        for (model, _), layer in peak_of.items()
        if model == cell.model
    }
    assert len(titles) == len(wanted) > len(cells)
    for model, corpus, layer in wanted:
        cell = next(c for c in cells if (c.model, c.corpus) == (model, corpus))
        own = ", its peak" if layer == peak_of[model, corpus] else ""
        ax = panel(figure, f"{model}@{corpus}: layer {layer}{own}\n")
        assert sorted(notes(ax)) == sorted(f"emotion-{i}" for i in range(N_EMOTIONS))
        point = cell.results.sel(window="all", contrast=CONTRAST, layer=layer)
        rating_E = point["rating"].sel(norms=NORMS, axis="valence").to_numpy()
        place = {t.get_text(): t.xy for t in ax.texts}
        xy_EX = np.array([place[str(e)] for e in point["emotion"].to_numpy()])
        np.testing.assert_allclose(abs(xy_EX), abs(point["score"].to_numpy().T))
        rated = np.isfinite(rating_E)
        r = np.corrcoef(xy_EX[rated, 0], rating_E[rated])[0, 1]
        assert r == pytest.approx(abs(float(point["r"].sel(norms=NORMS, component=1))))
        apart = float(point["silhouette"].sel(norms=NORMS, space="plane"))
        assert f"negative: silhouette {decimal(apart)} here" in ax.get_title(loc="left")
        variance = 100 * float(point["explained_variance"].sel(component=1))
        assert ax.get_xlabel() == f"PC1 ({variance:.0f} % of variance)"
        up, down, unrated = ax.collections
        np.testing.assert_array_equal(
            np.sort(np.concatenate([up.get_array(), down.get_array()])), np.sort(rating_E[rated])
        )
        assert len(unrated.get_offsets()) == 2


def test_many_emotions_get_labels_that_do_not_overlap():
    cell = make_cell("small", "stories", 4, n_emotions=150)
    figure = pca_maps([cell], geometry_table([cell]), CONTRAST, NORMS, "no-first")
    ax = figure.axes[0]
    boxes = label_boxes(figure, ax)
    assert 40 < len(boxes) < 150
    assert not overlapping(boxes)
    assert all(ax.bbox.x0 <= box.x0 and box.x1 <= ax.bbox.x1 for box in boxes)


def test_cell_without_any_correlation_says_so(cells):
    results = cells[0].results.copy(deep=True)
    results["r"][:] = np.nan
    blank = dataclasses.replace(cells[0], results=results)
    figure = pca_maps([blank], geometry_table([blank]), CONTRAST, NORMS, "all")
    assert "no layer has an r with valence" in figure.axes[0].get_title(loc="left")


@pytest.fixture(scope="module")
def one_window_drawn(one_window) -> dict[str, list[Figure]]:
    drawn = draw_all([one_window], geometry_table([one_window]))
    return {name: list(pages) for name, pages in drawn.items()}


def test_draw_all_takes_the_preferred_window_or_the_first(cells, one_window_drawn):
    drawn = draw_all(cells[:1], geometry_table(cells[:1]))
    assert list(drawn) == list(FIGURES)
    assert list(one_window_drawn) == [name for name in FIGURES if name != "windows"]
    assert "window no-first" in next(drawn["pca_map"]).get_suptitle()
    for name in ("pca_map", "valence_directions", "overview"):
        (figure,) = one_window_drawn[name]
        assert "window all" in figure.get_suptitle()


@pytest.mark.parametrize("n_models", [9, pytest.param(25, marks=pytest.mark.slow)])
def test_of_many_cells_each_is_in_one_picture_of_every_figure(cells, n_models):
    many = [
        dataclasses.replace(cells[(model + at) % 2 * 2], model=f"model-{model:02}", corpus=corpus)
        for model in range(n_models)
        for at, corpus in enumerate(("stories", "tales"))
    ]
    names = {f"{cell.model}@{cell.corpus}" for cell in many}
    for figure, pages in draw_all(many, geometry_table(many)).items():
        drawn = [_cells_named(page) for page in pages]
        assert sorted(name for page in drawn for name in page) == sorted(names), figure
        assert max(len(page) for page in drawn) <= CELLS_ON_A_PAGE[figure], figure
    colours = list(looks_of([(cell.model, cell.corpus) for cell in many]).colour.values())
    assert min(contrast(colour, (1, 1, 1)) for colour in colours) >= 2
    assert min(difference(a, b) for a, b in itertools.combinations(colours, 2)) > 0.03


def _cells_named(figure: Figure) -> set[str]:
    """Return the cells that a picture's panels, its rows or its legend name."""
    legends = [*figure.legends, *(ax.get_legend() for ax in figure.axes)]
    entries = {t.get_text() for legend in legends if legend for t in legend.get_texts()}
    written = [text.get_text() for text in figure.findobj(Text)]
    named = {m.group() for text in written if (m := re.search(r"model-\d+@(stories|tales)", text))}
    of_legend = itertools.product(
        (e for e in entries if e.startswith("model-")), entries & {"stories", "tales"}
    )
    return named or {f"{model}@{corpus}" for model, corpus in of_legend}


def test_names_are_no_mathematics(cells, tmp_path):
    names = [r"$\foo{$", "$x^2$", *(f"emotion-{i}" for i in range(2, N_EMOTIONS))]
    results = cells[0].results.assign_coords(emotion=names, norms=[r"my$\ratings$"])
    odd = [dataclasses.replace(cells[0], results=results)]
    drawn = {name: list(pages) for name, pages in draw_all(odd, geometry_table(odd)).items()}
    save_figures(tmp_path, drawn)
    assert "$x^2$" in notes(drawn["pca_map"][0].axes[0])


def test_nothing_to_draw_is_refused(geometry):
    with pytest.raises(ValueError, match="no cell to draw"):
        draw_all([], geometry)


def test_saved_files_are_whole_and_the_same_twice(one_window, one_window_drawn, tmp_path):
    drawn, again = one_window_drawn, draw_all([one_window], geometry_table([one_window]))
    names = {f"{name}.{kind}" for name in drawn for kind in ("png", "pdf")}
    first = save_figures(tmp_path / "first", drawn)
    second = save_figures(tmp_path / "second", again)
    for folder in ("first", "second"):
        assert {file.name for file in (tmp_path / folder).iterdir()} == names
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes(), a.name
    for file in first:
        content = file.read_bytes()
        assert content.startswith(b"\x89PNG" if file.suffix == ".png" else b"%PDF")
        assert b"/Type3" not in content
    for name in ("windows.png", "windows-2.png", "windows.pdf", "mine.png", "dose_response.png"):
        (tmp_path / "first" / name).write_bytes(b"")
    remove_others(tmp_path / "first", drawn)  # those of a run that had several windows before
    left = {file.name for file in (tmp_path / "first").iterdir()}
    assert left == names | {"mine.png", "dose_response.png"}


def test_drawing_changes_no_global_setting_and_may_run_in_threads(geometry, cells):
    before = dict(matplotlib.rcParams)
    made = []
    given = (geometry, CONTRAST, NORMS, list(WINDOWS), LOOKS)
    threads = [threading.Thread(target=lambda: made.append(trajectories(*given))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 2
    assert dict(matplotlib.rcParams) == before


def test_nothing_imports_pyplot_and_analysis_imports_no_matplotlib():
    code = (
        "import sys, analysis, analysis.tables, analysis.cell;"
        "assert 'matplotlib' not in sys.modules;"
        "import analysis.figures; assert 'matplotlib.pyplot' not in sys.modules"
    )
    root = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, env=environment)


def test_fonts_are_embedded_and_editable():
    settings = matplotlib.rc_params_from_file(STYLE, use_default_template=False)
    assert settings["pdf.fonttype"] == settings["ps.fonttype"] == 42


def test_labels_avoid_marks_and_the_edge():
    anchors = np.array([[5.0, 50.0], [50.0, 50.0], [95.0, 50.0]])
    sizes = np.tile([20.0, 8.0], (3, 1))
    wall = [55.0, 30.0, 68.0, 90.0]
    marks = np.vstack([np.hstack([anchors - 2, anchors + 2]), wall])
    corners = place_labels(anchors, sizes, (0, 0, 100, 100), marks, (3.0, 5.0))
    for low, high in zip(corners, corners + sizes, strict=True):
        assert (low >= 0).all()
        assert (high <= 100).all()
        covered = np.minimum(high, marks[:, 2:]) - np.maximum(low, marks[:, :2])
        assert (covered <= 0).any(axis=1).all()
    np.testing.assert_allclose(corners[0], [8, 46], err_msg="right of its anchor, where it is free")


def test_label_without_a_free_place_is_left_out_unless_all_are_wanted():
    anchor, size = np.array([[50.0, 50.0]]), np.array([[20.0, 8.0]])
    everywhere = np.array([[0.0, 0.0, 100.0, 100.0]])
    bounds = (0.0, 0.0, 100.0, 100.0)
    assert np.isnan(place_labels(anchor, size, bounds, everywhere, (3.0,))).all()
    kept = place_labels(anchor, size, bounds, everywhere, (3.0,), keep_all=True)
    assert np.isfinite(kept).all()


def test_detection_draws_the_share_that_results_hold() -> None:
    cells = [make_cell("small", "stories", 1), make_cell("large", "stories", 3)]
    figure = detection(cells, "no-first", LOOKS)
    for ax, top in zip(figure.axes, SHOWN, strict=True):
        drawn = [line.get_ydata() for line in ax.lines if len(line.get_xdata()) == N_LAYERS]
        for cell in cells:
            found = cell.results.sel(window="no-first", top=top, layer=slice(0, None))
            for name in ("detected", "detected_by_chance"):
                want = 100 * found[name].to_numpy()
                assert np.isfinite(want).any()
                assert any(np.array_equal(line, want, equal_nan=True) for line in drawn), name
        where = "ranks first" if top == 1 else f"is among the first {top}"
        assert ax.get_title(loc="left") == f"The story's own emotion {where}"
        assert "(%)" in ax.get_ylabel()
        assert all(re.search(r"\d\.\d %$", text) for text in notes(ax)), notes(ax)
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"95 % interval over emotions", "peak: layer and share", "chance"} <= set(said)
