"""The words that options of models and maps may hold, apart from the code that acts on them: help needs no PyTorch."""

from typing import Literal

NormPolicy = Literal["shared", "private", "recalibrated"]
DepthPolicy = Literal["leading", "spread"]
WidthPolicy = Literal["leading", "even"]
Extra = Literal["neutral", "copied", "own"]

Model = Literal["base", "motivated"]
"""One of the two models."""

MODELS: tuple[Model, ...] = ("base", "motivated")

Student = Literal["base", "motivated", "both"]
"""Which model learns from the other one, or both."""

Role = Literal["pair", "base", "motivated"]
"""What is trained: the pair, or one of its models alone."""

Tracker = Literal["tensorboard", "wandb", "mlflow", "trackio"]

SplitMethod = Literal["classes", "random"]
Task = Literal["images", "text", "tabular"]
"""What the data are."""

Loss = Literal["cross_entropy", "mse"]
"""What is minimized: for classes, or for values."""

OnBadImage = Literal["error", "skip"]
