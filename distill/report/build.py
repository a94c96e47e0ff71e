"""Write the report of a benchmark: JSON, CSV, pictures and one self-contained HTML page.

`write_report` takes the content of `benchmark.json`:

    title           str
    reference       the name for the row with which the others are compared; "teacher" if it is missing
    primary_metric  str, optional: the metric of the headline and the picture; by default the first available of
                    ndcg_at_10, roc_auc and spearman
    recipe          mapping, shown as YAML
    data            mapping, such as n_pairs, n_queries, source
    environment     mapping, such as cpu, threads, versions (a mapping), platform, date
    rows            list of models, see below
    measuring       how the measuring of speed ended: {rounds, seconds, ended_by (rounds, interval, seconds), interval, max_seconds,
                    widest, widest_row}; widest is the widest interval's width as a share of its value
    comparisons     list of {name: "a − b", metric, value, low, high, n}
    notes           list of str

Each row has:

    name, role (teacher, teacher_export, untrained, stage, student, control, export, baseline), kind, runtime, precision
    parameters, size_mb, peak_memory_mb
    metrics         {key: {value, low, high, n}}
    retention       {key: share of the teacher's value}
    retention_best, above_chance, gain, under_floor: comparisons with best teacher, chance, untrained student and
                    TF-IDF; see `distill.metrics.standing`
    calibration     {kind, fitted_to, graded, before, after, operating_point}: before and after are {ece, plain, noise, brier, bins},
                    see `distill.metrics.reliability`; operating_point is {by, share, threshold, precision, recall, validation}
    operating_point in the teacher's row: {threshold, precision, recall}
    problem         why the row has no quality, or a meaningless one (scores that are not finite or constant)
    variant         the terms that a TF-IDF row counts
    latency_ms      {batch, p50, p95, p99}
    throughput_pairs_per_s, speedup (× the teacher's throughput)
    speedup_split   for an export: {model, runtime, beside, same}, see `distill.evaluation.teacher_exports`;
                    model × runtime is the speed-up
    latency_pairs, throughput_pairs: number of pairs on which each was measured
    latency_interval, throughput_interval: {low, high}, 95 % intervals of p50 and of the throughput
    latency_by_length  [{tokens, p50, p95}]
    under_load      {batches: [{tokens, batch, p50}], capacity_pairs_per_s, open_loop: [{load, rate, p50, p95, p99}]}:
                    in batches, p50 is milliseconds per batch; in open_loop, pairs arrive at `rate` per second, which
                    is the share `load` of the capacity
    per_run         raw samples: kept in the JSON, not shown

Only `rows` and each row's `name` are required. Values that are missing or not finite are left out and never guessed. A
missing share or speed-up is computed if the teacher's row has the values for it.
"""

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from distill.files.artefact import scratch_folder
from distill.report.content import BenchmarkResults, Row, metric_of, number_at
from distill.report.page import page
from distill.report.pictures import PNG_FILES, draw

__all__ = ["write_report"]

_JSON, _CSV, _HTML = "benchmark.json", "benchmark.csv", "index.html"


def write_report(benchmark: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the report of a benchmark into a folder, which is created if needed, and return the written files.

    The files are benchmark.json, benchmark.csv and index.html. If there is data for them, there are also
    quality_latency.png, quality_throughput.png, latency_by_length.png and reliability.png. All files are finished in a
    temporary folder before the first is put in place, so that a failure leaves an earlier report unchanged. Pictures of
    an earlier report for which this one has no data are removed.

    :raises BadInput: if there are no rows, a row has no name, or no row has the given primary metric
    """
    content = BenchmarkResults.of(benchmark)
    folder.mkdir(parents=True, exist_ok=True)
    # the scratch folder is inside of the folder: that may be its own mount, and files cannot be renamed across mounts
    with scratch_folder(folder, "report") as scratch:
        names = _write_all(content, scratch)
        for name in set(PNG_FILES) - set(names):
            (folder / name).unlink(missing_ok=True)
        for name in sorted(names, key=lambda name: name == _JSON):  # the JSON is last: it marks a finished report
            os.replace(scratch / name, folder / name)
    return [folder / name for name in names]


def _write_all(content: BenchmarkResults, folder: Path) -> list[str]:
    text = json.dumps(content.raw, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    (folder / _JSON).write_text(text, encoding="utf-8")
    (folder / _CSV).write_text(_csv(content), encoding="utf-8", newline="")
    pictures = draw(content)
    (folder / _HTML).write_text(page(content, pictures), encoding="utf-8")
    return [_JSON, _CSV, _HTML, *pictures.write(folder)]


def _csv(content: BenchmarkResults) -> str:
    """Return the CSV: one line per row; missing values are empty."""
    flat = [_flat(row, content.metrics) for row in content.rows]
    columns = list(dict.fromkeys(column for row in flat for column in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _flat(row: Row, metrics: Iterable[str]) -> dict[str, Any]:
    texts = ("name", "role", "kind", "runtime", "precision")
    sizes = ("parameters", "size_mb", "peak_memory_mb", "throughput_pairs_per_s", "speedup")
    flat = {key: row.get(key) for key in (*texts, *sizes)}
    for part in ("batch", "p50", "p95", "p99"):
        flat["latency_batch" if part == "batch" else f"latency_{part}_ms"] = (row.get("latency_ms") or {}).get(part)
    for kind, unit in (("latency", "p50_{}_ms"), ("throughput", "{}_pairs_per_s")):
        flat |= {f"{kind}_pairs": row.get(f"{kind}_pairs")}
        flat |= {f"{kind}_{unit.format(part)}": number_at(row, f"{kind}_interval", part) for part in ("low", "high")}
    flat |= {f"speedup_from_{part}": number_at(row, "speedup_split", part) for part in ("model", "runtime")}
    for stage in ("before", "after"):
        flat |= {f"ece_{stage}": number_at(row, "calibration", stage, "ece", "value")}
        flat |= {f"brier_{stage}": number_at(row, "calibration", stage, "brier", "value")}
    flat |= {"under_floor": bool(row.get("under_floor")), "problem": row.get("problem")}
    for key in metrics:
        flat |= {key: metric_of(row, key)}
        flat |= {f"{key}_{part}": metric_of(row, key, part) for part in ("low", "high", "n")}
        flat |= {f"{key}_retention": number_at(row, "retention", key)}
        flat |= {f"{key}_retention_best": number_at(row, "retention_best", key)}
        flat |= {f"{key}_above_chance": number_at(row, "above_chance", key)}
        flat |= {f"{key}_gain_over_{base}": number_at(row, "gain", base, key) for base in ("untrained", "floor")}
    for point in row.get("latency_by_length") or []:
        flat |= {f"latency_{point.get('tokens')}_tokens_{part}_ms": point.get(part) for part in ("p50", "p95")}
    return flat
