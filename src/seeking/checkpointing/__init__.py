"""The run's folder: metrics, snapshots, weights, resuming."""
