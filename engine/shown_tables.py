"""What screen and page show of tables, to name one of a stranger's that holds other things."""

from __future__ import annotations

from pathlib import Path

from manifests.errors import InputError, Problem, shorten

CELL = ("model", "corpus")
TEXTS: dict[str, tuple[str, ...]] = {
    "geometry": (*CELL, "window", "contrast", "norms"),
    "activations": CELL,
    "claim_summary": (
        *(*CELL, "corpus_b", "claim", "summary", "turns_on", "artefact"),
        "random_twin",
    ),
    "claims": (
        *(*CELL, "corpus_b", "claim", "window", "contrast", "norms"),
        *("dimensions", "estimator", "verdict", "at"),
    ),
    "corpora": ("corpus",),
    "norms": ("axis", "norms", "norms_b"),
    "detection": (*CELL, "window"),
    "profiles": (*CELL, "window", "contrast", "norms", "dimensions", "axis"),
    "steering_tests": (*CELL, "direction", "measure"),
    "steering_trends": (*CELL, "direction", "measure", "over"),
    "transfer": (*CELL, "direction", "measure"),
    "transfer_layers": (*CELL, "direction", "measure"),
}
AXIS = (
    *("r", "p", "p_corrected", "low", "high", "overlap"),
    *("embedding_r", "random_r", "bag_of_words_r"),
)
NUMBERS: dict[str, tuple[str, ...]] = {
    "geometry": (
        *("layer", "depth", "n_emotions", "pc1_variance"),
        *(f"{axis}_{what}" for axis in ("valence", "arousal") for what in AXIS),
    ),
    "activations": ("layer", "peak_share", "first_token_peak"),
    "claim_summary": ("holds", "fails", "undecided"),
    "claims": ("figure", "low", "high"),
    "corpora": (
        *("n_emotions", "stories", "neutral", "words_per_story", "types", "mattr"),
        *("first_person_share", "replies", "content_valence_r", "content_arousal_r"),
    ),
    "norms": ("n", "r"),
    "detection": ("layer", "mean_reciprocal_rank", "top_1", "top_1_chance", "n_stories"),
    "profiles": ("peak", "peak_infinite", "peak_low", "peak_high"),
    "steering_tests": (
        *("layer", "strength", "effect", "low", "high", "p_corrected"),
        *("random_p", "nll_change", "held_out_r"),
    ),
    "steering_trends": ("layer", "n", "slope", "low", "high"),
    "transfer": ("source_layer", "layer", "strength", "effect", "relative"),
    "transfer_layers": ("layer", "strength", "effect", "random_p", "rho"),
}
WHOLE = (
    *("layer", "source_layer", "n", "n_emotions", "n_stories"),
    *("holds", "fails", "undecided", "stories", "neutral"),
)
"""Columns that are whole numbers wherever they are."""

COUNTED = {"corpora": ("refused_", "flagged_")}
"""Beginnings of columns that are numbers too."""

FILLED = ("geometry", "claim_summary", "claims", "corpora")
"""Tables that are never empty."""

MEND = "remove the file; the next run makes it again"


def refuse_odd_tables(folder: Path) -> None:
    """Name a table that is shown and holds other things than a run writes.

    To be asked when showing tables failed, though all are what their list of digests says.

    Raises:
        InputError: naming file and column.
    """
    for name, texts in TEXTS.items():
        file = folder / f"{name}.csv"
        if file.is_file() and (wrong := _wrong(file, name, texts)) is not None:
            key, what = wrong
            raise InputError(Problem(file, None, key, f"{what}; {MEND}"))


def _wrong(file: Path, name: str, texts: tuple[str, ...]) -> tuple[str, str] | None:
    import pandas as pd

    from analysis.claims import CLAIMS

    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:  # pandas' own errors are ValueErrors
        return "", f"not a table: {next(iter(str(error).splitlines()), '')}"
    numbers = [*NUMBERS[name], *(c for c in table if str(c).startswith(COUNTED.get(name, ())))]
    for column in (*texts, *numbers):
        if column not in table:
            return column, "there is no such column"
    if table.empty and name in FILLED:
        return "", "no rows"
    for column in numbers:
        wrong = pd.to_numeric(table[column], errors="coerce").isna() & (table[column] != "nan")
        if wrong.any():
            return column, f"expected numbers or nan, got {shorten(table[column][wrong].iloc[0])}"
        if column in WHOLE:
            wrong = ~table[column].str.fullmatch(r"-?\d{1,15}(\.0)?")
            if wrong.any():
                found = shorten(table[column][wrong].iloc[0])
                return column, f"expected whole numbers, got {found}"
    if name == "claim_summary" and (unknown := set(table["claim"]) - {c.name for c in CLAIMS}):
        return "claim", f"there is no claim {shorten(min(unknown))}"
    return None
