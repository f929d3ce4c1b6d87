"""A run folder from a stranger is opened, shown and resumed without executing anything in it."""

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seeking.cli import main

TRAIN = ["train", "--max-train-samples", "64", "--base-kwargs", "width=4", "--motivated-kwargs", "width=6"]

WATCHED = """
import sys
sys.path.insert(0, "")
bad = []
def hook(event, arguments):
    if event == "pickle.find_class" or (event == "import" and str(arguments[0]).startswith("evil")):
        bad.append((event, arguments))
    if event in ("subprocess.Popen", "os.system"):
        bad.append((event, arguments))
from seeking.cli import main
import datasets, sklearn.datasets, timm.optim, torchvision.transforms.v2, matplotlib.pyplot
sys.addaudithook(hook)
code = main(sys.argv[1:])
assert not bad, bad
sys.exit(code)
"""


class Evil:
    """A pickle that leaves a trace when it is opened."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


Watched = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def watched(client: str, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """The command line in a program that fails as soon as anything is unpickled or started."""
    program = tmp_path_factory.mktemp("watched") / "watched.py"
    program.write_text(WATCHED)

    def run(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
        command = [client, str(program), *arguments]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "run"
    assert main([*TRAIN, "--epochs", "2", "--output", str(output)]) == 0
    return output


@pytest.fixture
def stranger(run: Path, tmp_path: Path) -> Path:
    """A folder with everything in it that could be executed, if anything were."""
    output = tmp_path / "run"
    shutil.copytree(run, output)
    trace = tmp_path / "trace"
    source = f"import seeking, pathlib\npathlib.Path({str(trace)!r}).touch()\nclass Boom(seeking.Always): pass\n"
    for folder in (output, tmp_path):
        (folder / "evil.py").write_text(source)
        (folder / "sitecustomize.py").write_text(source)
    for name in ("optimizer.pt", "pytorch_model.bin", "random_states_0.pkl"):
        (output / name).write_bytes(pickle.dumps(Evil(trace)))
    (output / "base.best.safetensors").write_bytes(pickle.dumps(Evil(trace)))
    return output


@pytest.mark.slow
def test_training_and_resuming_touch_no_pickle(watched: Watched, tmp_path: Path) -> None:
    for epochs in ("1", "2"):
        done = watched(*TRAIN, "--epochs", epochs, "--resume", "--output", "out", cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    assert watched("show", "out", cwd=tmp_path).returncode == 0
    names = {path.name.partition("-")[0] for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {Path(name).suffix for name in names} <= {".json", ".jsonl", ".safetensors", ".png", ""}


@pytest.mark.slow
def test_a_strangers_run_is_shown_and_resumed_and_nothing_in_it_runs(watched: Watched, stranger: Path) -> None:
    here = stranger.parent
    done = watched("show", "run", cwd=here)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "base.best.safetensors: NOT intact" in done.stdout
    done = watched("train", "--resume", "--output", "run", "--epochs", "3", cwd=here)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "base.best.safetensors: damaged" in done.stderr
    assert not (here / "trace").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("condition", "evil.Boom"),
        ("condition", "decrease:2 & evil.Boom"),
        ("base", "hf-hub:evil/model"),
        ("motivated", "local-dir:/tmp/evil"),
        ("base_kwargs", {"checkpoint_path": "optimizer.pt"}),
        ("model_kwargs", {"pretrained": True}),
        ("base_kwargs", {"weights_file": "optimizer.pt"}),
        ("overrides", "/etc/passwd"),
        ("data", "--condition=evil.Boom"),
        ("mean", ["--condition", "evil.Boom"]),
        ("model_kwargs", {"--condition": "evil.Boom"}),
        ("model_kwargs", {"--condition=evil.Boom": 1}),
    ],
)
def test_what_could_load_something_is_taken_from_the_command_line_only(
    option: str, value: Any, stranger: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the stranger has put it into the checkpoint, too, with the right checksums."""
    from seeking.checkpointing import manifest, snapshot

    options = json.loads((stranger / "config.json").read_text()) | {option: value}
    (stranger / "config.json").write_text(json.dumps(options))
    marked = manifest.Manifest.read(stranger)
    marked.announce("config.json", stranger / "config.json")
    newest = snapshot.list_checkpoints(stranger / "checkpoints")[0]
    state, tensors = snapshot.read(newest)
    state["options"] = options
    shutil.rmtree(stranger / "checkpoints")
    (stranger / "checkpoints").mkdir()
    snapshot.write(stranger / "checkpoints", int(newest.name[5:]), state, tensors)
    monkeypatch.chdir(stranger.parent)
    assert main(["train", "--resume", "--output", "run", "--epochs", "3"]) == 2
    err = capsys.readouterr().err
    if "--condition" in str(value) and not isinstance(value, dict):
        assert "a value cannot start with a dash" in err
    else:
        assert f"  --{option.replace('_', '-')}: {value!r} in the run" in err
    assert "cannot be resumed: it was made with other options" in err
    assert not (stranger.parent / "trace").exists()
    assert "evil" not in sys.modules


@pytest.mark.slow
def test_links_are_refused(stranger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Else a stranger's folder could have a file of one's own written to."""
    mine = tmp_path / "mine.txt"
    mine.write_text("mine\n")
    newest = next((stranger / "checkpoints").iterdir()).name
    for name in ("metrics.jsonl", "config.json", f"checkpoints/{newest}/state.json", ".lock"):
        folder = tmp_path / f"with-{Path(name).name}"
        shutil.copytree(stranger, folder)
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(mine)
        assert main(["train", "--resume", "--output", str(folder), "--epochs", "3"]) == 2
        assert "is a link" in capsys.readouterr().err
        assert mine.read_text() == "mine\n"


def test_a_data_set_with_a_script_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "pictures.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'trace')!r}).touch()\n")
    assert main(["train", "--data", str(folder), "--output", str(tmp_path / "out")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "trace").exists()
