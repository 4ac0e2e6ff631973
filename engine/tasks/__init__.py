"""What Dask workers run: one function for each kind of work, each safe to do twice.

A worker holds at most one child process with one model; a task that needs another model ends it
and starts its own. Progress goes to the client as worker events.
"""

from engine.tasks.analysis import AnalysedCell, analyse_layer, analyse_words, join_cell
from engine.tasks.corpora import (
    FETCHING,
    describe_corpus,
    fetch,
    import_corpus,
    measure_prompts,
    tokenizer_file,
    write_corpora,
    write_corpus_tables,
)
from engine.tasks.reading import cell_figures, read_shard, steer
from engine.tasks.results import (
    draw_figures,
    model_tables,
    open_results,
    write_effects,
    write_page,
    write_tables,
)
from engine.tasks.worker import WorkerUnfit, call, dask_setup, end_child, require_fit, stop_run

__all__ = [
    "FETCHING",
    "AnalysedCell",
    "WorkerUnfit",
    "analyse_layer",
    "analyse_words",
    "call",
    "cell_figures",
    "dask_setup",
    "describe_corpus",
    "draw_figures",
    "end_child",
    "fetch",
    "import_corpus",
    "join_cell",
    "measure_prompts",
    "model_tables",
    "open_results",
    "read_shard",
    "require_fit",
    "steer",
    "stop_run",
    "tokenizer_file",
    "write_corpora",
    "write_corpus_tables",
    "write_effects",
    "write_page",
    "write_tables",
]
