"""Massive activations: single tokens, and single dimensions, that carry a residual stream.

Where one token's residual is many times longer than the others', a text's mean over all tokens is
mostly that token, whatever the text says (Sun et al. 2024, arXiv 2402.17762).
"""

from __future__ import annotations

import numpy as np
import xarray as xr

TOP_DIMENSIONS = 3
"""Dimensions named for each layer."""

MOSTLY = 0.5
"""Share of the token norms from which a mean over all tokens is mostly one token's."""


MASSIVE = 10.0
"""Times the mean norm of a text's tokens from which its longest token is massive."""


def massive_activations(cell: xr.Dataset) -> xr.Dataset:
    """Return how unevenly the residual stream is spread over tokens and dimensions, by layer.

    Args:
        cell: `peak_norm`, `mean_norm`, `peak_position` [text, layer] and `mean_square` [shard,
            layer, d_model] as a cell's store holds them, and the tokens read of each text and
            shard, `tokens_read` [text] and `shard_tokens` [shard].

    Returns:
        Data set over layer, and rank for the dimensions:

        - peak_ratio, peak_ratio_max: L2 norm of a text's longest token over the mean of its
          tokens' norms; median and largest over texts.
        - peak_share: that norm over the sum of the text's token norms; median over texts.
        - first_token_peak: share of texts whose longest token is the first.
        - top_dimension, top_dimension_share [layer, rank]: the dimensions with the largest mean
          square over all tokens, and their share of the mean squared norm.
    """
    ratio = cell["peak_norm"] / cell["mean_norm"]
    weights = cell["shard_tokens"] / cell["shard_tokens"].sum()
    square_LD = (cell["mean_square"] * weights).sum("shard").transpose("layer", "d_model")
    values_LD = square_LD.to_numpy().astype(np.float64)
    top_LK = np.argsort(-values_LD, axis=1, kind="stable")[:, :TOP_DIMENSIONS]
    share_LK = np.take_along_axis(values_LD, top_LK, axis=1) / values_LD.sum(axis=1, keepdims=True)
    return xr.Dataset(
        {
            "peak_ratio": ratio.median("text"),
            "peak_ratio_max": ratio.max("text"),
            "peak_share": (ratio / cell["tokens_read"]).median("text"),
            "first_token_peak": (cell["peak_position"] == 0).mean("text"),
            "top_dimension": (("layer", "rank"), top_LK.astype(np.int32)),
            "top_dimension_share": (("layer", "rank"), share_LK),
        },
        coords={"layer": cell["layer"], "rank": np.arange(1, top_LK.shape[1] + 1)},
    )
