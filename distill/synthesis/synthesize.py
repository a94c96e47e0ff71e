"""Generate résumé–job-description pairs with a language model.

A killed run continues, and no stored answer is paid twice.

    slot ─▶ cell (family × seniority × language) ─▶ prompt ─▶ answer ─▶ checked ─▶ answers.jsonl ─▶ pairs.jsonl
                                                                 └─▶ rejected.jsonl, with the reason

**Requests.**  One request asks for a résumé and the job descriptions for it, so that the same résumé has pairs with
different labels. With binary labels, these are a match and a near miss (another specialism of the family, or a level
two steps away). For a `random_share` of the requests, only the match is requested, and the second pair is made from the
résumé and a job description of another family, which costs nothing. With grades, they are two grades of 0–4, which
alternate so that five requests contain every grade twice.

**Numbers.**  Request number *i* always asks for the same cell. If its answer is unusable `max_tries` times, or is a
near duplicate of an earlier one, request *i + n_requests* of the same cell replaces it.

**Files** of the output folder. The .jsonl files are append-only, with one JSON object per line; an incomplete last line
after a kill is removed:

    answers.jsonl   the answers, with résumé and jobs by section; an answer is stored once its line is on disk
    pairs.jsonl     the file for `data.train`: resume, jd, label, …; rewritten from the answers at a run's start and end
    rejected.jsonl  every unusable answer with its reason
    spending.jsonl  each request's maximum cost before it is sent, and its real cost; a request left open counts in full
    settings.json   the settings on which the pairs depend; README.md and card.json: the data card, written at the end
"""

import asyncio
import json
import logging
import random
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distill.data.bundled_words import LEVELS
from distill.endpoints.answers import Answer, BadAnswer
from distill.endpoints.budget import Budget, BudgetSpent
from distill.endpoints.ledger import JsonLines, budget_of
from distill.endpoints.tokens import estimated_tokens, most_tokens
from distill.errors import BadInput, JobFailed
from distill.files.artefact import content_hash, write_json
from distill.files.locking import only_process
from distill.files.outputs import check_output_folder, make_folder
from distill.progress import Progress, progress
from distill.recipe.endpoint import PRICES_AS_OF, Usage
from distill.synthesis.answers import NearDuplicates, Unusable, read_answer, text_of, write_out
from distill.synthesis.prompts import (
    Record,
    ResumeAndJob,
    ResumeAndJobs,
    SynthesisSettings,
    asked_kinds,
    label_of,
    make_settings,
    makes_random_negative,
    messages_of,
    option_of,
    prompt_hash,
    stratum_of,
)
from distill.wording import in_dollars

if TYPE_CHECKING:
    from distill.endpoints.client import Client

__all__ = ["CostEstimate", "SynthesisSettings", "estimate", "make_settings", "synthesize"]

log = logging.getLogger(__name__)

_MAX_SUBSTITUTES = 5  # per slot and run; after that, the model is considered unsuitable
_TYPICAL_TOKENS = {"ko": (900, 450), "en": (650, 300)}  # (résumé, job description), for the estimate
_ESTIMATED_FROM = 200  # number of prompts for the estimate

# ------------------------------------------------------------------------------------------------ the output folder


class _Store:
    """The output folder: the stored answers and pairs, and the open slots."""

    def __init__(self, folder: Path, settings: SynthesisSettings) -> None:
        self.folder, self.settings = folder, settings
        self._answers = JsonLines(
            folder / "answers.jsonl",
            request=int,
            family=str,
            seniority=str,
            language=str,
            kinds=list,
            resume=dict,
            jobs=list,
            usage=dict,
        )
        self._rejected = JsonLines(folder / "rejected.jsonl", request=int, reason=str)
        self._spending = JsonLines(folder / "spending.jsonl", dollars=int | float)
        self.answers = {record["request"] % settings.n_requests: record for record in self._answers.records}
        self._tries = Counter(record["request"] for record in self.rejected)
        self._duplicates = {record["request"] for record in self.rejected if record["reason"] == "near duplicate"}
        self._resumes, self._jobs = (NearDuplicates(settings.near_duplicate) for _ in range(2))
        for record in self._answers.records:
            self._remember(record)
        self._pairs = self._write_pairs()

    @property
    def rejected(self) -> list[Record]:
        """All unusable answers of all runs."""
        return self._rejected.records

    @property
    def n_pairs(self) -> int:
        """The number of stored pairs."""
        return len(self._pairs.records)

    @property
    def is_complete(self) -> bool:
        """Whether every slot has its answer."""
        return len(self.answers) == self.settings.n_requests

    def budget(self) -> Budget:
        """Return the budget, including the spending of earlier runs. Requests left open by a kill count in full."""
        return budget_of(self._spending, self.settings.budget_usd)

    def open_slots(self) -> list[int]:
        """Return the slots without an answer."""
        return [slot for slot in range(self.settings.n_requests) if slot not in self.answers]

    def next_request(self, slot: int) -> tuple[int, int]:
        """Return the next request number of a slot, and the number of the attempt."""
        number = slot
        while number in self._duplicates or self._tries[number] >= self.settings.max_tries:
            number += self.settings.n_requests
        return number, self._tries[number] + 1

    def add(self, number: int, content: ResumeAndJob, usage: Usage) -> int:
        """Store an answer and return the number of its pairs.

        :raises Unusable: if it is a near duplicate.
        """
        slot = number % self.settings.n_requests
        cell = stratum_of(slot, self.settings)
        record: Record = {
            "request": number,
            "family": cell.family.key,
            "seniority": LEVELS[cell.level].key,
            "language": cell.language,
            "kinds": list(asked_kinds(slot, self.settings)),
            "resume": content.resume.model_dump(),
            "jobs": [job.model_dump() for job in content.jobs],
            "usage": usage._asdict(),
        }
        self._refuse_duplicate(record)
        self._answers.append(record)
        self._remember(record)
        self.answers[slot] = record
        pairs = self._asked_pairs(record)
        self._pairs.append(*pairs, durable=False)  # pairs can be made again from the answers
        return len(pairs)

    def reject(self, number: int, unusable: Unusable, text: str) -> None:
        """Store an unusable answer with its reason."""
        self._rejected.append(
            {"request": number, "reason": unusable.reason, "detail": unusable.detail, "text": text[:20_000]}
        )
        self._tries[number] += 1
        if unusable.reason == "near duplicate":
            self._duplicates.add(number)

    def finish(self) -> list[Record]:
        """Write all pairs in the order of the slots, including random negatives, and return them."""
        self._pairs.close()
        self._pairs = self._write_pairs()
        return self._pairs.records

    def close(self) -> None:
        """Close all files."""
        for file in (self._answers, self._rejected, self._spending, self._pairs):
            file.close()

    def usage(self) -> Usage:
        """Return the tokens of the stored answers."""
        usages = [record["usage"] for record in self._answers.records]
        return Usage(sum(usage["input_tokens"] for usage in usages), sum(usage["output_tokens"] for usage in usages))

    def _write_pairs(self) -> JsonLines:
        path = self.folder / "pairs.jsonl"
        temporary = path.with_name(".pairs.jsonl.tmp")
        temporary.unlink(missing_ok=True)
        pairs = JsonLines(temporary)
        pairs.append(*(pair for slot in sorted(self.answers) for pair in self._pairs_of(slot)))
        temporary.replace(path)
        return pairs

    def _pairs_of(self, slot: int) -> list[Record]:
        """Return the pairs of a slot. A random negative is only made when all answers are stored."""
        pairs = self._asked_pairs(self.answers[slot])
        if makes_random_negative(slot, self.settings) and self.is_complete:
            pairs.append(self._random_negative(slot))
        return pairs

    def _asked_pairs(self, record: Record) -> list[Record]:
        return [self._pair(record, job, kind) for job, kind in zip(record["jobs"], record["kinds"], strict=True)]

    def _random_negative(self, slot: int) -> Record:
        """Return a slot's résumé with the match of the next slot of another family, if possible in its language."""
        record, n = self.answers[slot], self.settings.n_requests

        def is_other_family(candidate: Record) -> bool:
            return bool(candidate["family"] != record["family"])

        def others() -> Iterator[Record]:
            return filter(is_other_family, (self.answers[(slot + step) % n] for step in range(1, n)))

        partner = next(
            (candidate for candidate in others() if candidate["language"] == record["language"]), None
        ) or next(others())
        return self._pair(record, partner["jobs"][0], "random_negative", jd_language=partner["language"])

    def _pair(self, record: Record, job: Mapping[str, str], kind: str, jd_language: str | None = None) -> Record:
        language = record["language"]
        resume_rng = random.Random(f"{self.settings.seed}/resume style/{record['request']}")
        job_rng = random.Random(f"{self.settings.seed}/job style/{content_hash(job)}")
        return {
            "resume": write_out(record["resume"], language, resume_rng),
            "jd": write_out(job, jd_language or language, job_rng),
            "label": label_of(kind),
            "kind": kind,
            "family": record["family"],
            "seniority": record["seniority"],
            "language": language,
            "request": record["request"],
        }

    def _refuse_duplicate(self, record: Record) -> None:
        if earlier := self._resumes.find(text_of(record["resume"])):
            raise Unusable("near duplicate", f"of the résumé of request {earlier}")
        for job in record["jobs"]:
            if earlier := self._jobs.find(text_of(job)):
                raise Unusable("near duplicate", f"of a job description of request {earlier.partition('/')[0]}")

    def _remember(self, record: Record) -> None:
        self._resumes.add(str(record["request"]), text_of(record["resume"]))
        for i, job in enumerate(record["jobs"]):
            self._jobs.add(f"{record['request']}/{i}", text_of(job))


@contextmanager
def _opened(folder: Path, settings: SynthesisSettings) -> Iterator[_Store]:
    """Yield the store of a folder, locked for this process.

    :raises BadInput: if the folder was made with other settings, or holds other files
    """
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder} is a file; name a folder")
    _make(folder)
    with only_process(folder):
        _check_settings(folder, settings.content())
        store = _Store(folder, settings)
        try:
            yield store
        finally:
            store.close()


def _make(folder: Path) -> None:
    """Create a folder, or check that it is empty or an output of this module. Another folder is left without a trace.

    :raises BadInput: if the folder holds other files
    """
    hidden = [entry.name for entry in folder.glob(".*")] if folder.is_dir() else []
    check_output_folder(folder, ours=["settings.json", *hidden], overwrite=True)
    make_folder(folder)
    if not (folder / "settings.json").is_file() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise BadInput(f"{folder} holds other files; name a new folder")


def _check_settings(folder: Path, content: Record) -> None:
    path = folder / "settings.json"
    if not path.is_file():
        write_json(path, content)
        return
    try:
        stored: Record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        stored = {}
    if not isinstance(stored, dict) or not stored:
        raise BadInput(f"{path} is damaged; restore it or name another folder") from None
    if changed := [name for name in content if stored.get(name) != content[name]]:
        changes = ", ".join(
            f"{option_of(name)} was {stored.get(name)!r} and is now {content[name]!r}" for name in changed
        )
        raise BadInput(f"{folder} was begun with other settings: {changes}; set them back or name another folder")


# ------------------------------------------------------------------------------------------------ the run


@dataclass(frozen=True)
class CostEstimate:
    """The expected requests, tokens and cost of a whole run, without retries."""

    n_requests: int
    input_tokens: int
    output_tokens: int
    dollars: float
    worst_dollars: float

    def __str__(self) -> str:
        return (
            f"{self.n_requests} requests, about {self.input_tokens:,} tokens in and {self.output_tokens:,} out: "
            f"about {in_dollars(self.dollars)}, at most {in_dollars(self.worst_dollars)}, retries not counted (prices of {PRICES_AS_OF})"
        )


def estimate(settings: SynthesisSettings) -> CostEstimate:
    """Return the estimated requests, tokens and cost of `synthesize`. Nothing is sent.

    :raises BadInput: if the price of the model is unknown.
    """
    n, price = settings.n_requests, settings.endpoint.price
    slots = range(0, n, max(1, n // _ESTIMATED_FROM))
    shape = json.dumps(ResumeAndJobs.model_json_schema())
    typical, longest, written = 0, 0, 0
    for slot in slots:
        prompt = json.dumps(messages_of(slot, 1, settings), ensure_ascii=False) + shape
        typical, longest = typical + estimated_tokens(prompt), longest + most_tokens(prompt)
        of_resume, of_job = _TYPICAL_TOKENS[stratum_of(slot, settings).language]
        written += of_resume + of_job * len(asked_kinds(slot, settings))
    scale = n / len(slots)
    expected = Usage(round(typical * scale), round(written * scale))
    worst = Usage(round(longest * scale), settings.max_tokens * n)
    return CostEstimate(n, *expected, price.of(expected), price.of(worst))


def synthesize(settings: SynthesisSettings, output: Path, *, show_progress: bool = True) -> Path:
    """Generate the requested number of pairs and the data card; return the path of the file of pairs.

    To continue after a kill, an error or Ctrl-C, call it again. Stored answers are not requested again.

    :raises BadInput: if the folder was made with other settings, the API key is missing, or the price is unknown.
    :raises JobFailed: if the budget is spent, the server does not answer, or the model's answers are always unusable.
    """
    expected = estimate(settings)
    settings.endpoint.key()
    import distill.endpoints.client  # noqa: F401  # reports a missing package before the folder is created

    with _opened(output, settings) as store:
        if (output / "card.json").is_file() and store.is_complete:
            log.info("%s is finished already", output)
            return output / "pairs.jsonl"
        log.info("%s", expected)
        if expected.dollars > settings.budget_usd:
            log.warning(
                "the budget of %s will not suffice; every answer that it pays for is kept",
                in_dollars(settings.budget_usd),
            )
        budget = store.budget()
        with progress("synthesize", settings.n_pairs, start=store.n_pairs, show=show_progress) as report:
            try:
                faults = asyncio.run(_fill(store, budget, report))
            except BudgetSpent as spent:
                raise JobFailed(
                    f"{spent}; {store.n_pairs} of {settings.n_pairs} pairs are stored in {output}: "
                    "go on with the same settings and a larger budget"
                ) from None
            n_asked = store.n_pairs
            pairs = store.finish()
            if len(pairs) > n_asked:
                report(len(pairs) - n_asked)
        _write_card(store, pairs, budget.spent, faults)
    return output / "pairs.jsonl"


async def _fill(store: _Store, budget: Budget, report: Progress) -> Counter[str]:
    """Send requests until every slot has an answer; return the number of server and network faults by cause."""
    from distill.endpoints.client import Client, run_all

    slots = iter(store.open_slots())
    async with Client(store.settings.endpoint, budget) as client:

        async def work() -> None:
            for slot in slots:  # the iterator is shared: each worker takes the next slot
                n_new = await _fill_slot(store, client, slot)
                report(n_new, f"{in_dollars(budget.spent)} of {in_dollars(store.settings.budget_usd)}")

        await run_all(work() for _ in range(store.settings.endpoint.concurrency))
        return client.faults


async def _fill_slot(store: _Store, client: "Client", slot: int) -> int:
    """Request the answer of one slot until it is usable; return the number of its pairs.

    :raises JobFailed: if the answers to all substitutes are unusable, too
    """
    settings = store.settings
    first, _ = store.next_request(slot)
    while True:
        number, attempt = store.next_request(slot)
        if number - first > _MAX_SUBSTITUTES * settings.n_requests:
            raise JobFailed(
                f"no usable answer to request {slot} or its {_MAX_SUBSTITUTES} substitutes (last: "
                f"{store.rejected[-1]['reason']}); look into {store.folder / 'rejected.jsonl'}, or take another model"
            )
        text = ""
        try:
            answer = await _ask(client, number, attempt, settings)
            text = answer.text
            content = read_answer(answer, len(asked_kinds(slot, settings)), stratum_of(slot, settings).language)
            return store.add(number, content, answer.usage)
        except BadAnswer as error:
            store.reject(number, Unusable(str(error)), text)
        except Unusable as unusable:
            store.reject(number, unusable, text)


async def _ask(client: "Client", number: int, attempt: int, settings: SynthesisSettings) -> Answer:
    n_jobs = len(asked_kinds(number % settings.n_requests, settings))
    return await client.chat(
        messages_of(number, attempt, settings),
        ResumeAndJob if n_jobs == 1 else ResumeAndJobs,
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
    )


# ------------------------------------------------------------------------------------------------ the data card


def _write_card(store: _Store, pairs: Sequence[Record], dollars: float, faults: Counter[str]) -> None:
    settings, reasons = store.settings, Counter(record["reason"] for record in store.rejected)
    card: Record = {
        "n_pairs": len(pairs),
        "n_requests": settings.n_requests,
        "settings": settings.content(),
        "model": settings.endpoint.model,
        "prompt_hash": prompt_hash(),
        "cost_usd": round(dollars, 6),
        "prices_usd_per_million_tokens": settings.endpoint.price._asdict(),
        "tokens_of_stored_answers": store.usage()._asdict(),
        "characters": {name: _lengths([pair[name] for pair in pairs]) for name in ("resume", "jd")},
        **{f"pairs_by_{name}": _counted(pairs, name) for name in ("label", "kind", "language", "seniority", "family")},
        "near_duplicates_removed": reasons.pop("near duplicate", 0),
        "rejected_by_reason": dict(reasons.most_common()),
        "server_faults_of_last_run": dict(faults.most_common()),
    }
    (store.folder / "README.md").write_text(_readme(card), encoding="utf-8")
    write_json(store.folder / "card.json", card)  # written last: it marks the run as finished


def _lengths(texts: Sequence[str]) -> Record:
    lengths = [len(text) for text in texts]
    return {"min": min(lengths), "median": statistics.median(lengths), "max": max(lengths)}


def _counted(pairs: Sequence[Record], name: str) -> dict[str, int]:
    return dict(sorted(Counter(str(pair[name]) for pair in pairs).items()))


def _readme(card: Record) -> str:
    """Return the data card as Markdown, with the metadata header for dataset hubs."""
    is_graded = card["settings"]["labels"] == "grades"
    languages = "".join(f"\n- {language}" for language in card["settings"]["languages"])
    tables = "\n\n".join(
        f"| {name} | pairs |\n|---|---:|\n"
        + "\n".join(f"| {key} | {n} |" for key, n in card[f"pairs_by_{name}"].items())
        for name in ("label", "kind", "language", "seniority", "family")
    )
    rejected = "\n".join(f"- {reason}: {n}" for reason, n in card["rejected_by_reason"].items()) or "- none"
    lengths = "\n".join(
        f"| {name} | {c['min']} | {c['median']:g} | {c['max']} |" for name, c in card["characters"].items()
    )
    return f"""---
language:{languages}
tags:
- synthetic
---
# {card["n_pairs"]} synthetic résumé–job-description pairs

Written by `{card["model"]}` from the prompts with hash `{card["prompt_hash"]}`; all people and companies are invented.
Cost: {in_dollars(card["cost_usd"])}, requests whose fate is unknown counted in full. `settings.json` repeats what was asked.

Train with `data.train: pairs.jsonl`, columns `resume`, `jd`, `label`{", and `data.label_range: [0, 4]`" if is_graded else ""}.
The labels are what the model was asked for, not what a person judged: look through a sample before you rely on them.

{tables}

| characters | min | median | max |
|---|---:|---:|---:|
{lengths}

Near duplicates removed: {card["near_duplicates_removed"]}. Other answers that could not be used:

{rejected}
"""
