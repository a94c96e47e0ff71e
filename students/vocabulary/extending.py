"""Add tokens for scripts that a vocabulary spells letter by letter; text in other scripts is tokenised as before.

    corpus ─▶ runs of the scripts' letters, as the old tokenizer normalises them ─▶ pieces trained on them
              for a byte-level BPE: words after its own merges ─▶ more merges, see `merges`
    pieces ─▶ after the old ones, each made of these letters alone ─▶ embeddings, see `new_embeddings`

A new vocabulary loses what the old embeddings have learned. Here they are kept, and the new pieces cost
width × pieces parameters.
"""

import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

from distill.data.scripts import Sources, letters_of
from distill.errors import BadInput, JobFailed
from distill.models.backbone import train_tokenizer
from distill.recipe.schema import MoreVocabulary
from distill.wording import counted
from students.vocabulary.merges import more_merges
from students.vocabulary.new_embeddings import Inherited, give_new_embeddings
from students.vocabulary.new_vocabulary import NewVocabularyReport, counted_tokens, special_ids
from students.vocabulary.surface import surface
from students.vocabulary.tokenizer_json import WORD_MARK, TokenizerJson, rebuilt
from students.vocabulary.word_embeddings import padding_position

__all__ = ["ExtensionReport", "extend_vocabulary"]


@dataclass(frozen=True)
class ExtensionReport(NewVocabularyReport):
    """Describes an extended vocabulary and how its new embeddings were initialised.

    :param scripts: scripts of the new tokens
    :param n_as_before: number of texts per source without a letter of these scripts; each has the same tokens as before
    """

    scripts: tuple[str, ...]
    n_as_before: dict[str, int]


def extend_vocabulary(
    transformer: Any,
    tokenizer: Any,
    sources: Sources,
    settings: MoreVocabulary,
    *,
    seed: int,
    contexts: Sequence[Sequence[str]] | None = None,
) -> tuple[Any, ExtensionReport]:
    """Add tokens for some scripts, trained on the sources, and give a model, in place, embeddings for them.

    :param contexts: groups of texts that belong together, for the auxiliary space of `focus`; None: each text alone
    :returns: the tokenizer and the report
    :raises BadInput: for a BPE that is not byte-level, or if the text has no new token
    """
    old = TokenizerJson.of(tokenizer)
    if old.algorithm == "BPE" and not old.is_byte_level:
        raise BadInput(
            "vocabulary.extend: a BPE over letters cannot be extended, only over bytes; take train, which replaces it"
        )
    normalize = _normalizer(old)
    normal = {text: normalize(text) for source_texts in sources.values() for text in source_texts}
    letters = letters_of(settings.scripts, normal.values())
    if not letters:
        raise BadInput(f"vocabulary.extend: the text has no letter of {', '.join(settings.scripts)}")
    pieces, merges = _added(old, list(normal.values()), letters, settings)
    position = padding_position(transformer)
    new, moved = old.extended(pieces, merges, tokenizer.pad_token_id if position is None else position)
    new_tokenizer = rebuilt(tokenizer, new)
    n_before = transformer.num_parameters()
    kept = Inherited(moved, special_ids(tokenizer, old))
    contexts = contexts or [[text] for text in normal]
    starts = give_new_embeddings(transformer, (old, new), new_tokenizer, kept, (settings.start, seed), contexts)
    token_ids = {name: (old.read(source_texts), new.read(source_texts)) for name, source_texts in sources.items()}
    unknown = (old.unk_id, new.unk_id)
    counts = {
        name: counted_tokens(source_texts, token_ids[name], unknown)
        for name, source_texts in sources.items()
        if source_texts
    }
    lacks_letters = {
        name: [letters.isdisjoint(normal[text]) for text in source_texts] for name, source_texts in sources.items()
    }
    return new_tokenizer, ExtensionReport(
        tokenizer=old.algorithm.lower(),
        start=settings.start,
        n_tokens=(len(old.tokens), len(new.tokens)),
        n_parameters=(n_before, transformer.num_parameters()),
        starts=starts,
        fertility={name: numbers[0] for name, numbers in counts.items()},
        unknown={name: numbers[1] for name, numbers in counts.items()},
        scripts=settings.scripts,
        n_as_before={name: _n_read_as_before(token_ids[name], moved, lacks_letters[name]) for name in sources},
    )


def _added(
    old: TokenizerJson, normal: Sequence[str], letters: Collection[str], settings: MoreVocabulary
) -> tuple[dict[str, float], list[tuple[str, str]]]:
    """Return pieces that the old model lacks, with their scores for Unigram (else 0), and the merges of BPE.

    :param normal: the texts as the tokenizer normalises them
    :param letters: the letters of the scripts in them
    :raises BadInput: if there are no such pieces
    """
    merges = list[tuple[str, str]]()
    if old.algorithm == "BPE":
        merges = more_merges(old, normal, letters, settings)
        pieces = {left + right: 0.0 for left, right in merges if left + right not in old.ids}
    else:
        pieces = _trained(old, _runs(normal, letters), settings.tokens)
    if not pieces:
        raise BadInput(
            f"vocabulary.extend: the text gives no token of {', '.join(settings.scripts)} that the tokenizer lacks; leave extend out, or give more text"
        )
    return pieces, merges


def _trained(old: TokenizerJson, runs: Sequence[str], size: int) -> dict[str, float]:
    """Train WordPiece or Unigram on runs of letters; return the pieces that the old model lacks, in its spelling."""
    normalize = _normalizer(old)
    composed = [_composed(normalize, run) for run in runs]
    trained = TokenizerJson.of_backend(
        train_tokenizer(old.algorithm.lower(), composed, size, {"unk_token": "[UNK]"})  # type: ignore[arg-type]
    )
    known_pieces, scores = set(old.model_pieces.values()), _scores(old, trained)
    return {
        piece: score
        for i, score in scores.items()
        if (piece := _spelt(old, normalize, surface(trained, trained.model_pieces[i]))) is not None
        and piece not in known_pieces
    }


def _normalizer(old: TokenizerJson) -> Callable[[str], str]:
    normalizer = old.backend().normalizer
    return str if normalizer is None else normalizer.normalize_str


def _runs(texts: Sequence[str], letters: Collection[str]) -> list[str]:
    """Return, for each text that has any, its runs of the letters and their marks, joined by spaces."""
    begin = "".join(sorted(letters))
    marks = "".join(sorted({sign for text in texts for sign in text if unicodedata.category(sign)[0] == "M"}))
    pattern = re.compile(f"[{re.escape(begin)}][{re.escape(begin + marks)}]*")
    return [joined for text in texts if (joined := " ".join(pattern.findall(text)))]


def _composed(normalize: Callable[[str], str], run: str) -> str:
    """Return the run in NFC if the old normaliser decomposes it again, so that no piece ends within a syllable."""
    composed = unicodedata.normalize("NFC", run)
    return composed if normalize(composed) == run else run


def _scores(old: TokenizerJson, trained: TokenizerJson) -> dict[int, float]:
    """Return the trained scores by id, at least the old minimum, on which the score of unknown characters depends."""
    unknown = trained.unk_id
    if old.algorithm != "Unigram":
        return {i: 0.0 for i in trained.model_pieces if i != unknown}
    least = min(score for _, score in old.state["model"]["vocab"])
    return {i: max(score, least) for i, (_, score) in enumerate(trained.state["model"]["vocab"]) if i != unknown}


def _spelt(old: TokenizerJson, normalize: Callable[[str], str], surface_form: tuple[bool, str] | None) -> str | None:
    """Return a piece in the old model's spelling, given whether it begins a word, and its text; None if it has none."""
    if surface_form is None:
        return None
    begins, text = surface_form
    piece = normalize(text).strip(f" {WORD_MARK}")
    if not piece or any(sign.isspace() for sign in piece):
        return None
    if old.algorithm == "Unigram":
        return WORD_MARK * begins + piece
    return piece if begins else old.state["model"]["continuing_subword_prefix"] + piece


def _n_read_as_before(
    token_ids: tuple[list[list[int]], list[list[int]]], moved: Mapping[int, int], lacks_letters: Sequence[bool]
) -> int:
    """Count the texts without a letter of the new tokens' scripts, and check that their tokens are unchanged.

    :param token_ids: the tokens of all texts, before and after
    :param lacks_letters: which of the texts have no such letter
    :raises JobFailed: if one of these texts has other tokens than before
    """
    pairs = list(compress(zip(*token_ids, strict=True), lacks_letters))
    changed = sum([moved[i] for i in before] != after for before, after in pairs)
    if changed:
        raise JobFailed(
            f"vocabulary.extend: {counted(changed, 'text')} without new tokens' letters would be read otherwise"
        )
    return len(pairs)
