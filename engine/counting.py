"""Counts the tokens of texts with a model's `tokenizer.json`, without the model.

The file is from whoever made the model; what the library says of one that it cannot use is one
line here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from manifests.errors import InputError, Problem

BATCH = 1024
"""Texts encoded at once: an encoding takes some 100 bytes a token, too much for a whole corpus."""


class TokenCounter:
    """A model's tokenizer, for counting."""

    def __init__(self, file: Path, whole: bool = False):
        """Read a tokenizer.

        Args:
            file: the `tokenizer.json`.
            whole: count all tokens of a text, though the file may say to cut it off or to fill up.

        Raises:
            InputError: it is not a tokenizer.
        """
        from tokenizers import Tokenizer

        self._file = file
        with _told(file):
            self._tokenizer = Tokenizer.from_file(str(file))
        if whole:
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text has.

        Raises:
            InputError: the tokenizer fails on a text.
        """
        counts: list[int] = []
        with _told(self._file):
            for start in range(0, len(texts), BATCH):
                encoded = self._tokenizer.encode_batch(list(texts[start : start + BATCH]))
                counts += [len(one.ids) for one in encoded]
        return counts


@contextmanager
def _told(file: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the library raises nothing more special
        line = next(iter(str(error).splitlines()), "") or type(error).__name__
        what = f"no tokenizer that can be used ({line}); bring the model's own file back"
        raise InputError(Problem(file, None, "", what)) from None
