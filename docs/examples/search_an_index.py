# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # Search an index of small vectors
#
# Embed documents with a finished student, keep their vectors in float32, int8 or one bit a dimension, and see what each costs.
# It needs a finished run: `distill run quickstart`, or your own.

# %%
from pathlib import Path

import numpy as np

from distill.data.bundled import generate_groups
from distill.runtime import load
from distill.runtime.vectors import Index

student = load(Path("runs/quickstart/exports/openvino-int8"))
groups = list(generate_groups(150, seed=7, n_candidates=4))
resumes = [group[0].resume for group in groups]
jobs = list(dict.fromkeys(pair.jd for group in groups for pair in group))
print(student, len(resumes), "résumés", len(jobs), "job descriptions")

# %% [markdown]
# ## Three forms of the same index
#
# `encode` gives each form directly. Any number of documents goes through `encode_iter` in bounded memory.

# %%
exact = student.encode(jobs)
small = student.encode(jobs, output="int8")
tiny = student.encode(jobs, output="binary")
print(
    {
        name: f"{vectors.nbytes / 1e3:.0f} kB"
        for name, vectors in (("float32", exact), ("int8", small), ("binary", tiny))
    }
)

# %% [markdown]
# ## What they find
#
# Binary vectors find candidates, and the int8 vectors rescore them. The share of the ten nearest documents that a form finds, too, is its recall.

# %%
truth, _ = student.search(resumes, Index(vectors=exact), top_k=10)
for name, index in (
    ("int8", Index(vectors=small)),
    ("binary", Index(binary=tiny)),
    ("binary, rescored by int8", Index(vectors=small, binary=tiny)),
):
    found, _ = student.search(resumes, index, top_k=10)
    recall = np.mean([len(set(one) & set(other)) / len(one) for one, other in zip(found, truth, strict=True)])
    print(f"{name}: recall@10 {recall:.3f}")

# %% [markdown]
# ## One query
#
# `rank` takes texts, or the vectors of an index. `distill index-quality` measures all forms on labelled pairs.

# %%
rows, cosines = student.rank(resumes[0], small, top_k=3)
for row, cosine in zip(rows, cosines, strict=True):
    print(f"{cosine:.3f}", jobs[row].splitlines()[0][:80])
