"""One HTML file from one run or several: everything inside it, nothing from outside.

Stories, names and manifests are untrusted. The template escapes them, the script writes them as
text, characters that would turn the reading direction or hide themselves are shown by their code,
and the page's own policy allows its own scripts and no request at all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from analysis.claims import CLAIMS
from analysis.predicates import NO_BASELINE
from analysis.report.content import CorpusContent, RunContent, Story
from analysis.report.methods import citations, methods
from analysis.report.payload import packed, packed_bytes, payload
from analysis.report.safe import policy, visible, visible_in
from analysis.report.sentences import Said, summary
from analysis.report.steering import shown_steering
from analysis.results import without_twins
from analysis.verdicts import Verdict

HERE = Path(__file__).parent
PARTS = ("page.html", "page.css", "page.js")

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
    return environment.get_template(PARTS[0]).render(
        title=" and ".join(run.name for run in runs),
        policy=policy(scripts),
        css=css,
        scripts=scripts,
        data=packed(visible_in(payload(runs))),
        stories=[packed(visible_in(_stories(c))) for run in runs for c in run.corpora],
        names=packed([[run.name, c.name] for run in runs for c in run.corpora]),
        files=[
            (run.name, name, _size(len(content)), packed_bytes(content))
            for run in runs
            for name, content in run.files.items()
        ],
        runs=[_shown(run) for run in runs],
        claims=_claims(runs),
        numbered=_cell_names(runs),
        samples=_samples,
        sources=citations(runs),
    )


def _stories(corpus: CorpusContent) -> dict[str, Any]:
    by_emotion: dict[str, list[list[str]]] = {}
    for story in corpus.stories:
        by_emotion.setdefault(story.emotion, []).append([story.topic, story.text])
    return {"shown": len(corpus.stories), "all": corpus.n_stories, "by": by_emotion}


def _shown(run: RunContent) -> dict[str, Any]:
    """Return what the template says of a run."""
    shown = {(cell.model, cell.corpus) for cell in without_twins(run.cells)}
    twins = {(c.model, c.corpus) for c in run.cells} - shown
    tables = run.tables
    said: list[Said] = summary(
        tables["geometry"],
        tables["claim_summary"],
        tables["activations"],
        tables["detection"],
        twins,
    )
    return {
        "name": run.name,
        "said": said,
        "statistics": _statistics(tables["corpora"]),
        "corpora": run.corpora,
        "methods": methods(run),
        "left": run.left,
        "steering": shown_steering(run),
    }


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
        return "-"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.2f}"


def _cell_names(runs: list[RunContent]) -> list[str]:
    """Return the names of the cells that the bars of a claim stand for, in their order."""
    shown = [(run.name, cell) for run in runs for cell in without_twins(run.cells)]
    prefix = "{run}: {model} reads {corpus}" if len(runs) > 1 else "{model} reads {corpus}"
    return [prefix.format(run=run, model=c.model, corpus=c.corpus) for run, c in shown]


def _claims(runs: list[RunContent]) -> list[dict[str, Any]]:
    """Return each claim with what becomes of it in every cell and pair."""
    found = []
    for claim in CLAIMS:
        rows = []
        bars: list[dict[str, Any]] = []
        for run in runs:
            table = run.tables["claim_summary"]
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
                    }
                )
                bars.append(
                    {
                        "counts": counts,
                        "said": f"{row['model']}, {rows[-1]['corpora']}: {row['summary']}",
                    }
                )
        found.append({"claim": claim, "rows": rows, "bars": bars})
    return found
