"""Adapt an encoder to the recipe's text by masked-language modelling: `kind: mlm`.

The training texts are those of the training pairs, `data.unlabelled` and `data.parallel`, each once; the validation
pairs' texts give the perplexity before and after. The artefact is a plain bi-encoder folder. It can be scored as it is,
or be the backbone of a later teacher (`backbone: {teacher: <name>}`) or, by its path, of another recipe.
"""

import logging
from itertools import chain

from distill.data.pairs import Pairs
from distill.errors import BadInput
from distill.models.backbone import resolve_name
from distill.models.modeling import tokenizer_of
from distill.progress import progress
from distill.recipe.schema import Mlm, Teacher
from distill.run import Run
from distill.training.fitting import Job, built_for_training, fit, seed_parameters_beside
from distill.training.mlm import MlmStep, PackedText

__all__ = ["adapt"]

log = logging.getLogger(__name__)


def adapt(run: Run, job: Job, teacher: Teacher) -> None:
    """Train the job's encoder on the recipe's text; every process of a launch calls this.

    :raises BadInput: if the architecture or the tokenizer does not support masking, or if there is no text
    """
    settings = teacher.mlm or Mlm()

    def load_units(run: Run, job: Job, show: bool) -> tuple[PackedText, PackedText]:
        tokenizer = tokenizer_of(job.build_model())
        train, validation = (
            list(dict.fromkeys(texts))
            for texts in (chain(_texts(run.split.train), run.split.unpaired), _texts(run.split.validation))
        )
        with progress(f"{job.name}: tokenizing", len(train), show=show) as report:
            packed = PackedText.build(
                tokenizer, train, max_length=job.max_length, probability=settings.probability, on_progress=report
            )
        if not len(packed):
            raise BadInput(f"{job.name}: the training texts hold no tokens to learn from")
        held_back = PackedText.build(tokenizer, validation, max_length=job.max_length, probability=settings.probability)
        return packed, held_back

    def build_step(job: Job) -> MlmStep:
        model = built_for_training(job)
        seed_parameters_beside(job)
        pretrained = resolve_name(teacher.backbone) if isinstance(teacher.backbone, str) else None
        return MlmStep(model, settings, pretrained=pretrained)

    fit(run, job, load_units, build_step)
    metrics = run.require(job.target, "train_teacher").metrics
    if "perplexity_before" in metrics:
        after = metrics.get("perplexity_after")
        in_words = "not measured after" if after is None else f"{after:.2f} after"
        log.info("%s: perplexity %.2f before, %s", job.name, metrics["perplexity_before"], in_words)


def _texts(pairs: Pairs) -> chain[str]:
    return chain(pairs.queries, pairs.documents)
