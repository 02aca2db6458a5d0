"""nanoGPT's model, written out from its architecture: GPT-2 with fused q, k, v, flash attention, exact GELU, no biases,
the head tied to the embedding.  github.com/karpathy/nanoGPT
"""

from __future__ import annotations

import torch
from side import cross_entropy, options, serve, training_step
from torch import Tensor, nn
from torch.nn import functional as F

N_LAYERS, N_HEADS, DIM = 6, 6, 384


class Norm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(DIM))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, None, 1e-5)


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(DIM, 3 * DIM, bias=False)
        self.out = nn.Linear(DIM, DIM, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, dim = x.shape
        q, k, v = self.qkv(x).split(dim, dim=2)
        q, k, v = (part.view(batch, length, N_HEADS, dim // N_HEADS).transpose(1, 2) for part in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).contiguous().view(batch, length, dim))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention_in, self.attention = Norm(), SelfAttention()
        self.ffn_in = Norm()
        self.ffn = nn.ModuleDict(
            {"up": nn.Linear(DIM, 4 * DIM, bias=False), "down": nn.Linear(4 * DIM, DIM, bias=False)}
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_in(x))
        return x + self.ffn["down"](F.gelu(self.ffn["up"](self.ffn_in(x))))


class GPT(nn.Module):
    def __init__(self, vocab: int, context: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab, DIM), nn.Embedding(context, DIM)
        self.layers = nn.ModuleList(Block() for _ in range(N_LAYERS))
        self.norm = Norm()
        self.head = nn.Linear(DIM, vocab, bias=False)
        self.head.weight = self.tokens.weight
        for name, parameter in self.named_parameters():
            if parameter.dim() >= 2:
                deviation = 0.02 / (2 * N_LAYERS) ** 0.5 if name.endswith(("out.weight", "down.weight")) else 0.02
                nn.init.normal_(parameter, 0.0, deviation)

    def forward(self, token_ids: Tensor, targets: Tensor) -> Tensor:
        positions = torch.arange(token_ids.shape[1])
        x = self.tokens(token_ids) + self.positions(positions)
        for layer in self.layers:
            x = layer(x)
        return cross_entropy(self.head(self.norm(x)), targets)


def main() -> None:
    chosen = options()
    model = GPT(chosen.vocab, chosen.context)
    if chosen.weights is not None:
        from safetensors.torch import load_file

        renamed = {"embedding.tokens": "tokens", "embedding.position.table": "positions"}
        found = {}
        for name, value in load_file(chosen.weights).items():
            for old, new in renamed.items():
                name = name.replace(old, new)
            found[name] = value
        found["head.weight"] = found["tokens.weight"]
        model.load_state_dict(found)
    serve(
        training_step(model, model, chosen),
        chosen,
        sum(parameter.numel() for parameter in model.parameters()),
        f"torch {torch.__version__}",
    )


if __name__ == "__main__":
    main()
