"""Corpora: the same documents, in the same order, at every reading."""

from __future__ import annotations

import itertools

from lamina.core.conformance.case import Case
from lamina.core.conformance.checks import Wrong, check
from lamina.core.corpus import Corpus

MOST = 200  # documents looked at


def read(corpus: Corpus, most: int = MOST) -> list[str]:
    return list(itertools.islice(corpus.documents(), most))


@check("corpus", name="documents")
def documents_are_texts(case: Case) -> None:
    """There is a document, and each is a text that UTF-8 can hold."""
    documents = read(case.build())
    if not documents:
        raise Wrong("a document, or DataError when there is nothing to read", "none")
    for number, text in enumerate(documents, 1):
        if not isinstance(text, str):
            raise Wrong("documents of str", type(text).__name__, document=number)
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise Wrong("documents that UTF-8 can hold", str(error), document=number) from error


@check("corpus", name="repeatable")
def every_reading_is_the_same(case: Case) -> None:
    """A second reading, of the same corpus, of another one, or while the first is under way, gives the same."""
    corpus = case.build()
    first = read(corpus)
    begun = corpus.documents()
    next(begun, None)
    for what, again in (("a second reading", read(corpus)), ("another corpus", read(case.build()))):
        for number, (a, b) in enumerate(itertools.zip_longest(first, again), 1):
            if a != b:
                raise Wrong(f"{what} to give the same documents", "another", document=number)
    if first and next(begun, None) != (first[1] if len(first) > 1 else None):
        raise Wrong("a reading under way to go on as if there were no other", "another document", document=2)
