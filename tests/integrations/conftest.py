"""The Hugging Face Trainer without its progress bars."""

import pytest


@pytest.fixture
def _quiet() -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()
