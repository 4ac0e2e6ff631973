"""What tests that analyse made cells share."""

from __future__ import annotations

from typing import TypedDict


class _Few(TypedDict):
    bootstraps: int
    permutations: int


FEW: _Few = {"bootstraps": 100, "permutations": 100}
"""As many draws and permutations as a manifest may ask for at least."""
