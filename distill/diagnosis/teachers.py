"""Checks of a teacher's input: prompts, unknown tokens, truncated texts; and of its quality against TF-IDF."""

import re
from collections.abc import Sequence

from distill.data.cut_texts import CutTexts
from distill.data.scripts import rows_by_script
from distill.data.splitting import sample
from distill.data.tokens import MANY_UNKNOWN, tokenize, unknown_id
from distill.diagnosis.findings import Finding
from distill.metrics.measures import Estimate
from distill.wording import counted

__all__ = ["check_beside_floor", "check_cut", "check_prompts", "check_tokens"]

_SAMPLED, _SEED = 500, 0
_LEAST_TEXTS = 10  # texts of a script; with fewer, a share of unknown tokens is not reliable
_MOSTLY_UNREAD = 0.2  # share of unknown tokens from which on a student of it would learn from the rest alone
_LETTERS = 1.3  # tokens per character: above it, the tokenizer splits the letters of the script into parts
_CUT, _LOST = 0.25, 0.1  # share of texts that are cut; share of the limit that they lose
# from the model cards: the prompts that a family expects before queries and documents
_FAMILIES = (
    (
        re.compile(r"(^|[/_-])(multilingual-)?e5-(small|base|large)(-v2)?($|[/_-])(?!instruct)", re.I),
        '"query: " and "passage: "',
    ),
    (re.compile(r"e5-.*instruct|e5-mistral", re.I), '"Instruct: …\\nQuery: " before queries'),
    (re.compile(r"qwen3-embedding", re.I), '"Instruct: …\\nQuery:" before queries'),
    (re.compile(r"nomic-embed-text", re.I), '"search_query: " and "search_document: "'),
    (re.compile(r"embeddinggemma", re.I), '"task: search result | query: " and "title: none | text: "'),
    (re.compile(r"arctic-embed", re.I), '"query: " before queries'),
    (
        re.compile(r"bge-(small|base|large)-en", re.I),
        '"Represent this sentence for searching relevant passages: " before queries',
    ),
)


def check_prompts(about: str, backbone: str, prompts: tuple[str, str]) -> list[Finding]:
    """Check that a model family that expects prompts has some; the family is recognised by its name alone."""
    if any(prompts):
        return []
    expected = next((text for pattern, text in _FAMILIES if pattern.search(backbone)), None)
    if expected is None:
        return []
    message = f"{backbone} is of a family that was trained with prompts ({expected}), and gets none"
    return [Finding("warning", "prompts", about, message, "set the teacher's prompts")]


def check_tokens(about: str, tokenizer: object, texts: Sequence[str]) -> list[Finding]:
    """Look for scripts that a tokenizer does not cover: unknown tokens, or several tokens per character."""
    if len(texts) > _SAMPLED:
        texts = [texts[row] for row in sample(len(texts), _SAMPLED, _SEED)]
    unknown = unknown_id(tokenizer)
    found = []
    for script, rows in rows_by_script(texts).items():
        script_texts = [texts[row] for row in rows]
        n_characters = sum(len("".join(text.split())) for text in script_texts)
        if len(script_texts) < _LEAST_TEXTS or not n_characters:
            continue
        ids = tokenize(tokenizer, script_texts, max_length=1 << 20, special_tokens=False).ids
        share = float((ids == unknown).mean()) if unknown is not None and len(ids) else 0.0
        tokens_per_character = len(ids) / n_characters
        numbers = {"unknown": share, "tokens_per_character": tokens_per_character, "texts": len(script_texts)}
        name = script.lower()
        if share > MANY_UNKNOWN:
            message = f"{share:.0%} of the tokens of {len(script_texts)} texts in {name} are unknown to its tokenizer"
            if share >= _MOSTLY_UNREAD:
                found.append(Finding("problem", "language", about, message, "take a teacher of this language", numbers))
                continue
            message += ": what they say is lost"
            advice = "see how it ranks these texts, or take a teacher of this language"
            found.append(Finding("warning", "language", about, message, advice, numbers))
        elif tokens_per_character > _LETTERS:
            message = f"its tokenizer makes {tokens_per_character:.1f} tokens of a character in {name}: it does not know the script"
            found.append(Finding("warning", "language", about, message, "take a teacher of this language", numbers))
    return found


def check_cut(about: str, cut: CutTexts) -> list[Finding]:
    """Report how many texts are longer than the teacher's limit, and how many tokens they lose."""
    if not cut.n_cut:
        return []
    message = f"max_length {cut.max_length} cuts {cut.n_cut:,} of {counted(cut.n, 'text')}, which lose {cut.median_lost} tokens each (median)"
    if cut.share >= _CUT and cut.median_lost >= _LOST * cut.max_length:
        advice = "set a larger max_length, or cut the texts to what matters (distill prepare)"
        return [Finding("warning", "cut texts", about, message, advice, cut.to_json())]
    return [Finding("note", "cut texts", about, message, "", cut.to_json())]


def check_beside_floor(about: str, metric: str, teacher: float, floor: float, difference: Estimate) -> list[Finding]:
    """Compare a teacher with TF-IDF on the validation pairs, and report whether it is worse.

    :param difference: teacher − TF-IDF on the same pairs, with its 95 % interval
    """
    numbers = {"metric": metric, "teacher": teacher, "floor": floor, "low": difference.low, "high": difference.high}
    message = (
        f"{metric} {teacher:.3f} on the validation pairs, TF-IDF {floor:.3f} "
        f"(difference {difference.low:+.3f} to {difference.high:+.3f})"
    )
    if difference.high < 0:
        advice = "a student of it is worse than counting terms: train this teacher longer, or take a better one"
        return [Finding("problem", "under TF-IDF", about, message, advice, numbers)]
    if difference.value < 0:
        return [
            Finding(
                "warning", "under TF-IDF", about, message, "show on more pairs that it is worth distilling", numbers
            )
        ]
    return [Finding("note", "beside TF-IDF", about, message, "", numbers)]
