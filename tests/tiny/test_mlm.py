"""Masked-language modelling: what is packed, what is hidden, and that a tiny encoder learns its text."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data.tokens import TokenTable
from distill.errors import BadInput
from distill.files.artefact import check_model_folder, read_card
from distill.models.modeling import load_model, tokenizer_of
from distill.recipe.schema import Mlm
from distill.training.mlm import MlmStep, PackedText, choose_tokens, n_chosen, pack
from recipes.cli import main
from teachers import train_teachers
from tests.conftest import BACKBONE, write_recipe
from tests.tiny.conftest import SENTENCES
from tests.tiny.test_training import Interrupted

pytestmark = pytest.mark.integration

ADAPTED = {
    "kind": "mlm",
    "backbone": BACKBONE,
    "max_length": 64,
    "mlm": {"whole_words": True},
    "training": {"evaluations_per_epoch": 1, "epochs": 3},
}


def blocks(table):
    return [table.ids[a:b].tolist() for a, b in zip(table.offsets, table.offsets[1:], strict=False)]


class TestPacking:
    @given(st.lists(st.lists(st.integers(10, 99), max_size=20), max_size=8), st.integers(4, 12))
    @settings(max_examples=60, deadline=None)
    def test_every_token_comes_once_in_order_and_blocks_are_full(self, texts, length):
        ids = np.array([token for text in texts for token in text], dtype=np.int32)
        offsets = np.cumsum([0, *map(len, texts)])
        packed = blocks(pack(TokenTable(ids, offsets, None, 0), length=length, first=1, last=2))
        assert [token for block in packed for token in block if token >= 10] == ids.tolist()
        assert all(block[0] == 1 and block[-1] == 2 and len(block) <= length for block in packed)

    def test_only_the_last_block_is_short(self, bert_bi):
        tokenizer = tokenizer_of(load_model(bert_bi))
        packed = PackedText.build(tokenizer, SENTENCES, max_length=32, probability=0.15)
        lengths = packed.unit_lengths
        assert len(packed) > 3
        assert lengths[:-1].min() >= 30  # a text that ends at a block's end neither closes it twice nor opens the next

    def test_a_length_without_room_is_refused(self):
        with pytest.raises(BadInput, match="no room"):
            pack(TokenTable(np.array([5]), np.array([0, 1]), None, 0), length=2, first=1, last=2)


class TestChoice:
    @given(st.integers(0, 2**31), st.floats(0.05, 0.5))
    @settings(max_examples=60, deadline=None)
    def test_words_are_whole_and_the_share_is_kept(self, seed, probability):
        generator = torch.Generator().manual_seed(seed)
        n_rows, n_tokens = 5, 40
        may = torch.ones(n_rows, n_tokens, dtype=torch.bool)
        may[:, 0] = may[:, -1] = False
        starts = (torch.rand(n_rows, n_tokens, generator=generator) < 0.4) | ~may
        count = torch.from_numpy(n_chosen(np.full(n_rows, n_tokens), probability))
        chosen = choose_tokens(may, starts, count, torch.rand(n_rows, n_tokens, generator=generator))
        assert not (chosen & ~may).any()
        assert (chosen.sum(dim=1) <= count).all()
        for row in range(n_rows):
            words = starts[row].long().cumsum(0)
            for word in words.unique():
                pieces = chosen[row][(words == word) & may[row]]
                assert pieces.all() or not pieces.any()

    def test_single_tokens_fill_the_share_exactly(self):
        may = torch.ones(3, 30, dtype=torch.bool)
        count = torch.tensor([1, 4, 30])
        chosen = choose_tokens(may, may, count, torch.rand(3, 30))
        assert chosen.sum(dim=1).tolist() == [1, 4, 30]


class TestStep:
    def make(self, folder, **options):
        model = load_model(folder)
        return model, MlmStep(model, Mlm(**options), pretrained=None)

    @pytest.mark.parametrize("folder", ["bert_bi", "xlmr_bi"])
    @pytest.mark.parametrize("whole_words", [False, True])
    def test_the_loss_is_that_of_the_head_on_all_positions(self, folder, whole_words, request):
        model, step = self.make(request.getfixturevalue(folder), whole_words=whole_words)
        step.eval()
        packed = PackedText.build(tokenizer_of(model), SENTENCES, max_length=48, probability=0.15)
        batch = packed.batch(np.arange(3), totals=packed.counts(np.arange(3)))
        ids, mask = batch.inputs[0]["input_ids"], batch.inputs[0]["attention_mask"]
        draw = torch.rand(3, *ids.shape, generator=torch.Generator().manual_seed(0))
        masked, chosen = step._masked(ids, mask, draw)
        assert chosen.any()
        assert not step.special[ids[chosen]].any()
        assert (masked[~chosen] == ids[~chosen]).all()
        with torch.no_grad():
            few = step._logits({**batch.inputs[0], "input_ids": masked}, chosen)
            whole = step.language_model(**{**batch.inputs[0], "input_ids": masked}).logits[chosen]
        torch.testing.assert_close(few, whole, atol=1e-5, rtol=1e-5)

    def test_validation_hides_the_same_tokens_in_any_company(self, bert_bi):
        model, step = self.make(bert_bi)
        step.eval()
        packed = PackedText.build(tokenizer_of(model), SENTENCES * 3, max_length=32, probability=0.15)
        totals = packed.counts(np.arange(len(packed)))
        with torch.no_grad():
            together = step(packed.batch(np.arange(4), totals=totals), predict=True)["scores"]
            alone = step(packed.batch(np.array([2]), totals=totals), predict=True)["scores"]
        torch.testing.assert_close(together[2:3], alone, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("folder", ["bert_bi", "xlmr_bi"])
    def test_a_korean_word_is_hidden_whole(self, folder, request):
        """Words as they are read off the text, with the pieces that the tokenizer's own offsets give each."""
        model, step = self.make(request.getfixturevalue(folder), whole_words=True, probability=0.3)
        tokenizer = tokenizer_of(model)
        text = "머신러닝 엔지니어로 3년간 엔지니어를 엔지니어로 머신러닝 엔지니어를 엔지니어로"  # pieces that both know
        encoded = tokenizer(text, return_tensors="pt", return_offsets_mapping=True)
        ends = np.cumsum(
            [len(word) + 1 for word in text.split()]
        )  # a blank is of the word before, "▁" of the one after
        spans = [(a + len(text[a:b]) - len(text[a:b].lstrip()), b) for a, b in encoded.offset_mapping[0].tolist()]
        word_of = [int(np.searchsorted(ends, a, side="right")) if b else -1 for a, b in spans]
        cut = [word for word in range(len(ends)) if word_of.count(word) > 1]
        assert len(cut) > 4
        hidden = 0
        for seed in range(40):
            draw = torch.rand(3, *encoded.input_ids.shape, generator=torch.Generator().manual_seed(seed))
            masked, chosen = step._masked(encoded.input_ids, encoded.attention_mask, draw)
            for word in cut:
                places = torch.tensor([i for i, other in enumerate(word_of) if other == word])
                assert chosen[0, places].all() or not chosen[0, places].any()
                masks = masked[0, places] == tokenizer.mask_token_id
                assert masks.all() or not masks.any()
                hidden += int(masks.all())
        assert hidden > 20

    def test_passes_add_up_to_the_step(self, bert_bi):
        model, _ = self.make(bert_bi)
        packed = PackedText.build(tokenizer_of(model), SENTENCES, max_length=32, probability=0.15)
        totals = packed.counts(np.arange(len(packed)))
        weights = [packed.batch(np.array([i]), totals=totals).weight for i in range(len(packed))]
        shares = [packed.counts(np.array([i]))["chosen"] for i in range(len(packed))]
        assert sum(w * n for w, n in zip(weights, shares, strict=True)) == pytest.approx(1)

    def test_a_head_that_the_checkpoint_lacks_is_named(self, bert_bi, caplog):
        step = MlmStep(load_model(bert_bi), Mlm(), pretrained=str(bert_bi))
        drawn = step.details["mlm"]["drawn_at_random"]
        assert drawn and all(name.startswith("cls.predictions.") for name in drawn)
        assert "cls.predictions.transform.dense.weight" in drawn and "cls.predictions.decoder.weight" not in drawn
        assert f"the masked-language head starts at random in {drawn[0]}" in caplog.text
        assert f"{bert_bi} does not hold it" in caplog.text

    def test_a_whole_checkpoint_says_nothing(self, bert_bi, tmp_path, caplog):
        _, step = self.make(bert_bi)
        assert step.details["mlm"]["drawn_at_random"] and "comes without one" in caplog.text
        caplog.clear()
        step.language_model.save_pretrained(tmp_path)
        tokenizer_of(step.model).save_pretrained(tmp_path)
        again = MlmStep(load_model(bert_bi), Mlm(), pretrained=str(tmp_path))
        assert again.details["mlm"]["drawn_at_random"] == [] and "at random" not in caplog.text
        bias = "cls.predictions.bias"
        assert torch.equal(again.language_model.get_parameter(bias), step.language_model.get_parameter(bias))

    def test_a_tokenizer_without_a_mask_is_refused(self, bert_bi):
        model = load_model(bert_bi)
        tokenizer_of(model).mask_token = None
        with pytest.raises(BadInput, match="no mask token"):
            MlmStep(model, Mlm(), pretrained=None)


class TestStage:
    def test_perplexity_falls_and_the_artefact_is_a_backbone(self, tiny_run):
        run = tiny_run(
            "mlm",
            teachers={
                "adapted": ADAPTED,
                "bi": {"kind": "bi_encoder", "backbone": {"teacher": "adapted"}, "max_length": 64},
            },
        )
        train_teachers(run)
        card = read_card(run.teacher("adapted"))
        values = [row["validation"] for row in card.details["history"] if "validation" in row]
        assert len(values) == 4  # before, and after each epoch
        assert card.metrics["perplexity_before"] == pytest.approx(math.exp(-values[0]))
        assert card.metrics["perplexity_after"] == pytest.approx(math.exp(-max(values[1:])))
        assert card.metrics["perplexity_after"] < 0.9 * card.metrics["perplexity_before"]
        assert check_model_folder(run.teacher("adapted")) == "bi_encoder"
        assert read_card(run.teacher("bi")).parents == {"adapted": card.revision}

    def test_without_an_evaluation_of_the_kept_weights_no_perplexity_of_them_is_stated(self, tiny_run, caplog):
        caplog.set_level("INFO")
        training = {"epochs": 1, "max_steps": 2, "evaluations_per_epoch": 0}
        run = tiny_run(teachers={"adapted": {**ADAPTED, "training": training}})
        train_teachers(run)
        metrics = read_card(run.teacher("adapted")).metrics
        assert "perplexity_before" in metrics and "perplexity_after" not in metrics
        assert f"perplexity {metrics['perplexity_before']:.2f} before, not measured after" in caplog.text

    @pytest.mark.slow
    def test_it_ends_with_the_same_bits_when_interrupted(self, tiny_run, monkeypatch, caplog):
        training = {"epochs": 2, "checkpoint_seconds": 0, "evaluations_per_epoch": 1}
        folders = []
        for name in ("calm", "disturbed"):
            run = tiny_run(name, teachers={"adapted": {**ADAPTED, "training": training}})
            if name == "disturbed":
                with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
                    Interrupted(patch, 2)
                    train_teachers(run)
            train_teachers(run)
            folders.append(run.teacher("adapted"))
        assert read_card(folders[0]).revision == read_card(folders[1]).revision
        assert read_card(folders[0]).metrics == read_card(folders[1]).metrics
        assert "Removed shared tensor" not in caplog.text

    def test_it_is_the_same_twice(self, tiny_run):
        revisions = []
        for name in ("one", "two"):
            run = tiny_run(name, teachers={"adapted": {**ADAPTED, "training": {"epochs": 1, "max_steps": 2}}})
            train_teachers(run)
            revisions.append(read_card(run.teacher("adapted")).revision)
        assert revisions[0] == revisions[1]

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"loss": "bce"}, "teachers.adapted.loss: means nothing for kind mlm"),
            ({"lora": {"rank": 4}}, "teachers.adapted.lora: means nothing"),
            ({"mlm": {"probability": 0.9}}, "teachers.adapted.mlm.probability"),
            ({"mlm": {"probabilty": 0.2}}, "did you mean 'probability'"),
        ],
    )
    def test_what_means_nothing_is_refused(self, tmp_path, capsys, change, words):
        recipe = write_recipe(tmp_path, teachers={"adapted": {**ADAPTED, **change}})
        assert main(["train-teacher", str(recipe)]) == 2
        assert words in capsys.readouterr().err

    def test_it_cannot_teach(self, tmp_path, capsys):
        recipe = write_recipe(
            tmp_path, teachers={"adapted": ADAPTED}, objectives={"score_match": {"teacher": "adapted"}}
        )
        assert main(["train-teacher", str(recipe)]) == 2
        assert "it has learned no labels to teach" in capsys.readouterr().err
