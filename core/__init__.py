"""lamina's core: interfaces, registry, spec, decoder. Plugins import these names and no others.

Names load on first use, so that what needs no tensors imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {  # module -> the public names it holds
    "activation": ("Activation",),
    "attention": ("Attention",),
    "backend": ("Backend",),
    "beams": ("search_beams",),
    "cache": ("Cache", "LayerState"),
    "component": (
        "API_VERSION",
        "Component",
        "ComponentConfig",
        "Part",
        "Parts",
        "Register",
        "Sized",
        "hookimpl",
        "slot",
    ),
    "config_keys": ("ConfigKeys",),
    "context": ("Context", "Span"),
    "convolution": ("causal_conv",),
    "corpus": ("Corpus",),
    "decoder": ("Decoder",),
    "decoding": ("Decoding", "OtherModel", "Request", "Step", "draw", "one_by_one", "row_by_row", "uniforms"),
    "delta_hybrid": (
        "DELTA_EXPERT_KEYS",
        "DELTA_KEYS",
        "DeltaHybrid",
        "GATED_EXPERTS",
        "delta_activation",
        "delta_template",
    ),
    "errors": (
        "ConfigProblem",
        "DataError",
        "GenerationError",
        "LaminaError",
        "ModelError",
        "PluginError",
        "RunFailure",
        "SpecError",
    ),
    "extras": ("load_extra",),
    "family": (
        "ACTIVATIONS",
        "Family",
        "Fixed",
        "IGNORED_KEYS",
        "Item",
        "Key",
        "TemplateFamily",
        "Within",
        "defaults",
        "in_roles",
        "inverse_root",
        "inverse_square",
        "only",
        "pick",
        "put",
        "with_default",
        "without",
    ),
    "ffn": ("FFN",),
    "first_dense": (
        "FIRST_DENSE_KEYS",
        "FirstDense",
        "LATENT_KEYS",
        "LATENT_NAMES",
        "LatentFirstDense",
        "check_latent_heads",
        "complete_experts",
        "count_shared",
        "first_dense_template",
        "latent_moves",
    ),
    "granite_like": ("GRANITE_KEYS", "granite_experts"),
    "gguf.llama": (
        "EXPERTS_META",
        "EvenHeads",
        "FROM_ONE",
        "HEAD_META",
        "LAYER_NORM_META",
        "LLAMA_META",
        "PAIRED",
        "RMS_META",
        "SIZES_META",
        "Windows",
    ),
    "gguf.mapping": ("Always", "GGUF", "Means", "MetaItem", "MetaKey", "Metadata", "Present", "Told"),
    "gguf.rope": ("RopeMeta",),
    "joint_optimizer": ("JointOptimizer",),
    "layout": (
        "Alternating",
        "Beside",
        "Chain",
        "Constants",
        "Dealt",
        "Each",
        "Either",
        "Inverse",
        "Joined",
        "Layout",
        "Move",
        "Multiplied",
        "Offset",
        "Reshaped",
        "SAME",
        "Stacked",
        "Transposed",
        "Woven",
        "move",
    ),
    "library_tokenizer": ("LibraryConfig", "LibraryTokenizer", "add_special", "told"),
    "llama_like": (
        "FULL_OR_SLIDING",
        "LLAMA_KEYS",
        "WINDOW",
        "LlamaLike",
        "SwitchedWindow",
        "TypedLayers",
        "WindowedLayers",
        "llama_template",
        "overlay",
        "sparse_layers",
        "write_sparse_layers",
    ),
    "lora": ("LoRAConfig", "adapt"),
    "mamba_like": (
        "MAMBA2_KEYS",
        "MAMBA_KEYS",
        "MambaLike",
        "MambaWidth",
        "StepLimit",
        "mamba2_moves",
        "mamba_moves",
        "unless_auto",
    ),
    "mask": ("ALWAYS_DENSE", "Mask"),
    "module": ("DeviceConstant", "Embedding", "Linear", "ModuleComponent", "OutLinear"),
    "norm": ("Norm",),
    "optimizer": ("Optimizer", "Schedule", "decay_groups", "hidden_matrices", "warm_up"),
    "position": ("Position",),
    "program": ("CannotLower", "Program", "Rows", "Turns", "lowering"),
    "residual": ("Residual",),
    "resolved": ("BlockConfig", "ResolvedSpec"),
    "rope_keys": ("Rope",),
    "rope_scaling": ("FixedScaling", "RopeScaling", "rope_frequencies"),
    "rotary": ("Rotary", "RotaryConfig"),
    "router": ("Router", "RouterLinear", "Routing"),
    "sampler": ("History", "Sampler"),
    "scan": ("delta_scan", "diagonal_scan", "linear_scan", "spread_steps", "unit"),
    "shift": ("token_shift",),
    "softmax_attention": ("Bias", "Scores", "attend", "visible"),  # a module called `attend` would hide the function
    "special_files": ("SpecialFiles",),
    "speculation": ("Drafter", "Speculation"),
    "stepper": ("quantise_decoder", "use_kernels"),
    "tokenizer": ("BEGINS", "ENDS", "StreamDecoder", "Tokenizer", "show_bytes", "usual"),
    "top_k": (
        "BALANCED_LOSS",
        "BiasedTopK",
        "BiasedTopKConfig",
        "GroupedTopKConfig",
        "RouterLossConfig",
        "SCORES",
        "ScoredTopK",
        "ScoredTopKConfig",
        "TopKConfig",
        "best_experts",
        "check_experts_per_token",
        "jitter",
        "router_losses",
        "weights_of",
    ),
    "tracing": ("TraceConfig", "check_names", "watched"),
    "vocabulary": ("ByteLevelBPE", "ScoredBPE", "TokenKind", "spelt"),
    "wrapper": ("AttentionWrapper", "FFNWrapper"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}
__all__ = sorted(_MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'lamina.core' has no attribute '{name}'")
    return getattr(import_module(f"lamina.core.{_MODULE_OF[name]}"), name)


if TYPE_CHECKING:
    from lamina.core.activation import Activation as Activation
    from lamina.core.attention import Attention as Attention
    from lamina.core.backend import Backend as Backend
    from lamina.core.beams import search_beams as search_beams
    from lamina.core.cache import Cache as Cache
    from lamina.core.cache import LayerState as LayerState
    from lamina.core.component import API_VERSION as API_VERSION
    from lamina.core.component import Component as Component
    from lamina.core.component import ComponentConfig as ComponentConfig
    from lamina.core.component import Part as Part
    from lamina.core.component import Parts as Parts
    from lamina.core.component import Register as Register
    from lamina.core.component import Sized as Sized
    from lamina.core.component import hookimpl as hookimpl
    from lamina.core.component import slot as slot
    from lamina.core.config_keys import ConfigKeys as ConfigKeys
    from lamina.core.context import Context as Context
    from lamina.core.context import Span as Span
    from lamina.core.convolution import causal_conv as causal_conv
    from lamina.core.corpus import Corpus as Corpus
    from lamina.core.decoder import Decoder as Decoder
    from lamina.core.decoding import Decoding as Decoding
    from lamina.core.decoding import OtherModel as OtherModel
    from lamina.core.decoding import Request as Request
    from lamina.core.decoding import Step as Step
    from lamina.core.decoding import draw as draw
    from lamina.core.decoding import one_by_one as one_by_one
    from lamina.core.decoding import row_by_row as row_by_row
    from lamina.core.decoding import uniforms as uniforms
    from lamina.core.delta_hybrid import DELTA_EXPERT_KEYS as DELTA_EXPERT_KEYS
    from lamina.core.delta_hybrid import DELTA_KEYS as DELTA_KEYS
    from lamina.core.delta_hybrid import GATED_EXPERTS as GATED_EXPERTS
    from lamina.core.delta_hybrid import DeltaHybrid as DeltaHybrid
    from lamina.core.delta_hybrid import delta_activation as delta_activation
    from lamina.core.delta_hybrid import delta_template as delta_template
    from lamina.core.errors import ConfigProblem as ConfigProblem
    from lamina.core.errors import DataError as DataError
    from lamina.core.errors import GenerationError as GenerationError
    from lamina.core.errors import LaminaError as LaminaError
    from lamina.core.errors import ModelError as ModelError
    from lamina.core.errors import PluginError as PluginError
    from lamina.core.errors import RunFailure as RunFailure
    from lamina.core.errors import SpecError as SpecError
    from lamina.core.extras import load_extra as load_extra
    from lamina.core.family import ACTIVATIONS as ACTIVATIONS
    from lamina.core.family import IGNORED_KEYS as IGNORED_KEYS
    from lamina.core.family import Family as Family
    from lamina.core.family import Fixed as Fixed
    from lamina.core.family import Item as Item
    from lamina.core.family import Key as Key
    from lamina.core.family import TemplateFamily as TemplateFamily
    from lamina.core.family import Within as Within
    from lamina.core.family import defaults as defaults
    from lamina.core.family import in_roles as in_roles
    from lamina.core.family import inverse_root as inverse_root
    from lamina.core.family import inverse_square as inverse_square
    from lamina.core.family import only as only
    from lamina.core.family import pick as pick
    from lamina.core.family import put as put
    from lamina.core.family import with_default as with_default
    from lamina.core.family import without as without
    from lamina.core.ffn import FFN as FFN
    from lamina.core.first_dense import FIRST_DENSE_KEYS as FIRST_DENSE_KEYS
    from lamina.core.first_dense import LATENT_KEYS as LATENT_KEYS
    from lamina.core.first_dense import LATENT_NAMES as LATENT_NAMES
    from lamina.core.first_dense import FirstDense as FirstDense
    from lamina.core.first_dense import LatentFirstDense as LatentFirstDense
    from lamina.core.first_dense import check_latent_heads as check_latent_heads
    from lamina.core.first_dense import complete_experts as complete_experts
    from lamina.core.first_dense import count_shared as count_shared
    from lamina.core.first_dense import first_dense_template as first_dense_template
    from lamina.core.first_dense import latent_moves as latent_moves
    from lamina.core.gguf.llama import EXPERTS_META as EXPERTS_META
    from lamina.core.gguf.llama import FROM_ONE as FROM_ONE
    from lamina.core.gguf.llama import HEAD_META as HEAD_META
    from lamina.core.gguf.llama import LAYER_NORM_META as LAYER_NORM_META
    from lamina.core.gguf.llama import LLAMA_META as LLAMA_META
    from lamina.core.gguf.llama import PAIRED as PAIRED
    from lamina.core.gguf.llama import RMS_META as RMS_META
    from lamina.core.gguf.llama import SIZES_META as SIZES_META
    from lamina.core.gguf.llama import EvenHeads as EvenHeads
    from lamina.core.gguf.llama import Windows as Windows
    from lamina.core.gguf.mapping import GGUF as GGUF
    from lamina.core.gguf.mapping import Always as Always
    from lamina.core.gguf.mapping import Means as Means
    from lamina.core.gguf.mapping import Metadata as Metadata
    from lamina.core.gguf.mapping import MetaItem as MetaItem
    from lamina.core.gguf.mapping import MetaKey as MetaKey
    from lamina.core.gguf.mapping import Present as Present
    from lamina.core.gguf.mapping import Told as Told
    from lamina.core.gguf.rope import RopeMeta as RopeMeta
    from lamina.core.granite_like import GRANITE_KEYS as GRANITE_KEYS
    from lamina.core.granite_like import granite_experts as granite_experts
    from lamina.core.joint_optimizer import JointOptimizer as JointOptimizer
    from lamina.core.layout import SAME as SAME
    from lamina.core.layout import Alternating as Alternating
    from lamina.core.layout import Beside as Beside
    from lamina.core.layout import Chain as Chain
    from lamina.core.layout import Constants as Constants
    from lamina.core.layout import Dealt as Dealt
    from lamina.core.layout import Each as Each
    from lamina.core.layout import Either as Either
    from lamina.core.layout import Inverse as Inverse
    from lamina.core.layout import Joined as Joined
    from lamina.core.layout import Layout as Layout
    from lamina.core.layout import Move as Move
    from lamina.core.layout import Multiplied as Multiplied
    from lamina.core.layout import Offset as Offset
    from lamina.core.layout import Reshaped as Reshaped
    from lamina.core.layout import Stacked as Stacked
    from lamina.core.layout import Transposed as Transposed
    from lamina.core.layout import Woven as Woven
    from lamina.core.layout import move as move
    from lamina.core.library_tokenizer import LibraryConfig as LibraryConfig
    from lamina.core.library_tokenizer import LibraryTokenizer as LibraryTokenizer
    from lamina.core.library_tokenizer import add_special as add_special
    from lamina.core.library_tokenizer import told as told
    from lamina.core.llama_like import FULL_OR_SLIDING as FULL_OR_SLIDING
    from lamina.core.llama_like import LLAMA_KEYS as LLAMA_KEYS
    from lamina.core.llama_like import WINDOW as WINDOW
    from lamina.core.llama_like import LlamaLike as LlamaLike
    from lamina.core.llama_like import SwitchedWindow as SwitchedWindow
    from lamina.core.llama_like import TypedLayers as TypedLayers
    from lamina.core.llama_like import WindowedLayers as WindowedLayers
    from lamina.core.llama_like import llama_template as llama_template
    from lamina.core.llama_like import overlay as overlay
    from lamina.core.llama_like import sparse_layers as sparse_layers
    from lamina.core.llama_like import write_sparse_layers as write_sparse_layers
    from lamina.core.lora import LoRAConfig as LoRAConfig
    from lamina.core.lora import adapt as adapt
    from lamina.core.mamba_like import MAMBA2_KEYS as MAMBA2_KEYS
    from lamina.core.mamba_like import MAMBA_KEYS as MAMBA_KEYS
    from lamina.core.mamba_like import MambaLike as MambaLike
    from lamina.core.mamba_like import MambaWidth as MambaWidth
    from lamina.core.mamba_like import StepLimit as StepLimit
    from lamina.core.mamba_like import mamba2_moves as mamba2_moves
    from lamina.core.mamba_like import mamba_moves as mamba_moves
    from lamina.core.mamba_like import unless_auto as unless_auto
    from lamina.core.mask import ALWAYS_DENSE as ALWAYS_DENSE
    from lamina.core.mask import Mask as Mask
    from lamina.core.module import DeviceConstant as DeviceConstant
    from lamina.core.module import Embedding as Embedding
    from lamina.core.module import Linear as Linear
    from lamina.core.module import ModuleComponent as ModuleComponent
    from lamina.core.module import OutLinear as OutLinear
    from lamina.core.norm import Norm as Norm
    from lamina.core.optimizer import Optimizer as Optimizer
    from lamina.core.optimizer import Schedule as Schedule
    from lamina.core.optimizer import decay_groups as decay_groups
    from lamina.core.optimizer import hidden_matrices as hidden_matrices
    from lamina.core.optimizer import warm_up as warm_up
    from lamina.core.position import Position as Position
    from lamina.core.program import CannotLower as CannotLower
    from lamina.core.program import Program as Program
    from lamina.core.program import Rows as Rows
    from lamina.core.program import Turns as Turns
    from lamina.core.program import lowering as lowering
    from lamina.core.residual import Residual as Residual
    from lamina.core.resolved import BlockConfig as BlockConfig
    from lamina.core.resolved import ResolvedSpec as ResolvedSpec
    from lamina.core.rope_keys import Rope as Rope
    from lamina.core.rope_scaling import FixedScaling as FixedScaling
    from lamina.core.rope_scaling import RopeScaling as RopeScaling
    from lamina.core.rope_scaling import rope_frequencies as rope_frequencies
    from lamina.core.rotary import Rotary as Rotary
    from lamina.core.rotary import RotaryConfig as RotaryConfig
    from lamina.core.router import Router as Router
    from lamina.core.router import RouterLinear as RouterLinear
    from lamina.core.router import Routing as Routing
    from lamina.core.sampler import History as History
    from lamina.core.sampler import Sampler as Sampler
    from lamina.core.scan import delta_scan as delta_scan
    from lamina.core.scan import diagonal_scan as diagonal_scan
    from lamina.core.scan import linear_scan as linear_scan
    from lamina.core.scan import spread_steps as spread_steps
    from lamina.core.scan import unit as unit
    from lamina.core.shift import token_shift as token_shift
    from lamina.core.softmax_attention import Bias as Bias
    from lamina.core.softmax_attention import Scores as Scores
    from lamina.core.softmax_attention import attend as attend
    from lamina.core.softmax_attention import visible as visible
    from lamina.core.special_files import SpecialFiles as SpecialFiles
    from lamina.core.speculation import Drafter as Drafter
    from lamina.core.speculation import Speculation as Speculation
    from lamina.core.stepper import quantise_decoder as quantise_decoder
    from lamina.core.stepper import use_kernels as use_kernels
    from lamina.core.tokenizer import BEGINS as BEGINS
    from lamina.core.tokenizer import ENDS as ENDS
    from lamina.core.tokenizer import StreamDecoder as StreamDecoder
    from lamina.core.tokenizer import Tokenizer as Tokenizer
    from lamina.core.tokenizer import show_bytes as show_bytes
    from lamina.core.tokenizer import usual as usual
    from lamina.core.top_k import BALANCED_LOSS as BALANCED_LOSS
    from lamina.core.top_k import SCORES as SCORES
    from lamina.core.top_k import BiasedTopK as BiasedTopK
    from lamina.core.top_k import BiasedTopKConfig as BiasedTopKConfig
    from lamina.core.top_k import GroupedTopKConfig as GroupedTopKConfig
    from lamina.core.top_k import RouterLossConfig as RouterLossConfig
    from lamina.core.top_k import ScoredTopK as ScoredTopK
    from lamina.core.top_k import ScoredTopKConfig as ScoredTopKConfig
    from lamina.core.top_k import TopKConfig as TopKConfig
    from lamina.core.top_k import best_experts as best_experts
    from lamina.core.top_k import check_experts_per_token as check_experts_per_token
    from lamina.core.top_k import jitter as jitter
    from lamina.core.top_k import router_losses as router_losses
    from lamina.core.top_k import weights_of as weights_of
    from lamina.core.tracing import TraceConfig as TraceConfig
    from lamina.core.tracing import check_names as check_names
    from lamina.core.tracing import watched as watched
    from lamina.core.vocabulary import ByteLevelBPE as ByteLevelBPE
    from lamina.core.vocabulary import ScoredBPE as ScoredBPE
    from lamina.core.vocabulary import TokenKind as TokenKind
    from lamina.core.vocabulary import spelt as spelt
    from lamina.core.wrapper import AttentionWrapper as AttentionWrapper
    from lamina.core.wrapper import FFNWrapper as FFNWrapper
