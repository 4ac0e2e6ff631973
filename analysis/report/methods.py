"""How a run was made, written from its manifest, and what it rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from analysis.directions import FOLDS
from analysis.report.content import RunContent
from analysis.report.introduction import contrast_says, window_name
from analysis.report.numbers import decimal, percent
from manifests.builtin import BUILTIN_MODELS


@dataclass(frozen=True)
class Part:
    """A heading with what stands under it.

    Attributes:
        title: the heading.
        lines: sentences, one a line.
        blocks: texts to show as they are, by name.
    """

    title: str
    lines: tuple[str, ...]
    blocks: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Source:
    """Something to cite, with its address."""

    text: str
    url: str


def methods(run: RunContent) -> list[Part]:
    """Return how a run was made, from its manifest with every default."""
    manifest, given = run.manifest, run.manifest["models"]
    known = manifest.get("resolved", {}).get("models", {})
    wrote = {c["generate"]["model"] for c in manifest["corpora"].values() if "generate" in c}
    parts = [
        Part("Models", tuple(_model(n, e, known.get(n, {}), n in wrote) for n, e in given.items())),
        *(_corpus(run, name, entry) for name, entry in manifest["corpora"].items()),
        Part("Reading", tuple(_reading(manifest["extraction"], _readers(manifest)))),
        Part("Analysis", tuple(_analysis(run, manifest["analysis"]))),
    ]
    if manifest.get("steering"):
        parts.append(Part("Steering", tuple(_steering(manifest["steering"]))))
    lines = []
    for kind, versions in run.versions.items():
        listed = ", ".join(f"{name} {version}" for name, version in versions.items())
        lines.append(f"{kind}: {listed}.")
    return [*parts, Part("Versions", tuple(lines))] if lines else parts


def citations(runs: list[RunContent]) -> list[Source]:
    """Return what the runs rest on."""
    sources = [
        Source(
            "Sofroniew et al. (2026): the original study, of a Claude model, whose 171 emotions "
            "the list sofroniew-171 has.",
            "",
        ),
        Source(
            "Where Do Models Find Happiness? The findings that are tested here.",
            "https://arxiv.org/abs/2606.26987",
        ),
        Source(
            "Kornblith, Norouzi, Lee & Hinton (2019). Similarity of neural network "
            "representations revisited. Linear CKA.",
            "https://arxiv.org/abs/1905.00414",
        ),
        Source(
            "Nguyen, Raghu & Kornblith (2021). Do wide and deep networks learn the same things? "
            "Debiased CKA, equation 3.",
            "https://arxiv.org/abs/2010.15327",
        ),
        Source(
            "Sun, Chen, Kolter & Liu (2024). Massive activations in large language models.",
            "https://arxiv.org/abs/2402.17762",
        ),
        Source(
            "Rao & Wu (1988). Resampling inference with complex survey data. JASA 83, 231-241.",
            "https://doi.org/10.1080/01621459.1988.10478591",
        ),
        Source("Westfall & Young (1993). Resampling-based multiple testing. Wiley.", ""),
    ]
    if any(run.steering is not None for run in runs):
        sources += [
            Source(
                "Page (1963). Ordered hypotheses for multiple treatments: a significance test for "
                "linear ranks. JASA 58, 216-230. Trends over strength.",
                "",
            ),
            Source(
                "Holm (1979). A simple sequentially rejective multiple test procedure. "
                "Scandinavian Journal of Statistics 6, 65-70. p of steering.",
                "",
            ),
        ]
    given = {str(n["source"]) for run in runs for n in run.manifest["analysis"]["norms"]}
    if "glasgow" in given:
        sources.append(
            Source(
                "Scott, Keitel, Becirspahic, Yao & Sereno (2019). The Glasgow Norms. Behavior "
                "Research Methods 51, 1258-1270. CC BY 4.0.",
                "https://doi.org/10.3758/s13428-018-1099-3",
            )
        )
    readers = " ".join(reader for run in runs for reader in _readers(run.manifest))
    if "transformer_lens" in readers:
        sources.append(
            Source(
                "TransformerLens, which read the stories.",
                "https://github.com/TransformerLensOrg/TransformerLens",
            )
        )
    wrote = any("generate" in c for run in runs for c in run.manifest["corpora"].values())
    if wrote or "vllm" in readers:
        sources.append(
            Source(
                "Kwon et al. (2023). Efficient memory management for large language model serving "
                "with PagedAttention (vLLM).",
                "https://arxiv.org/abs/2309.06180",
            )
        )
    return sources


def _model(name: str, entry: dict[str, Any], known: dict[str, Any], wrote: bool) -> str:
    """Say where a model comes from; `known` is what identifies its files."""
    said = name
    if entry.get("builtin"):
        about = BUILTIN_MODELS.get(entry["builtin"])
        said += f": {about.description if about else entry['builtin']}"
    elif entry.get("hf"):
        said += f": {entry['hf']}, revision {known.get('revision') or entry.get('revision')}"
    else:
        said += f": folder {_file_name(entry['path'])}"
    if known.get("sha256"):
        said += f", sha256 {known['sha256'][:16]}"
    if entry["weights"] == "random":
        seed = entry.get("weights_seed") or 0
        return f"{said}, random weights of its configuration (seed {seed})."
    return f"{said}; wrote in {entry['dtype']}." if wrote else f"{said}."


def _corpus(run: RunContent, name: str, entry: dict[str, Any]) -> Part:
    content = next(corpus for corpus in run.corpora if corpus.name == name)
    spec = entry.get("generate")
    if spec is None:
        source = entry["import"]
        where = f"{source['hf']} on the hub" if source.get("hf") else _file_name(source["stories"])
        lines = [f"Imported from {where}."]
        if source.get("writer"):
            lines.append(f"Written by {source['writer']}.")
        return Part(f"Corpus {name}", tuple(lines))
    emotions, topics = (_listed(spec[key]) for key in ("emotions", "topics"))
    lines = [
        f"Written by {spec['model']}: emotions {emotions}, topics {topics}, "
        f"{spec['topics_per_emotion']} topics for each emotion, {spec['stories_per_topic']} "
        f"stories for each topic, {spec['neutral']} neutral texts "
        f"({spec['neutral_style']}).",
        f"Seed {spec['seed']}, temperature {spec['temperature']}, top-p {spec['top_p']}, at most "
        f"{spec['max_new_tokens']} tokens a reply.",
    ]
    checks = spec.get("checks") or {}
    if checks:
        said = ", ".join(
            f"{key} {', '.join(value) or 'none' if isinstance(value, list) else value}"
            for key, value in checks.items()
        )
        lines.append(f"Checks: {said}.")
    return Part(f"Corpus {name}", tuple(lines), tuple(content.prompts.items()))


def _readers(manifest: dict[str, Any]) -> dict[str, list[str]]:
    """Return who reads in which precision, each with the models that it reads with."""
    found: dict[str, list[str]] = {}
    for name, entry in manifest["models"].items():
        backend = entry.get("backend") or manifest["extraction"]["backend"]
        dtype = entry.get("reading_dtype") or manifest["extraction"]["dtype"]
        found.setdefault(f"{backend} in {dtype}", []).append(name)
    return found


def _reading(spec: dict[str, Any], readers: dict[str, list[str]]) -> list[str]:
    windows = ", ".join(map(window_name, spec["windows"]))
    layers = spec["layers"] if spec["layers"] == "all" else ", ".join(map(str, spec["layers"]))
    named = "; ".join(
        reader if len(readers) == 1 else f"{reader} ({', '.join(models)})"
        for reader, models in readers.items()
    )
    return [
        f"The text alone, without a chat template, cut at {spec['max_tokens']} tokens, read with "
        f"{named}; layers: {layers}, and the embedding output as -1.",
        "The residual stream after each block, averaged over the tokens of a window in float32: "
        f"{windows} (half-open, position 0 is the first token).",
    ]


def _analysis(run: RunContent, spec: dict[str, Any]) -> list[str]:
    norms = ", ".join(_file_name(n["source"]) for n in spec["norms"])
    lines = [
        "An emotion's vector at a layer is the mean over its stories of their mean residuals, "
        f"changed by a contrast ({'; '.join(map(contrast_says, spec['contrasts']))}). As many "
        f"components of the neutral texts are taken off as explain "
        f"{percent(spec['neutral_variance'])} of their variance.",
        "PCA over all emotions of a corpus by full SVD; r over those that the norms rate "
        f"({norms}).",
        f"Intervals over stories from {spec['bootstraps']:,} draws of topics with all their "
        f"stories, freed of the noise that drawing adds; over emotions from as many draws, and by "
        f"a jackknife of {FOLDS} groups for CKA and silhouettes. p corrected for the search over "
        f"blocks from {spec['permutations']:,} permutations of the ratings. Seed {spec['seed']}.",
    ]
    table = run.tables["norms"]
    for row in table.drop_duplicates(["axis", "norms", "norms_b"]).to_dict("records"):
        lines.append(
            f"{row['norms']} and {row['norms_b']} agree on {row['axis']} at r = "
            f"{decimal(row['r'])} over {row['n']} emotions."
        )
    return lines


def _steering(spec: dict[str, Any]) -> list[str]:
    """Say what was added where, what was written, and what it was held against."""
    layers = spec.get("layers")
    at = (
        "a third, a half and two thirds of depth" if layers is None else ", ".join(map(str, layers))
    )
    strengths = ", ".join(f"{s:g}" for s in spec["strengths"])
    texts = "text" if spec["samples"] == 1 else "texts"
    lines = [
        f"Directions: {', '.join(spec['directions'])}, as unit vectors; those of ratings by the "
        f"estimator {spec['estimator']}, an emotion's its contrast vector (contrast "
        f"{spec['contrast']}, window {spec['window']}).",
        f"Added behind the block at {at if layers is None else f'layers {at}'}, with either sign, "
        f"at strengths {strengths}: in units of the mean L2 norm of a token's residual there, "
        "first tokens left out; at every position that a token is generated from"
        f"{', and at the prompt itself' if spec['steer_prompt'] else ''}.",
        f"Prompts {_file_name(spec['prompts'])}; {spec['samples']} {texts} for each prompt and "
        f"condition, of at most {spec['max_new_tokens']} tokens, temperature "
        f"{spec['temperature']:g}, top-p {spec['top_p']:g}, seed {spec['seed']}, written with "
        f"{spec['backend']}.",
        f"Held against {spec['controls']} random directions and {spec['controls']} random mixtures "
        "of the emotions' vectors, of the same length, by half the difference between both signs "
        f"at the middle strength; texts also written with {spec['random']} random directions. "
        "Intervals are over prompts; p is Student's, corrected over directions and layers by "
        "Holm's method.",
    ]
    if spec.get("transfer"):
        lines.append(
            f"Transfer: the direction of {spec['transfer']['direction']} of every layer added at "
            f"every other, at strength {spec['transfer']['strength']:g}."
        )
    return lines


def _listed(value: str | list[str]) -> str:
    return _file_name(value) if isinstance(value, str) else f"of its own ({len(value)})"


def _file_name(path: str) -> str:
    """Return the last part of a path: where it lies on a machine is nobody's business."""
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]
