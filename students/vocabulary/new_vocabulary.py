"""A new vocabulary for a language that a model hardly covers: a tokenizer of the corpus, and initial embeddings."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from distill.data.scripts import Sources
from distill.errors import BadInput
from distill.models.backbone import train_tokenizer
from distill.recipe.schema import NewVocabulary
from students.vocabulary.new_embeddings import Inherited, Start, give_new_embeddings
from students.vocabulary.tokenizer_json import TokenizerJson, rebuilt, renumbered
from students.vocabulary.word_embeddings import padding_position

__all__ = ["NewVocabularyReport", "counted_tokens", "new_vocabulary", "special_ids"]


@dataclass(frozen=True)
class NewVocabularyReport:
    """Describes a new vocabulary and how its embeddings were initialised.

    :param starts: how many tokens were copied, averaged from old tokens, mixed by similarity, or drawn at random
    :param fertility: tokens per word (words are split at white space) per source, before and after
    :param unknown: share of unknown tokens per source, before and after
    """

    tokenizer: str
    start: Start
    n_tokens: tuple[int, int]
    n_parameters: tuple[int, int]
    starts: dict[str, int]
    fertility: dict[str, tuple[float, float]]
    unknown: dict[str, tuple[float, float]]

    def to_json(self) -> dict[str, Any]:
        """Return the report for a card."""
        return asdict(self)


def new_vocabulary(
    transformer: Any,
    tokenizer: Any,
    sources: Sources,
    settings: NewVocabulary,
    *,
    seed: int,
    contexts: Sequence[Sequence[str]] | None = None,
) -> tuple[Any, NewVocabularyReport]:
    """Train a tokenizer on the sources and give a model, in place, embeddings for it; return it and a report.

    Special tokens, the post-processor and the token types stay those of the old tokenizer.

    :param contexts: groups of texts that belong together, such as a sentence and its translation, for the auxiliary
        space; None: each text alone
    """
    texts = list(dict.fromkeys(text for source_texts in sources.values() for text in source_texts))
    if not texts:
        raise BadInput("a new vocabulary is trained on a corpus; there are no texts")
    old = TokenizerJson.of(tokenizer)
    new, new_tokenizer = _trained(transformer, tokenizer, old, texts, settings.tokenizer, settings.size)
    special = {i: new.ids[old.tokens[i]] for i in special_ids(tokenizer, old)}
    contexts = contexts or [[text] for text in texts]
    n_before = transformer.num_parameters()
    kept = Inherited(special, special)
    starts = give_new_embeddings(transformer, (old, new), new_tokenizer, kept, (settings.start, seed), contexts)
    unknown = (old.unk_id, new.unk_id)
    counts = {
        name: counted_tokens(source_texts, (old.read(source_texts), new.read(source_texts)), unknown)
        for name, source_texts in sources.items()
        if source_texts
    }
    return new_tokenizer, NewVocabularyReport(
        tokenizer=settings.tokenizer,
        start=settings.start,
        n_tokens=(len(old.tokens), len(new.tokens)),
        n_parameters=(n_before, transformer.num_parameters()),
        starts=starts,
        fertility={name: numbers[0] for name, numbers in counts.items()},
        unknown={name: numbers[1] for name, numbers in counts.items()},
    )


def special_ids(tokenizer: Any, old: TokenizerJson) -> list[int]:
    """Return the ids of special tokens, ascending: those with a role, and those that the post-processor adds."""
    return sorted({old.ids[token] for token in tokenizer.all_special_tokens} | old.post_processor_ids())


def _trained(
    transformer: Any, tokenizer: Any, old: TokenizerJson, texts: Sequence[str], kind: Any, size: int
) -> tuple[TokenizerJson, Any]:
    special = special_ids(tokenizer, old)
    specials = {str(i): old.tokens[i] for i in special}
    unk_token = tokenizer.unk_token or "[UNK]"  # byte-level vocabularies need no unknown token
    backend = train_tokenizer(kind, texts, size, {**specials, "unk_token": unk_token})
    trained = TokenizerJson.of_backend(backend)
    position = padding_position(transformer)
    order = trained.in_order(trained.tokens.keys(), tokenizer.pad_token_id if position is None else position)
    if position is not None and old.tokens[position] != tokenizer.pad_token:
        raise BadInput(f"{type(transformer).__name__} counts positions from id {position}, which is no padding token")
    if position is not None:  # the padding token must have the id that positions are counted from
        order = [i for i in order if i != trained.ids[tokenizer.pad_token]]
        order.insert(position, trained.ids[tokenizer.pad_token])
    placed = trained.cut(order)
    moved = {i: placed.ids[old.tokens[i]] for i in special}
    padding = old.state["padding"]
    whole = TokenizerJson(
        {
            **placed.state,
            "post_processor": renumbered(old.state["post_processor"], moved),
            "truncation": old.state["truncation"],
            "padding": padding and {**padding, "pad_id": moved[padding["pad_id"]]},
        }
    )
    return whole, rebuilt(tokenizer, whole, unk_token=unk_token)


def counted_tokens(texts: Sequence[str], read: Sequence[list[list[int]]], unknown: Sequence[Any]) -> Any:
    """Return tokens per word (words are split at white space) and the share of unknown tokens, each before and after.

    :param read: the texts' token ids, before and after
    :param unknown: the id of the unknown token, before and after
    """
    n_words = max(sum(len(text.split()) for text in texts), 1)
    n_tokens = [sum(map(len, rows)) for rows in read]
    n_unknown = [sum(ids.count(unk_id) for ids in rows) for rows, unk_id in zip(read, unknown, strict=True)]
    fertility = tuple(n / n_words for n in n_tokens)
    return fertility, tuple(n / max(total, 1) for n, total in zip(n_unknown, n_tokens, strict=True))
