"""The fast reader: vLLM computes, a class mixed into its worker pools, and only means come back.

Each text is one request for one token that nobody looks at. Texts go in longest first; vLLM packs
them without padding and cuts long ones into chunks, which add up in the pool.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch

from engine.device import has_gpu
from engine.reading.batching import Budget, default_budget, is_out_of_memory
from engine.reading.pooling import Pooled
from engine.reading.reader import OnEvent, ReaderSettings, TooLarge, tokenize
from engine.reading.windows import Span

SMALLEST_BUDGET = 256


class VllmReader:
    """A model in vLLM that reads token sequences."""

    def __init__(self, settings: ReaderSettings):
        """Load tokenizer and engine; the engine lives in this process, or in one for each GPU."""
        # The public ways: one process for a single GPU, and the model runner that
        # `vllm_internals` knows.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"
        # One token is asked for behind the longest text, and never read.
        os.environ["VLLM_ALLOW_LONG_MAX_MODEL_LEN"] = "1"
        from transformers import AutoTokenizer

        self._settings = settings
        self.layers = settings.layers
        trust = settings.trust_remote_code
        self._tokenizer = AutoTokenizer.from_pretrained(settings.folder, trust_remote_code=trust)
        device = torch.device("cuda" if has_gpu() else "cpu")
        self._budget = Budget(settings.batch_tokens or default_budget(device))
        self._llm = self._start()

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, whole, with the tokenizer's own special tokens."""
        return tokenize(self._tokenizer, texts)

    def read(
        self, sequences: Sequence[Sequence[int]], windows: Sequence[Span], on_event: OnEvent
    ) -> Pooled:
        """Read texts as one stream of requests.

        Raises:
            NotFinite: a mean over real tokens is not finite.
            TooLarge: even small steps do not fit the memory.
        """
        while True:
            try:
                return self._read(sequences, windows, on_event)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if self._budget.tokens // 2 < SMALLEST_BUDGET:
                    raise TooLarge(
                        f"steps of {self._budget.tokens:,} tokens do not fit the memory"
                    ) from None
            self.close()
            on_event(self._budget.halve())
            self._llm = self._start()

    def close(self) -> None:
        """Give the model's memory back; this process can then load another."""
        from vllm.distributed import cleanup_dist_env_and_memory

        self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        cleanup_dist_env_and_memory()

    def _read(
        self, sequences: Sequence[Sequence[int]], windows: Sequence[Span], on_event: OnEvent
    ) -> Pooled:
        lengths = [len(ids) for ids in sequences]
        spans = [(w.start, w.end, w.rms) for w in windows]
        self._llm.collective_rpc("emovec_open", args=(lengths, spans))
        self._run(sequences, on_event)
        (pooled,) = [p for p in self._llm.collective_rpc("emovec_close") if p is not None]
        return pooled

    def forward_only(self, sequences: Sequence[Sequence[int]]) -> None:
        """Run texts through the model and keep nothing, to see what keeping costs."""
        self._run(sequences, lambda event: None)

    def _run(self, sequences: Sequence[Sequence[int]], on_event: OnEvent) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        one_token = SamplingParams(
            max_tokens=1,
            temperature=0,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        lengths = [len(ids) for ids in sequences]
        engine = self._llm.llm_engine
        for text in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
            prompt: Any = {"prompt_token_ids": list(sequences[text])}
            engine.add_request(str(text), prompt, one_token)
        done = {"texts": 0, "tokens": 0}
        while engine.has_unfinished_requests():
            for output in engine.step():
                if output.finished:
                    done["texts"] += 1
                    done["tokens"] += lengths[int(output.request_id)]
            on_event(dict(done))

    def _start(self) -> Any:
        from vllm import LLM

        settings = self._settings
        llm = LLM(
            model=settings.folder,
            dtype=settings.dtype,
            load_format="safetensors",
            trust_remote_code=settings.trust_remote_code,
            tensor_parallel_size=settings.devices,
            gpu_memory_utilization=settings.memory_share,
            enforce_eager=True,
            enable_prefix_caching=False,
            enable_chunked_prefill=True,
            max_model_len=settings.max_tokens + 1,
            max_num_batched_tokens=self._budget.tokens,
            max_num_seqs=min(self._budget.tokens, 1024),
            skip_tokenizer_init=True,
            disable_log_stats=True,
            worker_extension_cls="engine.reading.vllm_worker.ResidualPool",
        )
        llm.collective_rpc("emovec_attach", args=(list(self.layers),))
        return llm
