"""The proof that the base model is a sub-network of the motivated model."""

from seeking.verification.verify import Verification, verify

__all__ = ["Verification", "verify"]
