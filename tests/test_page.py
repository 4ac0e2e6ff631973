"""The page: what it says, what it carries, that nothing in it is run, and how it feels to use."""

import base64
import dataclasses
import gzip
import html
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.claim_tables import claims_table, norms_table, profiles_table, summary_table
from analysis.claims import CLAIMS
from analysis.detection_table import detection_table
from analysis.geometry_table import geometry_table, peaks
from analysis.report.content import CorpusContent, Refused, RunContent, Story
from analysis.report.methods import citations, methods
from analysis.report.numbers import decimal
from analysis.report.page import STATISTICS, build_page
from analysis.report.payload import packed, payload
from analysis.report.safe import visible
from analysis.report.sentences import summary
from analysis.tables import activation_table
from manifests.schema import Steering
from tests.test_figures import CONTRAST, N_EMOTIONS, NORMS, make_cell

EMOTIONS = [f"emotion-{i}" for i in range(N_EMOTIONS)]
SCRIPT = "<script>document.title = 'taken'</script>"
IMAGE = "<img src=x onerror=\"document.title = 'taken'\">"
TURNED = "safe \u202egnp.exe\u202c text"
CLOSING = "</script><script>document.title = 'taken'</script>"
MANIFEST: dict[str, Any] = {
    "models": {
        "small": {"builtin": "small", "weights": "trained", "dtype": "bfloat16"},
        "large": {
            "hf": "house/large",
            "revision": "abc123",
            "weights": "random",
            "dtype": "float32",
            "backend": "vllm",
            "reading_dtype": "bfloat16",
        },
    },
    "corpora": {
        "stories": {
            "generate": {
                "model": "small",
                "emotions": "sofroniew-171",
                "topics": ["rain", "bread"],
                "topics_per_emotion": 3,
                "stories_per_topic": 2,
                "neutral": 8,
                "seed": 42,
                "neutral_style": "narrative",
                "temperature": 0.8,
                "top_p": 0.95,
                "max_new_tokens": 512,
            }
        },
        "tales": {"import": {"stories": "/home/somebody/data/tales.jsonl", "writer": "small"}},
    },
    "extraction": {
        "backend": "transformer_lens",
        "dtype": "float32",
        "max_tokens": 512,
        "layers": "all",
        "windows": [
            {"name": "all", "start": 0, "normalize": "none"},
            {"name": "no-first", "start": 1, "end": 90, "normalize": "rms"},
        ],
    },
    "analysis": {
        "contrasts": [CONTRAST, "mean-centered"],
        "neutral_variance": 0.5,
        "seed": 0,
        "norms": [{"source": "glasgow"}, {"source": "/home/somebody/mine.csv"}],
        "bootstraps": 100,
        "permutations": 100,
    },
    "resolved": {"models": {"large": {"hf": "house/large", "revision": "abc123" + 34 * "0"}}},
}


def corpus(name: str, generated: bool) -> CorpusContent:
    texts = [
        Story(emotion, topic, f"A story of {emotion} about {topic}.\n\nIt ends well.")
        for emotion in EMOTIONS
        for topic in ("rain", "bread")
    ]
    texts[0] = Story(EMOTIONS[0], SCRIPT, f"{SCRIPT} {IMAGE} {TURNED} {CLOSING}")
    return CorpusContent(
        name=name,
        writer="small",
        prompts={"story": f"Write about {{topic}}. {IMAGE}"} if generated else {},
        stories=tuple(texts),
        n_stories=400,
        refused=(Refused(f"leak: holds '{SCRIPT}'", EMOTIONS[1], f"refused {IMAGE} {TURNED}"),),
    )


def made_run(name: str = "made") -> RunContent:
    cells = [
        dataclasses.replace(make_cell("small", "stories", 1), twin="large", writer="small"),
        make_cell("small", "tales", 2),
        make_cell("large", "stories", 3),
    ]
    geometry, claims = geometry_table(cells), claims_table(cells)
    corpora = pd.DataFrame({"corpus": ["stories", "tales"], **dict.fromkeys(STATISTICS, 3.25)})
    return RunContent(
        name=name,
        manifest=MANIFEST,
        versions={"reading": {"torch": "2.13.0", "zarr": "3.1.6"}},
        cells=cells,
        tables={
            "geometry": geometry,
            "claims": claims,
            "claim_summary": summary_table(claims, cells),
            "profiles": profiles_table(cells),
            "activations": activation_table(cells),
            "detection": detection_table(cells),
            "corpora": corpora.assign(stories=2.0 * N_EMOTIONS, refused_leak=[7.0, np.nan]),
            "norms": norms_table(cells),
        },
        files={"geometry.csv": geometry.to_csv(index=False).encode()},
        left=("cka.csv",),
        corpora=[corpus("stories", generated=True), corpus("tales", generated=False)],
    )


@pytest.fixture(scope="module")
def run() -> RunContent:
    return made_run()


@pytest.fixture(scope="module")
def page(run: RunContent) -> str:
    return build_page([run])


def unpacked(page: str, identity: str) -> bytes:
    content = re.search(rf'<script type="text/plain" id="{identity}">([^<]*)</script>', page)
    assert content is not None
    return gzip.decompress(base64.b64decode(content[1]))


def test_the_same_run_gives_the_same_page(run: RunContent, page: str) -> None:
    assert build_page([run]) == page
    assert len(page.encode()) < 15e6


def test_untrusted_text_is_escaped_and_nothing_comes_from_outside(page: str) -> None:
    body = page.partition("<script>")[0]  # before the page's own scripts
    for bad in (SCRIPT, IMAGE, CLOSING, "\u202e"):
        assert bad not in page
    for text in (SCRIPT, IMAGE):
        assert text in html.unescape(body)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    rules = dict(
        rule.strip().split(" ", 1) for rule in html.unescape(policy[1]).split(";") if rule.strip()
    )
    assert rules["default-src"] == "'none'"
    assert all(part.startswith("'sha256-") for part in rules["script-src"].split())
    assert "connect-src" not in rules
    assert not re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="', body)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("a\u2066b\u200b\ufeff", "a⟨U+2066⟩b⟨U+200B⟩⟨U+FEFF⟩"),
        ("one\r\ntwo\tthree", "one\ntwo\tthree"),
        ("a\x00\x1b[31m\x9b", "a⟨U+0000⟩⟨U+001B⟩[31m⟨U+009B⟩"),
        ("a\u00ad\u180e\u2800\u3164b", "a⟨U+00AD⟩⟨U+180E⟩⟨U+2800⟩⟨U+3164⟩b"),
        ("\U000e0041\ue000\u2028", "⟨U+E0041⟩⟨U+E000⟩⟨U+2028⟩"),
        ("Zoë – 日本語 🙂", "Zoë – 日本語 🙂"),
    ],
)
def test_hidden_characters_are_shown_by_their_code(given: str, shown: str) -> None:
    assert visible(given) == shown


def test_what_the_plots_draw_is_what_the_tables_say(run: RunContent, page: str) -> None:
    data = json.loads(unpacked(page, "data"))
    assert data == json.loads(json.dumps(payload([run])))
    assert [(c["model"], c["corpus"], c["twin"]) for c in data["cells"]] == [
        *(("small", "stories", False), ("small", "tales", False), ("large", "stories", True))
    ]
    geometry = run.tables["geometry"]
    for cell, source in zip(data["cells"], run.cells, strict=True):
        rows = geometry[
            (geometry["model"] == cell["model"])
            & (geometry["corpus"] == cell["corpus"])
            & (geometry["window"] == "no-first")
            & (geometry["contrast"] == CONTRAST)
        ]
        curve = cell["curves"][f"no-first|{CONTRAST}|{NORMS}"]
        assert cell["layers"] == rows["layer"].tolist()
        for axis in ("valence", "arousal"):
            for name, column in (("r", "r"), ("low", "low"), ("p", "p_corrected")):
                given = np.array(curve[axis][name], dtype=float)
                np.testing.assert_allclose(given, rows[f"{axis}_{column}"], rtol=1e-5)
            assert curve[axis]["sure"] == (rows[f"{axis}_p_corrected"] < 0.05).tolist()
        results = source.results.sel(window="no-first", contrast=CONTRAST)
        grid = cell["grids"][f"no-first|{CONTRAST}"]["cka"]
        expected = results["cka"].sel(layer=slice(0, None), layer_b=slice(0, None)).to_numpy()
        for i, row in enumerate(grid):
            np.testing.assert_allclose(np.array(row) / 1000, expected[i, i:], atol=0.0005001)
        largest, one, *_ = cell["maps"][f"no-first|{CONTRAST}"][3]
        scores = results["score"].sel(component=1).isel(layer=3).to_numpy()
        np.testing.assert_allclose(
            largest * np.array(one) / 1000, scores, atol=0.001 * np.abs(scores).max()
        )
        sign = cell["signs"][f"no-first|{CONTRAST}|{NORMS}"][3][0]
        rating_E = source.results["rating"].sel(norms=NORMS, axis="valence").to_numpy()
        rated = np.isfinite(rating_E)
        assert np.corrcoef(sign * scores[rated], rating_E[rated])[0, 1] > 0
        bands = np.array(cell["bands"][NORMS], dtype=float)
        assert (np.isnan(bands) == ~rated).all()
        order = np.argsort(rating_E[rated])
        assert (np.diff(bands[rated][order]) >= 0).all()
        assert set(bands[rated]) == {0, 1, 2, 3, 4}
    written = json.dumps(data)
    ratings = run.cells[0].results["rating"].to_numpy()
    for rating in ratings[np.isfinite(ratings)]:  # they may not be ours to pass on
        assert f"{rating:.5g}" not in written


def test_a_baseline_is_drawn_beside_its_cell_only(run: RunContent) -> None:
    cells = payload([run])["cells"]
    key = f"all|{CONTRAST}|{NORMS}|valence"
    assert set(cells[0]["beside"][key]) == {"embedding", "random"}
    assert set(cells[1]["beside"][key]) == {"embedding"}
    random = cells[0]["beside"][key]["random"]
    own = cells[2]["curves"][f"all|{CONTRAST}|{NORMS}"]["valence"]["r"]
    np.testing.assert_allclose(random, own)


def test_sentences_say_what_the_tables_hold(run: RunContent) -> None:
    said = summary(
        run.tables["geometry"],
        run.tables["claim_summary"],
        run.tables["activations"],
        run.tables["detection"],
        run.tables["profiles"],
        {("large", "stories")},
    )
    assert [s.about for s in said] == [
        *("small reads stories", "small reads tales", "small: stories against tales", "In all")
    ]
    claims = run.tables["claim_summary"]
    own = claims[(claims["model"] == "small") & (claims["summary"] != "no such baseline")]
    assert f"{own['holds'].sum():,} hold, {own['fails'].sum():,} fail" in said[-1].sentences[0]
    geometry = run.tables["geometry"]
    best = peaks(geometry[(geometry["window"] == "no-first") & (geometry["contrast"] == CONTRAST)])
    row = best[(best["model"] == "small") & (best["corpus"] == "stories")].iloc[0]
    first = said[0].sentences[0]
    assert f"at layer {row['layer']} " in first
    assert f"|r| = {row['valence_r']:.2f}".replace("0.", ".") in first
    assert f"over {N_EMOTIONS - 2} emotions" in first
    assert "corrected" in first
    text = " ".join(said[0].sentences)
    assert f"random weights {row['valence_random_r']:.2f}".replace("0.", ".") in text
    massive = run.tables["activations"]
    layers = massive[
        (massive["model"] == "small")
        & (massive["corpus"] == "stories")
        & (massive["peak_share"] > 0.5)
    ]["layer"]
    assert f"In layers {layers.min()}-{layers.max()} one token" in text
    found = run.tables["detection"].query(
        "model == 'small' and corpus == 'stories' and window == 'no-first' and layer >= 0"
    )
    best = found.sort_values("mean_reciprocal_rank").iloc[-1]
    assert f"tell stories apart best at layer {best['layer']} (largest mean of 1 / rank)" in text
    assert f"among {N_EMOTIONS} emotions a story's own ranks first" in text
    assert f"among the first five in {100 * best['top_5']:.1f} %" in text


def test_the_two_peaks_are_told_apart_on_the_card_and_in_every_claim(
    run: RunContent, page: str
) -> None:
    profiles = run.tables["profiles"].query(
        "model == 'small' and corpus == 'stories' and window == 'no-first' and dimensions == 'all'"
    )
    profiles = profiles[(profiles["contrast"] == CONTRAST) & (profiles["norms"] == NORMS)]
    geometry = run.tables["geometry"].query(
        "model == 'small' and corpus == 'stories' and window == 'no-first' and layer >= 0"
    )
    geometry = geometry[geometry["contrast"] == CONTRAST]
    best = geometry.loc[geometry["arousal_r"].idxmax()]
    text = html.unescape(page.partition('<section id="claims"')[0])
    assert f"PC2 follows arousal most closely at layer {best['layer']}: " in text
    assert len(profiles) == 2
    text_of_claims = html.unescape(page.partition('<section id="claims"')[2])
    for row in profiles.to_dict("records"):
        component = 1 if row["axis"] == "valence" else 2
        assert (
            f"of PC{component} with {row['axis']} it is layer {row['peak']:.0f} (layers "
            f"{row['peak_from']:.0f} to {row['peak_to']:.0f}), with an r of "
            f"{decimal(row['peak_infinite'])} ({decimal(row['peak_low'])} to "
            f"{decimal(row['peak_high'])}; in these stories {decimal(row['peak_r'])})"
        ) in text
    for claim in CLAIMS:
        assert claim.formula.startswith("Measured: ")
        assert claim.formula.replace(" 0.", " .") in text_of_claims
        if re.search(r"\bpeak", claim.formula):
            assert re.search("expected peak", claim.formula), claim.name
    decided = run.tables["claims"].query(
        "claim == 'valence-peak' and model == 'small' and corpus == 'stories' and "
        "window == 'no-first' and dimensions == 'all'"
    )
    row = decided[decided["contrast"] == CONTRAST].iloc[0]
    measured = f"{decimal(row['figure'])} [{decimal(row['low'])}, {decimal(row['high'])}]"
    assert f"<td>{measured} at {row['at']}</td>" in page


def test_a_stranger_is_told_first_what_was_done(run: RunContent, page: str) -> None:
    assert "<h1><bdi>Emotions in small</bdi></h1>" in page
    head = page.partition('<section id="found"')[0].partition("<h1>")[2]
    said = [html.unescape(s) for s in re.findall(r'<p class="lead">([^<]*)</p>', head)]
    assert len(said) == 3
    assert said[0] == (
        f"small reads short stories about people who feel one of {N_EMOTIONS} emotions: stories "
        "(400, written by small) and tales (400, written by small)."
    )
    assert "mean residual stream over its stories" in said[1]
    assert f"by the norms {NORMS}" in said[2]
    found = page.partition('<section id="found"')[2].partition("</section>")[0]
    assert found.rindex("verdicts on") > found.rindex("</article>"), "the count comes last"
    words = [html.unescape(t) for t in re.findall(r"<dd>([^<]*)</dd>", page)]
    assert any("no-first = [1, 90)" in says for says in words)
    assert any(f"{CONTRAST}: the mean over emotions is taken off, and" in says for says in words)
    assert any("ridge: " in says for says in words)


def test_a_claims_table_has_no_empty_column(run: RunContent) -> None:
    tables = run.tables | {"claim_summary": run.tables["claim_summary"].assign(artefact="")}
    section = build_page([dataclasses.replace(run, tables=tables)]).partition('id="claims"')[2]
    section = section.partition("</section>")[0]
    assert 'scope="col">random weights</th>' in section
    assert 'scope="col">artefact</th>' not in section


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.744, ".74"), (-0.05, "-.05"), (1.0, "1.00"), (10.5, "10.50"), (np.nan, "\N{EN DASH}")],
)
def test_numbers_have_one_form(value: float, shown: str) -> None:
    assert decimal(value) == shown
    assert decimal(value, sign=True) == (f"+{shown}" if value > 0 else shown)


def test_methods_are_those_of_the_manifest(page: str) -> None:
    for said in (
        f"house/large, revision abc123{34 * '0'}, random weights of its configuration (seed 0)",
        "topics of its own (2), 3 topics for each emotion",
        "Seed 42, temperature 0.8",
        "read with transformer_lens in float32 (small); vllm in bfloat16 (large)",
        "no-first = [1, 90), each token divided by its root mean square",
        "reading: torch 2.13.0, zarr 3.1.6",
        "Imported from tales.jsonl",
        "(glasgow, mine.csv)",
        "100 permutations",
        "https://doi.org/10.3758/s13428-018-1099-3",
    ):
        assert said in page, said
    assert "Write about {topic}. &lt;img" in page
    assert "/home/" not in page.partition("<script>")[0]


def test_methods_say_how_a_model_was_steered(run: RunContent) -> None:
    spec = json.loads(Steering(directions=("valence", "sad"), layers=(3, 7)).model_dump_json())
    parts = methods(dataclasses.replace(run, manifest=MANIFEST | {"steering": spec}))
    (part,) = [part for part in parts if part.title == "Steering"]
    said = " ".join(part.lines)
    for words in (
        "Directions: valence, sad, as unit vectors",
        "at layers 3, 7, with either sign, at strengths 0.05, 0.1, 0.2:",
        "1 text for each prompt and condition, of at most 60 tokens, temperature 0.8",
        "20 random directions and 20 random mixtures",
        "of every layer added at every other",
    ):
        assert words in said, words
    assert "Steering" not in [part.title for part in methods(run)]
    assert any("Sofroniew et al. (2026)" in source.text for source in citations([run]))


def test_tables_can_be_saved_and_larger_ones_are_named(run: RunContent, page: str) -> None:
    assert unpacked(page, "file-0") == run.files["geometry.csv"]
    assert "In the run's folder only: cka.csv" in page


def test_several_runs_stand_beside_each_other() -> None:
    page = build_page([made_run("first"), made_run("second")])
    data = json.loads(unpacked(page, "data"))
    assert [c["run"] for c in data["cells"]] == ["first"] * 3 + ["second"] * 3
    first, second = data["cells"][0], data["cells"][3]
    assert first["colour"] == second["colour"], "it is the same model"
    assert (first["dash"], first["symbol"]) != (second["dash"], second["symbol"])
    assert "first: small reads stories" in page
    assert "second: small reads stories" in page
    assert json.loads(unpacked(page, "corpus-names")) == [
        *(["first", "stories"], ["first", "tales"], ["second", "stories"], ["second", "tales"])
    ]


N_MODELS, CORPORA = 25, ("stories", "tales")


@pytest.fixture(scope="module")
def many() -> RunContent:
    """Give a run of fifty cells, made from three."""
    made = made_run()
    base = made.cells
    cells = [
        dataclasses.replace(base[(i + j) % 3], model=f"model-{i}", corpus=corpus, twin=None)
        for i in range(N_MODELS)
        for j, corpus in enumerate(CORPORA)
    ]
    geometry = geometry_table(cells)
    summaries = made.tables["claim_summary"].query("corpus_b == ''").head(len(CLAIMS))
    claims = [summaries.assign(model=c.model, corpus=c.corpus) for c in cells]
    tables = {
        "geometry": geometry,
        "claim_summary": pd.concat(claims, ignore_index=True),
        "activations": activation_table(cells),
        "detection": detection_table(cells),
    }
    return dataclasses.replace(made, cells=cells, tables=made.tables | tables, files={}, left=())


def test_fifty_cells_fit_and_what_does_not_is_named(
    many: RunContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = payload([many])
    assert whole["left"] == []
    assert len({cell["colour"] for cell in whole["cells"]}) == N_MODELS
    assert len({cell["dark"] for cell in whole["cells"]}) == N_MODELS
    size = len(packed(whole))
    least = len(packed(payload([many], 0)))
    limit = least + (size - least) // 2
    some = payload([many], limit)
    assert len(packed(some)) <= limit
    assert any(cell["maps"] for cell in some["cells"])
    first = f"no-first|{CONTRAST}|{NORMS}"
    assert all(next(iter(cell["curves"])) == first for cell in some["cells"])
    parts = {
        "maps of emotions": ("maps", f"no-first|{CONTRAST}"),
        "similarity of layers": ("grids", f"no-first|{CONTRAST}"),
        "cosines of directions": ("cosines", f"{first}|ridge"),
        "curves at other windows, contrasts and norms": ("curves", f"all|{CONTRAST}|{NORMS}"),
    }
    said = {line.partition(": ")[0]: line for line in some["left"]}
    for what, (kind, key) in parts.items():
        out = [c for c in some["cells"] if key not in c[kind]]
        if not out:
            assert what not in said
        elif len(out) == len(some["cells"]):
            assert f"all of {len(out)} cells" in said[what]
        else:
            named = f"from {out[0]['model']}@{out[0]['corpus']} on, {len(out)} of 50 cells"
            assert named in said[what]
    assert "maps of emotions at other windows, contrasts and norms" in said
    rest = len(build_page([many]).encode()) - size
    limit += rest
    monkeypatch.setattr("analysis.report.page.PAGE_BYTES", limit)
    page = build_page([many])
    assert len(page.encode()) <= limit + 4000
    assert "it leaves out:" in page
    assert "tables/geometry.csv has them" in page


def test_stories_are_fewer_where_they_do_not_fit(
    run: RunContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis.report.page.STORIES_BYTES", 600)
    page = build_page([run])
    held = json.loads(unpacked(page, "stories-0"))
    n = max(map(len, held["by"].values()))
    assert n < 2
    assert held["all"] == 400
    assert f"stories: all but the first {n} of each emotion" in page


CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
NEEDED = os.environ.get("EMOVEC_TEST_BROWSER") == "1"
PHONE = {
    "deviceMetrics": {"width": 390, "height": 844, "pixelRatio": 2.0, "touch": True},
    "userAgent": "Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 Chrome/140 Mobile",
}


@pytest.fixture(params=["desktop", "phone", "dark"])
def browser(request: pytest.FixtureRequest) -> Iterator[Any]:
    yield from chromium(request.param)


def chromium(look: str) -> Iterator[Any]:
    """Give a headless Chromium of a desktop's or a phone's size, with its logs."""
    if not (CHROMIUM and DRIVER):
        assert not NEEDED, "chromium and chromedriver are to be tested with, and are not here"
        pytest.skip("no chromium here; `apt-get install chromium chromium-driver`")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1300,950"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    if look == "phone":
        options.add_experimental_option("mobileEmulation", PHONE)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    if look == "dark":
        feature = {"name": "prefers-color-scheme", "value": "dark"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    try:
        yield driver
    finally:
        driver.quit()


def requests(browser: Any) -> list[str]:
    """Return what was asked for, from the browser's own log."""
    found = []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            found.append(message["params"]["request"]["url"])
    return found


def plotted(browser: Any, plot: str) -> list[dict[str, Any]]:
    return browser.execute_script(f"return document.getElementById('{plot}').data")


def test_the_page_works_from_disk(browser: Any, page: str, run: RunContent, tmp_path: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select, WebDriverWait

    file = tmp_path / "index.html"
    file.write_text(page)
    browser.get(file.as_uri())

    def eventually(condition: str) -> None:
        WebDriverWait(browser, 20).until(lambda b: b.execute_script(f"return {condition}"))

    def script(code: str) -> Any:
        return browser.execute_script(f"return {code}")

    eventually("document.documentElement.dataset.ready === 'yes'")
    geometry = run.tables["geometry"]
    at = (geometry["model"] == "small") & (geometry["corpus"] == "stories")
    at &= (geometry["contrast"] == CONTRAST) & (geometry["layer"] >= 0)

    def own_curve() -> list[float]:
        return next(
            trace["y"]
            for trace in plotted(browser, "depth-plot")
            if "small@stories" in str(trace.get("name"))
            and trace.get("yaxis", "y") == "y"
            and len(trace["x"]) > 1
        )

    np.testing.assert_allclose(
        own_curve(), geometry[at & (geometry["window"] == "no-first")]["valence_r"], rtol=1e-5
    )
    Select(browser.find_element(By.ID, "window")).select_by_visible_text("all")
    np.testing.assert_allclose(
        own_curve(), geometry[at & (geometry["window"] == "all")]["valence_r"], rtol=1e-5
    )

    alone = "document.querySelector('#norms + .alone')"
    assert script(f"{alone}.textContent") == NORMS, "a choice of one stands as text"
    assert not browser.find_element(By.ID, "norms").is_displayed()
    assert browser.find_element(By.ID, "with-random").is_displayed(), "there is a random twin"
    for section in ("map", "grids"):  # what sticks to the top covers no heading
        script(f"location.hash = '#{section}'")
        bar = "document.getElementById(innerWidth < 704 ? 'often' : 'choices')"
        eventually(
            f"document.getElementById('{section}-title').getBoundingClientRect().top"
            f" >= {bar}.getBoundingClientRect().bottom - 1"
        )
        assert script(f"{bar}.getBoundingClientRect().bottom") < 200

    slider = browser.find_element(By.ID, "layer")  # with the keyboard
    before, name = plotted(browser, "map-plot")[0]["x"], browser.find_element(By.ID, "layer-name")
    slider.send_keys(Keys.HOME)
    assert name.text == "embedding"
    slider.send_keys(Keys.ARROW_RIGHT)
    assert name.text == "layer 0"
    assert plotted(browser, "map-plot")[0]["x"] != before

    Select(browser.find_element(By.ID, "emotion")).select_by_visible_text(EMOTIONS[0])
    eventually("document.querySelectorAll('#stories article').length === 2")
    shown = browser.find_element(By.ID, "stories").text
    for text in (SCRIPT, IMAGE, "safe ⟨U+202E⟩gnp.exe⟨U+202C⟩ text", CLOSING):
        assert text in shown
    assert "this page carries 28 of the corpus' 400 stories" in shown
    assert script("document.querySelectorAll('#stories img, #stories script').length") == 0
    assert script("document.title").endswith("made"), "no script has taken it"

    emotion = 9  # click its mark
    spot = script(
        "(() => { const p = document.getElementById('map-plot'), l = p._fullLayout;"
        " p.scrollIntoView({block: 'center'}); const b = p.getBoundingClientRect();"
        f" return [b.left + l.xaxis._offset + l.xaxis.d2p(p.data[0].x[{emotion}]),"
        f" b.top + l.yaxis._offset + l.yaxis.d2p(p.data[0].y[{emotion}])]; }})()"
    )
    width, height = script("[innerWidth, innerHeight]")
    assert 0 < spot[0] < width
    assert 0 < spot[1] < height
    pointer = ActionChains(browser)
    pointer.w3c_actions.pointer_action.move_to_location(*(round(v) for v in spot))
    pointer.pause(0.3).click().perform()
    clicked = script(f"document.getElementById('map-plot').data[0].customdata[{emotion}]")
    assert clicked == EMOTIONS[emotion]
    eventually(f"document.querySelector('#stories p').textContent.includes('of {clicked} ')")
    assert Select(browser.find_element(By.ID, "emotion")).first_selected_option.text == clicked
    assert script("document.querySelector('#map-plot .annotation-text').textContent") == clicked
    eventually(
        "(() => { const b = document.querySelector('#stories article').getBoundingClientRect();"
        " return b.top >= 0 && b.bottom <= innerHeight + 1; })()"
    )
    assert f"A story of {clicked} about rain." in browser.find_element(By.ID, "stories").text

    Select(browser.find_element(By.ID, "grid")).select_by_visible_text("CKA, debiased")
    results = run.cells[0].results.sel(window="all", contrast=CONTRAST)
    expected = results["cka_debiased"].sel(layer=slice(0, None), layer_b=slice(0, None))
    np.testing.assert_allclose(plotted(browser, "grid-plot")[0]["z"], expected, atol=0.00051)
    Select(browser.find_element(By.ID, "cell")).select_by_visible_text("small@tales")
    assert "small@tales" in browser.find_element(By.ID, "map-says").text

    n_curves = len(plotted(browser, "depth-plot"))
    script("document.getElementById('with-random').click()")
    assert len(plotted(browser, "depth-plot")) > n_curves
    claim = browser.find_element(By.CSS_SELECTOR, "#claims details summary")
    script("document.querySelector('#claims details summary').scrollIntoView({block: 'center'})")
    claim.send_keys(Keys.ENTER)
    assert script("document.querySelector('#claims details').open") is True
    root = "document.documentElement"
    assert script(f"{root}.scrollWidth <= {root}.clientWidth"), "nothing sticks out"
    assert script(
        "[...document.querySelectorAll('select, input')].every((e) => e.labels.length === 1)"
    )

    asked = requests(browser)
    assert [url for url in asked if not url.startswith(("file:///", "data:", "blob:"))] == []
    complaints = [e for e in browser.get_log("browser") if e["level"] in ("SEVERE", "WARNING")]
    assert complaints == []


def test_a_page_of_fifty_cells_can_be_used(browser: Any, many: RunContent, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select, WebDriverWait

    content = build_page([many])
    assert len(content.encode()) < 15e6
    file = tmp_path / "index.html"
    file.write_text(content)
    browser.get(file.as_uri())
    WebDriverWait(browser, 120).until(
        lambda b: b.execute_script("return document.documentElement.dataset.ready === 'yes'")
    )
    rows = plotted(browser, "overview-plot")[0]["z"]
    assert len(rows) == 2 * N_MODELS
    Select(browser.find_element(By.ID, "cell")).select_by_visible_text("model-7@tales")
    assert "model-7@tales" in browser.find_element(By.ID, "map-says").text
    drawn = {t["name"] for t in plotted(browser, "depth-plot") if "@" in str(t.get("name"))}
    assert drawn == {"model-7@stories", "model-7@tales"}
    search = browser.find_element(By.CSS_SELECTOR, "#found input.find")
    search.send_keys("model-7 reads")
    shown = "return [...document.querySelectorAll('#found details')].filter((d) => !d.hidden)"
    assert browser.execute_script(f"{shown}.length") == 1
    root = "document.documentElement"
    assert browser.execute_script(f"return {root}.scrollWidth <= {root}.clientWidth")
    assert [e for e in browser.get_log("browser") if e["level"] in ("SEVERE", "WARNING")] == []


def test_a_port_that_the_page_would_have_to_ask_hears_nothing(
    browser: Any, page: str, tmp_path: Path
) -> None:
    """A script added to the page is not run, and an address in it is not asked for."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(1)
        port = server.getsockname()[1]
        added = (
            f'<img src="http://127.0.0.1:{port}/"><script>window.taken = 1</script>'
            f'<link rel="stylesheet" href="http://127.0.0.1:{port}/x.css">'
        )
        file = tmp_path / "index.html"
        file.write_text(page.replace("<header>", f"<header>{added}", 1))
        browser.get(file.as_uri())
        with pytest.raises(TimeoutError):
            server.accept()
    assert browser.execute_script("return window.taken") is None
    refused = [e for e in browser.get_log("browser") if "Content Security Policy" in e["message"]]
    assert len(refused) >= 3


def test_two_runs_with_different_choices_and_hostile_names(browser: Any, tmp_path: Path) -> None:
    """Runs side by side: other windows, an emotion called constructor, no stories, long names."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select, WebDriverWait

    first, second = made_run("first"), made_run("second-run-with-a-name-of-some-length")
    late = [
        dataclasses.replace(
            cell,
            model=f"{cell.model}-with-quite-a-long-name",
            twin=None,
            results=cell.results.assign_coords(
                window=["all", "late"],
                emotion=["constructor", "<b>joy</b>", "$x^2$", *EMOTIONS[3:]],
            ),
        )
        for cell in second.cells
    ]
    geometry, claims = geometry_table(late), claims_table(late)
    tables = {
        "geometry": geometry,
        "claims": claims,
        "claim_summary": summary_table(claims, late),
        "activations": activation_table(late),
    }
    bare = [dataclasses.replace(corpus, stories=(), refused=()) for corpus in second.corpora]
    second = dataclasses.replace(
        second, cells=late, tables=second.tables | tables, corpora=bare, files={}
    )
    file = tmp_path / "index.html"
    file.write_text(build_page([first, second]))
    browser.get(file.as_uri())
    WebDriverWait(browser, 20).until(
        lambda b: b.execute_script("return document.documentElement.dataset.ready") == "yes"
    )
    window = Select(browser.find_element(By.ID, "window"))
    assert [o.text for o in window.options] == ["all", "no-first", "late (not in this cell)"]
    says = "return document.getElementById('depth-says').textContent"
    assert "second-run-with-a-name-of-some-length" in browser.execute_script(says)
    cell = browser.find_element(By.ID, "cell")
    Select(cell).select_by_index(3)  # a cell that has no window no-first
    window = Select(browser.find_element(By.ID, "window"))
    assert window.first_selected_option.text == "all"
    assert browser.execute_script(says) == ""
    for name in ("constructor", "<b>joy</b>"):
        Select(browser.find_element(By.ID, "emotion")).select_by_visible_text(name)
        WebDriverWait(browser, 20).until(
            lambda b, name=name: (
                f"No stories of {name} in stories" in b.find_element(By.ID, "stories").text
            )
        )
    assert "&lt;b&gt;joy&lt;/b&gt;" in plotted(browser, "map-plot")[0]["hovertext"]
    browser.execute_script("document.getElementById('with-names').click()")
    assert any(plotted(browser, "map-plot")[0]["text"])
    root = "document.documentElement"
    assert browser.execute_script(f"return {root}.scrollWidth <= {root}.clientWidth")
    assert [e for e in browser.get_log("browser") if e["level"] in ("SEVERE", "WARNING")] == []


def test_a_table_can_be_saved_and_a_mark_chooses_its_layer(
    page: str, run: RunContent, tmp_path: Path
) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    for driver in chromium("desktop"):
        file = tmp_path / "index.html"
        file.write_text(page)
        behaviour = {"behavior": "allow", "downloadPath": str(tmp_path)}
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
        driver.get(file.as_uri())
        wait = WebDriverWait(driver, 20)
        wait.until(lambda d: d.execute_script("return document.documentElement.dataset.ready"))
        driver.find_element(By.CSS_SELECTOR, "button.file").click()
        wait.until(lambda d: (tmp_path / "geometry.csv").exists())
        assert (tmp_path / "geometry.csv").read_bytes() == run.files["geometry.csv"]
        driver.execute_script(
            "document.getElementById('depth-plot').emit('plotly_click',"
            " {points: [{customdata: [1, 2]}]})"
        )
        assert driver.find_element(By.ID, "layer-name").text == "layer 1"
        assert "small@tales, layer 1" in driver.find_element(By.ID, "map-says").text
        texts = [
            text
            for trace in plotted(driver, "depth-plot")
            for text in trace.get("text", [])
            if trace["yaxis"] == "y2" and "small@tales<br>layer 2:" in text
        ]
        row = run.tables["geometry"].query(
            "model == 'small' and corpus == 'tales' and window == 'no-first' and layer == 2"
        )
        row = row[row["contrast"] == CONTRAST].iloc[0]
        p = f"{row['arousal_p_corrected']:.3f}"
        assert len(texts) == 1
        assert f"|r| = {row['arousal_r']:.2f} ".replace("0.", ".") in texts[0]
        assert f"corrected p = {'1' if p == '1.000' else p[1:]}" in texts[0]
