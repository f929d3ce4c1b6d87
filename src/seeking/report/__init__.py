"""Results to tables, plots and progress."""
