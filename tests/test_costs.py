"""What a plan says that a manifest will cost, held to what it costs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import yaml

from engine.costs import memory, plan_costs
from engine.costs.architecture import architecture
from engine.costs.host import DRAW_SECONDS, LAYER_SECONDS, host_needs
from engine.costs.machines import GPUS, gpu_hours
from engine.costs.memory import SEQUENCES, WORKSPACE, check_memory, need
from engine.costs.workload import WORDS_A_TEXT
from engine.generation.demand import Demand
from engine.plan import Plan
from manifests import load_study
from manifests.errors import InputError
from store.corpus import seal_corpus
from store.journal import Journal, read_journal
from store.layout import Layout
from store.places import Far
from store.shards import SHARD_BYTES
from tests.test_demand import Scribe, writing
from tests.test_run import emovec
from tests.tiny import write_corpus_files, write_manifest

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
    study = load_study(manifest)
    plan, layout = Plan(study), Layout(tmp_path / "runs", "study")
    unknown = plan_costs(plan, layout, plan.inspect(layout).values()).host
    assert (unknown.disk, unknown.whole) == (0, False)
    seal_corpus(layout.stories("own"), plan.import_texts("own", layout, sealed=False))
    statuses = list(plan.inspect(layout).values())
    host = plan_costs(plan, layout, statuses).host
    texts = 4 * 6 + 6
    assert host.disk == texts * 3 * 4 * 128 * 4  # three windows, four layers
    assert host.whole
    assert host.free
    assert host.free > 0
    each = LAYER_SECONDS + 100 * DRAW_SECONDS
    assert host.core_hours == pytest.approx(12 * each / 3600)
    assert host.memory > 2 * SHARD_BYTES
    far = Layout(tmp_path, "study", Far("s3://bucket/folder"))
    assert host_needs(plan, far, [], []).free is None


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
    size = {row["stage"]: row["bytes"] for row in before["stages"]}["extract:tiny@own"] or 0
    if size:  # not known before the corpus is imported
        assert size == pytest.approx(record["bytes"], rel=0.1)


def test_writing_is_expected_first_and_measured_then(tmp_path: Path) -> None:
    own = writing(tmp_path)
    study = load_study(tmp_path / "m.yaml")
    plan, layout = Plan(study), Layout(tmp_path / "runs", "s")

    def work() -> Any:
        statuses = plan.inspect(layout).values()
        return next(w for w in plan_costs(plan, layout, statuses).works if w.writes)

    expected = work()
    assert expected.source == "expected"
    assert expected.requests == 4 * 2 + 2
    assert expected.output_tokens == pytest.approx((4 * 2 * 3 + 2) * WORDS_A_TEXT * 1.35)
    scribe = Scribe(tmp_path / "journal.jsonl", Demand("own", own))
    waiting = scribe.demand.replay([])
    for request in waiting[:8]:  # each is refused once
        waiting += scribe.answer(request, None)
    for request in waiting[10:]:
        scribe.keep(request)
    with Journal(layout.journal("own"), plan.journal_key("own")) as journal:
        for row in read_journal(scribe.file):
            journal.append({**row, "prompt_tokens": 50, "output_tokens": 100})
    replies, kept = 8 + 8, 8 * 3
    assert work().source == "expected", "16 replies are too few to go by"
    for request in waiting[8:10]:
        for _ in range(2):
            scribe.answer(request, None)
    with Journal(layout.journal("own"), plan.journal_key("own")) as journal:
        for row in list(read_journal(scribe.file))[replies:]:
            journal.append({**row, "prompt_tokens": 50, "output_tokens": 100})
    replies += 4
    measured = work()
    share = (4 * 2 * 3 + 2) / kept
    assert measured.source == "measured"
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
    study = load_study(manifest)
    few = need("big", architecture(LLAMA_70B), False, "bfloat16", 512)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=25.3e9))
    with pytest.raises(InputError, match=r"take 141\.1 GB, this machine has 25\.3 GB") as error:
        check_memory(study, [few])
    assert "would fit on 4 x A100-40GB or 2 x A100-80GB or 2 x H100 or 2 x H200" in str(error.value)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=200e9))
    check_memory(study, [few])


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
    with pytest.raises(InputError, match=r"take 143\.3 GB on each of 1 GPUs") as error:
        check_memory(study(1), [reads])
    assert "90% of their 85.9 GB may be taken; tensor_parallel_size: 2 would fit" in str(
        error.value
    )
    check_memory(study(2), [reads])
    with pytest.raises(InputError, match="shared by 4 GPUs, this machine has 2"):
        check_memory(study(4), [reads])
    huge = need("big", size, False, "float32", 512)
    monkeypatch.setattr(memory, "gpu_memory", lambda: [24 * 2**30] * 2)
    with pytest.raises(InputError, match="not even 8 such GPUs hold it"):
        check_memory(study(2), [huge])
    packed = architecture({**LLAMA_70B, "quantization_config": {"quant_method": "mxfp4"}})
    check_memory(study(1), [need("big", packed, False, "bfloat16", 512)])
    monkeypatch.setattr(memory, "gpu_memory", list)  # nvidia-smi does not tell: vLLM will
    check_memory(study(1), [reads])


def test_models_without_a_config_here_are_named(tmp_path: Path) -> None:
    write_corpus_files(tmp_path)
    manifest = write_manifest(tmp_path, tmp_path, models={"far": {"hf": "nobody/nothing"}})
    printed = emovec("plan", manifest, "--root", tmp_path / "runs").stdout
    assert "so that their models' cost is not known: far\n" in printed
    assert yaml.safe_load(manifest.read_text())["models"] == {"far": {"hf": "nobody/nothing"}}


def test_many_models_are_costed_by_model_and_soon(tmp_path: Path) -> None:
    manifest = Path(__file__).parents[1] / "manifests" / "many-models.yaml"
    study = load_study(manifest)
    assert len(study.manifest.models) >= 24
    printed = emovec("plan", manifest, "--root", tmp_path).stdout
    assert "qwen3-8B writes 1 corpus" in printed
    assert "smollm2-135M reads 4 corpora" in printed
    assert "GPU" in printed or "A100" in printed
