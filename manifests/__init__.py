"""What to run: the manifest schema and the lists, prompts and ratings that manifests name."""

from manifests.errors import InputError, Problem
from manifests.resolve import Cell, Pair, Study, Writing, load_study
from manifests.schema import Manifest

__all__ = ["Cell", "InputError", "Manifest", "Pair", "Problem", "Study", "Writing", "load_study"]
