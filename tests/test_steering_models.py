"""Both ways of changing the residual stream, held to plain Hugging Face and to each other."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from engine.device import child_environment
from engine.reading.families import UnknownFamily, adding_to
from engine.reading.vllm_worker import ResidualPool
from engine.steering.addition import Addition, Directions, of_arguments, request_arguments
from engine.steering.model import SteeredModel
from engine.steering.vllm_worker import SteeredStream
from manifests import families
from tests.families import FAMILIES, VOCABULARY, make_family, n_layers

D_MODEL = 128
QUICK = ("apertus", "gemma4_text", "gpt2")


def quick_and_slow(names: Iterable[str], *quick: str) -> list[Any]:
    """Return every family, those that are not quick marked as slow."""
    return [f if f in quick else pytest.param(f, marks=pytest.mark.slow) for f in names]


def make_directions(folder: Path, layers: int) -> Path:
    rng = torch.Generator().manual_seed(4)
    found = {}
    for name in ("direction.glad", "direction.random-0"):
        rows = torch.randn((layers, D_MODEL), generator=rng)
        found[name] = rows / rows.norm(dim=1, keepdim=True)
    file = folder / "directions.safetensors"
    save_file(found, file)
    return file


def tokens(rng: random.Random, n: int) -> list[int]:
    return [rng.randrange(3, VOCABULARY) for _ in range(n)]


class Plain:
    """Hugging Face alone: no cache, no batch, one forward pass a token."""

    def __init__(self, folder: Path, directions: Path):
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        n = self.model.config.num_hidden_layers
        lists = [m for m in self.model.modules() if isinstance(m, nn.ModuleList) and len(m) == n]
        self.blocks = lists[0]
        self.directions = Directions(directions, torch.device("cpu"))

    def logits(self, ids: Sequence[int], addition: Addition | None, start: int) -> torch.Tensor:
        if addition is None:
            with torch.no_grad():
                return self.model(torch.tensor([list(ids)]), use_cache=False).logits[0]
        vector = self.directions.vector(addition)

        def change(module: Any, args: Any, output: Any) -> Any:
            stream = (output[0] if isinstance(output, tuple) else output).clone()
            stream[:, start:] += vector
            return (stream, *output[1:]) if isinstance(output, tuple) else stream

        handle = self.blocks[addition.layer].register_forward_hook(change)
        with torch.no_grad():
            found = self.model(torch.tensor([list(ids)]), use_cache=False).logits[0]
        handle.remove()
        return found

    def log_probability(
        self, prompt: list[int], end: list[int], addition: Addition | None, start: int
    ) -> float:
        given = torch.log_softmax(self.logits([*prompt, *end], addition, start).double(), dim=-1)
        return sum(float(given[len(prompt) - 1 + k, token]) for k, token in enumerate(end))

    def greedy(self, prompt: list[int], addition: Addition | None, start: int, n: int) -> list[int]:
        ids = list(prompt)
        for _ in range(n):
            ids.append(int(self.logits(ids, addition, start)[-1].argmax()))
        return ids[len(prompt) :]


def additions(layers: int) -> list[Addition | None]:
    last = layers - 1
    return [
        None,
        Addition("direction.glad", 0, 0, 3.0),
        Addition("direction.glad", last, 1, -4.0),
        Addition("direction.random-0", 1, 1, 2.0),
        Addition("direction.random-0", last, last, 9.0),
    ]


@pytest.mark.parametrize("family", quick_and_slow(FAMILIES, *QUICK, "gemma2"))
def test_log_probabilities_are_those_of_hugging_face(family: str, tmp_path: Path) -> None:
    folder, rng = make_family(tmp_path / family, family), random.Random(1)
    file = make_directions(tmp_path, n_layers(family))
    plain, asked = Plain(folder, file), additions(n_layers(family))
    prompt, ends = tokens(rng, 20), [tokens(rng, n) for n in (1, 3, 2)]
    for steer_prompt in (False, True):
        model = SteeredModel(str(folder), "float32", False, 1, str(file), steer_prompt)
        model._budget = 16  # several batches, of rows of different additions
        found = model.log_probabilities(prompt, ends, asked)
        start = 0 if steer_prompt else len(prompt) - 1
        want = [[plain.log_probability(prompt, e, a, start) for e in ends] for a in asked]
        np.testing.assert_allclose(found, want, atol=2e-3 if family == "gemma4_text" else 2e-4)
    assert np.abs(found[1:] - found[0]).min() > 1e-3  # every addition is seen


def test_texts_are_judged_as_the_model_is(tmp_path: Path) -> None:
    folder, rng = make_family(tmp_path / "llama", "llama"), random.Random(2)
    file = make_directions(tmp_path, 3)
    model, plain = SteeredModel(str(folder), "float32", False, 1, str(file)), Plain(folder, file)
    model._budget = 48
    prompts, texts = [[tokens(rng, n) for n in sizes] for sizes in ((5, 9, 2, 4), (12, 3, 30, 0))]
    found = model.text_log_probabilities(prompts, texts)
    want = [
        plain.log_probability(p, t, None, 0) / len(t)
        for p, t in zip(prompts[:3], texts[:3], strict=True)
    ]
    np.testing.assert_allclose(found[:3], want, atol=1e-5)
    assert np.isnan(found[3])


@pytest.mark.parametrize("family", quick_and_slow(sorted(families.READ_BY_VLLM), *QUICK))
def test_vllm_and_the_reference_write_the_same_tokens(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Greedy, in float32, requests of one batch with different directions and strengths."""
    for name, value in child_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "0")
    from vllm import LLM, SamplingParams
    from vllm.distributed import cleanup_dist_env_and_memory

    folder, rng = make_family(tmp_path / family, family), random.Random(3)
    file, n = make_directions(tmp_path, n_layers(family)), 12
    prompts = [tokens(rng, size) for size in (4, 31, 17)]
    asked = [
        (prompt, addition, start)
        for prompt in prompts
        for addition in additions(n_layers(family))
        for start in (len(prompt) - 1, 0)
    ]
    llm = LLM(
        model=str(folder),
        dtype="float32",
        enforce_eager=True,
        enable_prefix_caching=False,
        max_model_len=64,
        max_num_seqs=8,
        max_num_batched_tokens=24,  # so that prompts are taken in pieces
        skip_tokenizer_init=True,
        worker_extension_cls="engine.steering.vllm_worker.SteeredStream",
    )
    llm.collective_rpc("emovec_steer", args=(str(file),))
    answers = llm.generate(
        [{"prompt_token_ids": prompt} for prompt, _, _ in asked],
        [
            SamplingParams(
                temperature=0,
                max_tokens=n,
                ignore_eos=True,
                detokenize=False,
                extra_args=request_arguments(addition, start),
            )
            for _, addition, start in asked
        ],
        use_tqdm=False,
    )
    found = [list(answer.outputs[0].token_ids) for answer in answers]
    llm.llm_engine.engine_core.shutdown()
    del llm
    cleanup_dist_env_and_memory()
    plain = Plain(folder, file)
    reference = {
        whole: SteeredModel(str(folder), "float32", False, 1, str(file), whole)
        for whole in (False, True)
    }
    for (prompt, addition, start), got in zip(asked, found, strict=True):
        assert got == reference[start == 0].write(prompt, addition, n, set())
        assert got == plain.greedy(prompt, addition, start, n)
    changed = [got != found[2 * (i // len(found)) + i % 2] for i, got in enumerate(found)]
    assert sum(changed) > len(found) // 3


def test_what_a_request_says_is_what_was_asked() -> None:
    addition = Addition("direction.glad", 1, 2, 0.5)
    assert of_arguments(request_arguments(addition, 7)) == (addition, 7)
    assert of_arguments(request_arguments(None, 7)) is None
    assert of_arguments(None) is None


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(UnknownFamily, match=r"OddForCausalLM.*transformer_lens"):
        adding_to("OddForCausalLM")


def test_what_reads_and_what_steers_can_be_mixed_into_one_worker() -> None:
    """vLLM refuses an extension that has a name its worker already has from another one."""
    names = [
        {name for name in vars(extension) if not name.startswith("__")}
        for extension in (ResidualPool, SteeredStream)
    ]
    assert all(names)
    assert not names[0] & names[1]
