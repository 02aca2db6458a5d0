"""Any tokenizer.json: the file in which the `tokenizers` library keeps a vocabulary and all that is done to text.

Special tokens are those of the file and those that tokenizer_config.json and special_tokens_map.json beside it name.
Format: https://huggingface.co/docs/tokenizers
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

import tokenizers
from pydantic import Field
from tokenizers import decoders, models, pre_tokenizers, trainers

from lamina.core import ComponentConfig, LibraryTokenizer, Register, SpecialFiles, hookimpl

CONFIG = "tokenizer_config.json"


class TokenizerJSONConfig(ComponentConfig):
    path: str = Field(description="A tokenizer.json, whatever its model.", min_length=1)


class TokenizerJSON(LibraryTokenizer):
    """A published vocabulary as it is. What round-trips is the file's choice: a byte-level one keeps every text, one
    that normalises or has an unknown token does not. Of the template a file may have for texts only whether it begins
    them with the token for that is heeded."""

    Config = TokenizerJSONConfig
    _adds_bos = True
    paper = "the tokenizers library, Hugging Face"

    @classmethod
    def examples(cls, directory: Path) -> list[dict[str, Any]]:
        made = tokenizers.Tokenizer(models.BPE())
        made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=270, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"], show_progress=False
        )
        made.train_from_iterator(["the thing and the other thing"], trainer)
        made.save(str(directory / "tokenizer.json"))
        return [{"path": "tokenizer.json"}]

    @classmethod
    def recognise(cls, folder: Path, names: frozenset[str]) -> str | None:
        return "tokenizer.json" if "tokenizer.json" in names else None

    @classmethod
    def open(cls, config: TokenizerJSONConfig, directory: Path) -> Self:
        path = directory / config.path
        tokenizer = cls.read(path)
        beside = SpecialFiles.read(path.parent)
        beside.apply(tokenizer)
        made = cls(tokenizer, config, *beside.begin_and_end(tokenizer))
        made._adds_bos = made._template_adds_bos() if beside.adds_bos is None else beside.adds_bos
        return made

    @property
    def adds_bos(self) -> bool:
        return self.bos_id is not None and self._adds_bos

    def _template_adds_bos(self) -> bool:
        """Whether the file's template for texts, in which no text is cut, begins with the token."""
        return self.bos_id in self._tokenizer.encode("", add_special_tokens=True).ids[:1]

    def save(self, directory: Path) -> TokenizerJSONConfig:
        config: TokenizerJSONConfig = super().save(directory)
        text_of = {i: name for name, i in self.special_ids.items()}
        roles = {"bos_token": self.bos_id, "eos_token": self.eos_id}
        told: dict[str, str | bool | None] = {role: None if i is None else text_of[i] for role, i in roles.items()}
        told["add_bos_token"] = self.adds_bos
        (directory / CONFIG).write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return config


@hookimpl
def register_components(register: Register) -> None:
    register("tokenizer_json", TokenizerJSON)
