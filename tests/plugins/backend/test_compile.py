import shutil

import pytest
import torch
from torch.testing import assert_close

from lamina.core.build import build, build_part
from lamina.core.resolve import resolve_data, resolve_part

SPEC = {
    "lamina": 1,
    "vocab_size": 32,
    "dim": 16,
    "context_length": 16,
    "position": "rope",
    "norm": "rms",
    "block": {"attention": {"name": "gqa", "n_heads": 2}, "ffn": "gated"},
    "layers": 1,
}


@pytest.mark.skipif(not (shutil.which("c++") or shutil.which("g++")), reason="inductor needs a C++ compiler")
@pytest.mark.filterwarnings("default")
@torch.inference_mode()
def test_compiled_decoding_gives_the_eager_logits_at_every_length() -> None:
    spec = resolve_data(SPEC)
    eager = build(spec).eval()
    backend = build_part(resolve_part("backend", "compile", spec.registry))
    compiled = backend.prepare(build(spec).eval(), training=False)
    token_ids = torch.arange(7).view(1, 7)
    cache = compiled.make_cache(1, 7)
    found = [compiled(piece, cache=cache) for piece in token_ids.split([4, 1, 1, 1], 1)]
    assert_close(torch.cat(found, 1), eager(token_ids), atol=1e-4, rtol=1e-4)
