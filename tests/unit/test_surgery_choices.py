"""What layers, neurons and directions are chosen, on cases worked by hand."""

import pytest
import torch
from torch import nn

from distill.errors import BadInput
from distill.models.layers import layer_stack
from distill.recipe.schema import LayerChoice
from students.cut.depth import layers_by_rule
from students.cut.hidden import choose_dimensions, prediction, principal_directions, ridge
from students.cut.importance import output_change
from students.cut.structure import Layer, keep_heads, keep_neurons
from students.cut.width import best


class TestRules:
    @pytest.mark.parametrize(
        ("rule", "n_layers", "layers"),
        [
            ({"first": 3}, 6, (0, 1, 2)),
            ({"last": 3}, 6, (3, 4, 5)),
            ({"every": 2}, 6, (0, 2, 4)),
            ({"every": 2}, 7, (0, 2, 4, 6)),
            ({"every": 1}, 3, (0, 1, 2)),
            ({"every": 9}, 6, None),
            ({"spread": 1}, 6, (5,)),
            ({"spread": 2}, 6, (0, 5)),
            ({"spread": 3}, 6, (0, 3, 5)),
            ({"spread": 4}, 6, (0, 2, 3, 5)),
            ({"spread": 5}, 6, (0, 1, 3, 4, 5)),
            ({"spread": 6}, 6, (0, 1, 2, 3, 4, 5)),
            ({"spread": 6}, 24, (0, 5, 9, 14, 18, 23)),
            ({"first": 7}, 6, None),
        ],
    )
    def test_layers(self, rule, n_layers, layers):
        choice = LayerChoice(**rule)
        if layers is None:
            with pytest.raises(BadInput, match=f"student.layers.{choice.rule}: {choice.number}; the backbone has 6"):
                layers_by_rule(choice, n_layers)
        else:
            assert layers_by_rule(choice, n_layers) == layers

    def test_spread_never_repeats_and_keeps_the_last(self):
        for n_layers in range(1, 30):
            for n in range(1, n_layers + 1):
                layers = layers_by_rule(LayerChoice(spread=n), n_layers)
                assert len(set(layers)) == n and layers[-1] == n_layers - 1 and (n == 1 or layers[0] == 0)


class TestChange:
    def test_scale_and_shift_are_none(self):
        scores = torch.tensor([[0.1], [0.7], [0.4]])
        assert output_change(scores, 3 * scores - 1) == 0
        assert output_change(scores, -scores) == 2

    def test_by_hand(self):
        # centred: (-1, 0, 1) and (-1, 1, 0): product 1, norms √2 each
        assert output_change(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[1.0], [3.0], [2.0]])) == 0.5

    def test_embeddings_are_compared_by_their_cosines(self):
        one = nn.functional.normalize(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), dim=1)
        turned = one @ torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)))[0]
        wider = torch.cat([turned, torch.zeros(5, 3)], dim=1)
        assert output_change(one, wider) == pytest.approx(0, abs=1e-6)
        assert output_change(one, one.flip(0)) > 0.1

    def test_constant_scores_keep_nothing(self):
        assert output_change(torch.tensor([[1.0], [2.0]]), torch.tensor([[5.0], [5.0]])) == 1


class TestParts:
    LAYER = Layer(("qkv",), (), "out", ("up",), "down")

    def test_heads_of_a_fused_map(self):
        """Two heads of size 2; query, key and value stand one below the other."""
        weights = {
            "qkv.weight": torch.arange(12.0)[:, None],
            "qkv.bias": torch.arange(12.0),
            "out.weight": torch.arange(4.0)[None],
        }
        keep_heads(weights, self.LAYER, [1], 2)
        assert weights["qkv.weight"][:, 0].tolist() == weights["qkv.bias"].tolist() == [2, 3, 6, 7, 10, 11]
        assert weights["out.weight"].tolist() == [[2, 3]]

    def test_neurons_of_a_gated_map(self):
        """Three neurons; the gates stand below the values."""
        weights = {"up.weight": torch.arange(6.0)[:, None], "down.weight": torch.arange(3.0)[None]}
        keep_neurons(weights, self.LAYER, [0, 2])
        assert weights["up.weight"][:, 0].tolist() == [0, 2, 3, 5]
        assert weights["down.weight"].tolist() == [[0, 2]]

    def test_grouped_heads_are_refused(self):
        weights = {"qkv.weight": torch.zeros(6, 1), "out.weight": torch.zeros(1, 4)}
        with pytest.raises(BadInput, match="qkv has 6 rows, no multiple of 4: grouped heads"):
            keep_heads(weights, self.LAYER, [1], 2)

    def test_best_are_in_order_and_of_equals_the_first(self):
        assert best(torch.tensor([1.0, 5.0, 5.0, 7.0, 5.0]), 3) == [1, 2, 3]

    def test_no_stack_of_layers(self):
        class Odd(nn.Module):
            def __init__(self):
                super().__init__()
                self.config = type("Config", (), {"num_hidden_layers": 2})()
                self.one, self.other = (nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)]) for _ in range(2))

        with pytest.raises(BadInput, match="Odd: 2 stacks of 2 layers found where one is expected"):
            layer_stack(Odd())


class TestHidden:
    # the third dimension is the sum of the others, the fourth is noise of its own
    COVARIANCE = torch.tensor([[4.0, 0, 4, 0], [0, 1, 1, 0], [4, 1, 5, 0], [0, 0, 0, 0.5]])

    def test_directions_by_hand(self):
        basis, share = principal_directions(torch.diag(torch.tensor([1.0, 5.0, 2.0])), 2)
        assert torch.allclose(basis, torch.tensor([[0.0, 0], [1, 0], [0, 1]]))
        assert share == pytest.approx(7 / 8)

    def test_dimensions_are_those_that_predict_the_rest(self):
        """First the sum: it explains 4·4/5 + 1/5 + 5 of the first three; then either of the others gives the rest of both."""
        basis, share = choose_dimensions(self.COVARIANCE, 1)
        assert basis[:, 0].tolist() == [0, 0, 1, 0]
        assert share == pytest.approx((16 / 5 + 1 / 5 + 5) / 10.5)
        basis, share = choose_dimensions(self.COVARIANCE, 2)
        assert basis.sum(dim=1)[2:].tolist() == [1, 0]
        assert share == pytest.approx(10 / 10.5)

    def test_as_many_dimensions_are_all_of_them(self):
        assert torch.equal(choose_dimensions(self.COVARIANCE, 4)[0], torch.eye(4))

    def test_prediction_finds_a_linear_map(self):
        generator = torch.Generator().manual_seed(0)
        new = torch.randn(400, 3, generator=generator)
        back, offset = torch.randn(5, 3, generator=generator), torch.randn(5, generator=generator)
        found_back, found_offset = prediction(new.split(100), (new @ back.T + offset).split(100))
        assert torch.allclose(found_back, back, atol=1e-2) and torch.allclose(found_offset, offset, atol=1e-2)

    def test_ridge_by_hand(self):
        """z has variances 2 and 0: of the second nothing can be predicted, and nothing blows up."""
        found = ridge(torch.diag(torch.tensor([2.0, 0.0])), torch.tensor([[4.0], [0.0]]))
        assert found[0].tolist() == pytest.approx([2, 0], rel=1e-3)
