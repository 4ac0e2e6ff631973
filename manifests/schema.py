"""The manifest schema, version 1: every setting of a run, with its default and its meaning.

Only shapes and ranges are checked here. Names that point elsewhere (a model, a list, a file) are
looked up in `manifests.resolve`, which also turns relative paths into absolute ones. `extends` and
`matrix` are gone before this is looked at (`manifests.expanding`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from manifests.errors import shorten

Normalize = Literal["none", "rms"]

NAMED_WINDOWS: dict[str, tuple[int, int | None, Normalize]] = {
    "all": (0, None, "none"),
    "no-first": (1, None, "none"),
    "after-50": (50, None, "none"),
    "all-rms": (0, None, "rms"),
}
"""Token windows known by name: half-open [start, end) over token positions, and normalization."""

Dtype = Literal["float32", "bfloat16", "float16"]


def check_name(value: str) -> str:
    """Return a name as it is: a folder, or a part of one, under whatever it is joined to.

    Raises:
        ValueError: it cannot be one.
    """
    shape = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
    if not re.fullmatch(shape, value) or ".." in value or value.endswith(".partial"):
        raise ValueError(
            f"{shorten(value)} cannot be a name: use letters, digits, '.', '_' and '-' (64 at "
            "most, a letter or digit first, no slash, no '..', no '.partial' at the end)"
        )
    if value.partition(".")[0].lower() in RESERVED or value.endswith("."):
        raise ValueError(f"{value!r} cannot be a name: Windows has no folder that is called so")
    return value


RESERVED = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{port}{i}" for port in ("com", "lpt") for i in range(10)),
}
"""Names of devices on Windows, whatever follows a dot: a run's folder may end up there."""

MAX_WORDS = 10_000
"""Entries of a list of words."""

MAX_LIST = 1000
"""Entries of any other list."""


def wrong_word(word: str) -> str | None:
    """Return why a text cannot be an emotion, a topic or a rated word, None where it can."""
    if len(word) > 1000:
        return f"{shorten(word)} has {len(word):,} characters; at most 1,000 make a word or a topic"
    if re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", word):
        return f"{shorten(word)} holds a character that controls a terminal or breaks a line"
    return None


Name = Annotated[str, AfterValidator(check_name)]


class Strict(BaseModel):
    """Base of every part: unknown keys and silent conversions are errors."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )


def _check_repository(value: str) -> str:
    shape = r"[A-Za-z0-9_.-]{1,96}/[A-Za-z0-9_.-]{1,96}"
    if not re.fullmatch(shape, value) or ".." in value or "--" in value:
        raise ValueError(f"{shorten(value)} is not a repository id; write namespace/name")
    return value


def _check_revision(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}", value) or ".." in value:
        raise ValueError(f"{shorten(value)} is not a revision; write a commit, a tag or a branch")
    return value


Revision = Annotated[str, AfterValidator(_check_revision)]


def _check_json(value: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError(
            "holds a value that JSON does not know (a date, perhaps); write it in quotes"
        ) from None
    return value


class ModelEntry(Strict):
    """A language model: exactly one of `builtin`, `hf` and `path` says where it comes from."""

    builtin: str | None = None
    """Name of a model whose weights come with an installed package (`smollm2-135m`)."""
    hf: Annotated[str, AfterValidator(_check_repository)] | None = None
    """Hugging Face repository id, such as `swiss-ai/Apertus-8B-Instruct-2509`."""
    path: str | None = None
    """Folder with `config.json`, a tokenizer and safetensors."""
    revision: Revision | None = None
    """Commit, tag or branch of the `hf` repository. Without it, the commit in this machine's cache
    counts, or the newest one where there is none."""
    dtype: Dtype = "bfloat16"
    """Precision for writing stories; reading has its own (`reading_dtype`)."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Leave off unless you have read that code."""
    weights: Literal["trained", "random"] = "trained"
    """`random`: weights as the model's configuration initialises them, a baseline for reading. They
    are written to this machine's cache, as large as the trained ones."""
    weights_seed: int | None = Field(default=None, ge=0)
    """Seed of random weights (0 when absent)."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs that share one copy of the model."""
    replicas: int | None = Field(default=None, ge=1)
    """Copies of the model that write at once; when absent, as many as there are free GPUs for (one
    on a CPU). For reading, see `extraction.workers`."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Share of a GPU's memory that vLLM may take; a GPU with less of it free counts as taken."""
    backend: Literal["transformer_lens", "vllm"] | None = None
    """Who reads with this model; `extraction.backend` when absent."""
    reading_dtype: Dtype | None = None
    """Precision for reading with this model; `extraction.dtype` when absent. So one model may be
    read in two precisions, side by side under two names."""
    max_num_seqs: int | None = Field(default=None, ge=1)
    """Stories written at once; left to vLLM (64 on a CPU) when absent."""
    max_model_len: int | None = Field(default=None, ge=64)
    """Context in tokens while writing; when absent, the longest prompt plus `max_new_tokens`."""
    chat_template: str | None = None
    """Path of a chat template (Jinja) for writing, instead of the one with the tokenizer."""
    chat_template_kwargs: Annotated[dict[str, Any], AfterValidator(_check_json)] = Field(
        default_factory=dict
    )
    """Extra arguments of the chat template, such as `{enable_thinking: false}`."""

    @model_validator(mode="after")
    def _one_source(self) -> ModelEntry:
        if sum(source is not None for source in (self.builtin, self.hf, self.path)) != 1:
            raise ValueError("give exactly one of builtin, hf and path")
        if self.revision is not None and self.hf is None:
            raise ValueError("revision goes with hf only")
        if self.weights_seed is not None and self.weights == "trained":
            raise ValueError("weights_seed goes with weights: random only")
        return self


def _words(value: object) -> object:
    if not isinstance(value, str | list):
        raise ValueError("expected a shipped list's name, a path, or a list of words")
    if isinstance(value, list):
        if not value:
            raise ValueError("the list is empty; give at least one word")
        seen: set[str] = set()
        for word in value[: MAX_WORDS + 1]:
            if not isinstance(word, str) or not word.strip():
                raise ValueError(f"{shorten(word)} is not a word; write it in quotes")
            if (why := wrong_word(word)) is not None:
                raise ValueError(why)
            if word in seen:
                raise ValueError(f"{shorten(word)} stands in the list twice")
            seen.add(word)
        if len(value) > MAX_WORDS:
            raise ValueError(f"{len(value):,} words; at most {MAX_WORDS:,}")
        return tuple(value)
    return value


def _count_or_all(value: object) -> object:
    if value == "all" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise ValueError("expected a number of at least 1, or 'all'")


WordList = Annotated[str | tuple[str, ...], BeforeValidator(_words)]


TextCheck = Literal[
    "reasoning", "refusal", "debris", "too_short", "too_long", "cut_off", "repetition", "leak",
    "duplicate",
]  # fmt: skip
"""What a text by itself is checked for, in this order."""


def _check_length(value: Sequence[object]) -> None:
    if len(value) > MAX_LIST:
        raise ValueError(f"{len(value):,} entries; at most {MAX_LIST:,}")


def _distinct(value: object) -> object:
    if not isinstance(value, list | tuple):
        raise ValueError("expected a list")
    _check_length(value)
    if any(value.count(item) > 1 for item in value):
        raise ValueError("the same entry stands in the list twice")
    return tuple(value)


class Checks(Strict):
    """What a text must pass: thresholds, and checks to leave out.

    Of the 1,539 stories published with arXiv 2606.26987 (Gemma-4-E4B), 5 break a default: four
    hold their emotion's word or an inflection of it, one the placeholder `[Character Name]`.
    """

    skip: Annotated[tuple[TextCheck, ...], BeforeValidator(_distinct)] = ()
    """Checks that refuse nothing. What they would have refused is counted and listed instead."""
    min_words: int = Field(default=40, ge=1)
    """`too_short`: fewest words."""
    max_words: int = Field(default=600, ge=1)
    """`too_long`: most words."""
    leak: Literal["inflections", "substring"] = "inflections"
    """`leak`: a story may not hold a word with the stem of its emotion (Snowball; `lazily` under
    lazy), or, as the paper has it, the emotion's letters anywhere (`meager` under eager)."""
    max_repetition: float = Field(default=0.1, ge=0, le=1)
    """`repetition`: largest share of a text's 5-word runs that stand in it before. Published
    stories reach .01."""
    max_overlap: float = Field(default=0.5, ge=0.4, le=1)
    """`duplicate`: Jaccard similarity of 3-word runs from which the later of two texts of a corpus
    is a duplicate. Published stories reach .08."""

    @model_validator(mode="after")
    def _room(self) -> Checks:
        if self.max_words < self.min_words:
            raise ValueError(f"max_words ({self.max_words}) is below min_words ({self.min_words})")
        return self


class Generate(Strict):
    """A corpus that a model writes: emotions x topics x stories, and neutral texts."""

    model: str
    """Name of the model that writes, from `models`."""
    emotions: WordList = "sofroniew-171"
    """A shipped list's name, a path to a file with one word a line, or the words themselves."""
    topics: WordList = "default-100"
    """A shipped list's name, a path to a file with one topic a line, or the topics themselves."""
    topics_per_emotion: Annotated[int | Literal["all"], BeforeValidator(_count_or_all)] = 3
    """Topics an emotion gets. Which ones depends on `seed` and the emotion only; `all` gives every
    emotion the same topics."""
    stories_per_topic: int = Field(default=3, ge=1, le=20)
    """Stories for each emotion and topic."""
    stories_per_prompt: int | None = Field(default=None, ge=1, le=20)
    """Stories asked for in one prompt; all of an emotion and topic when absent. Small models that
    lose the format do better with 1."""
    neutral: int = Field(default=40, ge=0)
    """Neutral texts, one for each neutral topic from the top of the list."""
    neutral_topics: WordList = "default-40"
    """Like `topics`, for the neutral texts."""
    neutral_style: Literal["narrative", "expository"] = "narrative"
    """Neutral texts as flat scenes (as the paper's text says) or as encyclopedic paragraphs."""
    prompts: str = "default"
    """A shipped set of prompt templates, or a path to a YAML file with one."""
    seed: int = Field(default=42, ge=0, lt=2**63)
    """Every request's sampling seed derives from this one."""
    temperature: float = Field(default=0.8, ge=0, le=5)
    """Sampling temperature."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Nucleus sampling threshold."""
    max_new_tokens: int = Field(default=2048, ge=16)
    """Longest reply in tokens; a reply cut off there is refused."""
    attempts: int = Field(default=4, ge=1, le=1000)
    """Replies asked for before a prompt falls back to one story at a time, and again before a
    single story is given up."""
    expected_kept: float = Field(default=0.7, gt=0, le=1)
    """Share of the replies that will pass the checks, for `emovec plan` until a journal of the same
    model says: .7 where nothing is known; a model of 135 million parameters kept .34."""
    checks: Checks = Field(default_factory=Checks)
    """What a text must pass to be kept."""

    @model_validator(mode="after")
    def _distinct_stories(self) -> Generate:
        apart = self.stories_per_topic > (self.stories_per_prompt or self.stories_per_topic)
        if self.temperature == 0 and apart and "duplicate" not in self.checks.skip:
            raise ValueError(
                "temperature 0 gives the same story for every prompt of a topic; raise it, or "
                "ask for all stories of a topic in one prompt"
            )
        return self


class Columns(Strict):
    """Which columns of a table hold what."""

    text: str | None = None
    """One text a row; when absent `stories` (a list of texts a row), `story` or `text`, whichever
    the table has."""
    emotion: str = "emotion"
    """The text's emotion: a word, or a class label of a Hugging Face data set."""
    topic: str = "topic"
    """What the text is about; a table may be without it."""


class Import(Strict):
    """A corpus from files or from the hub: written by a model or by people.

    Tables are JSONL, CSV, Parquet or a folder saved by `datasets`, in the published schema
    (`emotion, topic, stories`) or with one text a row.
    """

    stories: str | None = None
    """Path of a table of texts and emotions."""
    hf: Annotated[str, AfterValidator(_check_repository)] | None = None
    """A Hugging Face data set instead of a path."""
    revision: Revision | None = None
    """Commit, tag or branch of the `hf` data set."""
    config: str | None = None
    """Configuration of the `hf` data set, where it has several."""
    split: str | None = None
    """Split to take from the hub or from a folder saved by `datasets`; `train` when absent."""
    columns: Columns = Field(default_factory=Columns)
    """Which columns hold what."""
    neutral: str | None = None
    """Neutral texts: a text file with one a line, or a table like `stories` without emotions."""
    writer: str | None = None
    """Model of this manifest that wrote it, for comparing how models read their own stories."""
    neutral_emotion: str | None = None
    """Texts of this emotion are the neutral ones, as `neutral` in many labelled corpora."""
    texts_per_emotion: int | None = Field(default=None, ge=1)
    """At most this many texts of each emotion (and neutral ones under `neutral_emotion`), chosen
    by a hash of the text; all of them when absent."""
    checks: Checks = Field(default_factory=Checks)
    """What texts are checked for; what breaks a check is counted and listed, and stays in."""

    @model_validator(mode="after")
    def _one_place(self) -> Import:
        if (self.stories is None) == (self.hf is None):
            raise ValueError("give exactly one of stories and hf")
        if self.hf is None and (self.revision or self.config):
            raise ValueError("revision and config go with hf only")
        if self.neutral is not None and self.neutral_emotion is not None:
            raise ValueError("give neutral or neutral_emotion, not both")
        return self


class CorpusEntry(Strict):
    """A corpus: exactly one of `generate` and `import`."""

    generate: Generate | None = None
    """Have a model write it."""
    import_: Import | None = Field(default=None, alias="import")
    """Take it from files."""

    @model_validator(mode="after")
    def _one_source(self) -> CorpusEntry:
        if (self.generate is None) == (self.import_ is None):
            raise ValueError("give exactly one of generate and import")
        return self


class Window(Strict):
    """A token window: the half-open range [start, end) of positions in a text."""

    name: Name
    """Name in tables and figures."""
    start: int = Field(default=0, ge=0)
    """First position taken; 0 is the text's first token (BOS where the tokenizer adds one)."""
    end: int | None = None
    """First position no longer taken; absent for the end of the text."""
    normalize: Normalize = "none"
    """`rms`: divide each token's residual by its own root mean square before averaging."""

    @model_validator(mode="after")
    def _not_empty(self) -> Window:
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"end ({self.end}) must lie after start ({self.start})")
        named = NAMED_WINDOWS.get(self.name)
        if named is not None and (self.start, self.end, self.normalize) != named:
            raise ValueError(f"{self.name!r} already names another window; choose another name")
        return self


def _window(value: object) -> object:
    if isinstance(value, str):
        if value not in NAMED_WINDOWS:
            known = ", ".join(NAMED_WINDOWS)
            raise ValueError(
                f"unknown window {value!r}; known: {known}, or {{name, start, end, normalize}}"
            )
        start, end, normalize = NAMED_WINDOWS[value]
        return {"name": value, "start": start, "end": end, "normalize": normalize}
    return value


def _windows(value: object) -> object:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("expected a list of at least one window")
    _check_length(value)
    return tuple(value)


def _layers(value: object) -> object:
    if value == "all":
        return value
    if isinstance(value, str) and (span := re.fullmatch(r"([0-9]{1,5})-([0-9]{1,5})", value)):
        first, last = int(span[1]), int(span[2])
        if first <= last:
            return tuple(range(first, last + 1))
    if isinstance(value, list | tuple) and value:
        ok = all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in value)
        if ok and len(set(value)) == len(value):
            return tuple(sorted(value))
    raise ValueError("expected 'all', a range such as '4-12', or a list of distinct block indices")


class Extraction(Strict):
    """How stories are read. The embedding output is always kept, as layer -1."""

    layers: Annotated[Literal["all"] | tuple[int, ...], BeforeValidator(_layers)] = "all"
    """0-based blocks whose output is kept: `all`, a list, or a range such as `4-12`."""
    windows: Annotated[
        tuple[Annotated[Window, BeforeValidator(_window)], ...], BeforeValidator(_windows)
    ] = Field(default=("all", "no-first", "after-50"), validate_default=True)
    """Token windows averaged over, all in the same pass."""
    max_tokens: int = Field(default=512, ge=1)
    """A longer text is cut there, and counted on the screen and in the stage's record."""
    backend: Literal["transformer_lens", "vllm"] = "transformer_lens"
    """The reader: the reference, or the fast one (within 1e-5 of it in float32)."""
    dtype: Dtype = "float32"
    """Precision of the forward pass; means are always taken in float32."""
    batch_tokens: int | None = Field(default=None, ge=1)
    """Tokens in one forward pass, padding included; absent for what suits the device, and halved
    where memory runs out. Changes speed, and numbers by rounding only."""
    workers: int | None = Field(default=None, ge=1)
    """Copies of a model that read at once, each in processes of its own; when absent, as many as
    there are free GPUs for (one on a CPU). Changes speed only."""

    @model_validator(mode="after")
    def _distinct_windows(self) -> Extraction:
        names = [window.name for window in self.windows]
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise ValueError(f"window {min(repeated)!r} stands in the list twice")
        return self


class NormsEntry(Strict):
    """Human ratings of words."""

    source: str
    """A shipped set's name (`glasgow`) or a path to a CSV with word, valence and arousal."""
    guesses: bool = False
    """Also take rows whose `source` column begins with `estimate`."""


def _norms(value: object) -> object:
    return {"source": value} if isinstance(value, str) else value


Contrast = Literal["neutral-pca", "mean-centered"]

AXES = ("valence", "arousal")
Estimator = Literal["component", "paper", "covariance", "ridge", "least-squares"]
MAX_STRENGTH = 100.0


def _listed(value: object) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("expected a list of at least one")
    _check_length(value)
    if any(value.count(item) > 1 for item in value):
        raise ValueError("the same entry stands in the list twice")
    return tuple(value)


class Analysis(Strict):
    """What is computed from the story vectors."""

    norms: Annotated[
        tuple[Annotated[NormsEntry, BeforeValidator(_norms)], ...], BeforeValidator(_listed)
    ] = Field(default=("glasgow",), validate_default=True)
    """Sets of human ratings that components are correlated with."""
    contrasts: Annotated[tuple[Contrast, ...], BeforeValidator(_listed)] = (
        "neutral-pca",
        "mean-centered",
    )
    """Contrasts whose geometry is tabulated."""
    neutral_variance: float = Field(default=0.5, gt=0, lt=1)
    """Share of the neutral texts' variance that the neutral basis must explain."""
    seed: int = Field(default=0, ge=0)
    """Decides how emotions are dealt out for cross-validation, stories halved, both drawn anew
    and ratings permuted."""
    bootstraps: int = Field(default=1000, ge=100, le=1_000_000)
    """Draws of stories, and of emotions, behind each interval."""
    permutations: int = Field(default=10_000, ge=100, le=10_000_000)
    """Permutations of the ratings behind each p that is corrected for the search over layers."""


def _strength(value: object) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value <= MAX_STRENGTH:  # type: ignore[operator]
        raise ValueError(
            f"{value!r} is not a strength; give numbers above 0 and up to {MAX_STRENGTH:g}, in "
            "units of the mean token norm (both signs are tried)"
        )
    return float(value)  # type: ignore[arg-type]


def _strengths(value: object) -> object:
    return _listed([_strength(strength) for strength in _listed(value)])


def _names(value: object) -> object:
    found = _listed(value)
    if not all(isinstance(name, str) and name.strip() for name in found):
        raise ValueError("expected a list of names")
    return found


def _blocks(value: object) -> object:
    if value == "all":
        raise ValueError("expected a list of block indices, or a range such as '4-12'")
    return None if value is None else _layers(value)


class Transfer(Strict):
    """A direction found at one layer, added at another: every pair by its effect on log-odds."""

    direction: str = "valence"
    """`valence`, `arousal`, or an emotion of the corpus."""
    strength: Annotated[float, BeforeValidator(_strength)] = 0.1
    """Of the addition, with either sign, in units of the mean token norm where it is added."""


class Steering(Strict):
    """What is added to a model's residual stream while it writes, and what is measured."""

    cells: Annotated[Literal["all"] | tuple[str, ...], BeforeValidator(_cells)] = "all"
    """Cells whose directions are used, each in its own model; `all` leaves random weights out."""
    directions: Annotated[tuple[str, ...], BeforeValidator(_names)] = AXES
    """`valence`, `arousal`, and emotions of the corpus by name."""
    estimator: Estimator = "covariance"
    """Of the directions of valence and arousal: by default the one that two halves of the topics
    agree on best."""
    norms: str | None = None
    """Set of norms that these directions, and the words that are written, are rated by: a name as
    in the tables; the first of `analysis.norms` when absent."""
    contrast: Literal["both", "neutral-pca", "mean-centered"] = "both"
    """Contrast of the emotions' vectors."""
    window: Name = "no-first"
    """Token window of the story vectors."""
    layers: Annotated[tuple[int, ...] | None, BeforeValidator(_blocks)] = None
    """Blocks whose output is changed, each with the direction found there; when absent those at a
    third, a half and two thirds of depth."""
    strengths: Annotated[tuple[float, ...], BeforeValidator(_strengths)] = (0.05, 0.1, 0.2)
    """Lengths of what is added, each with either sign, in units of the mean norm of a token's
    residual at that layer, the first token left out."""
    random: int = Field(default=3, ge=0, le=100)
    """Random directions of the same lengths that texts are written with, too."""
    controls: int = Field(default=20, ge=0, le=1000)
    """Directions by which is told what one does by chance, by measures that need no text: so many
    random ones, and so many random mixtures of the emotions' vectors."""
    prompts: str = "default"
    """A shipped set of steering prompts, or a path to a YAML file with one."""
    samples: int = Field(default=1, ge=1, le=1000)
    """Texts written for each prompt and condition."""
    max_new_tokens: int = Field(default=60, ge=1)
    """Length of a text in tokens."""
    temperature: float = Field(default=0.8, ge=0, le=5)
    """Sampling temperature; 0 for greedy decoding."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Nucleus sampling threshold."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Decides random directions and sampling; a prompt's texts are drawn by the same numbers under
    every condition."""
    steer_prompt: bool = False
    """Change the prompt's own positions too, not only those that a token is generated from."""
    backend: Literal["vllm", "transformer_lens"] = "vllm"
    """Who writes: the fast one, or the reference (one text at a time)."""
    transfer: Transfer | None = Field(default_factory=Transfer)
    """Directions of one layer added at another; null for none."""


class Report(Strict):
    """What the page of the run carries."""

    stories_per_emotion: int = Field(default=9, ge=0)
    """Stories of each emotion to be read there, the first of the corpus; 0 for none, and no refused
    replies either, where texts may not be passed on."""


def _cells(value: object) -> object:
    if value == "all":
        return value
    if isinstance(value, list | tuple) and value and all(isinstance(cell, str) for cell in value):
        if len(set(value)) < len(value):
            raise ValueError("the same cell stands in the list twice")
        return tuple(value)
    raise ValueError("expected 'all' or a list of model@corpus")


class Manifest(Strict):
    """A whole run."""

    version: Literal[1]
    """Version of this schema."""
    name: Name
    """Name of the run's folder under the root."""
    models: dict[Name, ModelEntry] = Field(min_length=1)
    """Models by the name used in cells, tables and file names."""
    corpora: dict[Name, CorpusEntry] = Field(min_length=1)
    """Corpora by name."""
    cells: Annotated[Literal["all"] | tuple[str, ...], BeforeValidator(_cells)] = "all"
    """Which model reads which corpus: `all`, or a list of `model@corpus`."""
    extraction: Extraction = Field(default_factory=Extraction)
    """How stories are read."""
    analysis: Analysis = Field(default_factory=Analysis)
    """What is computed."""
    steering: Steering | None = None
    """What is steered; nothing when absent, the defaults with `{}`."""
    report: Report = Field(default_factory=Report)
    """What the page carries."""

    def extraction_of(self, model: str) -> Extraction:
        """Return how a model reads: the manifest's section with the model's own settings."""
        entry = self.models[model]
        own = {"backend": entry.backend, "dtype": entry.reading_dtype}
        return self.extraction.model_copy(update={k: v for k, v in own.items() if v is not None})
