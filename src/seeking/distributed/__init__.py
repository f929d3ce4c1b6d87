"""Distributed training, in addition to what accelerate provides."""
