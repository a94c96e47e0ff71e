"""The page of a report: one HTML file, made from the template `report.html` with all available data."""

from collections.abc import Mapping
from typing import Any

import yaml

from distill.report.calibrated import calibration_table, curve_of
from distill.report.content import LOWER_IS_BETTER, BenchmarkResults, number_at
from distill.report.pictures import Pictures
from distill.report.series import grids_of, lines_of, services_of
from distill.report.tables import batch_tables, length_table, load_table, main_table
from distill.report.templates import render
from distill.report.words import headline, kept, metric_name, verdict, worth
from distill.wording import difference_in_words

__all__ = ["page"]


def page(content: BenchmarkResults, pictures: Pictures) -> str:
    """Return the whole page. Values without data are empty, and the template leaves them out."""
    raw = content.raw
    lines, services = lines_of(content), services_of(content)
    return render(
        "report.html",
        title=str(raw.get("title") or "Benchmark"),
        date=(raw.get("environment") or {}).get("date"),
        headline=headline(content),
        reference=content.reference,
        results=main_table(content),
        pictures=pictures,
        metric=metric_name(content.primary or ""),
        lower_is_better=content.primary in LOWER_IS_BETTER,
        kept=_kept(content),
        comparisons=[
            _comparison(comparison)
            for comparison in raw.get("comparisons") or []
            if number_at(comparison, "value") is not None
        ],
        by_length=length_table(lines) if lines else None,
        batches=batch_tables(grids_of(content)),
        under_load=load_table(services) if services else None,
        calibration=calibration_table(content),
        calibrated=curve.label if (curve := curve_of(content)) is not None else "",
        data=_facts(raw.get("data") or {}),
        environment=_facts(raw.get("environment") or {}),
        notes=raw.get("notes") or [],
        recipe=_yaml(raw.get("recipe")),
    )


def _kept(content: BenchmarkResults) -> list[tuple[str, str, str]]:
    """Return each model's label, its shares of the teacher's quality, and the comparison with chance and floor."""
    if content.teacher is None:
        return []
    others = [(label, row) for label, row in content.labelled() if row.get("role") != "teacher"]
    phrases = [(label, kept(row, content), worth(row, content) or "") for label, row in others]
    return [(label, text, more[:1].upper() + more[1:]) for label, text, more in phrases if text is not None]


def _comparison(comparison: Mapping[str, Any]) -> tuple[str, str, str, str]:
    value, low, high = (number_at(comparison, part) for part in ("value", "low", "high"))
    number = "" if value is None else difference_in_words(value, low, high)
    return str(comparison.get("name", "")), metric_name(str(comparison.get("metric", ""))), number, verdict(comparison)


def _facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(_fact_name(key), _fact(value)) for key, value in facts.items() if value is not None]


def _fact_name(key: str) -> str:
    """Return a key as words: n_pairs becomes pairs."""
    return {"cpu": "CPU"}.get(key, key.removeprefix("n_").replace("_", " "))


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return " · ".join(f"{key} {_fact(item)}" for key, item in value.items() if item is not None)
    if isinstance(value, list):
        return ", ".join(_fact(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _yaml(recipe: Any) -> str:
    return yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False, width=100) if recipe else ""
