"""Where the teachers of a mixture disagree: a person should read these pairs before trusting the average."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.pairs import Pairs
from distill.data.table_writing import table_writer
from distill.diagnosis.findings import Finding
from distill.errors import BadInput, JobFailed
from distill.files.artefact import read_card
from distill.recipe.objectives import ScoreTerm
from distill.report.words import listed
from distill.run import Run
from distill.signals import CachedSignals, SignalCache
from distill.training.mixtures import MixedSignals, mix_teachers

__all__ = ["TRAINING_PAIR", "Disagreement", "find_disagreement", "write_disagreement"]

TRAINING_PAIR = "training_pair"  # the column that counts the training pairs from 1, after the split; no row of a file
_MOST_SHOWN = 200
_FAR = 0.5  # if two probabilities differ by more, the teachers contradict each other


@dataclass(frozen=True)
class Disagreement:
    """The training pairs on which the teachers of a mixture differ most, the largest difference first.

    :param rows: number of the training pair from 1, query, document, label (NaN for none), mixture, each teacher's probability, spread
    """

    mixture: str
    teachers: list[str]
    rows: list[list[Any]] = field(default_factory=list)


def find_disagreement(run: Run, mixture: str, term: ScoreTerm) -> tuple[list[Finding], Disagreement | None]:
    """Compare the cached scores of a mixture's teachers on the training pairs; None if not all of them are cached."""
    about = f"mixture {mixture}"
    if missing := [name for name in term.named if read_card(run.teacher(name)) is None]:
        to_train = [name for name in missing if name not in run.recipe.black_boxes]
        verb = f"{'is' if len(missing) == 1 else 'are'} not {'trained' if to_train else 'in the run'} yet"
        line = f"{listed(missing)} {verb}: the mixture was not looked at, and -o writes no disagreement.tsv"
        advice = f"run {'train-teacher and ' if to_train else ''}cache-signals, then the doctor again"
        return [Finding("note", "mixture", about, line, advice)], None
    try:
        sources = {
            name: CachedSignals(SignalCache(run.signals(name), run.signal_identity(name))) for name in term.named
        }
        mixed = mix_teachers(term, sources, run.split.validation)
        probabilities = mixed.probabilities(run.split.train.queries, run.split.train.documents)
    except JobFailed as problem:
        return [Finding("problem", "mixture", about, str(problem))], None
    except BadInput as problem:
        line = f"its teachers' signals were not looked at, and -o writes no disagreement.tsv ({problem})"
        return [Finding("note", "mixture", about, line)], None
    return [_finding(about, mixed, probabilities)], _worst(mixture, mixed, probabilities, run.split.train)


def _finding(about: str, mixed: MixedSignals, probabilities: np.ndarray) -> Finding:
    spread = np.ptp(probabilities, axis=0)
    shares = ", ".join(f"{name} {share:.2f}" for name, share in mixed.shares.items())
    constant = [name for name, values in zip(mixed.shares, probabilities, strict=True) if np.ptp(values) == 0]
    numbers: dict[str, Any] = {
        "shares": dict(mixed.shares),
        "mean_spread": float(spread.mean()),
        "share_far": float((spread > _FAR).mean()),
        "rank_correlation": None if constant else _rank_correlation(probabilities),
    }
    line = (
        f"weights {shares}; the calibrated probabilities differ by {numbers['mean_spread']:.2f} in the mean and by more than {_FAR:g} on "
        f"{100 * numbers['share_far']:.1f} % of the training pairs; "
        + (
            f"no rank correlation: {' and '.join(constant)} gives every pair one probability"
            if constant
            else f"mean rank correlation {numbers['rank_correlation']:.2f}"
        )
    )
    return Finding("note", "mixture", about, line, "", numbers)


def _rank_correlation(probabilities: np.ndarray) -> float:
    """Return the mean Spearman correlation over all pairs of teachers. *Shape:* probabilities: (n_teachers, n_pairs)."""
    from scipy.stats import rankdata

    correlations = np.corrcoef(rankdata(probabilities, axis=1))
    return float(correlations[np.triu_indices(len(probabilities), k=1)].mean())


def _worst(mixture: str, mixed: MixedSignals, probabilities: np.ndarray, train: Pairs) -> Disagreement:
    spread, mixed_probabilities = np.ptp(probabilities, axis=0), mixed.mixed(probabilities)
    worst = np.argsort(-spread, kind="stable")[:_MOST_SHOWN].tolist()
    labels = np.full(len(train), np.nan) if train.labels is None else train.labels
    rows = [
        [row + 1, train.queries[row], train.documents[row], float(labels[row]), float(mixed_probabilities[row])]
        + [float(value) for value in probabilities[:, row]]
        + [float(spread[row])]
        for row in worst
    ]
    return Disagreement(mixture, list(mixed.shares), rows)


def write_disagreement(path: Path, disagreement: Disagreement) -> None:
    """Write a table for a person to read, with a column of probabilities for each teacher."""
    columns: dict[str, type] = {TRAINING_PAIR: int, "query": str, "document": str, "label": float, "mixture": float}
    columns |= {f"teacher {name}": float for name in disagreement.teachers}
    columns["spread"] = float
    with table_writer(path, columns) as write:
        for row in disagreement.rows:
            write(row)
