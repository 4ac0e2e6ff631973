"""What a page is made from: stories and refused replies of a corpus, and the tables it carries."""

import dataclasses
import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine.generation.demand import Demand
from engine.generation.prompts import writing_to_json
from engine.page import EXAMPLES, carried_tables, corpus_content
from manifests.errors import InputError
from store.corpus import seal_corpus
from tests.test_demand import Scribe, writing


def test_stories_and_refused_replies_of_a_written_corpus(tmp_path: Path) -> None:
    own = writing(tmp_path, ", attempts: 9")
    scribe = Scribe(tmp_path / "journal.jsonl", Demand("own", own))
    waiting = scribe.demand.replay([])
    (again,) = scribe.answer(waiting[0], None)
    for n in range(5):
        (again,) = scribe.answer(again, f"STORY 1:\nToo short {n}.")
    for request in [again, *waiting[1:]]:
        assert scribe.keep(request) == []
    texts = list(scribe.demand.texts(scribe.file))
    seal_corpus(tmp_path / "stories.parquet", texts)
    corpora = pd.DataFrame(
        {
            "corpus": ["other", "own"],
            "refused_truncated": [4.0, 1.0],
            "refused_story_count": [0.0, 5.0],
            "refused_duplicate": [0.0, 0.0],
            "refused_leak": [2.0, 0.0],
        }
    )
    job = {
        "name": "own",
        "writer": "w",
        "writing": writing_to_json(own),
        "stories": str(tmp_path / "stories.parquet"),
        "journal": str(scribe.file),
        "flagged": str(tmp_path / "flagged.csv"),
    }
    found = corpus_content(job, 2, corpora)
    assert found.n_stories == 4 * 2 * 3
    expected: dict[str, list[str]] = {}
    for text in texts:
        if text.emotion is not None:
            expected.setdefault(text.emotion, []).append(text.text)
    for emotion, all_of_it in expected.items():
        shown = [s.text for s in found.stories if s.emotion == emotion]
        assert shown == all_of_it[:2]
    assert len(found.stories) == 4 * 2
    reasons = [refused.reason.partition(":")[0] for refused in found.refused]
    assert reasons == ["truncated", *["story_count"] * EXAMPLES]
    assert [r.text for r in found.refused[1:]] == [
        f"STORY 1:\nToo short {n}." for n in range(EXAMPLES)
    ]
    assert {r.emotion for r in found.refused} == {waiting[0].emotion}
    assert found.prompts == dataclasses.asdict(own.prompts)
    nothing = corpus_content(job, 0, corpora)
    assert (nothing.stories, nothing.refused, nothing.n_stories) == ((), (), 24)


def test_flagged_texts_of_an_imported_corpus(tmp_path: Path) -> None:
    own = writing(tmp_path)
    scribe = Scribe(tmp_path / "journal.jsonl", Demand("own", own))
    for request in scribe.demand.replay([]):
        scribe.keep(request)
    texts = list(scribe.demand.texts(scribe.file))
    seal_corpus(tmp_path / "stories.parquet", texts)
    flagged = tmp_path / "flagged.csv"
    rows = [f'{t.text_id},leak,"holds ""x"", {n}",f00d' for n, t in enumerate(texts[:5])]
    flagged.write_text("\n".join(["text_id,check,found,fingerprint", *rows]) + "\n")
    job = {
        "name": "own",
        "writer": None,
        "writing": None,
        "stories": str(tmp_path / "stories.parquet"),
        "journal": "",
        "flagged": str(flagged),
    }
    found = corpus_content(job, 9, pd.DataFrame())
    assert [r.reason for r in found.refused] == [f'leak: holds "x", {n}' for n in range(EXAMPLES)]
    assert [r.text for r in found.refused] == [t.text for t in texts[:EXAMPLES]]
    assert found.prompts == {}
    odd = (
        ("a,b\n1,2\n", "text_id: row 1"),
        ("text_id,check,found\nz,y,x\n", "text_id: no text 'z'"),
    )
    for content, said in odd:
        flagged.write_text(content)
        with pytest.raises(InputError) as error:
            corpus_content(job, 9, pd.DataFrame())
        assert str(error.value).startswith(f"{flagged}: {said}")


def test_ratings_stay_at_home_and_the_main_tables_come_first(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sizes = {"geometry.csv": 4000, "clusters.csv": 3000, "cka.csv": 3500, "notes.md": 100}
    for name, size in {**sizes, "corpus_emotions.csv": 10}.items():
        (tmp_path / name).write_bytes(b"head\n" + rng.bytes(size))
    whole = len(gzip.compress((tmp_path / "geometry.csv").read_bytes(), 6))
    files, left = carried_tables(tmp_path, whole + 3200)
    assert set(files) == {"geometry.csv", "notes.md", "clusters.csv"}
    assert left == ("cka.csv", "corpus_emotions.csv")
    assert files["geometry.csv"] == (tmp_path / "geometry.csv").read_bytes()
    (tmp_path / "empty.csv").write_text("model,corpus\n")
    everything, rest = carried_tables(tmp_path, 10**6)
    assert rest == ("corpus_emotions.csv",), "nothing but a header is not worth a download"
    assert set(everything) == set(sizes)
