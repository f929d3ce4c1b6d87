"""The former place of ``seeking.checkpointing.weights``, kept for code that imports from here."""

from seeking.checkpointing.weights import load_weights, save_weights

__all__ = ["load_weights", "save_weights"]
