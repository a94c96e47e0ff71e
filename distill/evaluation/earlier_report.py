"""Compare a report of model folders with an earlier one, as a CI gate.

`check_against` compares two reports of the same pairs: speed as a ratio with an interval from the raw samples, quality
as a difference. If the machines differ, each model's speed is compared relative to the first model of its own report.
Nothing heavy is imported, so that a wrong report is refused at once.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.pairs import Pairs
from distill.errors import BadInput, GateFailed
from distill.files.artefact import read_json
from distill.metrics.names import LOWER_IS_BETTER, METRIC_NAMES
from distill.metrics.standing import value_of

__all__ = ["check_against", "check_earlier", "folder_names"]

log = logging.getLogger(__name__)
_N_RESAMPLES = 1000


def folder_names(folders: Sequence[Path]) -> list[str]:
    """Name each folder by the shortest end of its path that makes all names different.

    :raises BadInput: if a folder is given twice
    """
    resolved = [folder.resolve() for folder in folders]
    if len(set(resolved)) < len(resolved):
        raise BadInput("a folder is given twice; name each model once")
    for depth in range(1, max(len(path.parts) for path in resolved) + 1):
        names = ["/".join(path.parts[-depth:]) for path in resolved]
        if len(set(names)) == len(names):
            return names
    raise AssertionError("different paths have different parts")


def check_earlier(previous: Path, folders: Sequence[Path], pairs: Pairs) -> None:
    """Check before measuring that an earlier report is valid, has at least one of these models, and the same pairs.

    :raises BadInput: if it is not a report, has none of the models, or is of other pairs
    """
    earlier = _read(previous)
    _check_same_pairs(previous, earlier, pairs.fingerprint())
    known = [row["name"] for row in earlier["rows"]]
    names = folder_names(folders)
    if not any(row == name or row.startswith(f"{name} (") for row in known for name in names):
        raise BadInput(f"{previous} has none of {', '.join(names)}; it has {', '.join(known)}")


def check_against(
    result: Mapping[str, Any], previous: Path, *, max_slowdown: float | None, max_metric_drop: float | None
) -> list[dict[str, Any]]:
    """Compare each model with its row of an earlier report.

    The metric is the earlier report's primary one if both reports have it, else that of the result.

    :param max_slowdown: the maximum ratio of median latencies and of throughputs, such as 1.10; None does not check
    :param max_metric_drop: the maximum loss of the primary metric, such as 0.005; None does not check. Of a metric
        where lower is better, a rise is the loss
    :returns: a row for each model that both reports have: name, relative, metric, slowdown {latency, throughput:
        {value, low, high}}, metric_drop, failures
    :raises GateFailed: if a model is slower or worse; a slowdown only counts if its whole interval is above 1
    :raises BadInput: if the file is not a report, has none of these models, or is of other pairs; if a drop is to be
        checked and a model's drop is undefined; or if slowdowns are to be checked, and the report is of another machine
        and lacks the first model
    """
    earlier = _read(previous)
    _check_same_pairs(previous, earlier, _fingerprint(result))
    if _fingerprint(earlier) is None:
        log.warning("%s does not say which pairs it measured: whether they are the same is not checked", previous)
    before = {row["name"]: row for row in earlier["rows"]}
    shared = [row["name"] for row in result["rows"] if row["name"] in before]
    if not shared:
        raise BadInput(f"{previous} has none of these models; it has {', '.join(before)}")
    now = {row["name"]: row for row in result["rows"]}
    machines = [(report.get("environment") or {}).get("cpu") for report in (earlier, result)]
    reference = None if machines[0] == machines[1] else str(result["rows"][0]["name"])
    if reference is not None and reference not in before:
        message = f"{previous} is of another machine ({machines[0]}; here {machines[1]}), and has no {reference}, relative to which speeds would be compared"
        if max_slowdown is not None:
            raise BadInput(f"{message}; name a model that it has first, or compare on its machine")
        log.warning("%s: slowdowns are those of the machine as well", message)
        reference = None
    metric = str(earlier["primary_metric"])
    if all(value_of(now[name], metric) is None or value_of(before[name], metric) is None for name in shared):
        metric = result["primary_metric"]
    rows = [
        _compared(now[name], before[name], reference and (now[reference], before[reference]), metric) for name in shared
    ]
    undefined = [row["name"] for row in rows if row["metric_drop"] is None]
    if max_metric_drop is not None and undefined:
        raise BadInput(
            f"{METRIC_NAMES.get(metric, metric)} is not in both reports for {', '.join(undefined)}, so its drop cannot be checked; "
            f"{previous} has {_metric_names(before[undefined[0]])}, this report has {_metric_names(now[undefined[0]])}"
        )
    for row in rows:
        row["failures"] = _failures(row, max_slowdown, max_metric_drop)
    failures = [f"{row['name']}: {failure}" for row in rows for failure in row["failures"]]
    if failures:
        raise GateFailed(f"worse than {previous}\n" + "\n".join(f"  {failure}" for failure in failures))
    return rows


def _read(path: Path) -> dict[str, Any]:
    try:
        try:
            report: dict[str, Any] = read_json(path)
        except BadInput as error:  # its advice is for a file of a model folder
            raise ValueError(path) if path.is_file() else error from None
        for row in report["rows"]:
            str.strip(row["name"]), row["metrics"].keys(), value_of(row, report["primary_metric"])
            samples = [
                np.asarray(row["per_run"][name], np.float64) for name in ("latency_ms", "throughput_pairs_per_s")
            ]
            if any(values.ndim != 1 or not values.size or not np.isfinite(values).all() for values in samples):
                raise ValueError(path)
        return report
    except (ValueError, LookupError, TypeError, AttributeError, IndexError):
        raise BadInput(f"{path} is no benchmark.json; give one that `distill benchmark` wrote") from None


def _metric_names(row: Mapping[str, Any]) -> str:
    return ", ".join(METRIC_NAMES.get(name, name) for name in row["metrics"]) or "no metric"


def _fingerprint(report: Mapping[str, Any]) -> str | None:
    """Return the fingerprint of the pairs that a report is of; None in reports from before it was written."""
    data = report.get("data")
    return data.get("fingerprint") if isinstance(data, Mapping) else None


def _check_same_pairs(previous: Path, earlier: Mapping[str, Any], fingerprint: str | None) -> None:
    """Refuse an earlier report of other pairs.

    :raises BadInput: if both fingerprints are known and differ
    """
    known = _fingerprint(earlier)
    if None not in (known, fingerprint) and known != fingerprint:
        raise BadInput(
            f"{previous} is of other pairs (texts, labels or their order differ); measure on the same pairs, or accept a new report"
        )


def _compared(now: Any, before: Any, reference: Any, metric: str) -> dict[str, Any]:
    latency = _slowdown([_samples(row, "latency_ms") for row in (now, before)], False)
    throughput = _slowdown([_samples(row, "throughput_pairs_per_s") for row in (now, before)], True)
    if reference:
        latency = latency / _slowdown([_samples(row, "latency_ms") for row in reference], False)
        throughput = throughput / _slowdown([_samples(row, "throughput_pairs_per_s") for row in reference], True)
    value_now, value_before = (value_of(row, metric) for row in (now, before))
    sign = -1 if metric in LOWER_IS_BETTER else 1
    drop = None if value_now is None or value_before is None else sign * (value_before - value_now)
    return {
        "name": now["name"],
        "relative": bool(reference),
        "metric": metric,
        "metric_drop": drop,
        "slowdown": {"latency": _interval(latency), "throughput": _interval(throughput)},
    }


def _samples(row: Mapping[str, Any], name: str) -> np.ndarray:
    return np.asarray(row["per_run"][name], dtype=np.float64)


def _slowdown(samples: Sequence[np.ndarray], more_is_faster: bool) -> np.ndarray:
    """Return ratios of medians: first that of the samples, then those of resamples. *Shape:* (1 + n_resamples,)."""
    rng = np.random.default_rng(0)
    now, before = (
        np.concatenate([[np.median(values)], np.median(rng.choice(values, (_N_RESAMPLES, len(values))), axis=1)])
        for values in samples
    )
    return np.asarray(before / now if more_is_faster else now / before)


def _interval(ratios: np.ndarray) -> dict[str, float]:
    low, high = np.percentile(ratios[1:], (2.5, 97.5)).tolist()
    return {"value": float(ratios[0]), "low": low, "high": high}


def _failures(row: Mapping[str, Any], max_slowdown: float | None, max_metric_drop: float | None) -> list[str]:
    failures = []
    for what, ratio in row["slowdown"].items():
        if max_slowdown is not None and ratio["value"] > max_slowdown and ratio["low"] > 1:
            place = ", relative to the first model" if row["relative"] else ""
            failures.append(
                f"{what} {ratio['value']:.3f} times slower ({ratio['low']:.3f}–{ratio['high']:.3f}{place}), at most {max_slowdown:g} is allowed"
            )
    drop = row["metric_drop"]
    if max_metric_drop is not None and drop is not None and drop > max_metric_drop:
        failures.append(
            f"{METRIC_NAMES.get(row['metric'], row['metric'])} {'rose' if row['metric'] in LOWER_IS_BETTER else 'fell'} by {drop:.4f}, at most {max_metric_drop:g} is allowed"
        )
    return failures
