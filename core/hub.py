"""Models of the Hugging Face Hub by id, `org/name` or `org/name@revision`: the files an import reads and no others."""

from __future__ import annotations

import re
from pathlib import Path

from lamina.core.errors import ModelError
from lamina.core.extras import load_extra

ID = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
WANTED = ["*.safetensors", "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt"]
# Other forms of the same weights, in folders of their own or as their makers' libraries keep them.
UNWANTED = ["*/*", "consolidated*"]


def is_id(source: str) -> bool:
    return ID.fullmatch(source) is not None


def fetch(source: str) -> Path:
    """The folder that holds the model's files, downloaded unless they were before. Raises LaminaError."""
    found = ID.fullmatch(source)
    assert found is not None, "asked before"
    name, revision = found["name"], found["revision"]
    hub = load_extra("huggingface_hub", "'lamina[hub]'", f"'{source}' is no directory here; fetching it from the Hub")
    problems = hub.errors
    try:
        return Path(hub.snapshot_download(name, revision=revision, allow_patterns=WANTED, ignore_patterns=UNWANTED))
    except problems.GatedRepoError:
        what, hint = "its owner lets in only those who asked", f"ask at https://huggingface.co/{name}, then log in"
    except problems.RepositoryNotFoundError:
        what, hint = "the Hub has no such model, or not for you", "look at the name, or log in with `hf auth login`"
    except problems.RevisionNotFoundError:
        what, hint = f"the model has no revision '{revision}'", "name a branch, a tag or a commit after the @"
    except problems.LocalEntryNotFoundError:
        what, hint = "the Hub cannot be reached, and no copy is kept here", "try again with a connection"
    except Exception as error:  # what it connects with has errors of its own
        what, hint = f"the download failed ({str(error).partition(chr(10))[0] or type(error).__name__})", "try again"
    raise ModelError(f"'{source}' is no directory here, and {what}", hint=hint)
