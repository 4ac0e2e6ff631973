"""`emovec read` from its options to its last word: what is refused, loaded, read and written."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from engine.child import Child, ChildFailed
from engine.detection.output import About, Writer, table_file, text_writer
from engine.detection.source import (
    Source,
    choose_layers,
    find_cell,
    found_of_held_out,
    make_weights,
    open_source,
)
from engine.detection.texts import given_texts, require_readable
from engine.models import ModelUnavailable, cache_folder, fetch_model
from engine.reading.windows import spans_of
from manifests.errors import InputError, Problem, shorten

TABLES, PAGE = (".csv", ".json", ".parquet"), ".html"


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        cell: `model@corpus`.
        files: to read, `-` for standard input.
        by_line: each line is a text.
        root: folder or object store that holds runs.
        run: the run's name, None to look for it.
        layers: `all` or `3,10-20`, None for the best.
        emotions: to score, None for all.
        window: token window.
        model: the model's folder, None for where it was.
        target: file to write, None for standard output.
        form: `csv`, `json` or `terminal`, for standard output.
        by_text: means of texts only, no tokens.
    """

    cell: str
    files: list[Path]
    by_line: bool
    root: str
    run: str | None
    layers: str | None
    emotions: list[str] | None
    window: str
    model: Path | None
    target: Path | None
    form: str
    by_text: bool


@dataclass
class Counts:
    """What was read."""

    texts: int = 0
    tokens: int = 0
    unscored: int = 0


def read_emotions(request: Request) -> None:
    """Read texts with the emotion vectors of a cell and write their scores.

    Raises:
        InputError: something that is asked for is not there, or a file is no text.
        ModelUnavailable: the model cannot be had.
    """
    _require_sense(request)
    require_readable(request.files)
    layout = find_cell(request.root, request.run, request.cell)
    source = open_source(layout, request.cell, request.window, request.model)
    page = request.target is not None and request.target.suffix == PAGE
    layers, best, why = choose_layers(source, request.layers, several=page)
    console = Console(stderr=True, highlight=False)
    with console.status(f"loading {source.model.name}"):
        weights = make_weights(source, layers, request.emotions)
        model, tokenizer = _load(source, weights)
    about = About(
        request.cell,
        layers,
        best,
        why,
        request.window,
        weights.emotions,
        {layer: found_of_held_out(source, layer) for layer in layers},
    )
    started, counts = time.monotonic(), Counts()
    with _writer(request, about) as writer, console.status("reading") as status:
        for piece in _pieces(request, source, model, tokenizer, about):
            writer.take(piece)
            counts.texts += piece.last
            counts.tokens += len(piece.token)
            seconds = time.monotonic() - started
            status.update(f"{counts.texts:,} texts, {counts.tokens / seconds:,.0f} tokens/s")
    _close(console, request, about, counts, time.monotonic() - started)


def _require_sense(request: Request) -> None:
    """Refuse options that do not go together."""

    def refuse(option: str, what: str) -> InputError:
        return InputError(Problem(Path(option), None, "", what))

    if request.target is not None:
        if request.target.suffix not in (*TABLES, PAGE):
            known = ", ".join((*TABLES, PAGE))
            raise refuse("--to", f"{shorten(str(request.target))} ends in none of {known}")
        if not request.target.parent.is_dir():
            raise refuse("--to", f"there is no folder {request.target.parent}")
        if request.form != "terminal":
            raise refuse("--to", f"its ending decides the form; leave --{request.form} out")
        if request.by_text and request.target.suffix == PAGE:
            raise refuse("--per-text", "a page shows tokens; give a table's name to --to")
    elif request.by_text and request.form == "terminal":
        raise refuse("--per-text", "needs --csv, --json or --to FILE")
    if request.emotions is not None and not request.emotions:
        raise refuse("--emotions", "names none")


def _load(source: Source, weights: Any) -> tuple[Any, Any]:
    """Load model and tokenizer, unpacking or downloading the model first where needed."""
    folder = fetch_model(source.model, _run_child)
    from transformers import AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    from engine.detection.model import TokenModel

    disable_progress_bar()
    (span,) = spans_of([source.window])
    trust = source.trust_remote_code
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)
    if not tokenizer.is_fast:
        what = "its tokenizer does not say where tokens stand in a text"
        raise ModelUnavailable(f"{source.model.name}: {what}")
    extraction = source.extraction
    model = TokenModel(str(folder), extraction["dtype"], trust, weights, span.rms)
    return model, tokenizer


def _pieces(
    request: Request, source: Source, model: Any, tokenizer: Any, about: About
) -> Iterator[Any]:
    from engine.detection.reading import read_texts

    def note(what: str) -> None:
        print(f"note: {what}", file=sys.stderr)

    (span,) = spans_of([source.window])
    return read_texts(
        given_texts(request.files, request.by_line),
        tokenizer,
        lambda sequences: model.scores(sequences, note),
        span,
        source.extraction["max_tokens"],
        model.block_tokens,
        len(about.layers) * len(about.emotions),
    )


@contextmanager
def _writer(request: Request, about: About) -> Iterator[Writer]:
    """Give what takes the scores, and end it where nothing went wrong."""
    if request.target is not None and request.target.suffix in TABLES:
        with table_file(request.target, about, request.by_text) as writer:
            yield writer
        return
    if request.target is not None:
        from engine.detection.page import PageWriter

        writer = PageWriter(request.target, about)
    elif request.form == "terminal":
        from engine.detection.terminal import TerminalWriter

        if len(about.layers) > 1:
            what = "several layers are for --csv, --json or --to FILE; the screen shows one"
            raise InputError(Problem(Path("--layers"), None, "", what))
        writer = TerminalWriter(Console(highlight=False), about)
    else:
        writer = text_writer(sys.stdout, request.form, about, request.by_text)
    yield writer
    writer.end()


def _close(
    console: Console, request: Request, about: About, counts: Counts, seconds: float
) -> None:
    """Say what the scores are, where they are, and how long it took; not into the data."""
    said = about.detection[about.best]
    known = f"; {said}" if said else ""
    shown = f"layer {about.best} ({about.why}), window {about.window}{known}"
    console.print(f"\n{shown}", soft_wrap=True)
    rate = counts.tokens / seconds if seconds else 0
    texts = "1 text" if counts.texts == 1 else f"{counts.texts:,} texts"
    console.print(f"{texts}, {counts.tokens:,} tokens, {rate:,.0f} tokens/s", soft_wrap=True)
    if request.target is not None:
        console.print(f"{request.target}", soft_wrap=True)


def _run_child(task: str, job: dict[str, Any]) -> Any:
    """Run what needs a process of its own, and end that."""
    child = Child(cache_folder() / "logs" / "read.log")
    try:
        return child.call(task, job, lambda event: None)
    except ChildFailed as error:
        message = str(error).removeprefix("ModelUnavailable: ")
        raise ModelUnavailable(f"{message} (log: {child.log})") from None
    finally:
        child.stop()
