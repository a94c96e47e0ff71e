"""Measure what smaller forms of a search index lose: recall, nDCG and size of each form, on the user's own pairs.

    distill index-quality student pairs.tsv --truncate 256,128 --corpus documents.txt

Queries search the documents of the pairs and of the corpus. Each form is compared with the exact search over the full
float32 vectors, by the documents that both find, and with the labels, by recall and nDCG. Intervals are over queries.
The searches use `distill.runtime.vectors.Index`, like `Scorer.search`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distill.data.pairs import Pairs
from distill.errors import BadInput
from distill.files.artefact import revision
from distill.metrics.columns import POSITIVE
from distill.metrics.ndcg import ndcg_of_found
from distill.progress import OnProgress
from distill.runtime.scorer import Scorer
from distill.runtime.vectors import Index, packed, truncated

__all__ = ["Relevance", "index_quality", "measure_forms", "table_cells"]

TOP_K = 10
_N_BOOTSTRAP = 1000
_SEED = 0  # of the drawn queries and resamples; fixed, so that all models get the same queries


@dataclass(frozen=True)
class Relevance:
    """The relevant documents of each query, with their labels.

    :param gains: for each query, the row of each of its documents and its label
    :param own: for each query, the row of the document with the query's own text, which is left out of results; −1 if
        none
    """

    gains: Sequence[Mapping[int, float]]
    own: Sequence[int]

    def recall(self, found: Sequence[np.ndarray]) -> np.ndarray:
        """Return the share of relevant documents (label ≥ 0.5) among the first ten; NaN without relevant documents.

        If a query has more than ten relevant documents, ten is the denominator. *Shape:* found: each (≤ 10,) → (n_queries,)
        """
        return np.array([self._recall(row, gains) for row, gains in zip(found, self.gains, strict=True)])

    def _recall(self, row: np.ndarray, gains: Mapping[int, float]) -> float:
        relevant = {document for document, gain in gains.items() if gain >= POSITIVE}
        if not relevant:
            return float("nan")
        return len(relevant & {int(document) for document in row}) / min(len(relevant), TOP_K)

    def ndcg(self, found: Sequence[np.ndarray]) -> np.ndarray:
        """Return Σ gain / log₂(rank + 1) over the first ten, divided by its best value (Järvelin & Kekäläinen 2002).

        *Shape:* found: each (≤ 10,) → (n_queries,)
        """
        return np.array([self._ndcg(row, gains) for row, gains in zip(found, self.gains, strict=True)])

    def _ndcg(self, row: np.ndarray, gains: Mapping[int, float]) -> float:
        return ndcg_of_found([gains.get(int(document), 0.0) for document in row], list(gains.values()))


def index_quality(
    scorer: Scorer,
    pairs: Pairs,
    corpus: Sequence[str],
    *,
    widths: Sequence[int] = (),
    max_queries: int = 500,
    progress: OnProgress | bool = False,
) -> dict[str, Any]:
    """Measure every form of a bi-encoder's index at its full width and at smaller widths.

    :param corpus: further documents to search, which are relevant to no query
    :param widths: the smaller widths
    :param max_queries: number of queries, drawn at random; with labels, only queries with a relevant document are drawn
    :raises BadInput: if the model is a cross-encoder, a width is not smaller than the full one, or there is no query
    """
    if scorer.kind != "bi_encoder":
        raise BadInput(f"{scorer.path} is a cross-encoder, it has no embeddings to index")
    wrong = [width for width in widths if not 1 <= width < scorer.embedding_width]
    if wrong:
        raise BadInput(
            f"--truncate {wrong[0]}: {scorer.path} gives {scorer.embedding_width} dimensions, less is expected"
        )
    documents = list(dict.fromkeys([*pairs.documents, *corpus]))
    queries, relevance = _questions(pairs, documents, max_queries, _SEED)
    document_vectors = scorer.encode_documents(documents, progress=progress)
    query_vectors = scorer.encode_queries(queries)
    rows = measure_forms(
        query_vectors, document_vectors, relevance, widths=[scorer.embedding_width, *widths], seed=_SEED
    )
    return {
        "model": str(scorer.path),
        "revision": revision(scorer.path),
        "runtime": scorer.runtime,
        "precision": scorer.precision,
        "n_queries": len(queries),
        "n_documents": len(documents),
        "top_k": TOP_K,
        "rows": rows,
    }


def _questions(pairs: Pairs, documents: Sequence[str], max_queries: int, seed: int) -> tuple[list[str], Relevance]:
    places = {text: place for place, text in enumerate(documents)}
    gains: dict[str, dict[int, float]] = {}
    labels = np.zeros(len(pairs)) if pairs.labels is None else pairs.labels
    for query, document, label in zip(pairs.queries, pairs.documents, labels, strict=True):
        if query != document:  # a query that finds its own text shows nothing
            gains.setdefault(query, {})[places[document]] = float(label)
    answered = [query for query, found in gains.items() if max(found.values()) >= POSITIVE]
    queries = answered if pairs.labels is not None else list(gains)
    if not queries:
        raise BadInput("no query has a document with a label of 0.5 or more; check --label-column and --label-range")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(queries))[:max_queries])
    queries = [queries[i] for i in chosen]
    gains_by_query = [gains[query] if pairs.labels is not None else {} for query in queries]
    return queries, Relevance(gains_by_query, [places.get(query, -1) for query in queries])


def measure_forms(
    queries: np.ndarray, documents: np.ndarray, relevance: Relevance, *, widths: Sequence[int], seed: int = 0
) -> list[dict[str, Any]]:
    """Search with every form of the index and compare the results. The first row is the exact search, the reference.

    *Shape:* queries: (n_queries, width); documents: (n_documents, width), unit length
    """
    rows: list[dict[str, Any]] = []
    exact: list[np.ndarray] | None = None
    values: dict[str, np.ndarray] = {}
    for width in widths:
        query_vectors, document_vectors = truncated(queries, width), truncated(documents, width)
        for form, index, sizes in _forms(document_vectors):
            found = _found(index, query_vectors, relevance.own)
            if exact is None:
                exact = found
                values = {"recall": relevance.recall(found), "ndcg": relevance.ndcg(found)}
            row: dict[str, Any] = {"form": form, "dimensions": width, **sizes, "found_as_exact": _overlap(found, exact)}
            for name, of in (("recall", relevance.recall), ("ndcg", relevance.ndcg)):
                if not np.isnan(values[name]).all():
                    row[name] = _estimate(of(found), seed)
                    row[f"{name}_lost"] = _estimate(values[name] - of(found), seed)
            rows.append(row)
    return rows


def _forms(documents: np.ndarray) -> list[tuple[str, Index, dict[str, int]]]:
    """Return the forms of an index as (name, index, sizes): bytes per document, and bytes of it that a search reads."""
    codes, bits = packed(documents, "int8"), packed(documents, "binary")
    wide, narrow, bit = 4 * documents.shape[1], documents.shape[1], bits.shape[1]
    return [
        ("float32", Index(vectors=documents), {"bytes": wide, "bytes_searched": wide}),
        ("int8", Index(vectors=codes), {"bytes": narrow, "bytes_searched": narrow}),
        ("binary, then int8", Index(vectors=codes, binary=bits), {"bytes": bit + narrow, "bytes_searched": bit}),
        ("binary", Index(binary=bits), {"bytes": bit, "bytes_searched": bit}),
    ]


def _found(index: Index, queries: np.ndarray, own: Sequence[int]) -> list[np.ndarray]:
    """Return the first ten documents of each query, without its own text. *Shape:* each (at most 10,).

    Of ten documents or fewer, a query whose own text is among them finds one less than the others.
    """
    rows, _ = index.search(queries, top_k=TOP_K + 1)
    return [row[row != self][:TOP_K] for row, self in zip(rows, own, strict=True)]


def _overlap(found: Sequence[np.ndarray], exact: Sequence[np.ndarray]) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, exact, strict=True)]))


def _estimate(values: np.ndarray, seed: int) -> dict[str, float]:
    """Return the mean over queries, its 95 % percentile bootstrap interval, and the number of queries."""
    known = values[~np.isnan(values)]
    drawn = np.random.default_rng(seed).integers(0, len(known), (_N_BOOTSTRAP, len(known)))
    low, high = np.quantile(known[drawn].mean(axis=1), [0.025, 0.975])
    return {"value": float(known.mean()), "low": float(low), "high": float(high), "n": len(known)}


def table_cells(row: Mapping[str, Any], n_documents: int) -> list[str]:
    """Return the cells of a row for the table that the command prints."""
    cell_pairs = [_cells(row.get(name), row.get(f"{name}_lost")) for name in ("recall", "ndcg")]
    return [
        row["form"],
        str(row["dimensions"]),
        f"{row['bytes'] * n_documents / 1e6:.1f}",
        f"{row['bytes_searched'] * n_documents / 1e6:.1f}",
        f"{row['found_as_exact']:.4f}",
        *(cell for pair in cell_pairs for cell in pair),
    ]


def _cells(estimate: Mapping[str, float] | None, lost: Mapping[str, float] | None) -> tuple[str, str]:
    if estimate is None or lost is None:
        return "", ""
    return f"{estimate['value']:.4f}", f"{lost['value']:.4f} ({lost['low']:.4f}–{lost['high']:.4f})"
