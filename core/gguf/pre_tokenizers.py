"""How byte-level vocabularies cut a text before they merge, by the name that `tokenizer.ggml.pre` has for it.

Each is a list of patterns: a text is cut by the first, what comes of it by the next, matches and what lies between them
being pieces of their own. They are written for the regular expressions of the `tokenizers` library, as the published
vocabularies have them. Several vocabularies cut alike, and have names of their own for other reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import tokenizers
from tokenizers import pre_tokenizers


@dataclass(frozen=True)
class Cutting:
    """One way to cut."""

    names: tuple[str, ...]  # that files have for it; written is the first
    patterns: tuple[str, ...]
    ignore_merges: bool = False  # a piece that is a token is taken whole
    composes: bool = False  # text is brought to NFC first


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
ENDING = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CL100K = ENDING + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + REST
ONE_DIGIT = ENDING + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + REST
DOWN = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
UP = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
SLASHES = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = f"{DOWN}{ENDING}?|{UP}{ENDING}?" + r"|\p{N}{1,3}" + SLASHES
TEKKEN = f"{DOWN}|{UP}" + r"|\p{N}" + SLASHES
MARKED = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"
BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
SIGNS = r"[\p{P}\$\+<=>\^~\|`]+"
KANA = r"[一-龥\u3040-ゟ゠-ヿ]+"
EAST = "[一-龥ࠀ-一가-\ud7ff]+"
# Letters with a case, as a vocabulary lists them by range.
CASED = (
    "A-Za-z\u00b5À-ÖØ-öø-ƺƼ-ƿ\u01c4-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-\u03f5Ϸ-ҁҊ-ԯԱ-Ֆ\u10a0-\u10c5\u13a0-\u13f5\u13f8-"
    "\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-"
    "\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-"
    "\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-"
    "\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149"
    "\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-"
    "\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a"
    "\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-"
    "\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)

CUTTINGS = (
    Cutting(
        (
            "gpt-2", "phi-2", "mpt", "jais", "exaone4", "trillion", "granite-docling", "gigachat", "a.x-4.0", "mellum",
            "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "jina-v1-en", "jina-v2-code", "roberta-bpe",
        ),
        (GPT2,),
    ),
    Cutting(("olmo", "modern-bert"), (GPT2,), composes=True),
    Cutting(("smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b", "mellum2"), (r"\p{N}", GPT2)),
    Cutting(("command-r",), (r"\p{N}", GPT2), composes=True),
    Cutting(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "glm4", "glm5"),
        (CL100K,),
        ignore_merges=True,
    ),
    Cutting(("dbrx", "smaug-bpe", "chatglm-bpe"), (CL100K,)),
    Cutting(("qwen2", "deepseek-r1-qwen", "megrez", "kormo"), (ONE_DIGIT,), composes=True),
    Cutting(("stablelm2", "hunyuan", "grok-2", "solar-open", "bailingmoe", "bailingmoe2", "llada-moe"), (ONE_DIGIT,)),
    Cutting(
        ("qwen35",),
        (
            ENDING
            + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
        composes=True,
    ),
    Cutting(("gpt-4o", "llama4", "kanana2", "minimax-m2"), (O200K,)),
    Cutting(("tekken",), (TEKKEN,), ignore_merges=True),
    Cutting(("falcon",), (SIGNS, GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
    Cutting(("default",), (SIGNS.replace("`", ""), GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
    Cutting(("bloom", "poro-chat", "gpt3-finnish"), (BLOOM,)),
    Cutting(("viking",), (BLOOM, r"\p{N}")),
    Cutting(
        ("deepseek-llm",),
        ("[\r\n]", rf"\s?[{CASED}]+", r"\s?[!-/:-~！-／：-～‘-‟\u3000-。]+", r"\s+$", EAST, r"\p{N}+"),
    ),
    Cutting(("deepseek-coder",), ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", EAST, r"\p{N}")),
    Cutting(
        ("deepseek-v3", "hunyuan-dense", "joyai-llm"),
        (r"\p{N}{1,3}", KANA, MARKED + r"[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
    ),
    Cutting(
        ("seed-coder",),
        (ENDING + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",),
    ),
    Cutting(
        ("minicpm5",), (r"\p{N}{1,3}", ENDING + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+" + REST), ignore_merges=True
    ),
)  # fmt: skip

# Cut differently by every two of these that cut anything differently: digits, endings, marks, white space, scripts.
PROBE = (
    "I'll don't WE'RE it'S  'Sx x'll\u2019s 1234567 12.5e3 ²³½ ٣٤٥ ⅫⅨ a1b22c333  12 iOS HTTPServer fooBar Ǆaǆ\n\n\n"
    "  if (x != `y`):\r\n\t\treturn {a|b} <= ~c^2 + $5 = 10% // ok/\n/ #tag @me _id -- ... ??!! \u3000"
    "全角，日本語テキスト。ひらがな カタカナ 한국어 텍스트\nПривет, мир! Ελληνικά e\u0301te\u0301 हिन्दी भाषा। العربية، "
    "عربي۔ ไทย 🙂👩\u200d👩\u200d👧 \u00a0x\u2003y \n \n  \t end,of.text (a b) (c|d)  "
)


def cutting(name: str) -> Cutting | None:
    """The one with this name."""
    return next((one for one in CUTTINGS if name in one.names), None)


def pre_tokenizer(patterns: Sequence[str]) -> pre_tokenizers.PreTokenizer:
    """The library's, which ends by spelling bytes in the alphabet of byte-level vocabularies."""
    splits = [pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated") for pattern in patterns]
    return pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


@cache
def _probed(one: Cutting) -> list[str]:
    return [piece for piece, _ in pre_tokenizer(one.patterns).pre_tokenize_str(PROBE)]


def name_of(cut: Callable[[str], list[str]] | None, ignore_merges: bool, composes: bool) -> str | None:
    """The name of the way in which `cut` cuts, found by what it makes of a text on which the known ways differ."""
    found = [one for one in CUTTINGS if cut is None or _probed(one) == cut(PROBE)]
    found.sort(key=lambda one: (one.ignore_merges != ignore_merges, one.composes != composes))
    return found[0].names[0] if found else None
