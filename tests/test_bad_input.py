"""What is wrong on the command line or in a file of options is told in one line."""

from pathlib import Path

import pytest
from command_line import refused

from seeking.cli import main
from seeking.commands import Train
from seeking.option_parsing import parse_options, plain_switches

pytestmark = pytest.mark.usefixtures("_elsewhere")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "unknown command 'trian'; did you mean train"),
        (["train", "--epocs", "3"], "--epocs"),
        (["train", "--epochs", "three"], "--epochs"),
        (["train", "--learning-rate", "0.1"], "unknown option --learning-rate; did you mean --lr?"),
        (["train", "--num_train_epochs=3"], "unknown option --num_train_epochs; did you mean --epochs?"),
        (["train", "--base", "resnet9"], "unknown model 'resnet9'; did you mean"),
        (["train", "--task", "text", "--base", "gpt2-0x32"], "unknown model 'gpt2-0x32'; known: gpt2-LAYERSxWIDTH"),
        (["train", "--data", "digit"], "unknown data set 'digit'; did you mean digits"),
        (["train", "--data", "./nowhere"], "no such folder"),
        (["train", "--condition", "decrese:2"], r"did you mean decrease\? decrese:2 \^"),
        (["train", "--optimizer", "adamv"], "unknown optimizer 'adamv'; did you mean"),
        (["train", "--base", "resnet14", "--motivated", "resnet8"], "the base has 2 blocks, the motivated model 1"),
        (["train", "--motivated-kwargs", "num_classes=7"], "different numbers of classes: the base has 10, .* 7"),
        (["train", "--batch-size", "5000"], "1438 training images are fewer than one batch of 5000"),
        (["train", "--batch-size", "0"], "--batch-size is 0"),
        (["train", "--config", "nothing.yaml"], "nothing.yaml: cannot be read"),
        (["train", "--recipe", "Best"], "unknown recipe 'Best'; did you mean best"),
        (["train", "--recipe", ""], "unknown recipe ''; known: base-first, best, paper"),
        (["train", "--recipe", "./nothing.json"], "nothing.json: cannot be read"),
        (["train", "--recipe", "."], "a folder, not a file; name a file in it"),
        (["train", "--recipe", "best", "--recipe", "paper"], "--recipe is given 2 times .best, paper.; join them"),
        (["reproduce", "nothing"], "unknown recipe 'nothing'; known: ablation"),
        (
            ["train", "--base", "vit_tiny_patch16_224", "--motivated", "vit_small_patch16_224"],
            r"on the batch, in evaluation mode: AssertionError: Input height \(8\) doesn't match model \(224\)\.$",
        ),
        (["map", "resnet34", "resnet50"], "BasicBlock.*Bottleneck"),
        (["map", "mlp-4", "resnet8"], "mlp-4 is a model of task tabular, resnet8 one of task images; give two of one"),
        (["train", "--momentum", "0", "--data", "./nowhere"], "give optimizer momentum, which is SGD without Nesterov"),
        (["verify", "resnet8"], "MOTIVATED Name of the larger model"),
        (["compare", "--seeds", "0"], "--seeds is 0"),
        (["compare", "--base", "resnet9"], "unknown model 'resnet9'"),
        (["compare", "--batch-size", "5000"], "are fewer than one batch of 5000"),
        (["train", "--resume=maybe", "--output", "out"], "--resume is 'maybe'; it is a switch"),
        (["train", "--crop-padding", "-1"], "--crop-padding is -1"),
        (["train", "--image-size", "-3"], "--image-size is -3"),
        (["verify", "resnet8", "resnet14", "--image-size", "0"], "--image-size is 0"),
        (["verify", "mlp-4", "mlp-8", "--image-size", "32"], "--image-size is 32, but mlp-4 takes no images"),
        (["verify", "resnet8", "resnet14", "--tolerance", "nan"], "--tolerance is nan"),
        (["verify", "resnet8", "resnet14", "--in-chans", "0"], "--in-chans is 0"),
        (["map", "resnet8", "resnet14", "--num-classes", "-1"], "--num-classes is -1"),
        (["train", "--output", "long" * 100], "cannot be used as an output folder"),
        (["train", "--finish=tied", "--optimizer=adafactor", "--optimizer-state=shared"], "-state to separate"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused(arguments, message, capsys)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epochs: [", "not YAML"),
        ("- 3", "expected a mapping, found list"),
        ("epoch: 3", "unknown option in run.yaml 'epoch'; did you mean epochs"),
        ("weight-decay: 0\nper_device_train_batch_size: 3", "run.yaml 'per_device_.*'; did you mean batch_size"),
        ("verify: 3", "verify must be true or false, not 3"),
        ("epochs: many", "--epochs"),
        ("data: null", "run.yaml: data is null; give a value, or leave it out"),
        ('output: "a\\0b"', "run.yaml: output is .*a value cannot hold a null character"),
        ("seed: 9223372036854775808", "--seed is 9223372036854775808; it must be below"),
        ("image_size: 100000000", "--image-size is 100000000; it must be 16384 or less"),
        ("image_size: 16384", "digits of 16384.16384 pixels take .* GB of memory.*; give a smaller --image-size"),
        ("start_from: ['base=']", "--start-from is 'base=', which names no file"),
    ],
)
def test_bad_files_are_refused(content: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("run.yaml").write_text(content)
    refused(["train", "--config", "run.yaml"], message, capsys)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("mine", "epochs: 1", "mine is a file, .*; give its path as ./mine"),
        ("./mine", "epochs: many", "--epochs"),
        ("mine.json", "config: run.yaml", "a recipe cannot start from another recipe or file"),
        ("mine.yaml", "recipe: best", "a recipe cannot start from another recipe or file"),
    ],
)
def test_any_file_is_a_recipe_by_its_path(
    name: str, content: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(name).write_text(content)
    refused(["train", "--recipe", name], message, capsys)


@pytest.mark.parametrize(
    ("file", "flags", "message"),
    [
        ("lr: 0.1\nlr: 0.01", [], "run.yaml: not YAML: 'lr' is given twice in .*line 2"),
        ("batch-size: 4\nbatch_size: 8", [], "run.yaml: batch_size is given twice"),
        ("epochs: 010", [], "run.yaml: not YAML: 010 can be read as an octal or a decimal number"),
        ("lr: 0.1", ["--model-kwargs", "width=4", "width=6"], "given twice: width"),
        ('lr: "\\e[31mred"', [], r"\\x1b\[31mred|red"),
    ],
)
def test_ambiguous_options_are_refused(
    file: str, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("run.yaml").write_text(file)
    refused(["train", "--config", "run.yaml", *flags], message, capsys)


@pytest.mark.parametrize("name", ["never-cached-images", "nobody/never-cached-images"])
def test_a_hub_that_cannot_be_reached_is_not_an_unknown_data_set(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused(["train", "--data", name], f"data set {name}: no such folder in .*, and the hub cannot be reached", capsys)


@pytest.mark.parametrize(
    ("flags", "value"),
    [(["--in-memory", "False"], False), (["--in_memory", "true"], True), (["--no-in-memory"], False), ([], None)],
)
def test_a_switch_may_have_a_value(flags: list[str], value: bool | None) -> None:
    assert parse_options(Train, plain_switches([*flags, "--overwrite"], Train), "seeking train").in_memory is value


def test_a_switch_has_at_most_one_value(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--flip", "true", "true"])
    assert "true" in capsys.readouterr().err
