"""One HTML file from one run or several: everything inside it, nothing from outside.

Stories, names and manifests are untrusted. The template escapes them, the script writes them as
text, characters that would turn the reading direction or hide themselves are shown by their code,
and the page's own policy allows its own scripts and no request at all.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from analysis.claims import CLAIMS
from analysis.predicates import NO_BASELINE
from analysis.report.content import CorpusContent, RunContent, Story
from analysis.report.introduction import introduction, terms, title
from analysis.report.methods import citations, methods
from analysis.report.numbers import MISSING, decimal, interval
from analysis.report.payload import packed, packed_bytes, payload
from analysis.report.safe import policy, visible, visible_in
from analysis.report.sentences import Said, summary
from analysis.report.steering import shown_steering
from analysis.results import preferred_window, without_twins
from analysis.verdicts import Verdict
from analysis.view import DIMENSIONS

HERE = Path(__file__).parent
PARTS = ("page.html", "page.css", "page.js")

PAGE_BYTES = 15_000_000
"""What a page has at most: what moves on it gets what the rest leaves."""

STORIES_BYTES = 2_500_000
"""Packed stories that a page carries."""

PICTURES_BYTES = 2_500_000
"""Pictures that a page carries, in base64."""

MANY = 16
"""Of more cells or pairs, cards are folded by model and claims have one bar."""

OPTIONAL = {
    "turns_on": "turns on (leans on)",
    "artefact": "artefact",
    "random_twin": "random weights",
}
"""Columns of a claim's table that are left out where they would be empty."""

STATISTICS = {
    "n_emotions": "emotions",
    "stories": "stories",
    "neutral": "neutral texts",
    "words_per_story": "words a story, median",
    "types": "distinct words",
    "mattr": "type-token ratio of 100 words",
    "first_person_share": "told in the first person",
    "replies": "replies asked for",
    "content_valence_r": "words' valence with the emotion's, r by the first norms",
    "content_arousal_r": "words' arousal with the emotion's, r by the first norms",
}


def build_page(runs: list[RunContent]) -> str:
    """Return the page of one run, or one that sets several beside each other.

    The same runs give the same text.
    """
    assert runs
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["visible"] = visible
    css, script, plotly = *((HERE / part).read_text() for part in PARTS[1:]), get_plotlyjs()
    scripts = [plotly, script]
    stories, fewer = _fitting_stories(runs)
    shown, room = [], PICTURES_BYTES
    for run in runs:
        shown.append(_shown(run, room))
        steering = shown[-1]["steering"]
        if steering is not None:
            room -= sum(len(picture) for _, picture in steering["pictures"])
            fewer += [
                f"pictures of steering: {', '.join(some)}; figures/ of {run.name} has them"
                for some in [steering["left"]]
                if some
            ]
    page = functools.partial(
        environment.get_template(PARTS[0]).render,
        title=title(runs),
        names_of_runs=" and ".join(run.name for run in runs),
        introduction=introduction(runs),
        terms=terms(runs),
        policy=policy(scripts),
        css=css,
        scripts=scripts,
        stories=stories,
        names=packed([[run.name, c.name] for run in runs for c in run.corpora]),
        files=[
            (run.name, name, _size(len(content)), packed_bytes(content))
            for run in runs
            for name, content in run.files.items()
        ],
        runs=shown,
        claims=_claims(runs),
        numbered=_cell_names(runs),
        many=MANY,
        page_megabytes=PAGE_BYTES // 1_000_000,
        samples=_samples,
        sources=citations(runs),
    )
    rest = len(page(data="", absent=fewer).encode())
    data = payload(runs, PAGE_BYTES - rest)
    return page(data=packed(visible_in(data)), absent=[*fewer, *data["left"]])


def _fitting_stories(runs: list[RunContent]) -> tuple[list[str], list[str]]:
    """Return each corpus' stories, packed, as many of each emotion as fit, and what is left."""
    corpora = [corpus for run in runs for corpus in run.corpora]
    most = max(
        (n for c in corpora for n in Counter(s.emotion for s in c.stories).values()), default=0
    )
    for n in range(most, -1, -1):
        stories = [packed(visible_in(_stories(corpus, n))) for corpus in corpora]
        if sum(map(len, stories)) <= STORIES_BYTES:
            break
    if n == most:
        return stories, []
    left = f"stories: all but the first {n} of each emotion"
    return stories, [f"{left}; corpora/<corpus>/stories.parquet has them"]


def _stories(corpus: CorpusContent, most: int) -> dict[str, Any]:
    """Return the first `most` stories of each emotion, and how many there are in all."""
    by_emotion: dict[str, list[list[str]]] = {}
    for story in corpus.stories:
        own = by_emotion.setdefault(story.emotion, [])
        if len(own) < most:
            own.append([story.topic, story.text])
    shown = sum(map(len, by_emotion.values()))
    return {"shown": shown, "all": corpus.n_stories, "by": by_emotion}


def _shown(run: RunContent, room: int) -> dict[str, Any]:
    """Return what the template says of a run.

    Args:
        run: that is shown.
        room: bytes that its pictures may have, as they stand on the page.
    """
    shown = {(cell.model, cell.corpus) for cell in without_twins(run.cells)}
    twins = {(c.model, c.corpus) for c in run.cells} - shown
    tables = run.tables
    said: list[Said] = summary(
        tables["geometry"],
        tables["claim_summary"],
        tables["activations"],
        tables["detection"],
        tables["profiles"],
        twins,
    )
    return {
        "name": run.name,
        "said": said,
        "models": _by_model(said[:-1]) if len(said) > MANY else [],
        "statistics": _statistics(tables["corpora"]),
        "corpora": run.corpora,
        "methods": methods(run),
        "left": run.left,
        "steering": shown_steering(run, room),
    }


def _by_model(said: list[Said]) -> list[tuple[str, list[Said]]]:
    """Return what is said of each model's cells and pairs, in the order of the models."""
    found: dict[str, list[Said]] = {}
    for each in said:
        found.setdefault(each.model, []).append(each)
    return list(found.items())


def _samples(corpus: CorpusContent) -> list[Story]:
    """Return three stories from the beginning, the middle and the end of a corpus."""
    last = len(corpus.stories) - 1
    return [corpus.stories[i] for i in sorted({0, last // 2, last})]


def _statistics(corpora: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Return rows of the corpora's statistics, one column for each corpus."""
    first = corpora.drop_duplicates("corpus")
    rows = [("", [str(name) for name in first["corpus"]])]
    for column, label in STATISTICS.items():
        if first[column].notna().any():
            rows.append((label, [_number(value) for value in first[column]]))
    for column in first.columns:
        kind, _, check = column.partition("_")
        if kind in ("refused", "flagged") and (first[column].fillna(0) > 0).any():
            label = f"{kind}: {check.replace('_', ' ')}"
            rows.append((label, [_number(value) for value in first[column]]))
    return rows


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1000:,.1f} kB" if n_bytes < 1e6 else f"{n_bytes / 1e6:,.1f} MB"


def _number(value: float) -> str:
    if value != value:
        return MISSING
    return f"{value:,.0f}" if float(value).is_integer() else decimal(value)


def _cell_names(runs: list[RunContent]) -> list[str]:
    """Return the names of the cells that the bars of a claim stand for, in their order."""
    shown = [(run.name, cell) for run in runs for cell in without_twins(run.cells)]
    prefix = "{run}: {model} reads {corpus}" if len(runs) > 1 else "{model} reads {corpus}"
    return [prefix.format(run=run, model=c.model, corpus=c.corpus) for run, c in shown]


def _one_bar(bars: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one bar for many: the verdicts of all of them."""
    counts = {v.value: sum(bar["counts"].get(v.value, 0) for bar in bars) for v in Verdict}
    return {"counts": counts, "said": f"all {len(bars)} cells or pairs together"}


def _claims(runs: list[RunContent]) -> list[dict[str, Any]]:
    """Return each claim with what becomes of it in every cell and pair."""
    found = []
    for claim in CLAIMS:
        rows = []
        bars: list[dict[str, Any]] = []
        for run in runs:
            table = run.tables["claim_summary"]
            measured = _measured(run, claim.name)
            shown = {(cell.model, cell.corpus) for cell in without_twins(run.cells)}
            for row in table[table["claim"] == claim.name].to_dict("records"):
                if (row["model"], row["corpus"]) not in shown:
                    continue
                counts = {verdict.value: int(row[verdict.value]) for verdict in Verdict}
                if row["summary"] == NO_BASELINE:
                    bars.append({"counts": {}, "said": f"{row['model']}: {NO_BASELINE}"})
                    continue
                rows.append(
                    {
                        "run": run.name,
                        "model": row["model"],
                        "corpora": " and ".join(c for c in (row["corpus"], row["corpus_b"]) if c),
                        "counts": counts,
                        "total": sum(counts.values()),
                        "summary": row["summary"],
                        "turns_on": row["turns_on"],
                        "artefact": row["artefact"],
                        "random_twin": row["random_twin"],
                        "measured": measured.get(
                            (row["model"], row["corpus"], row["corpus_b"]), MISSING
                        ),
                    }
                )
                bars.append(
                    {
                        "counts": counts,
                        "said": f"{row['model']}, {rows[-1]['corpora']}: {row['summary']}",
                    }
                )
        many = len(bars) > MANY
        columns = {key: label for key, label in OPTIONAL.items() if any(row[key] for row in rows)}
        bars = [_one_bar(bars)] if many else bars
        formula = re.sub(r"\b0\.(?=\d)", ".", claim.formula)  # .7, as all numbers of the page
        entry = {"claim": claim, "formula": formula, "rows": rows, "bars": bars}
        found.append(entry | {"columns": columns})
    return found


def _measured(run: RunContent, claim: str) -> dict[tuple[str, ...], str]:
    """Return what decides a claim under the choice that is shown first, by model and corpora.

    With its interval and the blocks it is of. All dimensions are in, the estimator is the claim's
    first.
    """
    results = run.cells[0].results
    contrast, norms = (str(results[key].to_numpy()[0]) for key in ("contrast", "norms"))
    table = run.tables["claims"]
    table = table[
        (table["claim"] == claim)
        & (table["window"] == preferred_window([str(w) for w in results["window"].to_numpy()]))
        & (table["contrast"] == contrast)
        & table["norms"].isin([norms, ""])
        & (table["dimensions"] == DIMENSIONS[0])
    ].drop_duplicates(["model", "corpus", "corpus_b"])
    found: dict[tuple[str, ...], str] = {}
    for row in table.to_dict("records"):
        said = decimal(row["figure"])
        if row["low"] == row["low"]:
            said += f" {interval(row['low'], row['high'])}"
        key = (row["model"], row["corpus"], row["corpus_b"])
        found[key] = f"{said} at {row['at']}" if row["at"] and said != MISSING else said
    return found
