"""Teachers that are no model of this toolkit: what they say was written down by anything, and is read.

A black box gives one of two things. Embeddings, one for each text: it is then a bi-encoder to every objective. Or scores, one
for each pair: these are kept as logits (scale unit or logit) or cosines, so that each objective knows what they are.
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
"""The kinds of teachers that are no models."""

Scale = Literal["unit", "logit", "cosine"]
RUBRIC = """4: the document is exactly what the query asks for, or says the same.
3: it fits well; a detail is missing or differs.
2: it fits in part.
1: it is about the same subject and does not fit.
0: it has nothing to do with the query."""
"""What the grades of a chat mean, where a recipe says nothing else."""


class BlackBox(Section):
    """What all teachers have in common that are asked and nothing else: not trained, cut or exported."""

    form: ClassVar[Literal["file", "endpoint", "callable", "bge_m3", "late_interaction"]]
    frozen: ClassVar[bool] = True
    """No step changes them."""
    nature: ClassVar[str] = "no model here"

    scripts: Scripts | None = None
    """The scripts that it reads, such as [latin]. Of a text that is mostly in another script its embedding is not learned; such
    texts are counted. A translation (`data.parallel`) counts by its source. None reads all."""

    @property
    def signal(self) -> SignalKind:
        """What it gives: an embedding of each text, or a score of each pair."""
        raise NotImplementedError

    @property
    def has_embeddings(self) -> bool:
        """Whether it gives an embedding of each text."""
        return self.signal == "embeddings"

    @property
    def in_words(self) -> str:
        """What answers, for a reader."""
        raise NotImplementedError

    @property
    def role_prompts(self) -> tuple[str, str]:
        """What is put before queries and documents."""
        return getattr(self, "prompts", None) or ("", "")

    @property
    def model_kind(self) -> Literal["cross_encoder", "bi_encoder"]:
        """What its scores are read as: cosines, as a bi-encoder's, or logits, as a cross-encoder's."""
        raise NotImplementedError


class ScaledAnswers(BlackBox):
    """What all teachers without a model here have in common."""

    scale: Scale = "unit"
    """What scores are. unit: between the ends of `score_range`, the first being no match. logit: log-odds. cosine: from −1 to 1."""
    score_range: tuple[float, float] = (0.0, 1.0)
    """Scale unit: the score of no match and that of a perfect one, such as [0, 5]."""

    @property
    def model_kind(self) -> Literal["cross_encoder", "bi_encoder"]:
        """What its scores are read as: cosines, as a bi-encoder's, or logits, as a cross-encoder's."""
        is_cosine = self.signal == "embeddings" or self.scale == "cosine"
        return "bi_encoder" if is_cosine else "cross_encoder"

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
    """Embeddings: the vectors, as lists of numbers; in .csv and .tsv each is a JSON list, or numbers between spaces, commas or
    semicolons."""
    query: str = "query"
    """Scores: the queries."""
    document: str = "document"
    """Scores: the documents."""
    score: str = "score"
    """Scores: the scores."""


class FileTeacher(ScaledAnswers):
    """A teacher whose answers stand in a file: text → embedding, or (query, document) → score, written by anything.

    Every text that the recipe asks the teacher for must be there. A text is found as it is written, else in Unicode form NFC with
    white space folded, which is counted.
    """

    form: ClassVar[Literal["file"]] = "file"
    kind: Literal["file"]
    """Names this kind of teacher."""
    path: Annotated[
        tuple[str, ...],
        BeforeValidator(lambda given: (given,) if isinstance(given, str) else given),
        Field(min_length=1),
    ]
    """A .parquet, .npz, .csv, .tsv or .jsonl file (the last three also as .gz), or a list of such files."""
    gives: SignalKind
    """embeddings: the file holds a vector for each text. scores: it holds a score for each pair."""
    columns: FileColumns = FileColumns()
    """The names of the columns."""

    @property
    def signal(self) -> SignalKind:
        """What the file holds."""
        return self.gives

    @property
    def in_words(self) -> str:
        """What answers."""
        return f"{self.gives} out of {', '.join(Path(path).name for path in self.path)}"


class EndpointTeacher(ScaledAnswers):
    """A teacher behind an OpenAI-compatible server, asked once for each text or pair; what it says is kept on disk.

    The texts of the recipe are sent to the host that it names.
    """

    form: ClassVar[Literal["endpoint"]] = "endpoint"
    kind: Literal["endpoint"]
    """Names this kind of teacher."""
    endpoint: Endpoint
    """The server and its model."""
    asks: Literal["embeddings", "rerank", "chat"] = "embeddings"
    """embeddings: POST /embeddings, as OpenAI, vLLM and Ollama have it. rerank: POST /rerank, as Jina, Cohere, vLLM and
    text-embeddings-inference have it. chat: POST /chat/completions, which grades each pair from 0 to 4 by `rubric`."""
    dimensions: Count | None = None
    """Embeddings: the width to ask for. None is the model's own width."""
    prompts: tuple[str, str] | None = None
    """Embeddings: texts put before every query and every document. None adds nothing."""
    rubric: str | None = Field(default=None, min_length=1)
    """Chat: what the grades 0 to 4 mean, in any language. None is a general one."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Chat: the sampling temperature. Some models accept 1 alone."""
    batch_size: Count = 64
    """The most texts (embeddings), or documents of a query (rerank), of one request."""
    max_tokens: Tokens = 8191
    """Where a text is cut, by an estimate that is rather too careful; cut texts are counted."""
    budget: Positive | None = None
    """The most dollars that this run spends on this teacher. None is no limit; the estimate is logged in any case."""
    cache: str | None = None
    """Folder of the answers, which several runs may share. None is in the run's own."""

    @property
    def signal(self) -> SignalKind:
        """What the server gives."""
        return "embeddings" if self.asks == "embeddings" else "scores"

    @property
    def in_words(self) -> str:
        """What answers."""
        said = {"embeddings": "embeddings", "rerank": "rerank scores", "chat": "grades from 0 to 4"}[self.asks]
        return f"{said} of {self.endpoint.model} at {self.endpoint.host}"

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
    """A teacher that is a Python function, given to the run: `Run(recipe, callables={"mine": function})`.

    The function takes a list of texts and returns their embeddings, (n_texts, width), or takes a list of queries and one of
    documents and returns their scores, (n_pairs,). A recipe file alone names no function.
    """

    form: ClassVar[Literal["callable"]] = "callable"
    kind: Literal["callable"]
    """Names this kind of teacher."""
    gives: SignalKind
    """What the function returns: embeddings of texts, or scores of pairs."""
    revision: str = Field(min_length=1, max_length=200)
    """A word for this version of the function. What was cached of another revision is not used."""
    prompts: tuple[str, str] | None = None
    """Embeddings: texts put before every query and every document. None adds nothing."""

    @property
    def signal(self) -> SignalKind:
        """What the function returns."""
        return self.gives

    @property
    def in_words(self) -> str:
        """What answers."""
        return f"{self.gives} of a Python function, revision {self.revision}"

    @model_validator(mode="after")
    def _prompts_are_used(self) -> "CallableTeacher":
        if self.gives == "scores" and self.prompts is not None:
            raise ValueError("prompts are for embeddings, not scores; leave them out")
        return self
