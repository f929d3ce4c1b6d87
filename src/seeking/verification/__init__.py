"""The proof that the base model is a sub-network of the motivated model."""

from seeking.verification.verdict import Verification
from seeking.verification.verify import verify

__all__ = ["Verification", "verify"]
