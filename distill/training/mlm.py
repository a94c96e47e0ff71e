"""Masked-language modelling (Devlin et al. 2019): an encoder is trained further on the recipe's own text.

Texts are packed back to back into blocks of the full length, so that no token of a step is padding. In every block a
share of the tokens is chosen anew in each pass: 80 % become the mask, 10 % a random token, 10 % stay. With
`whole_words` all pieces of a chosen word are (Cui et al. 2021): where a Korean word is cut into syllables, a single hidden
one is read off its neighbours and nothing is learned of the word. What becomes of it is then drawn for the word, as SpanBERT
does for a span (Joshi et al. 2020). A block never takes a word that would exceed its share, so a few fewer
tokens are chosen than the share says: of words of three pieces, a tenth fewer.

The head runs on the chosen positions alone: over a vocabulary of 250,000 the logits of all positions would be gigabytes.
Where a checkpoint holds no masked-language head, or a part of one only, the rest is drawn at random; the log and the card say
which tensors are. Such a head has to be learned before the encoder learns anything from it.

Validation masks are drawn from each block's number, the same in every evaluation: perplexities before and after compare.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.data.tokens import TokenTable, pad_token_id, tokenize
from distill.errors import BadInput
from distill.files.trust import load_auto
from distill.models.modeling import loading, quiet, tokenizer_of, transformer_of
from distill.recipe.schema import Mlm
from distill.training.task import TaskStep

__all__ = ["MaskedPass", "MlmStep", "PackedText", "choose_tokens", "pack"]

_MASKED, _RANDOM = 0.8, 0.9  # below the first: the mask; up to the second: a random token; above: as it was
# head and encoder share weights on purpose: a checkpoint holds them once, and accelerate lists all of them each time
logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)
log = logging.getLogger(__name__)
_SHOWN = 3


def pack(table: TokenTable, *, length: int, first: int | None, last: int | None) -> TokenTable:
    """Lay sequences without special tokens back to back, each closed by `last`, and cut blocks of `length` tokens.

    :param first: the token that opens a block (CLS), None for none; `last` closes each text and each block (SEP)

    >>> table = TokenTable(np.array([5, 6, 7, 8]), np.array([0, 3, 4]), None, 0)
    >>> packed = pack(table, length=5, first=1, last=2)
    >>> [packed.ids[a:b].tolist() for a, b in zip(packed.offsets, packed.offsets[1:])]
    [[1, 5, 6, 7, 2], [1, 8, 2]]
    """
    closing = [] if last is None else [last]
    opening = [] if first is None else [first]
    gaps = np.repeat(table.offsets[1:], len(closing))
    stream = np.insert(table.ids, gaps, closing * len(table)) if closing else table.ids
    room = length - len(opening) - len(closing)
    if room < 1:
        raise BadInput(f"max_length {length} leaves no room for text; 8 tokens are the least")
    blocks = []
    for start in range(0, len(stream), room):
        body = stream[start : start + room]
        if closing:  # a text that ends where a block does closes it, and does not open the next
            body = body[int(body[0] == last) :]
            body = body[: len(body) - int(len(body) > 0 and body[-1] == last)]
        if len(body):
            blocks.append(np.concatenate([opening, body, closing]).astype(np.int32))
    offsets = np.concatenate([[0], np.cumsum([len(block) for block in blocks], dtype=np.int64)]).astype(np.int64)
    ids = np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.int32)
    types = None if table.type_ids is None else np.zeros(len(ids), dtype=np.int8)
    return TokenTable(ids, offsets, types, table.pad_id, length)


def choose_tokens(may: Tensor, starts: Tensor, n_chosen: Tensor, draw: Tensor) -> Tensor:
    """Choose tokens of every row, word by word in the order of `draw`, until a word would exceed the row's number.

    *Shape:* may, starts, draw: (n_rows, n_tokens), tokens that may be chosen, that begin a word, uniform random numbers;
    n_chosen: (n_rows,); result: (n_rows, n_tokens), bool
    """
    word = starts.long().cumsum(dim=1)  # (n_rows, n_tokens): the number of each token's word
    order = _by_word(draw, starts).masked_fill(~may, torch.inf).argsort(dim=1, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1]).expand_as(order))
    # a word is in when its last piece is
    last_rank = torch.zeros(len(word), word.shape[1] + 1, dtype=torch.long)
    last_rank.scatter_reduce_(1, word, torch.where(may, rank, 0), "amax")
    return may & (torch.gather(last_rank, 1, word) < n_chosen[:, None])


def _by_word(draw: Tensor, starts: Tensor) -> Tensor:
    """Give all tokens of a word one random number. *Shape:* all (n_rows, n_tokens)."""
    return torch.gather(draw, 1, starts.long().cumsum(dim=1).clamp(max=draw.shape[1] - 1))


@dataclass
class MaskedPass:
    """Blocks of one forward pass, not yet masked.

    *Shape:* inputs: one part, each {name: (n_blocks, n_tokens)}; rows: (n_blocks,), their numbers
    """

    inputs: list[dict[str, Tensor]]
    rows: np.ndarray
    weight: float
    """What a chosen token's loss counts for: one over the tokens of the whole step that its share allows, times the processes."""

    def to(self, device: torch.device) -> "MaskedPass":
        """Move every tensor to a device."""
        return replace(self, inputs=[{name: value.to(device) for name, value in self.inputs[0].items()}])


@dataclass
class PackedText:
    """Blocks of packed text as units."""

    tokens: TokenTable
    probability: float
    coupled: bool = False
    valued_at_start: bool = True
    kind: str = field(default="mlm", init=False)

    @classmethod
    def build(
        cls,
        tokenizer: Any,
        texts: Sequence[str],
        *,
        max_length: int,
        probability: float,
        on_progress: Callable[[int], None] | None = None,
    ) -> "PackedText":
        """Tokenise texts whole, however long, and pack them."""
        token_table = tokenize(tokenizer, texts, max_length=2**30, special_tokens=False, on_progress=on_progress)
        first = tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id
        last = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
        return cls(pack(token_table, length=max_length, first=first, last=last), probability)

    @property
    def cannot_rank(self) -> str | None:
        """None: a perplexity is always there."""
        return None

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def unit_lengths(self) -> np.ndarray:
        """Tokens of each block. *Shape:* (n_blocks,)."""
        return self.tokens.lengths

    @property
    def unit_sequences(self) -> np.ndarray:
        """One each. *Shape:* (n_blocks,)."""
        return np.ones(len(self), dtype=np.int64)

    def unit_sequences_of(self, units: np.ndarray) -> int:
        """Return the number of the given blocks, which are one sequence each."""
        return len(units)

    def counts(self, units: np.ndarray) -> dict[str, int]:
        """Return how many tokens are chosen in the given blocks."""
        return {"chosen": int(n_chosen(self.tokens.lengths[units], self.probability).sum())}

    def batch(self, units: np.ndarray, *, totals: Mapping[str, int], n_processes: int = 1) -> MaskedPass:
        """Build the pass over the given blocks; an empty one counts for nothing."""
        weight = n_processes / max(totals["chosen"], 1) if len(units) else 0.0
        units = units if len(units) else np.array([0])
        return MaskedPass([self.tokens.batch(units)], units, weight)

    def value(self, rows: np.ndarray, outputs: np.ndarray) -> float:
        """Return minus the mean loss of a chosen token. *Shape:* outputs: (n_blocks, 2), sum of losses and count."""
        return -float(outputs[:, 0].sum() / max(outputs[:, 1].sum(), 1))


def n_chosen(lengths: Any, probability: float) -> Any:
    """Return how many tokens of blocks of these lengths are chosen; the two special ones do not count."""
    return (probability * (lengths - 2) + 0.5).astype(np.int64).clip(min=1)


class MlmStep(TaskStep):
    """A step of masked-language modelling on the encoder inside a sentence-transformers model.

    :param model: whose encoder is trained; its pooling goes along unchanged
    :param pretrained: a checkpoint that may hold the head that the encoder was trained with; None draws a new one
    :raises BadInput: for an architecture without a masked-language head
    """

    special: Tensor
    starts: Tensor

    def __init__(self, model: Any, settings: Mlm, *, pretrained: str | None) -> None:
        super().__init__()
        self.model, self.settings = model, settings
        tokenizer = tokenizer_of(model)
        if tokenizer.mask_token_id is None:
            raise BadInput("this tokenizer has no mask token, so its encoder cannot learn by masking")
        self.mask_id, self.pad_id = int(tokenizer.mask_token_id), pad_token_id(tokenizer)
        n_vocabulary = transformer_of(model).get_input_embeddings().num_embeddings
        special = torch.zeros(n_vocabulary, dtype=torch.bool)
        special[[i for i in tokenizer.all_special_ids if i < n_vocabulary]] = True
        self.n_random = min(len(tokenizer), n_vocabulary)
        self.register_buffer("special", special, persistent=False)
        self.register_buffer("starts", _word_starts(tokenizer, n_vocabulary, settings.whole_words), persistent=False)
        self.language_model, drawn = _language_model(model, pretrained)
        if drawn:
            more = f" and {len(drawn) - _SHOWN} more" if len(drawn) > _SHOWN else ""
            reason = "the encoder comes without one" if pretrained is None else f"{pretrained} does not hold it"
            log.warning(
                "the masked-language head starts at random in %s%s: %s", ", ".join(drawn[:_SHOWN]), more, reason
            )
        self.details = {"mlm": {"pretrained": pretrained, "drawn_at_random": drawn}}

    def metrics(self, values: Sequence[float]) -> dict[str, float]:
        """Return the perplexity of the chosen tokens before training and, if they were evaluated, of the kept weights."""
        if not values:
            return {}
        before = {"perplexity_before": math.exp(-values[0])}
        return before | ({"perplexity_after": math.exp(-max(values[1:]))} if len(values) > 1 else {})

    def forward(self, batch: MaskedPass, *, predict: bool = False) -> dict[str, Tensor]:
        """Return {"mlm": the pass's share of the step's mean loss}, or {"scores": (n_blocks, 2)}."""
        inputs = batch.inputs[0]
        n_rows, n_tokens = inputs["input_ids"].shape
        if predict:  # each block draws from its own number
            draw = torch.stack([torch.rand(3, n_tokens, generator=_seeded(row)) for row in batch.rows.tolist()], dim=1)
        else:
            draw = torch.rand(3, n_rows, n_tokens)
        ids = inputs["input_ids"].cpu()
        masked, chosen = self._masked(ids, inputs["attention_mask"].cpu(), draw)
        masked = masked.to(inputs["input_ids"].device)
        targets, chosen = ids[chosen].to(masked.device), chosen.to(masked.device)
        logits = self._logits({**inputs, "input_ids": masked}, chosen)
        loss = nn.functional.cross_entropy(logits.float(), targets, reduction="none")  # (n_chosen,)
        if predict:
            rows = chosen.nonzero()[:, 0]
            sums = torch.zeros(n_rows, 2, device=loss.device)
            return {"scores": sums.index_add(0, rows, torch.stack([loss, torch.ones_like(loss)], dim=1))}
        return {"mlm": batch.weight * loss.sum(), "nothing": 0.0 * logits.float().sum()}

    def _masked(self, ids: Tensor, mask: Tensor, draw: Tensor) -> tuple[Tensor, Tensor]:
        """Return the ids with some hidden, and which were chosen. *Shape:* draw: (3, n_blocks, n_tokens)."""
        may = mask.bool() & ~self.special.cpu()[ids]
        starts = self.starts.cpu()[ids] | ~may
        counts = torch.from_numpy(n_chosen(mask.sum(dim=1).numpy(), self.settings.probability))
        chosen = choose_tokens(may, starts, counts, draw[0])
        return self._replaced(ids, chosen, _by_word(draw[1], starts), draw[2]), chosen

    def _replaced(self, ids: Tensor, chosen: Tensor, action_draw: Tensor, token_draw: Tensor) -> Tensor:
        random_ids = (token_draw * self.n_random).long().clamp(max=self.n_random - 1)
        replaced = torch.where(action_draw < _MASKED, torch.full_like(ids, self.mask_id), ids)
        replaced = torch.where((action_draw >= _MASKED) & (action_draw < _RANDOM), random_ids, replaced)
        return torch.where(chosen, replaced, ids)

    def _logits(self, inputs: Mapping[str, Tensor], chosen: Tensor) -> Tensor:
        """Run the encoder on all tokens and the head on the chosen ones. *Shape:* (n_chosen, n_vocabulary)."""
        handle = transformer_of(self.model).register_forward_hook(partial(_keep_chosen, chosen))
        try:
            logits: Tensor = self.language_model(**inputs).logits[0]
        finally:
            handle.remove()
        return logits


def _keep_chosen(chosen: Tensor, module: nn.Module, inputs: Any, output: Any) -> Any:
    output["last_hidden_state"] = output["last_hidden_state"][chosen][None]  # (1, n_chosen, width)
    return output


def _seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def _word_starts(tokenizer: Any, n_vocabulary: int, whole_words: bool) -> Tensor:
    """Tell which ids begin a word, by the mark of the tokenizer's kind: "##" inside, or "▁" or "Ġ" in front."""
    starts = torch.ones(n_vocabulary, dtype=torch.bool)
    if not whole_words:
        return starts
    tokens = tokenizer.convert_ids_to_tokens(list(range(min(len(tokenizer), n_vocabulary))))
    inside = [token is not None and token.startswith("##") for token in tokens]
    if not any(inside):
        front = [token is not None and token.startswith(("▁", "Ġ")) for token in tokens]
        if not any(front):
            raise BadInput("whole_words: this tokenizer does not mark where words begin; set mlm.whole_words=false")
        inside = [not begins for begins in front]
    starts[: len(tokens)] = ~torch.tensor(inside)
    return starts


def _language_model(model: Any, pretrained: str | None) -> tuple[Any, list[str]]:
    """Put the checkpoint's masked-language head, or a new one, on the encoder; return it and what was drawn at random."""
    from transformers import MODEL_FOR_MASKED_LM_MAPPING, AutoModelForMaskedLM

    encoder = transformer_of(model)
    if type(encoder.config) not in MODEL_FOR_MASKED_LM_MAPPING:
        raise BadInput(f"{encoder.config.model_type} has no masked-language head in transformers; use another backbone")
    with quiet(), loading(pretrained or encoder.config.model_type):
        if pretrained is None:
            language_model = AutoModelForMaskedLM.from_config(encoder.config)
            missing = [name for name, _ in language_model.named_parameters()]
        else:
            language_model, loading_info = load_auto(
                AutoModelForMaskedLM, pretrained, dtype=torch.float32, output_loading_info=True
            )
            missing = [*loading_info["missing_keys"], *(key[0] for key in loading_info["mismatched_keys"])]
    prefix = language_model.base_model_prefix
    setattr(language_model, prefix, encoder)
    language_model.tie_weights()
    inside = {id(value) for value in encoder.parameters()}  # shared with the word embeddings, which are the encoder's
    parameters = dict(language_model.named_parameters(remove_duplicate=False))
    drawn = [name for name in missing if not name.startswith(f"{prefix}.") and id(parameters.get(name)) not in inside]
    return language_model, sorted(set(drawn))
