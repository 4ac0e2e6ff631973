"""What a plan says that a manifest will cost, held to what it costs."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import yaml

from engine.costs import disk_needs, memory, plan_costs
from engine.costs.architecture import architecture, read_architecture
from engine.costs.disk import Disk, disk_refusals
from engine.costs.elapsed import Elapsed, elapsed
from engine.costs.host import ANALYST, DRAW_SECONDS, LAYER_SECONDS, host_needs
from engine.costs.machines import GPUS, Gpu, Shares, gpu_hours, gpu_of
from engine.costs.memory import (
    PROGRAM,
    SEQUENCES,
    SHARDS_HELD,
    WORKSPACE,
    Need,
    Room,
    memory_refusals,
    need,
    room_of,
)
from engine.costs.rates import Rates, measured_rates
from engine.costs.show import SPEEDS
from engine.costs.workload import WORDS_A_TEXT, Work
from engine.device import cpu_count
from engine.generation.demand import Demand
from engine.job import Job, open_job
from engine.summary import human_bytes
from manifests import load_study
from manifests.profile import Slurm, read_profile
from manifests.resolve import Study
from store.corpus import seal_corpus
from store.journal import Journal, read_journal
from store.journal_shapes import odd_reply
from store.layout import Layout
from store.places import Far
from tests.hub import hub
from tests.test_demand import Scribe, writing
from tests.test_run import EMOVEC, ROOT, emovec
from tests.tiny import write_corpus_files, write_description, write_manifest

LLAMA_70B = {
    "model_type": "llama",
    "num_hidden_layers": 80,
    "hidden_size": 8192,
    "vocab_size": 128256,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "intermediate_size": 28672,
    "tie_word_embeddings": False,
}


def test_a_large_model_takes_the_gpus_that_it_takes() -> None:
    """Llama 3.1 70B: 70.6 billion parameters, 141 GB in bfloat16, 320 KiB of cache a token."""
    size = architecture(LLAMA_70B)
    assert size.parameters == pytest.approx(70.55e9, rel=0.002)
    assert size.cache_bytes(1, "bfloat16") == 320 * 1024
    writes = need("big", size, True, "bfloat16", 4096)
    assert writes.cache == SEQUENCES * 4096 * 320 * 1024
    assert {name: writes.gpus(gpu, 0.9) for name, gpu in GPUS.items()} == {
        "A100-40GB": 8,
        "A100-80GB": 4,
        "H100": 4,
        "H200": 2,
    }
    reads = need("big", size, False, "float32", 512)
    assert reads.weights == 2 * writes.weights
    assert reads.gpus(GPUS["A100-40GB"], 0.9) == 8
    assert reads.gpus(GPUS["A100-40GB"], 0.85) is None
    assert reads.gpus(GPUS["H200"], 0.9) == 4
    tight = (writes.weights + writes.cache) / 2 + WORKSPACE
    assert writes.gpus(GPUS["H200"], tight / GPUS["H200"].memory + 1e-9) == 2
    assert writes.gpus(GPUS["H200"], tight / GPUS["H200"].memory - 1e-9) == 4


def test_hours_are_operations_over_speed() -> None:
    assert gpu_hours(312e12 * 3600, GPUS["A100-80GB"], "bfloat16", 1.0) == pytest.approx(1)
    assert gpu_hours(312e12 * 3600, GPUS["A100-80GB"], "bfloat16", 0.4) == pytest.approx(2.5)
    assert gpu_hours(19.5e12 * 3600, GPUS["A100-40GB"], "float32", 1.0) == pytest.approx(1)


def test_what_a_plan_takes_of_this_machine(tiny_model: Path, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, tiny_model)
    job = open_job(load_study(manifest), tmp_path / "runs")
    host = plan_costs([job]).host
    texts = 4 * 6 + 6
    vectors = texts * 3 * 4 * 128 * 4  # three windows, four layers
    assert host.disk == vectors, "the texts of a corpus that is not imported yet are counted"
    assert host.whole
    assert host.free
    assert host.free > 0
    assert host.downloads == 0
    each = LAYER_SECONDS + 100 * DRAW_SECONDS
    assert host.core_hours == pytest.approx(12 * each / 3600)
    shards = SHARDS_HELD * 1024 * 3 * 4 * 128 * 4
    weights = read_architecture(tiny_model / "config.json").weight_bytes("float32")
    assert host.memory == max(PROGRAM + shards + weights, PROGRAM + cpu_count() * ANALYST)
    seal_corpus(job.layout.stories("own"), job.plan.import_texts("own", job.layout, sealed=False))
    assert plan_costs([open_job(job.study, tmp_path / "runs")]).host.disk == vectors
    far = Job(job.study, Layout(tmp_path, "study", Far("s3://bucket/folder")), job.plan, {})
    assert host_needs([far], [], disk_needs([far], "run")).free is None


def test_a_cell_takes_the_core_seconds_that_were_measured() -> None:
    """304 s on two processes for 96 windows and layers with 1,000 draws (2026-11-26)."""
    assert pytest.approx(2 * 304, rel=0.01) == 96 * (LAYER_SECONDS + 1000 * DRAW_SECONDS)


def test_a_plan_is_within_ten_per_cent_of_what_reading_takes(
    tiny_model: Path, tmp_path: Path
) -> None:
    write_corpus_files(tmp_path, per_emotion=20)
    manifest = write_manifest(tmp_path, tiny_model)
    root = tmp_path / "runs"
    before = json.loads(emovec("plan", manifest, "--root", root, "--json").stdout)
    (work,) = before["work"]
    assert work["source"] == "measured"
    printed = emovec("plan", manifest, "--root", root).stdout
    assert "extract:tiny@own" in printed
    assert "A100" in printed
    emovec("extract", manifest, "--root", root)
    after = json.loads(emovec("plan", manifest, "--root", root, "--json").stdout)
    (done,) = after["work"]
    record = json.loads((root / "study/records/extract/tiny@own.json").read_bytes())["figures"]
    assert done["source"] == "done"
    assert done["tokens"] == record["tokens"]
    assert work["requests"] == record["texts"]
    assert work["tokens"] == pytest.approx(record["tokens"], rel=0.1)
    assert work["flops"] == pytest.approx(done["flops"], rel=0.1)
    size = {row["stage"]: row["bytes"] for row in before["stages"]}["extract:tiny@own"]
    assert size == pytest.approx(record["bytes"], rel=0.1)
    assert before["host"]["disk"] == size


def test_writing_is_expected_first_and_measured_then(tmp_path: Path) -> None:
    own = writing(tmp_path, ", expected_kept: 0.5")
    study = load_study(tmp_path / "m.yaml")
    job = open_job(study, tmp_path / "runs")
    plan, layout = job.plan, job.layout

    def work() -> Any:
        job.look()
        return next(w for w in plan_costs([job]).works if w.writes)

    expected = work()
    assert (expected.source, expected.kept, expected.kept_from) == (
        "expected",
        0.5,
        "expected_kept",
    )
    assert expected.requests == (4 * 2 + 2) / 0.5
    texts = (4 * 2 * 3 + 2) / 0.5
    assert expected.output_tokens == pytest.approx(texts * WORDS_A_TEXT * 1.35)
    scribe = Scribe(tmp_path / "journal.jsonl", Demand("own", own))
    waiting = scribe.demand.replay([])
    for request in waiting[:8]:  # each is refused once
        waiting += scribe.answer(request, None)
    for request in waiting[10:]:
        scribe.keep(request)
    with Journal(layout.journal("own"), plan.journal_key("own")) as journal:
        for row in read_journal(scribe.file, odd_reply):
            journal.append({**row, "prompt_tokens": 50, "output_tokens": 100})
    replies, kept = 8 + 8, 8 * 3
    assert work().source == "expected", "16 replies are too few to go by"
    for request in waiting[8:10]:
        for _ in range(2):
            scribe.answer(request, None)
    with Journal(layout.journal("own"), plan.journal_key("own")) as journal:
        for row in list(read_journal(scribe.file, odd_reply))[replies:]:
            journal.append({**row, "prompt_tokens": 50, "output_tokens": 100})
    replies += 4
    measured = work()
    share = (4 * 2 * 3 + 2) / kept
    assert (measured.source, measured.kept_from) == ("measured", "own")
    assert measured.kept == 8 / replies
    assert measured.requests == round(replies * share)
    assert measured.output_tokens == pytest.approx(100 * replies * share)
    assert measured.tokens == pytest.approx(150 * replies * share)
    size = architecture(
        {**LLAMA_70B, "num_hidden_layers": 30, "hidden_size": 576, "num_attention_heads": 9}
        | {"num_key_value_heads": 3, "intermediate_size": 1536, "vocab_size": 49152}
        | {"tie_word_embeddings": True}
    )
    length = measured.tokens / measured.requests
    given, written = 50 * replies * share, 100 * replies * share
    flops = size.read_flops(given, length) + size.write_flops(written, length)
    assert measured.flops == pytest.approx(flops)


def test_a_model_that_cannot_fit_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "big"
    folder.mkdir()
    config = {**LLAMA_70B, "num_hidden_layers": 8000, "max_position_embeddings": 8192}
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("model.safetensors", "tokenizer.json"):
        (folder / name).write_text("{}")
    manifest = write_manifest(tmp_path, folder, models={"big": {"path": str(folder)}})
    refused = emovec("run", manifest, "--root", tmp_path / "runs", check=2)
    (line,) = refused.stderr.splitlines()
    assert "models.big: its weights in float32 take" in line
    assert "and no GPU" in line
    assert not (tmp_path / "runs").exists()


def test_a_profile_whose_jobs_are_smaller_than_a_model_gives_it_larger_ones(
    tmp_path: Path,
) -> None:
    """The two models of 70B take four GPUs, the others one: one profile serves both."""
    profile, _ = read_profile("slurm-a100")
    assert profile.slurm is not None
    one, four = room_of(profile, 1), room_of(profile, 4)
    assert (one.n_gpus, one.memory) == (1, 120e9)
    assert (four.n_gpus, four.memory) == (4, 480e9)
    assert one.gpu_bytes == four.gpu_bytes == 80 * 2**30
    large = architecture(LLAMA_70B)
    entry = {"hf": "house/big", "tensor_parallel_size": 4}
    study = load_study(write_manifest(tmp_path, tmp_path, models={"big": entry}))
    reads = need("big", large, False, "bfloat16", 512)
    assert not list(memory_refusals(study, [reads], partial(room_of, profile)))
    (problem,) = memory_refusals(study, [reads], lambda gpus: one)
    assert "it is to be shared by 4 GPUs, a worker of the profile has 1" in str(problem)


def test_a_model_is_never_told_to_be_divided_where_its_heads_cannot_be(tmp_path: Path) -> None:
    """phi-4 has 40 heads and 10 of keys and values: two GPUs and no more."""
    config = {**LLAMA_70B, "num_attention_heads": 40, "num_key_value_heads": 10, "head_dim": 128}
    size = architecture(config)
    assert [n for n in range(1, 9) if size.splits_over(n)] == [1, 2, 5]
    wants = need("big", size, False, "bfloat16", 512)
    assert wants.gpus(Gpu(80 * 2**30, {}), 0.9) == 2
    assert wants.gpus(Gpu(40 * 2**30, {}), 0.9) is None
    entry = {"hf": "house/big", "tensor_parallel_size": 4}
    study = load_study(write_manifest(tmp_path, tmp_path, models={"big": entry}))
    (problem,) = memory_refusals(study, [wants], lambda gpus: Room("a node", None, 8, 80 * 2**30))
    assert "its attention heads cannot be divided among 4 GPUs, but among 1, 2" in str(problem)


def refused(study: Study, *needs: Need, room: Room | None = None) -> str:
    found = memory_refusals(study, needs, lambda gpus: room or room_of(None, gpus))
    return "\n".join(str(problem) for problem in found)


def test_memory_is_held_to_all_that_is_in_it_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = load_study(write_manifest(tmp_path, tmp_path, models={"big": {"hf": "house/big"}}))
    size = architecture(LLAMA_70B)
    half = need("big", size, False, "bfloat16", 512, windows=3, layers=81)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=25.3e9))
    told = refused(study, half)
    texts = max(64, 256_000_000 // (3 * 81 * 8192 * 4))
    beside = PROGRAM + SHARDS_HELD * texts * 3 * 81 * 8192 * 4
    assert half.host(on_gpus=False) == half.weights + beside
    assert (
        f"take 141.1 GB, with the program and story vectors {(half.weights + beside) / 1e9:.1f} GB"
    ) in told
    assert "this machine has 25.3 GB of memory and no GPU" in told
    assert told.endswith("it would fit on 4 x A100-40GB or 2 x A100-80GB or 2 x H100 or 2 x H200")
    for total, fits in ((half.host(on_gpus=False), True), (half.host(on_gpus=False) - 1, False)):
        room = Room("a machine", total, 0, None)
        assert (refused(study, half, room=room) == "") == fits
    room = Room("a machine", half.host(on_gpus=False) - 1, 0, None)
    assert "one window in `extraction.windows` would take" in refused(study, half, room=room)
    whole = need("big", size, False, "float32", 512, windows=3, layers=81)
    told = refused(study, whole, room=Room("a machine", half.host(on_gpus=False), 0, None))
    fitting = f"{half.host(on_gpus=False) / 1e9:,.1f} GB: fits"
    assert told.endswith(f"; `models.big.reading_dtype: bfloat16` would take {fitting}")
    vectors = refused(study, whole, room=Room("a node", beside - 1, 8, 80 * 2**30))
    assert "take 143.3 GB on each of 1 GPUs" not in vectors
    assert "on each of 1 GPUs" in vectors, "what does not fit onto the GPUs comes first"
    writes = need("big", size, True, "float32", 4096)
    told = refused(study, writes, room=Room("a machine", 200e9, 0, None))
    assert "with a cache, the program" in told
    assert "`models.big.dtype: bfloat16` would take" in told


def test_gpus_that_are_too_small_are_refused_with_what_would_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "nvidia-smi"
    script.write_text("#!/bin/sh\nprintf '81920\\n81920\\n'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(memory, "has_gpu", lambda: True)
    write_corpus_files(tmp_path)

    def study(n: int) -> Any:
        models = {"big": {"hf": "house/big", "tensor_parallel_size": n}}
        return load_study(write_manifest(tmp_path, tmp_path, models=models))

    size = architecture(LLAMA_70B)
    reads = need("big", size, False, "bfloat16", 512)
    told = refused(study(1), reads)
    assert "take 143.3 GB on each of 1 GPUs" in told
    assert told.endswith("90% of their 85.9 GB may be taken; tensor_parallel_size: 2 would fit")
    assert refused(study(2), reads) == ""
    assert "shared by 4 GPUs, this machine has 2" in refused(study(4), reads)
    whole = need("big", size, False, "float32", 512)
    told = refused(study(2), whole)
    assert told.endswith("; `models.big.reading_dtype: bfloat16` would take 72.7 GB: fits")
    told = refused(study(1), whole)
    assert told.endswith(
        "; `models.big.reading_dtype: bfloat16` with tensor_parallel_size: 2 would fit, "
        "tensor_parallel_size: 4 would fit"
    )
    profile, _ = read_profile("slurm-a100")
    assert profile.slurm is not None
    node = room_of(profile.model_copy(update={"slurm": profile.slurm.model_copy(
        update={"gpus": 8, "gpu": "A100-40GB", "workers_per_job": 2, "memory": "512GB"}
    )}))  # fmt: skip
    assert node == Room("a worker of the profile", 256e9, 4, 40 * 2**30)
    assert "on each of 2 GPUs, 90% of their 42.9 GB" in refused(study(2), reads, room=node)
    assert refused(study(4), reads, room=node) == ""
    monkeypatch.setattr(memory, "gpu_memory", lambda: [16 * 2**30] * 2)
    assert "not even 8 such GPUs hold it" in refused(study(2), whole)
    packed = architecture({**LLAMA_70B, "quantization_config": {"quant_method": "mxfp4"}})
    assert refused(study(1), need("big", packed, False, "bfloat16", 512)) == ""
    monkeypatch.setattr(memory, "gpu_memory", list)  # nvidia-smi does not tell: vLLM will
    assert refused(study(1), reads) == ""


def test_models_without_a_config_here_are_named_with_the_next_step(
    tiny_model: Path, tmp_path: Path
) -> None:
    models = {"far": {"hf": "nobody/nothing"}, "near": {"path": str(tiny_model)}}
    manifest = write_manifest(tmp_path, tmp_path, models=models)
    printed = emovec("plan", manifest, "--root", tmp_path / "runs").stdout
    assert "so that their models' cost is not known: far\n" in printed
    assert f"to bring them here: emovec fetch --plan-only {manifest}\n" in printed
    (row,) = [line for line in printed.splitlines() if line.startswith("together")]
    assert row.count("at least") == len(SPEEDS)
    assert "what is known of it fits: this machine has" in printed


LLAMA_8B = {
    **LLAMA_70B,
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "intermediate_size": 14336,
    "dtype": "bfloat16",
}


def test_many_models_are_costed_by_model(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = Path(__file__).parents[1] / "manifests" / "many-models.yaml"
    models = load_study(manifest).manifest.models
    for entry in models.values():
        write_description(tmp_path / "hub", str(entry.hf), LLAMA_8B, tiny_model)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    refusal = emovec("plan", manifest, "--root", tmp_path, check=2)
    lines = refusal.stdout.splitlines()
    assert [line.split()[:4] for line in lines[1:4]] == [
        ["generate", "to", "do", "0/4"],
        ["describe", "to", "do", "0/1"],
        ["extract", "to", "do", "0/200"],
    ]
    assert "412 stages, by kind; --all lists each" in lines
    assert not any(line.startswith("extract:") for line in lines)
    size = architecture(LLAMA_8B)
    texts = 171 * 9 * 3 + 40
    reads = size.read_flops(4 * texts * 150 * 1.35, 150 * 1.35)
    (row,) = [line.split() for line in lines if line.startswith("smollm2-135M reads 4 corpora")]
    assert row[4:7] == ["18.6k", "3.77M", f"{reads / 1e15:.3g}"]
    assert float(row[7]) == pytest.approx(reads / (312e12 * 0.4) / 60, rel=0.01)
    (row,) = [line.split() for line in lines if line.startswith("qwen3-8B writes 1 corpus")]
    assert row[-3:] == ["expected,", "70%", "kept"]
    (total,) = [line.split() for line in lines if line.startswith("together")]
    assert total[2] == "h"
    assert float(total[1]) > len(models) * reads / (312e12 * 0.4) / 3600
    disk = len(models) * 4 * texts * 3 * 33 * 4096 * 4 + 4 * texts * 1500
    (host,) = [line for line in lines if line.startswith("this machine: ")]
    assert host.startswith(f"this machine: about {disk / 1e9:,.2f} GB to write")
    downloads = len(models) * size.parameters * 2
    assert f"{human_bytes(downloads)} of weights to download" in host
    told = refusal.stderr.splitlines()
    assert sum("shared by 4 GPUs, this machine has none" in line for line in told) == 2
    answer = json.loads(emovec("plan", manifest, "--root", tmp_path, "--json", check=2).stdout)
    assert (len(answer["work"]), len(answer["models"]), answer["unknown"]) == (204, 54, [])
    on_jobs = emovec("plan", manifest, "--root", tmp_path, "--profile", "slurm-a100", check=2)
    assert "shared by" not in on_jobs.stderr
    said = "is spread over 4 GPUs: jobs of 4 GPUs, 64 cores and 480GB, 2 at once"
    assert on_jobs.stdout.count(said) == 2
    (lasting,) = [line for line in on_jobs.stdout.splitlines() if line.startswith("on 8 jobs")]
    assert re.match(r"on 8 jobs of a GPU \(A100-80GB\): about [0-9.]+ min of writing", lasting)
    assert "of reading; the queue and the loading of models come on top" in lasting
    free = re.compile(r"[0-9.,]+ GB are free")  # others may write to the disk meanwhile
    assert free.sub("", answer["refused"]).splitlines() == [free.sub("", line) for line in told]
    every = emovec("plan", manifest, "--root", tmp_path, "--all", check=2).stdout
    assert every.count("\nextract:") == 200


def test_work_on_jobs_lasts_as_long_as_its_longest_part_at_least() -> None:
    """A corpus is one worker's; shards are everybody's; larger jobs come after the others."""
    slurm = Slurm(jobs=4, gpus=1, gpu="A100-80GB")
    hour = 3600 * 312e12 / 2  # operations of a GPU at half of its peak

    def work(stage: str, model: str, hours: float | None) -> Work:
        flops = None if hours is None else hours * hour
        writes = stage.startswith("generate")
        return Work(stage, model, "bfloat16", writes, 1, 1.0, None, flops, "expected")

    works = [
        work("generate:a", "small", 100.0),
        work("generate:b", "small", 20.0),
        work("extract:small@a", "small", 40.0),
        work("extract:large@a", "large", 16.0),
        work("extract:other@a", "small", None),
        dataclasses.replace(work("extract:small@b", "small", 99.0), source="done"),
    ]
    found = list(elapsed(works, {"small": 1, "large": 4}, slurm, Shares(0.5, 0.5)))
    assert found == [
        Elapsed("writing", pytest.approx(100), pytest.approx(100), True),
        Elapsed("reading", pytest.approx(40 / 4 + 16 / 4), 0.0, False),
    ]
    even = [work(f"generate:{n}", "small", 20.0) for n in range(8)]
    (writing,) = elapsed(even, {"small": 1}, slurm, Shares(0.5, 0.5))
    assert (writing.hours, writing.alone) == (pytest.approx(40), pytest.approx(20))
    two = slurm.model_copy(update={"gpus": 2})
    (writing,) = elapsed(works[:2], {"small": 1}, two, Shares(0.5, 0.5))
    assert writing.hours == pytest.approx(50)  # a copy of the model on each of its GPUs


def test_what_another_journal_of_the_model_kept_is_expected(tmp_path: Path) -> None:
    writing(tmp_path)
    data = yaml.safe_load((tmp_path / "m.yaml").read_text())
    corpora = data["corpora"]
    corpora["next"] = {"generate": {**corpora["own"]["generate"], "temperature": 1.0}}
    (tmp_path / "m.yaml").write_text(json.dumps(data))
    job = open_job(load_study(tmp_path / "m.yaml"), tmp_path / "runs")
    key, file = job.plan.journal_key("own"), job.layout.journal("own")
    with Journal(file, key) as journal:
        for n in range(40):
            kept = {"outcome": "kept", "stories": ["a story"]}
            row = {"outcome": "refused", "stories": []} if n % 4 else kept
            said = {"reply": "r", "finish_reason": "stop", "prompt_tokens": 5, "output_tokens": 7}
            asked = {"request": "happy/000", "attempt": n, "reason": "", "checks": "c"}
            journal.append({**asked, **row, **said})
    (work,) = [w for w in plan_costs([job]).works if w.stage == "generate:next"]
    assert (work.source, work.kept, work.kept_from) == ("expected", 0.25, "own")
    assert work.requests == 10 / 0.25
    assert work.output_tokens == pytest.approx((4 * 2 * 3 + 2) / 0.25 * WORDS_A_TEXT * 1.35)


def test_several_manifests_share_corpora_and_loads(tmp_path: Path) -> None:
    writing(tmp_path)
    data = yaml.safe_load((tmp_path / "m.yaml").read_text())
    other = tmp_path / "other.yaml"
    changed = {**data, "name": "other", "extraction": {"windows": ["all"]}}
    other.write_text(yaml.safe_dump(changed))
    root = tmp_path / "runs"
    answer = json.loads(emovec("plan", tmp_path / "m.yaml", other, "--root", root, "--json").stdout)
    assert [work["stage"] for work in answer["work"]] == [
        *("s/generate:own", "s/extract:w@own", "other/extract:w@own")
    ]
    assert answer["shared"] == {"other/generate:own": "s"}
    assert [(need["model"], need["writes"]) for need in answer["models"]] == [
        *(("s/w", True), ("s/w", False))
    ]
    assert {row["run"] for row in answer["stages"]} == {"s", "other"}
    printed = emovec("plan", tmp_path / "m.yaml", other, "--root", root).stdout
    assert "other/generate:own is taken over from s, and not counted again" in printed
    assert (
        "is also the name of"
        in emovec("plan", tmp_path / "m.yaml", tmp_path / "m.yaml", "--root", root, check=2).stderr
    )


def test_hours_follow_the_utilisation_that_is_given(tiny_model: Path, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, tiny_model)

    def hours(*options: str) -> float:
        answer = json.loads(
            emovec("plan", manifest, "--root", tmp_path / "runs", "--json", *options).stdout
        )
        return float(answer["work"][0]["gpu_hours"]["H100"])

    assert hours("--utilisation", "0.2,0.1") == pytest.approx(2 * hours())
    for given in ("0.2", "0,0.1", "0.2,1.5", "a,b", "nan,0.1"):
        told = emovec("plan", manifest, "--utilisation", given, check=2).stderr
        assert f"--utilisation: {given!r} is not two shares above 0" in told
        assert len(told.splitlines()) == 1


def test_utilisation_is_measured_on_gpus_that_are_known() -> None:
    reads = Work("extract:m@c", "m", "bfloat16", False, 10, 1e6, None, 2e18, "done")
    writes = Work("generate:c", "m", "float32", True, 10, 3e6, 1e6, 4e18, "done")
    rates = measured_rates(
        [
            (reads, {"tokens_per_second": 1e4, "gpu": "NVIDIA A100-SXM4-80GB", "gpus": 2}),
            (writes, {"tokens_per_second": 5e3, "gpu": "NVIDIA H100 80GB HBM3", "gpus": 1}),
            (reads, {"tokens_per_second": 1e4, "gpu": "NVIDIA H100 PCIe", "gpus": 1}),
        ]
    )
    assert rates.reading == pytest.approx(2e18 / 100)
    assert rates.writing == pytest.approx(4e18 / 200), "the rate of writing is that of replies"
    assert rates.utilisation == {
        "A100-80GB": (pytest.approx(2e16 / (2 * 312e12)), None),
        "H100": (None, pytest.approx(2e16 / 67e12)),
    }
    assert measured_rates([(reads, {})]) == Rates(None, None, {})
    names = {"NVIDIA A100 80GB PCIe": "A100-80GB", "NVIDIA A100-PCIE-40GB": "A100-40GB"}
    names |= {"NVIDIA H200": "H200", "NVIDIA H200 NVL": None, "Tesla T4": None}
    assert {name: gpu_of(name) for name in names} == names


def test_a_model_is_refused_before_its_weights_are_downloaded(
    tiny_model: Path, tmp_path: Path
) -> None:
    big, root = tmp_path / "big", tmp_path / "runs"
    shutil.copytree(tiny_model, big)
    (big / "config.json").write_text(
        json.dumps({**LLAMA_70B, "num_hidden_layers": 8000, "max_position_embeddings": 8192})
    )
    manifest = write_manifest(tmp_path, tiny_model, models={"big": {"hf": "lab/big"}})
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("HF_HUB_OFFLINE", None)

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*EMOVEC, *map(str, arguments)], env={**environment, "HF_ENDPOINT": endpoint},
            cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 2, done.stdout + done.stderr
        return done

    with hub({"lab/big": big}, set()) as (endpoint, asked):
        refusal = run("run", manifest, "--root", root)
        assert any(path.endswith("/config.json") for path in asked)
        profile = tmp_path / "jobs.yaml"
        profile.write_text(
            "version: 1\nslurm: {gpus: 2, gpu: A100-40GB, memory: 900GB}\n", encoding="utf-8"
        )
        on_jobs = run("run", manifest, "--root", root, "--profile", profile)
        planned = run("plan", manifest, "--root", root, "--profile", profile)
        assert not any(path.endswith(".safetensors") for path in asked)
    memory_line, cache_line = refusal.stderr.splitlines()
    assert "models.big: its weights in float32 take" in memory_line
    weights = architecture(json.loads((big / "config.json").read_text())).parameters * 4
    assert f"weights to download take {weights / 1e9:,.1f} GB (most for lab/big: " in cache_line
    assert cache_line.endswith("set HF_HOME to a folder on a larger disk")
    assert "on each of 1 GPUs, 90% of their 42.9 GB may be taken" in on_jobs.stderr
    assert planned.stderr.splitlines()[0] == on_jobs.stderr.splitlines()[0]
    assert "work to do" in planned.stdout
    assert not root.exists()


def test_story_vectors_and_weights_share_a_disk(tmp_path: Path) -> None:
    def told(**changes: Any) -> list[str]:
        disk = Disk(100, 150, {"lab/a": 30, "lab/b": 10}, 150, True)
        return [str(p) for p in disk_refusals(tmp_path, dataclasses.replace(disk, **changes))]

    assert told() == []
    assert told(free=140, cache_free=140) == []
    (line,) = told(free=139, cache_free=139)
    assert "the residuals need up to 0.0 GB and weights to download 0.0 GB" in line
    assert told(free=139, same=False) == []
    (line,) = told(cache_free=39, same=False)
    assert "(most for lab/a: " in line
    (line,) = told(free=99, downloads={})
    assert line.startswith(f"{tmp_path}: the residuals need")
    assert told(free=None, cache_free=40) == []
