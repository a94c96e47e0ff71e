"""Pairs of texts with labels: read from anywhere, checked at the door, split so that no text leaks.

    CSV · TSV · JSONL · Parquet (each also .gz where the format allows it) · hub datasets · `bundled`
      ──▶ Pairs(queries, documents, labels in [0, 1])  ──▶ Split(train, validation, evaluation)

A text that stands on the evaluation side, as a query or as a document, stands on no other: STS-like sets use the same
sentence on both sides, so both columns count. What is wrong in a file is said with its row before anything is trained.
"""

import csv
import gzip
import hashlib
import logging
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from distill.errors import BadInput
from distill.recipe import Columns, Data, Parallel, Resume, Unlabelled
from distill.synthetic import generate_groups

__all__ = [
    "BUNDLED_CANDIDATES",
    "Pairs",
    "Split",
    "load_parallel",
    "load_split",
    "load_texts",
    "read_as_resumes",
    "read_columns",
    "read_pairs",
    "split_pairs",
    "take_groups",
]

log = logging.getLogger(__name__)
_SUFFIXES = {".csv": "csv", ".tsv": "tsv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
BUNDLED_CANDIDATES = 4  # documents per query in the bundled data
_SHOWN_ROWS = 5
T = TypeVar("T")


@dataclass(frozen=True)
class Pairs:
    """Texts matched with texts. `labels` has one value in [0, 1] per pair, or is None where nobody judged them.

    *Shape:* queries, documents, labels: (n_pairs,)
    """

    queries: list[str]
    documents: list[str]
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.queries)

    def select(self, rows: Iterable[int]) -> "Pairs":
        """Return the pairs of the given rows, in that order."""
        rows = list(rows)
        labels = None if self.labels is None else self.labels[rows]
        return Pairs([self.queries[i] for i in rows], [self.documents[i] for i in rows], labels)

    @property
    def query_ids(self) -> np.ndarray:
        """The number of each pair's query, equal for equal texts, in order of appearance. *Shape:* (n_pairs,)."""
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(query, len(numbers)) for query in self.queries], dtype=np.int64)

    def fingerprint(self) -> str:
        """Return 16 hex digits of SHA-256 over texts and labels in order."""
        digest = hashlib.sha256()
        for query, document in zip(self.queries, self.documents, strict=True):
            digest.update(f"{len(query)}:{query}{len(document)}:{document}".encode("utf-8", "surrogatepass"))
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels, dtype=np.float32).tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Split:
    """Three disjoint sets, texts without pairs, and what the reader should know of how they were made.

    :param parallel: source and target texts, translations of each other
    :param unlabelled_pairs: pairs of training without labels; see `distill.unlabelled`
    """

    train: Pairs
    validation: Pairs
    evaluation: Pairs
    unlabelled: list[str] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    parallel: list[tuple[str, str]] = field(default_factory=list)
    unlabelled_pairs: Pairs = field(default_factory=lambda: Pairs([], []))

    @property
    def unpaired(self) -> list[str]:
        """Every text of training that no labelled pair is about, each once."""
        paired = (*self.unlabelled_pairs.queries, *self.unlabelled_pairs.documents)
        return list(dict.fromkeys([*self.unlabelled, *(text for pair in self.parallel for text in pair), *paired]))

    def describe(self) -> dict[str, Any]:
        """Return sizes and fingerprints, for `artefact.json`."""
        parts = {"train": self.train, "validation": self.validation, "evaluation": self.evaluation}
        described: dict[str, Any] = {
            name: {"n_pairs": len(pairs), "n_queries": len(set(pairs.queries)), "fingerprint": pairs.fingerprint()}
            for name, pairs in parts.items()
        }
        texts = Pairs(self.unlabelled, [""] * len(self.unlabelled))
        described["unlabelled"] = {"n_texts": len(texts), "fingerprint": texts.fingerprint()}
        if len(self.unlabelled_pairs):
            paired = {"n_pairs": len(self.unlabelled_pairs), "pairs": self.unlabelled_pairs.fingerprint()}
            described["unlabelled"] |= paired
        translations = Pairs([source for source, _ in self.parallel], [target for _, target in self.parallel])
        described["parallel"] = {"n_pairs": len(translations), "fingerprint": translations.fingerprint()}
        return described


def load_split(data: Data, seed: int) -> Split:
    """Read what the recipe's `data` section names and split it.

    :raises BadInput: on anything that cannot be trained on.
    """
    from distill.unlabelled import keep_labelled, load_unlabelled_pairs  # it reads through this module

    notes: list[str] = []
    pairs = _load_pairs(data.train, data, seed, notes)
    if data.evaluation is None:
        rest, evaluation = split_pairs(pairs, data.evaluation_share, seed=seed, notes=notes, name="evaluation")
    else:
        rest, evaluation = pairs, _load_pairs(data.evaluation, data, seed, notes)
        notes += _leaks(rest, evaluation)
    if evaluation.labels is None:
        raise BadInput("the evaluation pairs have no labels; the report has nothing to compare with")
    share = min(data.validation_share, data.max_validation_pairs / max(len(rest), 1))
    train, validation = split_pairs(rest, share, seed=seed + 1, notes=notes, name="validation")
    held_out = {text for part in (validation, evaluation) for text in (*part.queries, *part.documents)}
    train, unlabelled_pairs = keep_labelled(train, data, seed, notes)
    more = load_unlabelled_pairs(data, seed, _together(train, unlabelled_pairs), held_out, notes)
    unlabelled_pairs = _together(unlabelled_pairs, more)
    texts = [text for source in data.unlabelled for text in load_texts(source)]
    unlabelled = [text for text in dict.fromkeys(texts) if text not in held_out]
    if dropped := len(set(texts)) - len(unlabelled):
        notes.append(f"{dropped} unlabelled texts are also held-out texts and were left out of training")
    found = list(dict.fromkeys(pair for given in data.parallel for pair in load_parallel(given)))
    parallel = [pair for pair in found if held_out.isdisjoint(pair)]
    if dropped := len(found) - len(parallel):
        notes.append(f"{dropped} parallel pairs hold a held-out text and were left out of training")
    for note in notes:
        log.warning(note)
    return Split(train, validation, evaluation, unlabelled, tuple(notes), parallel, unlabelled_pairs)


def _together(one: Pairs, other: Pairs) -> Pairs:
    """Return the texts of both."""
    return Pairs([*one.queries, *other.queries], [*one.documents, *other.documents])


def _load_pairs(source: str, data: Data, seed: int, notes: list[str]) -> Pairs:
    if source == "bundled":
        pairs = _bundled_pairs(data.bundled_pairs, seed)
    else:
        pairs = read_pairs(
            source, data.columns, label_range=data.label_range, skip_bad_rows=data.skip_bad_rows,
            hub_split=data.hub_split,
        )  # fmt: skip
        if data.max_pairs is not None:
            pairs = pairs.select(range(min(data.max_pairs, len(pairs))))
    if data.resume is None:
        return pairs
    pairs, said = read_as_resumes(pairs, data.resume)
    notes += said
    return pairs


def read_as_resumes(pairs: Pairs, resume: Resume) -> tuple[Pairs, list[str]]:
    """Blind one side and keep its wanted sections, each text once. Returns what the reader should know, too."""
    from distill.blinding import blind
    from distill.sections import keep_sections

    texts = pairs.queries if resume.side == "query" else pairs.documents
    read: dict[str, str] = {}
    n_whole = 0
    for text in dict.fromkeys(texts):
        # blinded whole: a name that only the personal data tell is found in the rest
        seen = blind(text).text if resume.blind else text
        if resume.keep is not None:
            kept = keep_sections(seen, resume.keep)
            n_whole += not kept.found
            seen = kept.text if kept.found else seen
        read[text] = seen if seen.strip() else text
    notes = []
    if n_whole and resume.keep is not None:
        notes.append(
            f"{n_whole} of {len(read)} résumés hold none of the sections {', '.join(resume.keep)} and were read whole"
        )
    changed = [read[text] for text in texts]
    if resume.side == "query":
        return Pairs(changed, pairs.documents, pairs.labels), notes
    return Pairs(pairs.queries, changed, pairs.labels), notes


def _bundled_pairs(n_pairs: int, seed: int) -> Pairs:
    groups = generate_groups(-(-n_pairs // BUNDLED_CANDIDATES), seed=seed, n_candidates=BUNDLED_CANDIDATES)
    pairs = [pair for group in groups for pair in group][:n_pairs]
    labels = np.array([pair.label for pair in pairs], dtype=np.float32)
    return Pairs([pair.resume for pair in pairs], [pair.jd for pair in pairs], labels)


def read_pairs(
    source: str,
    columns: Columns,
    *,
    label_range: tuple[float, float] = (0.0, 1.0),
    skip_bad_rows: bool = False,
    hub_split: str = "train",
    labelled: bool = True,
) -> Pairs:
    """Read query, document and label columns and map labels to [0, 1].

    :param labelled: False reads pairs alone (for scoring).
    :raises BadInput: on a missing file or column, an empty file, empty texts, labels that are no numbers or out of range.
    """
    names = [columns.query, columns.document] + ([columns.label] if labelled else [])
    table = read_columns(source, names, hub_split=hub_split, section="data.columns")
    queries, documents = table[columns.query], table[columns.document]
    problems = _text_problems(queries, columns.query) | _text_problems(documents, columns.document)
    labels = None
    if labelled:
        labels, label_problems = _to_unit(table[columns.label], label_range)
        problems = label_problems | problems
    keep = _without_problems(source, len(queries), problems, skip_bad_rows)
    pairs = Pairs([str(text) for text in queries], [str(text) for text in documents], labels)
    return pairs if len(keep) == len(pairs) else pairs.select(keep)


def _text_problems(texts: Sequence[Any], column: str) -> dict[int, str]:
    return {i: f"{column} is empty" for i, text in enumerate(texts) if text is None or not str(text).strip()}


def _to_unit(values: Sequence[Any], label_range: tuple[float, float]) -> tuple[np.ndarray, dict[int, str]]:
    low, high = label_range
    labels, problems = np.zeros(len(values), dtype=np.float32), {}
    for i, value in enumerate(values):
        number = _number(value)
        if number is None:
            problems[i] = f"label {value!r} is not a number"
        elif not low <= number <= high:
            problems[i] = f"label {value} is outside label_range [{low:g}, {high:g}]"
        else:
            labels[i] = (number - low) / (high - low)
    return labels, problems


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _without_problems(source: str, n_rows: int, problems: dict[int, str], skip: bool) -> list[int]:
    if problems and not skip:
        shown = "; ".join(f"row {i + 1}: {problems[i]}" for i in sorted(problems)[:_SHOWN_ROWS])
        more = f"; and {len(problems) - _SHOWN_ROWS} more" if len(problems) > _SHOWN_ROWS else ""
        raise BadInput(
            f"{source}: {len(problems)} of {n_rows} rows cannot be used ({shown}{more}); mend them or set data.skip_bad_rows=true"
        )
    if problems:
        log.warning(
            "%s: %d of %d rows left out (first: row %d, %s)",
            source,
            len(problems),
            n_rows,
            min(problems) + 1,
            problems[min(problems)],
        )
    keep = [i for i in range(n_rows) if i not in problems]
    if not keep:
        raise BadInput(f"{source}: no usable row is left of {n_rows}")
    return keep


def load_texts(source: Unlabelled) -> list[str]:
    """Read the text columns of an unlabelled source, column after column, without empty texts and repeats."""
    table = read_columns(source.path, list(source.columns), section="data.unlabelled.columns")
    texts = dict.fromkeys(text.strip() for name in source.columns for text in table[name] if text and text.strip())
    return list(texts)[: source.max_texts]


def load_parallel(given: Parallel) -> list[tuple[str, str]]:
    """Read texts with their translations as (source, target), each pair once, without those that lack a side."""
    table = read_columns(given.path, [given.source, given.target], section="data.parallel")
    rows = zip(table[given.source], table[given.target], strict=True)
    pairs = dict.fromkeys((source.strip(), target.strip()) for source, target in rows if source and target)
    return [pair for pair in pairs if all(pair)][: given.max_pairs]


def read_columns(
    source: str, names: Sequence[str], *, hub_split: str = "train", section: str = "columns"
) -> dict[str, list[Any]]:
    """Read columns of a file or hub dataset through `datasets`.

    A .csv is read with double quotes as quotes, a .tsv without any (tabs cannot occur in its values).

    :param section: what to set in the recipe where a column is missing, for the message.
    :raises BadInput: naming the file and what it has instead.
    """
    path = Path(source)
    suffix = next((s for s in reversed(path.suffixes) if s != ".gz"), "")
    if path.is_file() and suffix not in _SUFFIXES:
        raise BadInput(
            f"{source}: .csv, .tsv, .jsonl and .parquet are read (.csv, .tsv and .jsonl also as .gz), not {suffix or 'a file without suffix'}"
        )
    if path.is_dir():
        raise BadInput(f"{source} is a folder; name a .csv, .tsv, .jsonl or .parquet file in it")
    if not path.is_file() and (suffix in _SUFFIXES or source.count("/") != 1):
        raise BadInput(f"{source}: no such file")
    if path.is_file() and path.stat().st_size == 0:
        raise BadInput(f"{source} is empty")
    # datasets keeps a copy of what it reads in a cache; of a user's own résumés there shall be none
    with tempfile.TemporaryDirectory() as cache:
        dataset = _load_file(path, _SUFFIXES[suffix], cache) if path.is_file() else _load_hub(source, hub_split)
        return _columns_of(dataset, source, names, section)


def _columns_of(dataset: Any, source: str, names: Sequence[str], section: str) -> dict[str, list[Any]]:
    missing = [name for name in names if name not in dataset.column_names]
    if missing:
        raise BadInput(
            f"{source} has no column {missing[0]!r}; it has {', '.join(dataset.column_names)}; set {section}"
        )
    if len(dataset) == 0:
        raise BadInput(f"{source} has a header and no rows")
    return {name: dataset[name][:] for name in dict.fromkeys(names)}


def _load_file(path: Path, file_format: str, cache: str) -> Any:
    import datasets

    datasets.disable_progress_bars()
    options: dict[str, Any] = {}
    if file_format in ("csv", "tsv"):
        delimiter, quoting = (",", csv.QUOTE_MINIMAL) if file_format == "csv" else ("\t", csv.QUOTE_NONE)
        header = _header(path, delimiter, quoting)
        # every value as text: a NaN or a stray word in a label is then ours to report with its row
        features = datasets.Features({name: datasets.Value("string") for name in header})
        options = {"sep": delimiter, "quoting": quoting, "features": features, "keep_default_na": False}
        # rows one value longer than the header would else be shifted by a column in silence
        options["index_col"] = False
    try:
        return datasets.load_dataset(
            "csv" if file_format == "tsv" else file_format,
            data_files=str(path), split="train", cache_dir=cache, **options,
        )  # fmt: skip
    except Exception as error:  # pandas, pyarrow and datasets each raise their own
        if "corresponds to no data" in str(error):
            raise BadInput(f"{path} has a header and no rows") from None
        raise BadInput(f"{path} cannot be read as {file_format.upper()}: {_innermost(error)}") from None


def _header(path: Path, delimiter: str, quoting: int) -> list[str]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:  # spreadsheets put a byte order mark first
            header = next(csv.reader(file, delimiter=delimiter, quoting=quoting), [])  # type: ignore[arg-type]
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not UTF-8; save it as UTF-8 (Korean files are often CP949)") from None
    except (OSError, EOFError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from None
    if len(set(header)) != len(header) or not all(header):
        raise BadInput(f"{path}: the first line must name each column once, it is {header}")
    return header


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:300] or type(error).__name__


def _load_hub(name: str, split: str) -> Any:
    import datasets

    try:
        return datasets.load_dataset(name, split=split)
    except Exception as error:  # network, name and split errors come in many types
        raise BadInput(
            f"{name} is no file here, and as a hub dataset it cannot be loaded: {_innermost(error)}"
        ) from None


def split_pairs(
    pairs: Pairs, share: float, *, seed: int, notes: list[str] | None = None, name: str = "held-out"
) -> tuple[Pairs, Pairs]:
    """Split pairs into (rest, held out) by query, so that no text stands on both sides.

    Pairs that share a text, directly or over others, form a component. Whole components are held out in an order that
    depends on the seed and their texts alone. Where one component is too large for that (a document that everyone is
    paired with), queries are held out instead and the remaining pairs that use a held-out text are dropped.

    :raises BadInput: where nothing could be held out, or nothing would be left.
    """
    target = max(1, round(len(pairs) * share))
    components = _components(pairs)
    held_out = take_groups(components, target, seed)
    if len(held_out) < target // 2:
        by_query: dict[str, list[int]] = {}
        for row, query in enumerate(pairs.queries):
            by_query.setdefault(query, []).append(row)
        held_out = take_groups(by_query, target, seed)
    held = pairs.select(held_out)
    texts = {*held.queries, *held.documents}
    taken = set(held_out)
    rest = [i for i in range(len(pairs)) if i not in taken]
    clean = [i for i in rest if pairs.queries[i] not in texts and pairs.documents[i] not in texts]
    if not held_out or not clean:
        raise BadInput(
            f"{len(pairs)} pairs cannot be split into training and {name}: too few texts are independent of each other; give {name} pairs of their own"
        )
    if notes is not None and len(clean) < len(rest):
        notes.append(f"{len(rest) - len(clean)} pairs were dropped because they use a text of the {name} pairs")
    return pairs.select(clean), held


def _components(pairs: Pairs) -> dict[str, list[int]]:
    """Group rows that share a text, directly or over others; keyed by the component's smallest text."""
    parent: dict[str, str] = {}

    def root(text: str) -> str:
        while parent.setdefault(text, text) != text:
            parent[text] = parent[parent[text]]
            text = parent[text]
        return text

    for query, document in zip(pairs.queries, pairs.documents, strict=True):
        a, b = root(query), root(document)
        parent[max(a, b)] = min(a, b)
    groups: dict[str, list[int]] = {}
    for row, query in enumerate(pairs.queries):
        groups.setdefault(root(query), []).append(row)
    return groups


def take_groups(groups: dict[str, list[int]], target: int, seed: int) -> list[int]:
    """Take whole groups in an order given by the seed until `target` rows are reached, never much more."""
    taken: list[int] = []
    for key in sorted(
        groups, key=lambda text: hashlib.sha256(f"{seed}:{text}".encode("utf-8", "surrogatepass")).digest()
    ):
        if len(taken) >= target:
            break
        if len(taken) + len(groups[key]) <= target * 1.5 + 1:
            taken += groups[key]
    return sorted(taken)


def _leaks(train: Pairs, evaluation: Pairs) -> list[str]:
    train_texts = {*train.queries, *train.documents}
    texts = {*evaluation.queries, *evaluation.documents}
    shared = len(texts & train_texts)
    if not shared:
        return []
    return [
        f"leak: {shared} of {len(texts)} evaluation texts also stand in the training pairs; results on them are too good"
    ]


def batched(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield slices of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
