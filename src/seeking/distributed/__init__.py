"""Several processes: what accelerate does not do already."""
