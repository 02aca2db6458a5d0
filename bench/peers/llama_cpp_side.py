"""llama.cpp through llama-cpp-python's plain bindings: one decode of all prompts, then one of a token a sequence."""

from __future__ import annotations

import argparse
import time

import llama_cpp
import numpy as np
from generation_side import serve

SILENT = llama_cpp.llama_log_callback(lambda *_: None)  # kept here: the library calls it as long as it lives


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    llama_cpp.llama_log_set(SILENT, None)
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(chosen.model.encode(), llama_cpp.llama_model_default_params())
    n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))

    def generate(prompts: list[list[int]], new_tokens: int) -> tuple[float, float]:
        options = llama_cpp.llama_context_default_params()
        longest = max(map(len, prompts))
        options.n_ctx = len(prompts) * (longest + new_tokens)
        options.n_batch, options.n_ubatch, options.n_seq_max = options.n_ctx, 512, len(prompts)
        options.n_threads = options.n_threads_batch = chosen.threads
        context = llama_cpp.llama_init_from_model(model, options)
        batch = llama_cpp.llama_batch_init(options.n_ctx, 0, 1)

        def decode(entries: list[tuple[int, int, int, bool]]) -> list[int]:
            """(token, position, sequence, whether its logits are wanted) of each -> the best next tokens"""
            batch.n_tokens = len(entries)
            for i, (token, position, sequence, wanted) in enumerate(entries):
                batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position, 1
                batch.seq_id[i][0], batch.logits[i] = sequence, wanted
            if llama_cpp.llama_decode(context, batch):
                raise SystemExit("llama_decode failed")
            best = []
            for i, (*_, wanted) in enumerate(entries):
                if wanted:
                    logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, i), shape=(n_vocab,))
                    best.append(int(logits.argmax()))
            return best

        start = time.perf_counter()
        tokens = decode(
            [(token, at, row, at == len(ids) - 1) for row, ids in enumerate(prompts) for at, token in enumerate(ids)]
        )
        first = time.perf_counter()
        for step in range(new_tokens - 1):
            tokens = decode([(token, len(prompts[row]) + step, row, True) for row, token in enumerate(tokens)])
        end = time.perf_counter()
        llama_cpp.llama_batch_free(batch)
        llama_cpp.llama_free(context)
        return first - start, end - first

    serve(generate, n_vocab, versions=f"llama-cpp-python {llama_cpp.__version__}", file=chosen.model.rpartition("/")[2])


if __name__ == "__main__":
    main()
