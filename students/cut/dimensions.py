"""The width of a student's embeddings, and the initial weights of its output layer.

    embedding → Dense without bias → Normalize

**Axes.** Among all projections of unit vectors to k dimensions, the first k uncentred principal axes keep dot products
best: the eigenvectors of E[x·xᵀ] give the best approximation of rank k of all similarities at once (Eckart & Young
1936). Subtracting the mean first would need a bias, and would keep distances instead of cosines. On MiniLM's embeddings
both are equally good (STS-B dev Spearman at 64 dimensions .841 and .844). The text that the axes are fitted on matters.
At 128 and 64 dimensions, axes fitted on the pairs' own text keep .859 and .841; axes fitted on the pairs and 69,000
other sentences .852 and .815; the model's own first dimensions, which are as good as random axes, .857 and .839. So
axes are fitted on the recipe's pairs, and other text is added only if the pairs are few.

**Start.** If the student matches a teacher's embeddings (along those axes), its Dense starts as the least-squares map
from its own embeddings to them, with a ridge of the weight of ten texts. Before any training, three of MiniLM's six
layers (0, 2, 4) have an STS-B dev Spearman of .738 as cut and .813 with this map; the first layer alone has .671 and
.795. The map costs one pass over some thousand texts. Without a teacher to match, the Dense starts as the principal
axes of the student's own embeddings.

**Matryoshka.** A prefix of these embeddings is matched with the same prefix of the teacher's embeddings along its axes.
Matching the geometry instead (similarities within the batch) was worse at each width (static student, STS-B dev: .823
against .837 at 384, .775 against .807 at 64).

**Signs.** Embeddings along sorted principal axes make poor sign bits: late dimensions are small, but count as much as
the first. Of the ten nearest among 21,365 sentences, the signs of MiniLM's own embeddings find 65 % (95 % if int8
vectors re-rank them). The signs of a static student along its axes find 35 % (56 %). For a binary index leave
`student.dimensions` out.
"""

import logging
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from distill.errors import BadInput
from distill.models.modeling import bi_encoder, is_static
from distill.models.prompts import encode_by_role, model_prompts
from distill.recipe.schema import TeacherBackbone
from distill.run import Run
from distill.runtime.opening import load
from distill.runtime.vectors import unit_rows
from distill.training.read_texts import are_read
from students.cut.sources import embedding_source

__all__ = ["least_squares", "principal_axes", "read_axes", "with_output", "write_axes"]

log = logging.getLogger(__name__)
_AXES = "teacher_axes.safetensors"
_SAMPLE_TEXTS = 5000  # texts on which axes and maps are fitted: several per dimension
_RIDGE_TEXTS = 10.0  # weight of the ridge in texts, see `least_squares`
_STATIC_MEAN_SIZE = 0.1  # mean absolute value in a table: ten steps at a learning rate of 0.01
_SAME_COSINE = 0.999  # below 1, because cached embeddings may be bf16


def principal_axes(vectors: np.ndarray, n_axes: int) -> tuple[np.ndarray, float]:
    """Return the axes of largest mean square, and the share of the total mean square that they hold.

    Each axis has the sign that makes its largest entry positive, so that the same vectors give the same axes.

    *Shape:* vectors: (n, width), unit length → (width, n_axes) float32, orthonormal columns

    >>> axes, share = principal_axes(np.array([[0.6, 0.8], [0.8, 0.6], [0.6, 0.8]]), 1)
    >>> axes.round(3).tolist(), round(share, 3)  # E[xxᵀ] = [[.453, .480], [.480, .547]]: eigenvalues .982 and .018
    ([[0.672], [0.741]], 0.982)
    """
    doubles = vectors.astype(np.float64)
    values, axes = np.linalg.eigh(doubles.T @ doubles / len(doubles))  # ascending
    axes, values = axes[:, ::-1][:, :n_axes], values[::-1]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return (axes * signs).astype(np.float32), float(values[:n_axes].sum() / values.sum())


def least_squares(inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the linear map from unit vectors to targets with the least squared error, with a ridge.

    W = (XᵀX + r·I)⁻¹ XᵀT, where r = 10 / width is what ten texts add on average to each eigenvalue of XᵀX.

    *Shape:* inputs: (n, width); targets: (n, k) → (width, k) float32
    """
    doubles = inputs.astype(np.float64)
    width = doubles.shape[1]
    ridged = doubles.T @ doubles + _RIDGE_TEXTS / width * np.eye(width)
    return np.asarray(np.linalg.solve(ridged, doubles.T @ targets.astype(np.float64)), dtype=np.float32)


def with_output(
    run: Run, model: Any, backbone: Any, matched_width: int | None
) -> tuple[Any, dict[str, Any], np.ndarray | None]:
    """Give a bi-encoder the output layer that the recipe asks for.

    :param backbone: the model it was made from; a static model learns its embeddings if no teacher is matched
    :param matched_width: the width of the matched teacher's embeddings; None if no teacher is matched
    :returns: the model, details for its card, and the teacher's axes if its embeddings are matched along them
    """
    section, own_width = run.student_section, int(model.get_embedding_dimension())
    if section.dimensions is None and not is_static(model) and matched_width in (None, own_width):
        return model, {}, None
    sample = _sample(run)
    if not sample:
        raise BadInput("no text is read by all teachers of embedding_match; see teachers.scripts")
    prompts = section.prompts or model_prompts(backbone)
    vectors = _embedded(model, sample, prompts)
    targets = _targets(run, sample, matched_width)
    if targets is None and is_static(model):
        targets = _embedded(backbone, sample, prompts)
    details: dict[str, Any] = {"sample_texts": len(sample)}
    axes: np.ndarray | None = None
    # if the student already gives the teacher's embeddings, the output is a plain rotation, without the ridge
    is_own = targets is not None and targets.shape == vectors.shape and _mean_cosine(vectors, targets) > _SAME_COSINE
    if section.dimensions is not None:
        space = vectors if targets is None else targets
        # translations would count a text twice
        is_untranslated = np.array([text == teacher_text for text, teacher_text, _ in sample])
        axes, details["share_kept"] = _axes(section.dimensions, space[is_untranslated], is_own=targets is None)
        targets = None if targets is None else targets @ axes
    if axes is not None and (targets is None or is_own):
        weight = axes
    else:
        assert targets is not None  # without student.dimensions an output is only added to match a teacher
        weight = least_squares(vectors, targets)
    if targets is not None:
        details["cosine_to_teacher"] = _mean_cosine(vectors @ weight, targets)
    details["width"] = weight.shape[1]
    log.info("output: %s", ", ".join(f"{name} {value:.4g}" for name, value in details.items()))
    return _with_map(model, weight), {"output": details}, None if matched_width is None else axes


def _axes(n_axes: int, space: np.ndarray, is_own: bool) -> tuple[np.ndarray, float]:
    if n_axes > space.shape[1]:
        owner = "the student's" if is_own else "the teacher's"
        raise BadInput(f"student.dimensions {n_axes} is more than {owner} {space.shape[1]}; ask for no more")
    if len(space) < n_axes:
        raise BadInput(f"student.dimensions {n_axes} from {len(space)} texts; give more pairs, or data.unlabelled")
    return principal_axes(space, n_axes)


_SampledText = tuple[str, str, int]  # the student's text, the teacher's text, query (0) or document (1)


def _sample(run: Run) -> list[_SampledText]:
    """Return texts of the pairs with and without labels, other texts if these are few, and translations if matched.

    Roles are those that the student learns the texts in, because the teacher's embeddings are cached for them.
    """
    split, rng = run.split, np.random.default_rng(run.recipe.seed)
    asymmetric, pairs = run.student_section.asymmetric, (split.train, split.unlabelled_pairs)
    lone_role = 1 if asymmetric is None else asymmetric.role
    roles = dict.fromkeys((text for part in pairs for text in part.documents), 1)
    roles |= dict.fromkeys((text for part in pairs for text in part.queries), 0)
    texts = [(text, text, role) for text, role in roles.items()]
    if len(texts) < _SAMPLE_TEXTS:
        texts += [(text, text, lone_role) for text in split.unlabelled if text not in roles][
            : _SAMPLE_TEXTS - len(texts)
        ]
    translations = [(target, source, lone_role) for source, target in split.parallel]
    if run.recipe.objectives.embedding_match is None:
        translations = []
    return [*_drawn(_read_by_all(run, texts), rng), *_drawn(_read_by_all(run, translations), rng)]


def _read_by_all(run: Run, items: list[_SampledText]) -> list[_SampledText]:
    """Return the items that every matched teacher can read: axes and maps are fitted on embeddings of all teachers."""
    match = run.recipe.objectives.embedding_match
    for name in () if match is None else match.named:
        scripts = run.recipe.teachers[name].scripts
        if scripts is not None:
            items = list(compress(items, are_read([teacher_text for _, teacher_text, _ in items], scripts)))
    return items


def _drawn(items: list[_SampledText], rng: np.random.Generator) -> list[_SampledText]:
    return [items[i] for i in np.sort(rng.permutation(len(items))[:_SAMPLE_TEXTS])]


def _embedded(model: Any, sample: list[_SampledText], prompts: tuple[str, str]) -> np.ndarray:
    """Embed the student's texts with a model. *Shape:* (n_texts, width), unit length."""
    texts = [prompts[role] + text for text, _, role in sample]
    # prompt="": the texts already contain the prompt that the model may store as its default
    vectors: np.ndarray = model.encode(
        texts, prompt="", batch_size=64, show_progress_bar=False, normalize_embeddings=True
    )
    return vectors


def _targets(run: Run, sample: list[_SampledText], matched_width: int | None) -> np.ndarray | None:
    """Return the target embeddings: the matched teacher's, else those of a teacher as the backbone; else None."""
    teacher_texts, roles = [text for _, text, _ in sample], [role for _, _, role in sample]
    if matched_width is not None:
        match = run.recipe.objectives.embedding_match
        assert match is not None
        return unit_rows(embedding_source(run, match).embeddings(teacher_texts, roles)(np.arange(len(teacher_texts))))
    if run.before is not None:  # an earlier stage has trained the model, so the backbone is no target any more
        return None
    backbone = run.student_section.backbone
    teacher = run.recipe.teachers[backbone.teacher] if isinstance(backbone, TeacherBackbone) else None
    if teacher is None or teacher.kind != "bi_encoder" or not isinstance(backbone, TeacherBackbone):
        return None
    scorer = load(run.teacher(backbone.teacher), runtime="torch", max_length=teacher.max_length)
    return unit_rows(encode_by_role(scorer, teacher_texts, roles))


def _mean_cosine(left: np.ndarray, right: np.ndarray) -> float:
    return float((unit_rows(left) * unit_rows(right)).sum(axis=1).mean())


def _with_map(model: Any, weight: np.ndarray) -> Any:
    """Add a linear map after a model's embedding, merged into its last linear layer or its static table if possible.

    *Shape:* weight: (width, new_width)
    """
    import torch

    map_weight = torch.from_numpy(np.ascontiguousarray(weight))
    with torch.no_grad():
        if is_static(model):
            return _static_along(model, model[0].embedding.weight @ map_weight)
        body = list(model)
        last = next(module for module in reversed(body) if type(module).__name__ != "Normalize")
        if type(last).__name__ == "Dense" and _is_linear(last):
            map_weight = last.linear.weight.T @ map_weight
            body = body[: body.index(last)]
        widened = bi_encoder(body, None, map_weight.shape[1])
        widened[len(widened) - 2].linear.weight.copy_(map_weight.T)
    return widened


def _is_linear(dense: Any) -> bool:
    return (
        dense.linear.bias is None and not dense.use_residual and type(dense.activation_function).__name__ == "Identity"
    )


def _static_along(model: Any, table: Any) -> Any:
    """Put another table into a static model, scaled so that a learning rate has the same effect on every table.

    Adam's step size depends on the learning rate, not on the scale of the table, and Normalize removes that scale.
    """
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    scaled = table * (_STATIC_MEAN_SIZE / table.abs().mean())
    return bi_encoder([StaticEmbedding(model[0].tokenizer, embedding_weights=scaled.contiguous())], None)


def write_axes(folder: Path, axes: np.ndarray) -> None:
    """Write the teacher's axes into the folder of the built student. *Shape:* (teacher_width, width)."""
    from safetensors.numpy import save_file

    save_file({"axes": np.ascontiguousarray(axes)}, folder / _AXES)


def read_axes(folder: Path) -> np.ndarray | None:
    """Return the teacher's axes of a built student, (teacher_width, width), or None if none were written."""
    from safetensors.numpy import load_file

    path = folder / _AXES
    if not path.is_file():
        return None
    axes: np.ndarray = load_file(path)["axes"]
    return axes
