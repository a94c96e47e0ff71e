# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # Train a student from Python
#
# The command line runs the stages of a recipe. From Python, each stage is a function of a `Run`. This example trains a teacher and a student from random weights
# on generated résumé–JD pairs. It is made small enough to end in a minute, and too small to be good.

# %%
from distill.recipe import Recipe
from distill.run import Run

recipe = Recipe.model_validate(
    {
        "name": "example",
        "data": {"train": "bundled", "bundled_pairs": 320, "validation_share": 0.1},
        "teachers": {
            "bi": {
                "kind": "bi_encoder",
                "backbone": {"vocabulary": 1000, "layers": 2, "width": 64, "heads": 2, "max_length": 128},
                "loss": "infonce",
                "max_length": 128,
            }
        },
        "student": {
            "kind": "bi_encoder",
            "backbone": {"vocabulary": 1000, "layers": 1, "width": 32, "heads": 2, "max_length": 128},
            "max_length": 128,
            "control": False,
        },
        "objectives": {"embedding_match": {"teacher": "bi"}},
        "training": {"max_steps": 6, "learning_rate": 3.0e-3, "dropout": 0.0, "tensorboard": False},
        "signals": {"allow_unrelated": True},
    }
)
run = Run(recipe)

# %% [markdown]
# ## Teacher and signals
#
# The teacher learns from the labels. Its signals are its embeddings of all training texts, kept on disk.

# %%
from teachers import cache_signals, train_teachers

train_teachers(run)
cache_signals(run)

# %% [markdown]
# ## Can a student learn from them?
#
# After six steps this teacher knows little, and the doctor says so.

# %%
from teachers.doctor import diagnose

for finding in diagnose(run, n_pairs=50).findings:
    print(finding.level, finding.check, "-", finding.line)

# %% [markdown]
# ## The student
#
# A finished stage is skipped when it is called again, and one that was killed goes on where it was.

# %%
from students import train_student

train_student(run)

# %% [markdown]
# ## How good is it?
#
# The evaluation pairs were held out from everything above. The interval is a bootstrap over their queries.

# %%
from distill.metrics import evaluate_scores
from distill.runtime import load

student, pairs = load(run.student), run.split.evaluation
scores = student.score(pairs.queries, pairs.documents)
for name, value in evaluate_scores(scores=scores, labels=pairs.labels, query_ids=pairs.query_ids, seed=0).items():
    print(f"{name}: {value.value:.3f} ({value.low:.3f} to {value.high:.3f})")
