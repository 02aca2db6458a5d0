"""lamina's own components. They come in through the entry point that any package may declare."""

from importlib import import_module

from lamina.core import Register, hookimpl

api_version = 1

MODULES = (
    "activation.elu",
    "activation.gelu",
    "activation.gelu_tanh",
    "activation.hardswish",
    "activation.identity",
    "activation.leaky_relu",
    "activation.mish",
    "activation.quick_gelu",
    "activation.relu",
    "activation.relu2",
    "activation.sigmoid",
    "activation.silu",
    "activation.softplus",
    "activation.swish",
    "activation.tanh",
    "activation.xielu",
    "attention.gqa",
    "attention.mla",
    "backend.compile",
    "backend.eager",
    "corpus.python_stdlib",
    "corpus.text",
    "decoding.beam",
    "decoding.greedy",
    "decoding.sample",
    "ffn.gated",
    "ffn.mlp",
    "ffn.moe",
    "mask.bidirectional",
    "mask.causal",
    "mask.chunked",
    "mask.dilated",
    "mask.fixed",
    "mask.prefix",
    "mask.sliding",
    "mask.strided",
    "norm.layer",
    "norm.rms",
    "optimizer.adamw",
    "optimizer.sgd",
    "position.alibi",
    "position.learned",
    "position.none",
    "position.rope",
    "position.sinusoidal",
    "residual.plain",
    "residual.scaled",
    "router.sigmoid_bias",
    "router.softmax_top_k",
    "sampler.greedy",
    "sampler.min_p",
    "sampler.repetition_penalty",
    "sampler.temperature",
    "sampler.top_k",
    "sampler.top_p",
    "schedule.constant",
    "schedule.cosine",
    "tokenizer.bpe",
    "tokenizer.byte",
    "tokenizer.character",
)


@hookimpl
def register_components(register: Register) -> None:
    for module in MODULES:
        import_module(f"lamina.plugins.{module}").register_components(register)
