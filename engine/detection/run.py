"""`emovec read` from its options to its last word: what is refused, loaded, read and written."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from engine.child import Child, ChildFailed
from engine.detection.output import About, Writer, table_file, text_writer
from engine.detection.reading import Piece, read_texts
from engine.detection.source import (
    Source,
    choose_layers,
    find_cell,
    found_of_held_out,
    open_source,
    refused,
    require_same_model,
)
from engine.detection.texts import GivenTexts
from engine.detection.weights import Weights, make_weights
from engine.models import ModelUnavailable, cache_folder, fetch_model, remote_code_of
from engine.reading.windows import spans_of
from manifests.errors import InputError, Problem, shorten
from manifests.weights import weights_refusal

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
        trust_remote_code: run code that comes with the model.
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
    trust_remote_code: bool

    @property
    def wants_page(self) -> bool:
        """Whether a page is to be written."""
        return self.target is not None and self.target.suffix == PAGE


@dataclass
class Counts:
    """What was read.

    Attributes:
        texts: read to their end.
        tokens: of them.
        unscored: texts without a token in the window.
    """

    texts: int = 0
    tokens: int = 0
    unscored: int = 0
    _scored: int = 0

    def add(self, piece: Piece) -> None:
        """Count a piece."""
        self.tokens += len(piece.token)
        self._scored += int(piece.inside.sum())
        if piece.last:
            self.texts += 1
            self.unscored += not self._scored
            self._scored = 0


def read_emotions(request: Request) -> None:
    """Read texts with the emotion vectors of a cell and write their scores.

    Raises:
        InputError: something that is asked for is not there, or a file is no text.
        ModelUnavailable: the model cannot be had, or does not fit the memory.
    """
    _require_sense(request)
    texts = GivenTexts(request.files, request.by_line)
    layout = find_cell(request.root, request.run, request.cell)
    source = open_source(layout, request.cell, request.window, request.model)
    if source.asks_for_code and not request.trust_remote_code:
        what = "its model runs code of its own; allow that with --trust-remote-code"
        raise refused(request.cell, what)
    layers, best, why = choose_layers(source, request.layers, several=request.wants_page)
    if len(layers) > 1 and request.target is None and request.form == "terminal":
        what = "several layers are for --csv, --json or --to FILE; the screen shows one"
        raise _refuse("--layers", what)
    words = Console(stderr=True, highlight=False, markup=False, emoji=False)
    with words.status("loading the model"):
        weights = make_weights(source, layers, request.emotions)
        model, tokenizer = _load(source, weights, request, words)
    detection = {layer: found_of_held_out(source, layer) for layer in layers}
    with _told_of_model(source):
        spread_LW = _spread(source, model, tokenizer, layers, words)
    about = About(
        request.cell, layers, best, why, request.window, weights.emotions, detection, spread_LW
    )
    started, counts = time.monotonic(), Counts()
    with (
        _told_of_model(source),
        _writer(request, about) as writer,
        _status(request, words) as update,
    ):
        for piece in _pieces(texts, source, model, tokenizer, about, words):
            writer.take(piece)
            counts.add(piece)
            rate = counts.tokens / (time.monotonic() - started)
            update(f"{counts.texts:,} texts, {rate:,.0f} tokens/s")
    _close(words, request, about, counts, time.monotonic() - started)


@contextmanager
def _told_of_model(source: Source) -> Iterator[None]:
    """Turn what a model cannot do with a text into one line."""
    from engine.reading.pooling import NotFinite
    from engine.reading.reader import TooLarge

    name = source.model.name
    try:
        yield
    except TooLarge as error:
        raise ModelUnavailable(f"{name}: {error}") from None
    except NotFinite as error:
        what = f"a score at layer {error.layer} is not finite; extract with another dtype"
        raise ModelUnavailable(f"{name}: {what}") from None


def _refuse(option: str, what: str) -> InputError:
    return InputError(Problem(Path(option), None, "", what))


def _require_sense(request: Request) -> None:
    """Refuse options that do not go together, and files that cannot be written."""
    if request.emotions is not None and not request.emotions:
        raise _refuse("--emotions", "names none")
    target = request.target
    if target is None:
        if request.by_text and request.form == "terminal":
            raise _refuse("--per-text", "needs --csv, --json or --to FILE")
        return
    if target.suffix not in (*TABLES, PAGE):
        known = ", ".join((*TABLES, PAGE))
        raise _refuse("--to", f"{shorten(str(target))} ends in none of {known}")
    if not target.parent.is_dir():
        raise _refuse("--to", f"there is no folder {target.parent}")
    if target.is_dir():
        raise _refuse("--to", f"{target} is a folder")
    if target.exists() and any(file.exists() and file.samefile(target) for file in request.files):
        raise _refuse("--to", f"{target} is what is to be read")
    if request.form != "terminal":
        raise _refuse("--to", f"its ending decides the form; leave --{request.form} out")
    if request.by_text and request.wants_page:
        raise _refuse("--per-text", "a page shows tokens; give a table's name to --to")


def _load(source: Source, weights: Weights, request: Request, words: Console) -> tuple[Any, Any]:
    """Load model and tokenizer, unpacking or downloading the model first where needed."""
    known, name = source.model, source.model.name
    if known.path is not None:  # before random weights are made from it
        _notify(words, require_same_model(source, Path(known.path)))
    folder = fetch_model(known, _run_child)
    if known.path is None:
        _notify(words, require_same_model(source, folder))
    if request.trust_remote_code:
        origin = known.hf or known.path or known.builtin
        words.print(remote_code_of(name, origin), markup=False, soft_wrap=True)
    if (why := weights_refusal(folder)) is not None:
        raise ModelUnavailable(f"{name}: {why}")
    from transformers import AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    from engine.detection.model import TokenModel

    disable_progress_bar()
    (span,) = spans_of([source.window])
    trust, dtype = request.trust_remote_code, source.extraction["dtype"]
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)
        model = TokenModel(str(folder), dtype, trust, weights, span.rms)
    except Exception as error:  # the library raises whatever its loaders raise
        first = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ModelUnavailable(f"{name} cannot be loaded: {first}") from None
    if not tokenizer.is_fast:
        what = "its tokenizer does not say where tokens stand in a text"
        raise ModelUnavailable(f"{name}: {what}")
    return model, tokenizer


def _notify(words: Console, what: str | None) -> None:
    if what is not None:
        words.print(f"note: {what}", markup=False, soft_wrap=True)


def _spread(
    source: Source, model: Any, tokenizer: Any, layers: Sequence[int], words: Console
) -> Any:
    """Return how far tokens vary at each layer; say so where that is not known."""
    from engine.detection.spread import measured_spread

    (span,) = spans_of([source.window])
    score = partial(model.scores, on_event=lambda event: _notify(words, event["note"]))
    spread_LW, why = measured_spread(source, tokenizer, score, span, len(layers))
    if why:
        _notify(words, f"how far tokens vary is not known, so none is coloured: {why}")
    return spread_LW


def _pieces(
    texts: GivenTexts, source: Source, model: Any, tokenizer: Any, about: About, words: Console
) -> Iterator[Piece]:
    (span,) = spans_of([source.window])
    return read_texts(
        texts,
        tokenizer,
        lambda sequences: model.scores(sequences, lambda event: _notify(words, event["note"])),
        span,
        source.extraction["max_tokens"],
        model.block_tokens,
        len(about.layers) * len(about.emotions),
    )


@contextmanager
def _status(request: Request, words: Console) -> Iterator[Callable[[str], None]]:
    """Give what shows how far it is; nothing where texts go to the same screen."""
    if request.target is None and sys.stdout.isatty():
        yield lambda what: None
        return
    with words.status("reading") as status:
        yield status.update


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

        plain = Console(highlight=False, markup=False, emoji=False)
        writer = TerminalWriter(plain, about)
    else:
        writer = text_writer(sys.stdout, request.form, about, request.by_text)
    yield writer
    writer.end()


def _close(words: Console, request: Request, about: About, counts: Counts, seconds: float) -> None:
    """Say what the scores are, where they are, and how long it took; not into the data."""

    def say(what: str) -> None:
        words.print(what, markup=False, soft_wrap=True)

    said = about.detection[about.best]
    known = f"; {said}" if said else ""
    say(f"\nlayer {about.best} ({about.why}), window {about.window}{known}")
    rate = counts.tokens / seconds if seconds else 0
    texts = "1 text" if counts.texts == 1 else f"{counts.texts:,} texts"
    say(f"{texts}, {counts.tokens:,} tokens, {rate:,.0f} tokens/s")
    if counts.unscored:
        say(f"{counts.unscored:,} of them have no token in the window, and no scores")
    if request.target is not None:
        say(str(request.target))


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
