"""What the figures and the page of a grid of cells cost, and how soon the page can be used.

    python -m benchmarks.page [--models 2] [--shape deep] [--rounds 5]
    python -m benchmarks.page --manifest MANIFEST --root DIR [--rounds 5]

Random models read our own corpus, and the same with the sentences of each story in another order;
every cell has three windows, two contrasts and two sets of norms. `emovec run` does all of it;
seconds are those of its records. Then headless Chromium opens the page from disk, again and again,
until it says that it can be used. Draws and permutations are the fewest that a manifest takes: how
many there are changes the analysis, not the pictures. With --manifest it is a finished run of one's
own, whose tables, figures and page are made again.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from benchmarks.random_models import SHAPES, builtin_folder, write_random_model
from benchmarks.report import about, heading, write
from manifests import load_study
from store.layout import Layout, layout_of

OURS = Path(__file__).parents[1] / "docs" / "results" / "corpora" / "smollm2-stories"
GLASGOW = Path(__file__).parents[1] / "manifests" / "norms" / "glasgow.csv"
PROGRAMS = ("matplotlib", "plotly", "selenium")
STAGES = ("tables", "figures", "page")


def main() -> None:
    """Measure, print and write a report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=int, default=2)
    parser.add_argument("--shape", choices=list(SHAPES), default="deep")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--manifest", type=Path, help="of a finished run, instead of random models")
    parser.add_argument("--root", type=Path, help="where that run is")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    if (options.manifest is None) != (options.root is None):
        parser.error("--manifest and --root go together")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        manifest, root = options.manifest, options.root
        if manifest is None:
            manifest = _write_study(folder, options.models, options.shape)
            root = folder / "runs"
        layout = layout_of(root, load_study(manifest).manifest.name)
        seconds = _stage_seconds(manifest, layout, options.rounds)
        figures = len(list(layout.figures.glob("*.pdf")))
        pictures = len(list(layout.figures.glob("*.png")))
        ready, chromium = _ready(layout.page, options.rounds)
        size = layout.page.stat().st_size
    if options.manifest is None:
        command = f"python -m benchmarks.page --models {options.models} --shape {options.shape}"
        work = (
            f"{options.models} models of {SHAPES[options.shape]['num_hidden_layers']} layers with "
            "random weights, two corpora of 1,579 texts, 171 emotions, three windows, two "
            "contrasts, two sets of norms"
        )
    else:
        command = f"python -m benchmarks.page --manifest {manifest} --root {root.name}"
        work = (
            f"the run {layout.run.name}, {len(_cells(layout))} cells: {', '.join(_cells(layout))}"
        )
    command += f" --rounds {options.rounds}"
    work += f"; {options.rounds} rounds"
    facts = about(command, work, PROGRAMS) | {"browser": chromium}
    lines = [*heading("page", facts), "", "| what | median | min | max |", "|---|---|---|---|"]
    timed = {
        "tables, s": seconds["tables"],
        f"{figures} figures as PDF, {pictures} pictures as PNG, s": seconds["figures"],
        "page, s": seconds["page"],
        "from opening to ready, s": ready,
    }
    for what, values in timed.items():
        lines.append(
            f"| {what} | {statistics.median(values):.1f} | {min(values):.1f} | {max(values):.1f} |"
        )
    lines += ["", f"The page has {size / 1e6:.1f} MB."]
    data = {"about": facts, "seconds": timed, "page_bytes": size}
    write(options.out, f"{facts['date']}-page", lines, data)


def _write_study(folder: Path, n_models: int, shape: str) -> Path:
    """Write models, corpora, a second set of norms and the manifest that uses them."""
    for number in range(n_models):
        write_random_model(folder / f"model-{number}", shape, builtin_folder(), seed=number)
    shutil.copytree(OURS, folder / "told")
    shutil.copytree(OURS, folder / "shuffled")
    rng = random.Random(0)
    stories = folder / "shuffled" / "stories.jsonl"
    rows = [json.loads(line) for line in stories.read_text().splitlines()]
    for row in rows:
        row["stories"] = [_shuffled(story, rng) for story in row["stories"]]
    stories.write_text("".join(json.dumps(row) + "\n" for row in rows))
    header, *ratings = GLASGOW.read_text().splitlines()
    (folder / "half.csv").write_text("\n".join([header, *ratings[::2]]) + "\n")
    manifest = {
        "version": 1,
        "name": "grid",
        "models": {f"model-{n}": {"path": f"model-{n}"} for n in range(n_models)},
        "corpora": {
            name: {
                "import": {"stories": f"{name}/stories.jsonl", "neutral": f"{name}/neutral.jsonl"}
            }
            for name in ("told", "shuffled")
        },
        "extraction": {"windows": ["all", "no-first", "after-50"], "dtype": "float32"},
        "analysis": {"norms": ["glasgow", "half.csv"], "bootstraps": 100, "permutations": 100},
    }
    file = folder / "grid.yaml"
    file.write_text(yaml.safe_dump(manifest, sort_keys=False))
    return file


def _shuffled(story: str, rng: random.Random) -> str:
    """Return a story with its sentences in another order."""
    sentences = re.split(r"(?<=[.!?])\s+", story)
    rng.shuffle(sentences)
    return " ".join(sentences)


def _cells(layout: Layout) -> list[str]:
    """Return the names of a run's cells."""
    return sorted(folder.name for folder in (layout.run / "cells").iterdir())


def _stage_seconds(manifest: Path, layout: Layout, rounds: int) -> dict[str, list[float]]:
    """Return what each of STAGES took, made anew in each round from the same cells."""
    command = [sys.executable, "-m", "engine.cli", "run", str(manifest), "--root", str(layout.root)]
    records = layout.run / "records"
    found: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for _ in range(rounds):
        for stage in STAGES:
            shutil.rmtree(records / stage, ignore_errors=True)
        subprocess.run(command, check=True)
        for stage in STAGES:
            record = json.loads((records / stage / "all.json").read_text())
            found[stage].append(record["seconds"])
    return found


def _ready(page: Path, rounds: int) -> tuple[list[float], str]:
    """Return the seconds from opening a page to its being ready, and the browser's name."""
    from selenium import webdriver
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1300,950"):
        options.add_argument(argument)
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if lacking := [name for name, path in programs.items() if path is None]:
        raise SystemExit(f"{lacking[0]} is not installed (Debian: chromium and chromium-driver)")
    options.binary_location = programs["chromium"]
    driver = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(programs["chromedriver"])
    )
    found = []
    try:
        for _ in range(rounds):
            driver.get("about:blank")
            started = time.perf_counter()
            driver.get(page.as_uri())
            WebDriverWait(driver, 60, poll_frequency=0.02).until(
                lambda browser: browser.execute_script(
                    "return document.documentElement.dataset.ready === 'yes'"
                )
            )
            found.append(time.perf_counter() - started)
        return found, f"Chromium {driver.capabilities['browserVersion']}, headless"
    finally:
        driver.quit()


if __name__ == "__main__":
    main()
