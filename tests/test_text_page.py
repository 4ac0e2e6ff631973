"""The page of scored texts: what it carries, that nothing in a text is run, how it feels to use."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from analysis.detection import leading_emotions
from analysis.report.tints import COLOURS, FAINT, STRONG, tint
from analysis.token_spread import smoothed, token_spread
from engine.detection.output import About
from engine.detection.page import MAX_SHOWN, PageWriter
from engine.detection.reading import Piece
from engine.detection.terminal import TerminalWriter
from manifests.errors import InputError
from tests.test_page import CLOSING, IMAGE, SCRIPT, TURNED, chromium, plotted, requests

EMOTIONS = ["glad", "glum", "wry", IMAGE, "calm", "cross", "coy", "shy", "bold", "tired"]
LAYERS = [3, 7, 11]
WORDS = f"She saw 🙂 {SCRIPT} {TURNED} {CLOSING} and\n\nwalked on for a while".split(" ")
SPREAD_LW = np.array([[2.0, 1.0, 0.8, 0.5], [1.5, 0.6, 0.4, 0.3], [np.nan] * 4])
ABOUT = About(
    "m@c", LAYERS, 7, "as asked for", "no-first", EMOTIONS, dict.fromkeys(LAYERS, "so"), SPREAD_LW
)


def pieces(words: list[str], number: int, name: str, seed: int) -> Iterator[Piece]:
    """A text in two pieces, its first token outside of the window, one emoji in two tokens."""
    text = " ".join(words)
    ends = np.cumsum([len(word) + 1 for word in words]) - 1
    starts = [0, *ends[:-1]]
    spans = [(int(a), int(b)) for a, b in zip(starts, ends, strict=True)]
    spans.insert(2, spans[2])
    shown = [text[a:b] for a, b in spans]
    shown[3] = ""
    score = np.random.default_rng(seed).normal(1.5, 3, (len(spans), len(LAYERS), len(EMOTIONS)))
    score[0] = np.nan
    for part, last in ((slice(0, 4), False), (slice(4, None), True)):
        yield Piece(
            number,
            name,
            part.start,
            [text[a:b] for a, b in spans[part]],
            shown[part],
            [a for a, _ in spans[part]],
            [b for _, b in spans[part]],
            score[part].astype(np.float32),
            np.isfinite(score[part, 0, 0]),
            last,
        )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[Piece]]]:
    file = tmp_path_factory.mktemp("page") / "page.html"
    given = [
        list(pieces(WORDS, 0, f"one {SCRIPT}.txt", 1)),
        list(pieces(WORDS[::-1], 1, "two.txt", 2)),
    ]
    writer = PageWriter(file, ABOUT)
    for text in given:
        for piece in text:
            writer.take(piece)
    assert not file.exists()
    writer.end()
    return file, given


def payload(file: Path) -> Any:
    found = re.search(r'<script type="text/plain" id="data">([^<]*)</script>', file.read_text())
    assert found is not None
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


def test_the_page_carries_the_scores_it_was_given(made: tuple[Path, list[list[Piece]]]) -> None:
    file, given = made
    data = payload(file)
    assert data["layers"] == LAYERS
    assert data["best"] == 1
    for text, parts in zip(data["texts"], given, strict=True):
        score_TLE = np.concatenate([piece.score for piece in parts])
        for layer, shown in enumerate(text["layers"]):
            score_TE = score_TLE[:, layer]
            np.testing.assert_allclose(shown["mean"], 100 * np.nanmean(score_TE, axis=0), atol=0.51)
            assert shown["leading"] == leading_emotions(score_TE, 8)
            for curve, row in zip(shown["curves"], shown["leading"], strict=True):
                assert curve[0] is None
                np.testing.assert_allclose(curve[1:], 100 * score_TE[1:, row], atol=0.51)
            for token in range(1, len(score_TE)):
                order = np.argsort(-score_TE[token])[:5]
                assert shown["highest"][token] == list(order)
    assert "".join(data["texts"][0]["tokens"]).startswith("She saw 🙂 <script>")
    assert data["texts"][0]["tokens"].count(" 🙂") == 1


def test_leading_emotions_are_those_with_most_above_zero() -> None:
    score_TE = np.array([[3, 1, -1], [2, 2.5, 0], [np.nan] * 3, [-3, -2, -1]], dtype=np.float32)
    assert leading_emotions(score_TE, 3) == [0, 1]
    assert leading_emotions(score_TE, 1) == [0]
    assert leading_emotions(np.full((2, 3), np.nan, dtype=np.float32), 2) == []


def test_untrusted_text_is_data_and_nothing_comes_from_outside(
    made: tuple[Path, list[list[Piece]]],
) -> None:
    page = made[0].read_text()
    for bad in (SCRIPT, IMAGE, CLOSING, "\u202e"):
        assert bad not in page
    assert "default-src 'none'" in page.replace("&#39;", "'")
    assert "\u202e" not in json.dumps(payload(made[0]), ensure_ascii=False)


def test_more_than_a_page_holds_is_refused(tmp_path: Path) -> None:
    writer = PageWriter(tmp_path / "page.html", ABOUT)
    n = MAX_SHOWN // len(LAYERS) + 1
    score = np.zeros((n, len(LAYERS), len(EMOTIONS)), dtype=np.float32)
    with pytest.raises(InputError, match=r"a page holds 200,000 tokens times layers.*--layer"):
        writer.take(
            Piece(
                0, "long", 0, ["a"] * n, ["a"] * n, [0] * n, [1] * n, score, np.ones(n, bool), True
            )
        )
    assert not (tmp_path / "page.html").exists()


def tinted(browser: Any) -> dict[str, list[bool]]:
    """Which tokens of the page are coloured, and which of them strongly."""
    strong = {f"rgb({', '.join(map(str, tint(colour, True)))})" for colour in COLOURS}
    grounds = browser.execute_script(
        "return [...document.querySelectorAll('#tokens span')].map((span) => "
        "span.classList.contains('tinted') ? span.style.background : '')"
    )
    return {
        "tinted": [ground != "" for ground in grounds],
        "strong": [ground in strong for ground in grounds],
    }


@pytest.mark.parametrize("smooth", [1, 5, 15, 45])
def test_smoothing_is_a_mean_over_the_tokens_around(smooth: int) -> None:
    score_TLE = np.random.default_rng(3).normal(size=(60, 2, 3)).astype(np.float32)
    kernel, half = np.ones(smooth), smooth // 2
    n_T = np.convolve(np.ones(60), kernel)[half : half + 60]
    for layer, emotion in ((0, 0), (1, 2)):
        sum_T = np.convolve(score_TLE[:, layer, emotion].astype(np.float64), kernel)
        found = smoothed(score_TLE, smooth)[:, layer, emotion]
        np.testing.assert_allclose(found, sum_T[half : half + 60] / n_T, atol=1e-12)


def test_the_spread_is_that_of_all_tokens_whatever_their_text() -> None:
    rng = np.random.default_rng(4)
    sd_LE = np.array([[1.0, 2.0, 4.0], [3.0, 3.0, 3.0]])
    texts = [(5 + rng.normal(size=(n, 2, 3)) * sd_LE).astype(np.float32) for n in (900, 1200)]
    spread_LW = token_spread(texts)
    np.testing.assert_allclose(spread_LW[:, 0], np.sqrt((sd_LE**2).mean(axis=1)), rtol=0.05)
    expected = spread_LW[:, [0]] / np.sqrt([1, 5, 15, 45])  # independent tokens
    np.testing.assert_allclose(spread_LW, expected, rtol=0.35)
    outlying = [texts[0].copy(), texts[1]]
    outlying[0][:20] += 1000  # a few massive tokens hardly move it
    np.testing.assert_allclose(token_spread(outlying)[:, 0], spread_LW[:, 0], rtol=0.05)
    texts[1] += 10  # what lies between texts is part of it
    assert (token_spread(texts)[:, 0] > 1.5 * spread_LW[:, 0]).all()
    assert np.isnan(token_spread([texts[0][:1]])).all()


def test_the_terminal_colours_what_the_page_colours() -> None:
    shown = About("m@c", [7], 7, "", "no-first", EMOTIONS, {7: "so"}, SPREAD_LW[[1]])
    given = list(pieces(WORDS, 0, "one.txt", 1))
    for unit, about in (
        (1.5, shown),
        (np.nan, dataclasses.replace(shown, spread_LW=SPREAD_LW[[2]])),
    ):
        console = Console(
            file=io.StringIO(), force_terminal=True, color_system="truecolor", width=500
        )
        writer = TerminalWriter(console, about)
        for piece in given:
            writer.take(dataclasses.replace(piece, score=piece.score[:, [1]]))
        printed = console.file.getvalue()  # type: ignore[attr-defined]
        score_TE = np.concatenate([piece.score[:, 1] for piece in given])
        leading = leading_emotions(score_TE, 8)
        highest_T = np.nan_to_num(score_TE[:, leading].max(axis=1), nan=-9)
        grounds = [f"48;2;{';'.join(map(str, tint(c, True)))}m" for c in COLOURS]
        key = len(leading)
        assert printed.count("\x1b[30;48;2;") == (highest_T >= FAINT * unit).sum() + key
        strong = sum(printed.count(ground) for ground in grounds)
        assert strong == (highest_T >= STRONG * unit).sum() + key


@pytest.mark.parametrize("look", ["desktop", "phone", "dark"])
def test_the_page_works_from_disk(made: tuple[Path, list[list[Piece]]], look: str) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select, WebDriverWait

    file, given = made
    scores = [np.concatenate([piece.score for piece in text]) for text in given]
    for browser in chromium(look):
        browser.get(file.as_uri())
        WebDriverWait(browser, 20).until(
            lambda b: b.execute_script("return document.documentElement.dataset.ready === 'yes'")
        )
        assert browser.title.startswith(f"one {SCRIPT}.txt")
        spans = browser.find_elements(By.CSS_SELECTOR, "#tokens span")
        assert len(spans) == len(scores[0])
        assert browser.find_element(By.ID, "layer-name").text == "7"
        leading = leading_emotions(scores[0][:, 1], 8)
        inside_TLE = scores[0][1:, :, leading]  # the first token is outside of the window
        for width, spread in ((5, 0.6), (1, 1.5)):
            shown = f"{width} tokens" if width > 1 else "no tokens"
            Select(browser.find_element(By.ID, "smooth")).select_by_visible_text(shown)
            highest = smoothed(inside_TLE, width)[:, 1].max(axis=1)
            for steps, ground in ((FAINT, "tinted"), (STRONG, "strong")):
                found = [False, *(highest >= steps * spread - 0.005)]
                assert tinted(browser)[ground] == found, (width, ground)
            said = browser.find_element(By.ID, "from").text
            assert said.startswith(f"Tokens are coloured from +{spread * FAINT:.1f} on")
        spans[5].click()
        said = browser.find_element(By.ID, "token-says").text
        first = EMOTIONS[int(scores[0][5, 1].argmax())]
        assert f": {first} " in said
        browser.find_element(By.ID, "tokens").send_keys(Keys.ARROW_LEFT)
        assert browser.find_element(By.ID, "token-says").text != said
        slider = browser.find_element(By.ID, "layer")
        slider.send_keys(Keys.HOME)
        assert browser.find_element(By.ID, "layer-name").text == "3"
        slider.send_keys(Keys.END)
        assert not any(tinted(browser)["tinted"])
        assert "not known" in browser.find_element(By.ID, "from").text
        slider.send_keys(Keys.HOME)
        traces = plotted(browser, "line-plot")
        row = leading_emotions(scores[0][:, 0], 8)[0]
        np.testing.assert_allclose(traces[0]["y"][1:], scores[0][1:, 0, row], atol=0.0051)
        top = browser.find_element(By.CSS_SELECTOR, "#mean-rows td").text
        assert top == EMOTIONS[int(np.nanmean(scores[0][:, 0], axis=0).argmax())]
        Select(browser.find_element(By.ID, "which")).select_by_visible_text("two.txt")
        shown = browser.find_element(By.ID, "tokens").text
        assert shown.startswith("while a for")
        assert "= <script>document.title" in shown
        assert browser.title != "taken"
        assert not browser.find_element(By.ID, "trouble").is_displayed()
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
        assert all(url.startswith(("file:", "data:", "blob:")) for url in requests(browser))
        width = "return document.documentElement.scrollWidth - window.innerWidth"
        assert browser.execute_script(width) <= 0
