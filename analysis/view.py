"""One cell under one choice of window, contrast, norms and dimensions, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float64, Int
from numpy import ndarray

from analysis.inference import Profile, profile
from analysis.results import CellResults
from analysis.settings import AXES
from analysis.tables import with_bounded_cosines

DIMENSIONS = ("all", "without-largest")
"""Whether a layer's largest dimensions are in its story vectors."""


@dataclass(frozen=True)
class Choice:
    """What an analyst may choose.

    Attributes:
        window: token window.
        contrast: as the manifest names it.
        norms: set of ratings.
        dimensions: one of DIMENSIONS.
        estimator: of CKA (`cka`, `cka_debiased`) or of valence directions; "" for neither.
    """

    window: str
    contrast: str
    norms: str
    dimensions: str
    estimator: str = ""


@dataclass(frozen=True)
class View:
    """A cell under a choice. Arrays are over the blocks, the embedding output left out."""

    cell: CellResults
    choice: Choice

    @cached_property
    def layer_L(self) -> Int[ndarray, " layer"]:
        """Numbers of the blocks."""
        layers: Int[ndarray, " layer"] = self.cell.results["layer"].to_numpy()
        return layers[layers >= 0]

    @cached_property
    def depth_L(self) -> Float64[ndarray, " layer"]:
        """Layer / number of layers."""
        return self._blocks(self.cell.results["depth"])

    def r(self, axis: str) -> Float64[ndarray, " layer"]:
        """Return r of the component paired with an axis, flipped to be positive."""
        return np.abs(self._signed_r(axis))

    def p(self, axis: str) -> Float64[ndarray, " layer"]:
        """Return p of r, corrected for the search over blocks."""
        return self._by_axis("p_corrected", "without_p_corrected", axis)

    def draws(self, axis: str) -> Float64[ndarray, "layer draw"]:
        """Return r over draws of stories, flipped as r is."""
        draw_LB = self._by_axis("story_draw", "without_draw", axis)
        return draw_LB * np.where(self._signed_r(axis) < 0, -1, 1)[:, None]

    def profile(self, axis: str) -> Profile:
        """Return onset, peak and collapse of r."""
        return self._profiles[axis]

    @cached_property
    def _profiles(self) -> dict[str, Profile]:
        return {
            axis: profile(self.layer_L, self.r(axis), self.p(axis), self.draws(axis))
            for axis in AXES
        }

    @cached_property
    def emotions(self) -> frozenset[str]:
        """The emotions of the corpus."""
        return frozenset(str(e) for e in self.cell.results["emotion"].to_numpy())

    @cached_property
    def cka(self) -> Float64[ndarray, "layer layer"]:
        """CKA between blocks, by the chosen estimator."""
        return self._pairs(self.choice.estimator, "without_cka_grid")

    @cached_property
    def group_cka(self) -> Float64[ndarray, "group layer layer"]:
        """The same without each group of emotions."""
        return self._pairs(f"group_{self.choice.estimator}", "without_group_cka")

    @cached_property
    def axis_cosine(self) -> Float64[ndarray, "layer layer"]:
        """Cosines between valence directions of blocks, by the chosen estimator."""
        at = {"axis": "valence", "estimator": self.choice.estimator}
        return self._square(self.cell.results["direction_cosine"].sel(at, drop=True))

    @cached_property
    def bounded_axis_cosine(self) -> Float64[ndarray, "layer layer"]:
        """Cosines of valence directions freed of the stories' noise; NaN where they cannot be."""
        results = self.cell.results.sel(axis="valence", estimator=self.choice.estimator, drop=True)
        return self._square(with_bounded_cosines(results)["cosine_bounded"])

    def at_layer(self, values: xr.DataArray, layer: int) -> Any:
        """Return what another source of r gives under this choice, at a layer if it has layers."""
        chosen = self._chosen(values)
        if "layer" in chosen.dims:
            chosen = chosen.sel(layer=layer, drop=True)
        return chosen.to_numpy().astype(float)

    def silhouette(self, layer: int) -> tuple[float, Float64[ndarray, " group"]]:
        """Return how far positive and negative emotions are apart on the plane, and without groups.

        The groups' are with all dimensions.
        """
        at = {"layer": layer, "space": "plane"}
        name = "silhouette" if self.choice.dimensions == "all" else "without_silhouette"
        whole = float(self._chosen(self.cell.results[name]).sel(at))
        groups = self._chosen(self.cell.results["group_silhouette"]).sel(at).to_numpy()
        return whole, groups.astype(float)

    def _signed_r(self, axis: str) -> Float64[ndarray, " layer"]:
        return self._by_axis("r", "without_r", axis)

    def _by_axis(self, name: str, without: str, axis: str) -> Any:
        chosen = name if self.choice.dimensions == "all" else without
        at = self.cell.results[chosen].sel(component=AXES.index(axis) + 1, drop=True)
        return self._blocks(at)

    def _blocks(self, values: xr.DataArray) -> Any:
        chosen = self._chosen(values)
        rest = [dim for dim in chosen.dims if dim != "layer"]
        return chosen.transpose("layer", *rest).to_numpy()[self._is_block].astype(float)

    @cached_property
    def _is_block(self) -> Bool[ndarray, " layer"]:
        found: Bool[ndarray, " layer"] = self.cell.results["layer"].to_numpy() >= 0
        return found

    def _pairs(self, name: str, without: str) -> Any:
        chosen = name if self.choice.dimensions == "all" else without
        return self._square(self.cell.results[chosen])

    def _square(self, values: xr.DataArray) -> Any:
        chosen = self._chosen(values).transpose(..., "layer", "layer_b").to_numpy()
        return chosen[..., self._is_block, :][..., self._is_block].astype(float)

    def _chosen(self, values: xr.DataArray) -> xr.DataArray:
        wanted = {"window", "contrast", "norms"} & set(values.dims)
        return values.sel({key: getattr(self.choice, str(key)) for key in wanted}, drop=True)
