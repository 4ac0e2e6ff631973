"""The card of a cell's emotion vectors: what they are, how to use them, what they do not say."""

from __future__ import annotations

import re
from typing import Any

from analysis.contrasts import ContrastKind
from analysis.directions import ESTIMATORS
from analysis.exclusions import ranges
from analysis.markdown import MARKS
from analysis.settings import AXES
from analysis.vectors import EMOTION

CONTRASTS: dict[ContrastKind, str] = {
    "mean-centered": "an emotion's mean story vector minus the mean over emotions",
    "neutral-pca": "an emotion's mean story vector, not centred, minus its projection on the "
    "leading components of the neutral texts",
    "both": "an emotion's mean story vector minus the mean over emotions, then minus its "
    "projection on the leading components of the neutral texts",
}

USES = {
    "repeng": (
        "import numpy as np\n"
        "from repeng import ControlModel, ControlVector\nfrom safetensors.numpy import load_file\n",
        'vectors = load_file("vectors.safetensors")\n'
        "directions = {{n: unit * v / np.linalg.norm(v) for n, unit, v in "
        'zip(vectors["layer"].tolist(), vectors["token_norm"], vectors[{key}])}}\n'
        "ControlModel(model, [{layer}]).set_control("
        "ControlVector(model.config.model_type, directions), strength)\n",
    ),
    "steering-vectors": (
        "from safetensors.torch import load_file\nfrom steering_vectors import SteeringVector\n",
        'vectors = load_file("vectors.safetensors")\n'
        'v, unit = vectors[{key}][{at}], vectors["token_norm"][{at}]\n'
        "handle = SteeringVector({{{layer}: unit * v / v.norm()}}, "
        'layer_type="decoder_block").patch_activations(model, multiplier=strength)\n',
    ),
    "PyTorch": (
        "from safetensors.torch import load_file\n",
        'vectors = load_file("vectors.safetensors")\n'
        'v, unit = vectors[{key}][{at}], vectors["token_norm"][{at}]\n'
        "vector = (strength * unit * v / v.norm()).to(model.device, model.dtype)\n"
        "add = lambda block, inputs, out: "
        "(out[0] + vector, *out[1:]) if isinstance(out, tuple) else out + vector\n"
        "handle = model.model.layers[{layer}].register_forward_hook(add)\n",
    ),
}
"""By name, what a way of using the vectors imports, and its lines. They want a `model` of
transformers and a `strength`, in mean token norms, as `emovec steer` has it."""

CONVENTIONS = (
    "repeng 0.4.0 and steering-vectors 0.12.2 count layers as this file does: from 0, and what "
    "stands under L is added to the output of block L, at every position (by repeng, but left "
    "padding). On random models the residual after that block changes by exactly what they are "
    "given, times their coefficient, and blocks before it do not change. Both read -1 as the last "
    "block, where emovec means the embedding output, which is therefore not in the file.",
    "repeng does not import with numpy 2 or later. It adds at the layers that `ControlModel` is "
    "given, wraps the model in place (`unwrap` undoes it), and takes several texts at once only "
    "with `position_ids` of their own, as `generate` passes them. With transformers 4.57 it fails "
    "on Qwen3 and Gemma 3, whose blocks have attributes that its wrapper hides; with 5.19 it does "
    "not.",
    "steering-vectors adds at every layer of its dictionary; `handle.remove()` undoes it. It asks "
    "for transformers below 5, and works with 5.19 all the same.",
)

LIMITS = (
    "A direction is correlational until it is steered. It says where stories of an emotion lie "
    "apart from others, not that the model uses it; `emovec steer` tests what adding it does.",
    "A vector carries its corpus: words and topics that stories of one emotion share are in it.",
    "It fits this model and these weights only.",
    "A vector is a difference of means over whole texts. At a single token the residual differs "
    "far more. The token norm leaves out each text's first token, which is many times longer than "
    "the others in many models; where it is far above the norm without the longest, another "
    "token is so long, and a strength means less.",
    "A strength at several layers adds up from one to the next.",
    "Directions are as long as their estimator makes them: normalise them before comparing or "
    "adding. `least-squares` fits any ratings where there are fewer emotions than dimensions; "
    "believe the r on held-out emotions.",
    "A component's sign is arbitrary: its r is |r|, and its direction points the rating's way.",
)

ESTIMATES = (
    "`component`: PC1 for valence, PC2 for arousal. `covariance`: the mean of the vectors weighted "
    "by the ratings. `ridge`, `least-squares`: regressions. `paper`: `component` where p < .05, "
    "else `least-squares`."
)


def vector_card(facts: dict[str, Any]) -> str:
    """Return the card of a cell's vectors in Markdown.

    Args:
        facts: as `vectors.json` holds them.
    """
    parts = [
        f"# Emotion vectors: {facts['model']['name']} reads {facts['corpus']['name']}",
        f"A vector for each of {len(facts['emotions'])} emotions at each of "
        f"{len(facts['layers'])} layers of one language model, made with emovec "
        f"{facts['versions']['emovec']}. `vectors.json` holds all of this for programs.",
        _about(facts),
        "## Tensors",
        _tensors(facts),
        "## How to use them",
        *_ways(facts),
        *CONVENTIONS,
        "## Layer by layer",
        _figures(facts),
        *_held_out(facts),
        "## Limits",
        "\n".join(f"- {limit}" for limit in LIMITS),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def usage(way: str, facts: dict[str, Any]) -> str:
    """Return the code of a way of use, for an emotion and a layer that are there.

    Args:
        way: a key of USES.
        facts: as `vectors.json` holds them.
    """
    emotions, layers = facts["emotions"], facts["layers"]
    emotion = "happy" if "happy" in emotions else emotions[0]
    at = len(layers) // 2
    imports, lines = USES[way]
    return f"{imports}\n{lines.format(key=_quoted(EMOTION + emotion), layer=layers[at], at=at)}"


def _about(facts: dict[str, Any]) -> str:
    model, corpus, window = facts["model"], facts["corpus"], facts["window"]
    end = "the end" if window["end"] is None else str(window["end"])
    rows = {
        "model": f"{model['name']}: {_identity(model['identity'])}",
        "read by": f"{model['backend']}, {model['dtype']}, {model['max_tokens']} tokens at most",
        "layers": f"{ranges(facts['layers'])}, counted from 0, of {model['n_layers']}; the "
        "residual stream after the block",
        "depth": "layer / number of layers",
        "d_model": str(model["d_model"]),
        "window": f"{window['name']}: tokens from position {window['start']} to {end}, the text's "
        "first token being 0",
        "contrast": f"{facts['contrast']}: {CONTRASTS[facts['contrast']]}",
        "neutral variance": f"{facts['neutral_variance']}, the share that those components explain",
        "units": facts["units"],
        "corpus": f"{corpus['name']}: {corpus['n_stories']:,} stories, {corpus['n_neutral']:,} "
        f"neutral texts. {corpus['about']}",
        "writer": corpus["writer"] or "not known",
        **{
            f"norms {name}": f"rate {n} of the {len(facts['emotions'])} emotions"
            for name, n in facts["norms"].items()
        },
        **{f"{kind} fingerprint": key for kind, key in facts["fingerprints"].items() if key},
    }
    table = [f"| {name} | {_plain(text)} |" for name, text in rows.items()]
    return "\n".join(["| what | which |", "|---|---|", *table])


def _identity(identity: dict[str, Any]) -> str:
    if "hf" in identity:
        source = f"{identity['hf']} at {identity['revision']}"
    elif "builtin" in identity:
        source = f"{identity['builtin']}, sha256 {identity['sha256']}"
    else:
        files = identity["files"].items()
        weights = [f"{name} sha256 {digest}" for name, digest in files if name.endswith("tensors")]
        source = f"a folder with {', '.join(weights)}"
    if "random_weights" in identity:
        source = f"random weights, seed {identity['random_weights']}, in the shape of {source}"
    return source


def _tensors(facts: dict[str, Any]) -> str:
    lines = [
        "`vectors.safetensors` holds float32 `[layer, d_model]` under each name but two:",
        "",
        "- `layer`: the layers' numbers, int64 `[layer]`.",
        "- `token_norm`: the mean L2 norm of a token's residual at each layer over all texts, "
        "first tokens left out, float32 `[layer]`, in units of the residual stream: a strength of "
        "1 in `emovec steer`.",
        "- `emotion.<emotion>`: the contrast vector, not normalised. Emotions: "
        + ", ".join(map(_plain, facts["emotions"]))
        + ".",
    ]
    if facts["directions"]:
        lines += [
            "- `direction.<norms>.<valence or arousal>.<estimator>`: the direction along which "
            f"emotion vectors vary with a rating. {ESTIMATES}",
        ]
    else:
        lines += [f"- No directions of valence and arousal: {facts['no_directions']}."]
    by_reason: dict[str, list[str]] = {}
    for name, why in facts["left_out"].items():
        by_reason.setdefault(why, []).append(name)
    lines += [
        f"- Left out, since {_plain(why)}: {', '.join(map(_plain, names))}."
        for why, names in by_reason.items()
    ]
    return "\n".join(lines) + "\n\n" + " ".join(["No rating is in this folder.", *facts["sources"]])


def _ways(facts: dict[str, Any]) -> list[str]:
    return [f"{way}:\n\n```python\n{usage(way, facts)}```" for way in USES] + [
        "A strength of 1 adds the unit vector as many times as a token's residual is long there, "
        "as in `emovec steer`, which tries .05, .1 and .2 unless told otherwise. The vectors "
        f"themselves are {facts['units']}."
    ]


def _figures(facts: dict[str, Any]) -> str:
    """Return the table of lengths, and of what the components follow where that was analysed."""
    names = list(facts["norms"]) if facts["analysed"] else []
    heads = ["layer", "depth", "token norm", "without the longest", "emotion vector"]
    heads += ["PC1 %", "PC2 %"] if names else []
    heads += [f"{axis} r ({name})" for name in names for axis in AXES]
    rows = []
    for row in facts["figures"]:
        cells = [str(row["layer"]), f"{row['depth']:.2f}"]
        keys = ("token_norm", "token_norm_without_longest", "emotion_norm")
        cells += [_number(row[key], ".4g") for key in keys]
        if names:
            cells += [_percent(row["pc1_variance"]), _percent(row["pc2_variance"])]
        cells += [_marked(row["norms"][name][axis]) for name in names for axis in AXES]
        rows.append(cells)
    said = (
        "Mean L2 norm of a token's residual without the first token of each text (`token_norm`), "
        "the same without the longest token of each text instead, and the median norm of the "
        "emotion vectors."
    )
    if names:
        said += (
            " Shares of variance of PC1 and PC2 of the emotion vectors, and |r| of PC1 with "
            "valence and of PC2 with arousal; \\* p < .05, \\*\\* p < .01, \\*\\*\\* p < .001, "
            "corrected for the search over layers."
        )
    return f"{said}\n\n{_table(heads, rows)}"


def _held_out(facts: dict[str, Any]) -> list[str]:
    """Return a table for each norms: r of directions on emotions that they never saw."""
    if not facts["analysed"]:
        return []
    parts = []
    for name, n in facts["norms"].items():
        rows = [
            [
                str(row["layer"]),
                *(
                    _number(row["norms"][name][axis]["held_out_r"][estimator], ".2f")
                    for axis in AXES
                    for estimator in ESTIMATORS
                ),
            ]
            for row in facts["figures"]
        ]
        heads = ["layer", *(f"{axis} {estimator}" for axis in AXES for estimator in ESTIMATORS)]
        said = f"r of directions with the ratings of emotions held out ({name}, n = {n}):"
        parts.append(f"{said}\n\n{_table(heads, rows)}")
    return parts


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---:"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f}"


def _marked(found: dict[str, Any]) -> str:
    """Return |r| with marks of its corrected p."""
    if found["r"] is None:
        return "-"
    p = found["p_corrected"]
    mark = "" if p is None else next((mark for limit, mark in MARKS if p < limit), "")
    return f"{found['r']:.2f}" + mark.replace("*", "\\*")


def _quoted(text: str) -> str:
    """Return text as a Python literal, in double quotes where nothing has to be escaped."""
    return f'"{text}"' if text.isprintable() and not set(text) & {'"', "\\"} else repr(text)


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is, characters that hide as their code."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return re.sub(r"([\\`*_\[\]<>|&~$])", r"\\\1", shown)
