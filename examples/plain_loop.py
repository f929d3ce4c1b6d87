"""Motivated training in a training loop of one's own.

timm models, an image folder, mixed precision, gradient clipping, a one-cycle schedule and moving averages of the
weights. What motivated training adds is marked with "seeking".

    python examples/plain_loop.py                # scikit-learn's digits, as an image folder that is made first
    python examples/plain_loop.py --data FOLDER  # with train/CLASS/*.png and test/CLASS/*.png
"""

import argparse
import tempfile
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from torchvision import datasets
from torchvision.transforms import v2

import seeking

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
AUTOCAST = torch.float16 if DEVICE.type == "cuda" else torch.bfloat16


def digits_folder(folder: Path) -> Path:
    """Write the digits as PNG files, a folder for each class."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        place = folder / ("test" if number % 5 == 0 else "train") / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15.9).astype("uint8")).save(place / f"{number}.png")
    return folder


def loaders(folder: Path, size: int, batch_size: int) -> tuple[DataLoader[tuple[Tensor, Tensor]], ...]:
    """Batches of training and of test images."""
    as_tensor = [v2.RGB(), v2.ToImage(), v2.Resize((size, size)), v2.ToDtype(torch.float32, scale=True)]
    augmented = [*as_tensor, v2.RandomAffine(10, translate=(0.1, 0.1))]
    train = datasets.ImageFolder(folder / "train", v2.Compose(augmented))
    test = datasets.ImageFolder(folder / "test", v2.Compose(as_tensor))
    return DataLoader(train, batch_size, shuffle=True, drop_last=True), DataLoader(test, 2 * batch_size)


class Learner:
    """What a model needs for its steps: an optimizer, a scaler, and the moving average of its weights."""

    def __init__(self, model: nn.Module, rate: float) -> None:
        self.model = model
        self.optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=1e-4)
        # One for each model: after a step that overflows, a scaler lowers its scale.
        self.scaler = torch.amp.GradScaler(DEVICE.type, enabled=AUTOCAST is torch.float16)
        # Without use_buffers the average would keep the statistics of batch normalization of the start.
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.95), use_buffers=True)

    def step(self, images: Tensor, labels: Tensor) -> tuple[float, bool]:
        """Take a step; the loss, and whether the scaler let the step happen."""
        self.model.train()
        with torch.autocast(DEVICE.type, AUTOCAST):
            loss = nn.functional.cross_entropy(self.model(images), labels, label_smoothing=0.1)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.item(), self.scaler.get_scale() >= scale


@torch.no_grad()
def accuracy(model: nn.Module, loader: DataLoader[tuple[Tensor, Tensor]]) -> float:
    """Share of the images whose label the model names."""
    model.eval()
    right = [(model(images.to(DEVICE)).argmax(1).cpu() == labels).float() for images, labels in loader]
    return torch.cat(right).mean().item()


def main() -> dict[str, float]:
    """Train, evaluate and save both models; their accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="an image folder; the digits if not given")
    parser.add_argument("--model", default="test_resnet", help="a ResNet of timm; this one is tiny")
    parser.add_argument("--condition", default="decrease:2")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--size", type=int, default=32, help="pixels of an image's side")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--output", type=Path, default=Path("runs/plain-loop"))
    given = parser.parse_args()

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        train, test = loaders(given.data or digits_folder(Path(folder)), given.size, given.batch_size)
        classes = len(train.dataset.classes)  # type: ignore[attr-defined]
        small, large = (  # One block in each of the four stages, or two.
            timm.create_model(given.model, num_classes=classes, zero_init_last=True, layers=[blocks] * 4).to(DEVICE)
            for blocks in (1, 2)
        )

        # seeking: the pair before the learners, whose averages begin with the weights that the models share.
        pair = seeking.Pair(small, large)
        condition = seeking.parse_condition(given.condition)
        base, motivated = (Learner(model, given.lr) for model in (small, large))
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            base.optimizer, given.lr, epochs=given.epochs, steps_per_epoch=len(train), pct_start=0.2
        )

        for epoch in range(given.epochs):
            losses, motivated_batches = [], 0
            for images, labels in train:
                batch = images.to(DEVICE), labels.to(DEVICE)
                loss, stepped = base.step(*batch)
                losses.append(loss)

                # seeking: the motivated step, with the rate and the momentum that the base had on this batch. The
                # schedule is the base's alone. One of the motivated model's own would be stepped on batches without a
                # step of its optimizer; PyTorch warns of that before the first one ("lr_scheduler.step() before
                # optimizer.step()"), and a schedule stepped on motivated batches only would not reach its end.
                if condition.update(loss, base_stepped=stepped):
                    for name in ("lr", "momentum"):
                        motivated.optimizer.param_groups[0][name] = base.optimizer.param_groups[0][name]
                    with pair.motivated():
                        motivated.step(*batch)
                    motivated_batches += 1

                if stepped:  # The same warning, if fp16 overflows on the first batch.
                    schedule.step()
                base.average.update_parameters(base.model)
                # seeking: inside motivated(), where the motivated model has the latest weights of the base.
                with pair.motivated() as model:
                    motivated.average.update_parameters(model)
            print(f"epoch {epoch + 1}: loss {sum(losses) / len(losses):.3f}, {motivated_batches} motivated batches")

        accuracies = {
            name: accuracy(learner.average, test) for name, learner in (("base", base), ("motivated", motivated))
        }
        given.output.mkdir(parents=True, exist_ok=True)
        for name, learner in (("base", base), ("motivated", motivated)):
            save_file(learner.average.module.state_dict(), given.output / f"{name}.safetensors")
            print(f"{name}: accuracy {accuracies[name]:.3f}, weights in {given.output / name}.safetensors")
    return accuracies


if __name__ == "__main__":
    main()
