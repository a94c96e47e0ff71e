"""sentence-transformers' own trainer on a CPU, for the benchmarks that compare with it."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from distill.models.modeling import quiet

__all__ = ["cpu_seconds_with_stock", "train_with_stock"]


def train_with_stock(student: Any, columns: Mapping[str, Sequence[Any]], loss: str, **settings: Any) -> float:
    """Train by one of its losses, with batches of 64 and a warm-up; return the seconds that the trainer itself took.

    :param loss: the name of a class, such as MSELoss
    :param settings: arguments of SentenceTransformerTrainingArguments, such as learning_rate, bf16, seed and the length
    """
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer import losses

    with quiet(), tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            folder,
            **{"per_device_train_batch_size": 64, "warmup_steps": 0.1} | settings,
            use_cpu=True,
            save_strategy="no",
            report_to=[],
            logging_steps=100_000,
            disable_tqdm=True,
        )
        trainer = SentenceTransformerTrainer(
            model=student,
            args=arguments,
            train_dataset=Dataset.from_dict(dict(columns)),
            loss=getattr(losses, loss)(student),
        )
        return float(trainer.train().metrics["train_runtime"])


def cpu_seconds_with_stock(student: Any, columns: Mapping[str, Sequence[Any]], loss: str, **settings: Any) -> float:
    """Train as `train_with_stock` does; return the CPU seconds of a thread, which other work on the machine does not change.

    Preparing the data is counted as well.
    """
    import torch

    start = time.process_time()
    train_with_stock(student, columns, loss, **settings)
    return (time.process_time() - start) / torch.get_num_threads()
