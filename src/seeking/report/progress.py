"""Progress bars on the terminal."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from seeking.training.record import Listener, Row

SMOOTHING = 0.95


@contextlib.contextmanager
def progress(console: Console) -> Iterator[Callable[[str], Listener]]:
    """Show one progress bar for each run; yields a function from the title of a run to its listener.

    The bar shows both training losses (smoothed), the share of motivated batches and the time left. Each evaluation
    prints a line above it.
    """
    columns = (
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(bar_width=10),
        TaskProgressColumn(),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
    )
    with Progress(*columns, console=console, refresh_per_second=2, transient=True) as bars:

        def start(title: str) -> Listener:
            for finished in list(bars.task_ids):
                bars.remove_task(finished)
            task = bars.add_task(title, total=None, status="checking models and data")
            motivated = steps = 0
            length = ""
            saved_text = ""
            losses: dict[str, float] = {}

            def update_smoothed(name: str, loss: float) -> None:
                losses[name] = SMOOTHING * losses.get(name, loss) + (1 - SMOOTHING) * loss

            def listen(row: Row) -> None:
                nonlocal length, motivated, steps, saved_text
                if row["kind"] == "start":
                    length = f"/{row['epochs']}" if row["epochs"] is not None else ""
                    bars.update(task, total=row["steps"], completed=row.get("step", 0))
                elif row["kind"] == "note":
                    console.print(f"{title}: {row['text']}", highlight=False)
                elif row["kind"] == "saving":
                    saved_text = f", saved at step {row['step']}"
                elif row["kind"] == "stopped":
                    where = (
                        f" and saved in {row['path']}; add --resume to the command to continue" if row["path"] else ""
                    )
                    console.print(f"{title}: stopped after step {row['step']}{where}", highlight=False)
                elif row["kind"] == "step":
                    steps += 1
                    if "loss" in row:
                        update_smoothed("base", row["loss"])
                    if "motivated_loss" in row:
                        motivated += 1
                        update_smoothed("motivated", row["motivated_loss"])
                    status = "loss " + " ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
                    if motivated:
                        status += f" ({motivated / steps:.1%} of batches)"
                    bars.update(task, advance=1, status=status + saved_text)
                elif row["kind"] == "eval":
                    parts = []
                    for name in ("base", "motivated"):
                        if metrics := row.get(name):
                            label = f"{name} " if "motivated" in row else ""
                            metric, scale = ("accuracy", "{:.2%}") if "accuracy" in metrics else ("loss", "{:.4f}")
                            parts.append(f"{label}{metric} {scale.format(metrics[metric])}")
                    share = f", motivated batches {motivated / steps:.1%}" if motivated else ""
                    console.print(f"{title}: epoch {row['epoch']}{length}: {', '.join(parts)}{share}", highlight=False)

            return listen

        yield start


@contextlib.contextmanager
def many_runs(console: Console) -> Iterator[Callable[[str, Row], None]]:
    """Show one progress bar for runs in parallel; yields a listener that takes the name of a run and a row.

    A row of kind ``plan`` holds the number of epochs that all runs together have left.
    """
    columns = (BarColumn(bar_width=20), TaskProgressColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, TimeRemainingColumn(compact=True), TextColumn("left"), console=console) as bars:
        task = bars.add_task("checking models and data", total=None)
        lengths: dict[str, int] = {}
        reached: dict[str, int] = {}

        def listen(name: str, row: Row) -> None:
            if row["kind"] == "plan":
                bars.update(task, total=row["epochs"], completed=0, description=row["text"])
            elif row["kind"] == "start":
                lengths[name] = row["epochs"]
                bars.update(task, description=name)
            elif row["kind"] == "eval":
                bars.update(
                    task, advance=row["epoch"] - reached.get(name, 0), description=f"{name}, epoch {row['epoch']}"
                )
                reached[name] = row["epoch"]
                if row["epoch"] == lengths.get(name):
                    scores = [
                        f"{model} {row[model]['accuracy']:.2%}" for model in ("base", "motivated") if model in row
                    ]
                    console.print(f"{name}: {', '.join(scores)}", highlight=False)

        yield listen
