"""Vocabularies over Korean, English, Japanese and German, trimmed to Korean and English: sizes, coverage, exactness.

    python -m tests.benchmarks.vocabulary_trimming ../shared/data --algorithm unigram
    python -m tests.benchmarks.vocabulary_trimming ../shared/data --algorithm wordpiece
    python -m tests.benchmarks.vocabulary_trimming ../shared/data --algorithm bpe
    python -m tests.benchmarks.vocabulary_trimming ../shared/data --algorithm minilm

Trains a Unigram of 64,000 pieces (as XLM-R), a WordPiece of 48,000 (as mBERT) or a byte-level BPE of 48,000 (as RoBERTa)
and puts a random two-layer encoder of that family behind it; `minilm` is the real all-MiniLM-L6. Every hundredth text
is held out of the corpus that is trimmed to: how many of these are unchanged is what a user's new text can expect.
"""

import argparse
import copy
import time
from pathlib import Path

from distill.data.pairs import read_columns
from distill.models.backbone import resolve_name, train_tokenizer
from distill.models.modeling import quiet
from students.vocabulary.trimming import trim_vocabulary

SPECIALS = {
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
    "cls_token": "<s>",
    "sep_token": "</s>",
}
FAMILY = {"unigram": "XLMRoberta", "wordpiece": "Bert", "bpe": "Roberta"}
SIZE = {"unigram": 64_000, "wordpiece": 48_000, "bpe": 48_000}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--algorithm", choices=[*FAMILY, "minilm"], required=True)
    parser.add_argument("--texts", type=int, default=20_000, help="of each language at most")
    parser.add_argument("--keep", type=Path, help="a folder to keep the trained tokenizer in")
    arguments = parser.parse_args()
    languages = {name: texts[: arguments.texts] for name, texts in read_languages(arguments.data).items()}
    began = time.perf_counter()
    texts = [text for some in languages.values() for text in some]
    tokenizer, model = with_model(arguments.algorithm, texts, arguments.keep)
    print(f"{arguments.algorithm}: {len(tokenizer):,} tokens, {time.perf_counter() - began:.0f} s to build")
    print({name: len(texts) for name, texts in languages.items()})
    mined = {name: [t for i, t in enumerate(languages[name]) if i % 100] for name in ("ko", "en")}
    held_out = {name: languages[name][::100] for name in ("ko", "en")}
    print(
        "| trimmed to | tokens | M parameters | MB | exact of covered texts | largest difference | ko: coverage, texts unchanged, held-out unchanged | en | unreachable | s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for settings in (
        {"coverage": 1.0},
        {"coverage": 0.9999},
        {"coverage": 0.999},
        {"coverage": 0.99},
        {"size": 16_000},
    ):
        row(settings, tokenizer, model, mined, held_out)


def row(settings, tokenizer, model, mined, held_out) -> None:
    began, small = time.perf_counter(), copy.deepcopy(model)
    new, report = trim_vocabulary(small, tokenizer, mined, **settings)
    seconds = time.perf_counter() - began
    cells = []
    for name, counts in report.sources.items():
        same = [same_pieces(tokenizer, new, text) for text in held_out[name]]
        cells.append(f"{counts.coverage:.3%}, {counts.n_same / counts.n_texts:.2%}, {sum(same) / len(same):.1%}")
    n_covered = sum(counts.n_covered for counts in report.sources.values())
    exact = sum(counts.n_same for counts in report.sources.values()) / n_covered
    sizes = [
        f"{a} → {b}"
        for a, b in (
            [f"{n:,}" for n in report.n_tokens],
            [f"{n / 1e6:.1f}" for n in report.n_parameters],
            [f"{n * 4 / 1e6:.0f}" for n in report.n_parameters],
        )
    ]
    what = ", ".join(f"{name} {value}" for name, value in settings.items())
    print(
        f"| {what} | {' | '.join(sizes)} | {exact:.2%} of {n_covered:,} | {report.max_difference:.1g} | {' | '.join(cells)} | {report.unreachable[0]} → {report.unreachable[1]} | {seconds:.0f} |",
        flush=True,
    )


def same_pieces(old, new, text: str) -> bool:
    return old.tokenize(text) == new.tokenize(text)


def read_languages(data: Path) -> dict[str, list[str]]:
    def column(path: str, *names: str) -> list[str]:
        table = read_columns(str(data / path), list(names))
        return [text for name in names for text in table[name] if text]

    sts = ("sentence1", "sentence2")
    found = {
        "ko": [
            text
            for part in zip(
                *(column(f"ko_text/{name}.tsv.gz", "text") for name in ("formal", "tech", "colloquial")), strict=False
            )
            for text in part
        ],
        "en": [*column("stsb_en/stsb_train.tsv.gz", *sts), *column("ko_en_parallel/train.tsv.gz", "en")],
        "ja": column("stsb_multi/stsb_ja_train.tsv.gz", *sts),
        "de": column("stsb_multi/stsb_de_train.tsv.gz", *sts),
    }
    return {name: list(dict.fromkeys(texts)) for name, texts in found.items()}


def with_model(algorithm: str, texts: list[str], keep: Path | None):
    import torch
    import transformers

    if algorithm == "minilm":
        with quiet():
            name = resolve_name("all-MiniLM-L6-v2")
            return transformers.AutoTokenizer.from_pretrained(name), transformers.AutoModel.from_pretrained(name).eval()
    from tokenizers import Tokenizer, processors

    kept = None if keep is None else keep / f"{algorithm}-{len(texts)}.json"
    if kept is not None and kept.exists():
        backend = Tokenizer.from_file(str(kept))
    else:
        backend = (
            byte_level(texts) if algorithm == "bpe" else train_tokenizer(algorithm, texts, SIZE[algorithm], SPECIALS)
        )
    if kept is not None:
        keep.mkdir(parents=True, exist_ok=True)
        backend.save(str(kept))

    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=512, **SPECIALS)
    torch.manual_seed(0)
    config = getattr(transformers, f"{FAMILY[algorithm]}Config")(
        vocab_size=len(tokenizer),
        hidden_size=384,
        num_hidden_layers=2,
        num_attention_heads=6,
        intermediate_size=1536,
        max_position_embeddings=514,
        pad_token_id=1,
        type_vocab_size=1,
    )
    return tokenizer, getattr(transformers, f"{FAMILY[algorithm]}Model")(config, add_pooling_layer=False).eval()


def byte_level(texts: list[str]):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE["bpe"],
        special_tokens=list(dict.fromkeys(SPECIALS.values())),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


if __name__ == "__main__":
    main()
