"""What is kept of a residual stream: window sums and norms, added up on the device in float32.

Both readers fill a `Pool` layer by layer as the forward pass goes; nothing is kept per token. What
leaves the device is `Pooled`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from engine.reading.windows import Span, window_counts, window_weights


@dataclass(frozen=True)
class Pooled:
    """What is kept of N texts, on the host.

    Attributes:
        residual_mean: float32 [text, window, layer, d_model]; NaN where a window has no token.
        peak_norm: float32 [text, layer], the largest L2 norm of a token's residual.
        peak_position: int32 [text, layer], the position of that token.
        mean_norm: float32 [text, layer], the mean L2 norm over the text's tokens.
        first_norm: float32 [text, layer], the L2 norm of the text's first token.
        mean_square: float32 [layer, d_model], the mean square of each dimension over all tokens.
    """

    residual_mean: NDArray[np.float32]
    peak_norm: NDArray[np.float32]
    peak_position: NDArray[np.int32]
    mean_norm: NDArray[np.float32]
    first_norm: NDArray[np.float32]
    mean_square: NDArray[np.float32]


class NotFinite(Exception):
    """A text's residual is not finite; `text` is its number, `layer` the first such layer."""

    def __init__(self, text: int, layer: int):
        super().__init__(text, layer)
        self.text, self.layer = text, layer


class Layout:
    """Which rows and tokens of a padded block belong to which text; made once a forward pass."""

    def __init__(
        self,
        texts: Sequence[int],
        starts: Sequence[int],
        lengths: Sequence[int],
        windows: Sequence[Span],
        device: torch.device,
    ):
        """Lay out rows of consecutive tokens.

        Args:
            texts: the text of each row, every text once.
            starts: position in its text of each row's first token.
            lengths: tokens of each row; what lies behind is padding.
            windows: token windows.
            device: where the residuals are.
        """
        weights = torch.from_numpy(window_weights(starts, lengths, windows))
        inside = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
        self.texts_R = torch.tensor(texts, device=device)
        self.starts_R = torch.tensor(starts, device=device)
        self.weights_RWT: Float[Tensor, "row window token"] = weights.to(device)
        self.inside_RT: Float[Tensor, "row token"] = inside.float().to(device)
        self.any_rms = any(window.rms for window in windows)
        self.rms_1W1 = torch.tensor([window.rms for window in windows], device=device)[
            None, :, None
        ]
        self._elsewhere: dict[torch.device, Layout] = {}

    def on(self, device: torch.device) -> Layout:
        """Return the layout on another device, where a model's later layers may be."""
        if device == self.weights_RWT.device:
            return self
        if device not in self._elsewhere:
            moved = copy.copy(self)
            for name, value in vars(self).items():
                if isinstance(value, torch.Tensor):
                    setattr(moved, name, value.to(device))
            self._elsewhere[device] = moved
        return self._elsewhere[device]


@dataclass(frozen=True)
class _Step:
    """What one forward pass gives, layer by layer, until it counts; NaN where a hook was silent."""

    layout: Layout
    sums_LRWD: Float[Tensor, "layer row window d_model"]
    norms_LRT: Float[Tensor, "layer row token"]
    squares_LD: Float[Tensor, "layer d_model"]


class Pool:
    """Sums over the tokens of N texts, for every layer."""

    def __init__(
        self,
        lengths: Sequence[int],
        windows: Sequence[Span],
        n_layers: int,
        d_model: int,
        device: torch.device,
    ):
        """Make room for texts of these lengths (tokens)."""
        n = len(lengths)
        self._lengths, self._windows, self._device = list(lengths), list(windows), device
        self._sums_LNWD = torch.zeros((n_layers, n, len(windows), d_model), device=device)
        self._norms_LN = torch.zeros((n_layers, n), device=device)
        self._first_LN = torch.full((n_layers, n), torch.nan, device=device)
        self._peaks_LN = torch.full((n_layers, n), -1.0, device=device)
        self._positions_LN = torch.zeros((n_layers, n), dtype=torch.long, device=device)
        self._squares_LD = torch.zeros((n_layers, d_model), dtype=torch.float64, device=device)
        self._step: _Step | None = None

    def add(
        self, slot: int, residual_RTD: Float[Tensor, "row token d_model"], layout: Layout
    ) -> None:
        """Add a block of a layer's residual stream; a pass counts when it is committed whole."""
        if self._step is None or self._step.layout is not layout:
            self._step = self._begin(layout)
        here = layout.on(residual_RTD.device)
        residual_RTD = residual_RTD.to(torch.float32)
        square_RTD = residual_RTD * residual_RTD
        norm_RT = square_RTD.sum(dim=2).sqrt()
        weights_RWT = here.weights_RWT
        if here.any_rms:
            rms_RT = norm_RT / residual_RTD.shape[2] ** 0.5
            by_rms_RT = torch.where(rms_RT > 0, 1 / rms_RT, torch.zeros_like(rms_RT))
            weights_RWT = torch.where(here.rms_1W1, weights_RWT * by_rms_RT[:, None], weights_RWT)
        self._step.sums_LRWD[slot] = torch.bmm(weights_RWT, residual_RTD)
        self._step.norms_LRT[slot] = norm_RT
        inside_1P = here.inside_RT.reshape(1, -1)
        self._step.squares_LD[slot] = (inside_1P @ square_RTD.flatten(0, 1))[0]

    def commit(self) -> None:
        """Take in the forward pass whose every layer was added."""
        assert self._step is not None
        step, rows = self._step, self._step.layout.texts_R
        inside_RT = step.layout.inside_RT
        self._sums_LNWD[:, rows] += step.sums_LRWD
        self._norms_LN[:, rows] += (step.norms_LRT * inside_RT).sum(dim=2)
        begins_R = step.layout.starts_R == 0
        self._first_LN[:, rows[begins_R]] = step.norms_LRT[:, begins_R, 0]
        peak_LR, at_LR = torch.where(inside_RT > 0, step.norms_LRT, -1.0).max(dim=2)
        before_LR = self._peaks_LN[:, rows]
        higher_LR = peak_LR > before_LR  # the first of equal ones stays
        self._peaks_LN[:, rows] = torch.where(higher_LR, peak_LR, before_LR)
        self._positions_LN[:, rows] = torch.where(
            higher_LR, at_LR + step.layout.starts_R, self._positions_LN[:, rows]
        )
        self._squares_LD += step.squares_LD
        self._step = None

    def _begin(self, layout: Layout) -> _Step:
        n_layers, _, n_windows, d_model = self._sums_LNWD.shape
        n_rows, n_tokens = layout.inside_RT.shape
        return _Step(
            layout,
            torch.full((n_layers, n_rows, n_windows, d_model), torch.nan, device=self._device),
            torch.empty((n_layers, n_rows, n_tokens), device=self._device),
            torch.empty((n_layers, d_model), device=self._device),
        )

    def finish(self, layers: Sequence[int]) -> Pooled:
        """Divide the sums by their counts and bring everything to the host.

        Args:
            layers: the layers' numbers.

        Raises:
            NotFinite: a mean over real tokens is not finite.
        """
        counts_NW = window_counts(self._lengths, self._windows).astype(np.float32)
        with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: a window without tokens
            means_LNWD = self._sums_LNWD.cpu().numpy() / counts_NW[None, :, :, None]
        finite = np.isfinite(means_LNWD).all(axis=3) | (counts_NW == 0)[None]
        if not finite.all():
            layer, text = (int(i) for i in np.argwhere(~finite)[0, :2])
            raise NotFinite(text, layers[layer])
        tokens_N = np.array(self._lengths, dtype=np.float32)
        return Pooled(
            residual_mean=np.ascontiguousarray(means_LNWD.transpose(1, 2, 0, 3)),
            peak_norm=self._peaks_LN.T.cpu().numpy(),
            peak_position=self._positions_LN.T.cpu().numpy().astype(np.int32),
            mean_norm=(self._norms_LN.T.cpu().numpy() / tokens_N[:, None]).astype(np.float32),
            first_norm=self._first_LN.T.cpu().numpy(),
            mean_square=(self._squares_LD.cpu().numpy() / tokens_N.sum()).astype(np.float32),
        )
