"""Teachers that compare the tokens of two texts: BGE-m3 with its three outputs, and late interaction.

They are pretrained models. This toolkit does not train, cut or export them.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from distill.recipe.black_box import BlackBox
from distill.recipe.objectives import SignalKind
from distill.recipe.section import Section, Tokens

__all__ = ["TOKEN_TEACHERS", "LateInteractionTeacher", "M3Teacher", "M3Weights", "TokenTeacher"]

TOKEN_TEACHERS = ("bge_m3", "late_interaction")
"""The kinds of teachers that compare tokens."""

_Weight = Annotated[float, Field(ge=0, le=1e6)]


class TokenTeacher(BlackBox):
    """Base of the teachers that compare tokens."""

    nature: ClassVar[str] = "used as it is"

    backbone: str = Field(min_length=1)
    """The model's folder, or its name on the hub."""
    prompts: tuple[str, str] | None = None
    """Texts put before every query and every document. None takes the prompts of the model's folder."""

    @property
    def signal(self) -> SignalKind:
        """What the teacher gives: scores of pairs."""
        return "scores"


class M3Weights(Section):
    """The weight of each output of BGE-m3 in a pair's score. A weight of 0 leaves the output out."""

    dense: _Weight = 0.4
    """Weight of the cosine between the two embeddings."""
    sparse: _Weight = 0.2
    """Weight of the lexical match: over the tokens that both texts have, the sum of the products of their two token
    weights."""
    multi_vector: _Weight = 0.4
    """Weight of the late interaction: the mean, over the query's tokens, of the greatest cosine to a token of the document."""

    @property
    def total(self) -> float:
        """The sum of the weights, by which the score is divided."""
        return self.dense + self.sparse + self.multi_vector

    @model_validator(mode="after")
    def _something(self) -> "M3Weights":
        if not self.total:
            raise ValueError("all weights are 0; at least one output has to count")
        return self


class M3Teacher(TokenTeacher):
    """BGE-m3 (Chen et al. 2024): a folder with the weights of an encoder, of sparse_linear and of colbert_linear.

    A pair's score is the weighted mean of its three scores. The dense embeddings can be used like a bi-encoder's.
    """

    form: ClassVar[Literal["bge_m3"]] = "bge_m3"
    kind: Literal["bge_m3"]
    """Names this kind of teacher."""
    weights: M3Weights = M3Weights()
    """Weights of the three scores. The defaults are those of FlagEmbedding's examples; BGE-m3 was trained with 1, 0.3
    and 1."""
    max_length: Tokens = 512
    """Longer texts are truncated to this many tokens and counted. BGE-m3 reads up to 8192 tokens."""

    @property
    def has_embeddings(self) -> bool:
        """Whether the teacher gives embeddings of texts. It does: the dense ones."""
        return True

    @property
    def model_kind(self) -> Literal["bi_encoder"]:
        """How the scores are interpreted: as cosines."""
        return "bi_encoder"

    @property
    def in_words(self) -> str:
        """A description of the teacher for readers: the weighted outputs and the model."""
        outputs = ("dense", "sparse", "multi_vector")
        parts = [f"{getattr(self.weights, name):g} {name}" for name in outputs if getattr(self.weights, name)]
        return f"{' + '.join(parts)} of {Path(self.backbone).name}"


class LateInteractionTeacher(TokenTeacher):
    """A late-interaction model (ColBERT): a folder of sentence-transformers' MultiVectorEncoder, of PyLate or of Stanford's ColBERT.

    Prompts, query expansion with [MASK] and the list of skipped tokens come from the folder.
    """

    form: ClassVar[Literal["late_interaction"]] = "late_interaction"
    kind: Literal["late_interaction"]
    """Names this kind of teacher."""
    similarity: Literal["meanmaxsim", "maxsim"] = "meanmaxsim"
    """maxsim: the sum, over the query's tokens, of the greatest similarity to a token of the document. The score is
    kept as a logit. meanmaxsim: maxsim divided by the number of the query's tokens. The score is kept as a cosine."""
    query_length: Tokens | None = None
    """Longer queries are truncated to this many tokens and counted. None is the folder's own limit."""
    document_length: Tokens | None = None
    """Longer documents are truncated to this many tokens and counted. None is the folder's own limit."""

    @property
    def model_kind(self) -> Literal["cross_encoder", "bi_encoder"]:
        """How the scores are interpreted: as cosines for meanmaxsim, as logits for maxsim."""
        return "bi_encoder" if self.similarity == "meanmaxsim" else "cross_encoder"

    @property
    def in_words(self) -> str:
        """A description of the teacher for readers: the similarity and the model."""
        return f"{self.similarity} of {Path(self.backbone).name}"
