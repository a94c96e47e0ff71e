"""A static model that is written by hand: no torch, no stock sentence-transformers, milliseconds; and one that ends its process."""

import json
import os

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from distill.ray.actors import EmbedActor

WORDS = ["[UNK]", "red", "green", "blue", "rot", "grün", "blau"]


def write_static_model(folder, words=WORDS):
    """Write a model with a random vector of four numbers for each word, and return its folder."""
    folder.mkdir()
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    vectors = np.random.default_rng(0).normal(size=(len(words), 4)).astype(np.float32)
    save_file({"embedding.weight": vectors}, folder / "model.safetensors")
    home = "sentence_transformers.sentence_transformer.modules"
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"{home}.static_embedding.StaticEmbedding"},
        {
            "idx": 1,
            "name": "1",
            "path": "1_Normalize",
            "type": "sentence_transformers.base.modules.normalize.Normalize",
        },
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Normalize").mkdir()
    return folder


class Deadly(EmbedActor):
    """A model that ends its process at one text, as one does that the memory killer finds."""

    def results(self, texts):
        if "deadly" in texts:
            os._exit(1)
        return super().results(texts)
