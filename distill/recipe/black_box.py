"""Teachers that are not models of this toolkit: files of answers, servers and Python functions.

A black box gives either embeddings or scores. With embeddings, one for each text, every objective treats it as a
bi-encoder. Scores, one for each pair, are kept as logits (scale unit or logit) or as cosines (scale cosine), so that
each objective knows their scale.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from distill.recipe.endpoint import Endpoint
from distill.recipe.objectives import SignalKind
from distill.recipe.section import Count, Positive, Scripts, Section, Tokens

__all__ = [
    "BLACK_BOXES",
    "RUBRIC",
    "BlackBox",
    "CallableTeacher",
    "EndpointTeacher",
    "FileColumns",
    "FileTeacher",
    "Scale",
    "ScaledAnswers",
]

BLACK_BOXES = ("file", "endpoint", "callable")
"""The kinds of teachers that are not models of this toolkit."""

Scale = Literal["unit", "logit", "cosine"]
RUBRIC = """4: the document is exactly what the query asks for, or says the same.
3: it fits well; a detail is missing or differs.
2: it fits in part.
1: it is about the same subject and does not fit.
0: it has nothing to do with the query."""
"""The default meaning of the grades that a chat model gives."""


class BlackBox(Section):
    """Base of all teachers that only answer: they are not trained, cut or exported."""

    form: ClassVar[Literal["file", "endpoint", "callable", "bge_m3", "late_interaction"]]
    frozen: ClassVar[bool] = True
    """Always true: no step trains them."""
    nature: ClassVar[str] = "no model here"

    scripts: Scripts | None = None
    """The scripts that the teacher reads, such as [latin]. If a text is mostly in another script, the student does not
    learn the teacher's embedding of it; such texts are counted. For a translation (`data.parallel`) the source text
    decides. None reads all scripts."""

    @property
    def signal(self) -> SignalKind:
        """What the teacher gives: an embedding of each text, or a score of each pair."""
        raise NotImplementedError

    @property
    def has_embeddings(self) -> bool:
        """Whether the teacher gives an embedding of each text."""
        return self.signal == "embeddings"

    @property
    def in_words(self) -> str:
        """A description of the teacher for readers: what it gives and where it comes from."""
        raise NotImplementedError

    @property
    def role_prompts(self) -> tuple[str, str]:
        """The texts put before queries and documents."""
        return getattr(self, "prompts", None) or ("", "")

    @property
    def model_kind(self) -> Literal["cross_encoder", "bi_encoder"]:
        """How the scores are interpreted: as cosines of a bi-encoder, or as logits of a cross-encoder."""
        raise NotImplementedError


class ScaledAnswers(BlackBox):
    """Base of the teachers without a model in this toolkit (file, endpoint, callable)."""

    scale: Scale = "unit"
    """The scale of the scores. unit: between the two values of `score_range`; the first means no match. logit:
    log-odds. cosine: from −1 to 1."""
    score_range: tuple[float, float] = (0.0, 1.0)
    """Scale unit: the score of no match and the score of a perfect match, such as [0, 5]."""

    @property
    def model_kind(self) -> Literal["cross_encoder", "bi_encoder"]:
        """How the scores are interpreted: as cosines of a bi-encoder, or as logits of a cross-encoder."""
        is_cosine = self.signal == "embeddings" or self.scale == "cosine"
        return "bi_encoder" if is_cosine else "cross_encoder"

    @property
    def mapped_range(self) -> tuple[float, float] | None:
        """The range from which the scores are mapped to logits; None if they are not."""
        return self.score_range if self.signal == "scores" and self.scale == "unit" else None

    @model_validator(mode="after")
    def _scale_is_used(self) -> "ScaledAnswers":
        if self.score_range[0] >= self.score_range[1]:
            raise ValueError(
                f"score_range is {list(self.score_range)}; the score of no match comes first, and is the lower one"
            )
        if self.signal == "embeddings" and (self.scale, self.score_range) != ("unit", (0.0, 1.0)):
            raise ValueError("scale and score_range are for scores; this teacher gives embeddings, leave them out")
        if self.scale != "unit" and self.score_range != (0.0, 1.0):
            raise ValueError(f"score_range is for scale unit, not {self.scale}; leave it out")
        return self


class FileColumns(Section):
    """The names of the columns, or of the arrays of an .npz, in a file of embeddings or scores."""

    text: str = "text"
    """Embeddings: the texts."""
    vector: str = "vector"
    """Embeddings: the vectors, as lists of numbers. In .csv and .tsv each vector is a JSON list, or numbers separated
    by spaces, commas or semicolons."""
    query: str = "query"
    """Scores: the queries."""
    document: str = "document"
    """Scores: the documents."""
    score: str = "score"
    """Scores: the scores."""


class FileTeacher(ScaledAnswers):
    """A teacher whose answers are in a file: text → embedding, or (query, document) → score.

    Any program may have written the file. It must hold every text that the recipe needs. A text is looked up exactly,
    and else in Unicode form NFC with white space folded; texts found only in the second way are counted.
    """

    form: ClassVar[Literal["file"]] = "file"
    kind: Literal["file"]
    """Names this kind of teacher."""
    path: Annotated[
        tuple[str, ...],
        BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
        Field(min_length=1),
    ]
    """A .parquet, .npz, .csv, .tsv or .jsonl file (the last three also as .gz), or a list of such files."""
    gives: SignalKind
    """embeddings: the file holds a vector for each text. scores: the file holds a score for each pair."""
    columns: FileColumns = FileColumns()
    """The names of the columns."""

    @property
    def signal(self) -> SignalKind:
        """What the file holds."""
        return self.gives

    @property
    def in_words(self) -> str:
        """A description of the teacher for readers: the signal and the file names."""
        return f"{self.gives} out of {', '.join(Path(path).name for path in self.path)}"


class EndpointTeacher(ScaledAnswers):
    """A teacher on an OpenAI-compatible server.

    Each text or pair is sent once, and the answers are kept on disk. The recipe's texts are sent to the server's host.
    """

    form: ClassVar[Literal["endpoint"]] = "endpoint"
    kind: Literal["endpoint"]
    """Names this kind of teacher."""
    endpoint: Endpoint
    """The server and its model."""
    asks: Literal["embeddings", "rerank", "chat"] = "embeddings"
    """embeddings: POST /embeddings, as in OpenAI, vLLM and Ollama. rerank: POST /rerank, as in Jina, Cohere, vLLM and
    text-embeddings-inference. chat: POST /chat/completions; the model grades each pair from 0 to 4 by `rubric`."""
    dimensions: Count | None = None
    """Embeddings: the width to request. None is the model's own width."""
    prompts: tuple[str, str] | None = None
    """Embeddings: texts put before every query and every document. None adds nothing."""
    rubric: str | None = Field(default=None, min_length=1)
    """Chat: what the grades 0 to 4 mean, in any language. None is a general rubric."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Chat: the sampling temperature. Some models accept only 1."""
    batch_size: Count = 64
    """The most texts (embeddings), or documents of a query (rerank), in one request."""
    max_tokens: Tokens = 8191
    """Longer texts are truncated to this many tokens and counted. The number of tokens is estimated, rather too high
    than too low."""
    budget: Positive | None = None
    """The most dollars that this run may spend on this teacher. None is no limit; the estimate is logged in any
    case."""
    cache: str | None = None
    """Folder of the stored answers. Several runs may share it. None is a folder within the run's own."""

    @property
    def signal(self) -> SignalKind:
        """What the server gives."""
        return "embeddings" if self.asks == "embeddings" else "scores"

    @property
    def in_words(self) -> str:
        """A description of the teacher for readers: the signal, the model and the host."""
        signals = {"embeddings": "embeddings", "rerank": "rerank scores", "chat": "grades from 0 to 4"}[self.asks]
        return f"{signals} of {self.endpoint.model} at {self.endpoint.host}"

    @model_validator(mode="after")
    def _settings_are_used(self) -> "EndpointTeacher":
        belongs = {"dimensions": "embeddings", "prompts": "embeddings", "rubric": "chat", "temperature": "chat"}
        for name, asks in belongs.items():
            if self.asks != asks and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is for asks: {asks}, not {self.asks}; leave it out")
        if self.asks == "chat" and (self.scale, self.score_range) != ("unit", (0.0, 1.0)):
            raise ValueError(
                "scale and score_range mean nothing for asks: chat, whose grades are 0 to 4; leave them out"
            )
        return self


class CallableTeacher(ScaledAnswers):
    """A teacher that is a Python function, passed to the run: `Run(recipe, callables={"mine": function})`.

    The function takes a list of texts and returns their embeddings, (n_texts, width), or it takes a list of queries and
    a list of documents and returns their scores, (n_pairs,). A recipe file alone cannot name a function.
    """

    form: ClassVar[Literal["callable"]] = "callable"
    kind: Literal["callable"]
    """Names this kind of teacher."""
    gives: SignalKind
    """What the function returns: embeddings of texts, or scores of pairs."""
    revision: str = Field(min_length=1, max_length=200)
    """A name for this version of the function. Answers cached for another revision are not used."""
    prompts: tuple[str, str] | None = None
    """Embeddings: texts put before every query and every document. None adds nothing."""

    @property
    def signal(self) -> SignalKind:
        """What the function returns."""
        return self.gives

    @property
    def in_words(self) -> str:
        """A description of the teacher for readers: the signal and the revision."""
        return f"{self.gives} of a Python function, revision {self.revision}"

    @model_validator(mode="after")
    def _prompts_are_used(self) -> "CallableTeacher":
        if self.gives == "scores" and self.prompts is not None:
            raise ValueError("prompts are for embeddings, not scores; leave them out")
        return self
