"""Exit codes, summaries and logs are the same for every stage."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass

import pytest

from skincare import runlog, stage
from skincare.errors import MissingInputError, StageError
from skincare.files import write_bytes, write_json
from skincare.paths import REPOSITORY, Layout
from skincare.runlog import Summary

SCRIPTS = sorted(path.name for path in (REPOSITORY / "src").glob("*.py"))


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """A stage's options."""

    n: int = 3


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, 0), (StageError("broken"), 1), (PermissionError("read-only"), 1),
        (MissingInputError("thing", "there", "do this"), 2), (KeyboardInterrupt(), 130),
    ],
)  # fmt: skip
def test_the_exit_code_depends_on_the_error(tmp_path, error, code):
    def run(config, layout):
        if error:
            raise error
        return Summary("fine", {"kept": config.n}, {"share": 0.5})

    layout = Layout(tmp_path)
    layout.summary("s").parent.mkdir()
    layout.summary("s").write_text("{}")
    assert stage.execute("s", Config(root=tmp_path), layout, run) == code
    # A summary means done; that of an earlier run is kept until its results are replaced.
    assert (layout.summary("s").read_text() != "{}") == (code == 0)
    if error and str(error):
        assert str(error).splitlines()[0] in layout.stage_log("s").read_text()


def test_a_failed_run_that_replaced_results_leaves_no_summary(tmp_path):
    def run(config, layout):
        runlog.remove_summary("s", layout)
        raise StageError("half of the results are replaced")

    layout = Layout(tmp_path)
    layout.summary("s").parent.mkdir()
    layout.summary("s").write_text("{}")
    assert stage.execute("s", Config(root=tmp_path), layout, run) == 1
    assert not layout.summary("s").exists()


def test_the_last_training_run_is_read_from_its_summary(tmp_path):
    layout = Layout(tmp_path)
    with pytest.raises(MissingInputError, match=r"finetune\.py"):
        runlog.last_training_run(layout)
    write_json(layout.summary("finetune"), {"results": {"run": "best-2"}})
    assert runlog.last_training_run(layout) == "best-2"


@pytest.mark.parametrize("content", [b"{", b"{}", b"[]", b'{"results": {"run": "../x"}}', b"[" * 100_000, b"\xff"])
def test_a_damaged_summary_of_training_is_an_error_that_names_it(tmp_path, content):
    write_bytes(Layout(tmp_path).summary("finetune"), content)
    with pytest.raises(StageError, match=r"finetune\.json: names no finished run"):
        runlog.last_training_run(Layout(tmp_path))


def test_logs_of_several_runs_are_appended(tmp_path):
    def run(config, layout):
        logging.getLogger("skincare.x").info("run %d", config.n)
        return Summary("fine")

    for n in (1, 2):
        stage.execute("s", Config(root=tmp_path, n=n), Layout(tmp_path), run)
    log = Layout(tmp_path).stage_log("s").read_text()
    assert log.index("run 1") < log.index("run 2")


def test_the_recorded_command_can_be_pasted_into_a_shell(monkeypatch):
    monkeypatch.setattr("sys.argv", [str(REPOSITORY / "src" / "finetune.py"), "--run", "my run", "--restart"])
    assert runlog.command() == "python src/finetune.py --run 'my run' --restart"
    named = runlog.command(leave_out=("--restart",), add="--resume")
    assert named == "python src/finetune.py --run 'my run' --resume"
    monkeypatch.setattr("sys.argv", ["src/finetune.py", "--resume"])
    assert runlog.command(add="--resume") == "python src/finetune.py --resume"


def test_an_unexpected_error_keeps_its_traceback(tmp_path):
    def run(config, layout):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stage.execute("s", Config(root=tmp_path), Layout(tmp_path), run)


def test_a_summary_records_config_counts_and_versions(tmp_path):
    stage.execute("s", Config(root=tmp_path, n=7), Layout(tmp_path), lambda *_: Summary("fine", {"kept": 1}))
    found = json.loads(Layout(tmp_path).summary("s").read_text())
    assert found["config"]["n"] == 7
    assert found["counts"] == {"kept": 1}
    assert {"git_commit", "command", "python", "versions", "machine", "started", "seconds"} <= found.keys()


def test_secrets_of_the_environment_are_not_written(tmp_path, monkeypatch):
    for name in ("HF_TOKEN", "WANDB_API_KEY"):
        monkeypatch.setenv(name, "s3cr3t-value")
    stage.execute("s", Config(root=tmp_path), Layout(tmp_path), lambda *_: Summary("fine"))
    assert not any("s3cr3t" in path.read_text() for path in tmp_path.rglob("*") if path.is_file())


def test_paths_of_the_repository_are_written_relative():
    plain = runlog.to_plain({"a": REPOSITORY / "models", "b": str(REPOSITORY / "x"), "c": ("/elsewhere", 1, None)})
    assert plain == {"a": "models", "b": "x", "c": ["/elsewhere", 1, None]}


def test_info_messages_of_libraries_are_not_logged(tmp_path):
    runlog.setup("s", Layout(tmp_path))
    logging.getLogger("urllib3").info("connection")
    logging.getLogger("skincare.x").info("ours")
    assert "connection" not in Layout(tmp_path).stage_log("s").read_text()
    assert "ours" in Layout(tmp_path).stage_log("s").read_text()


def test_the_fields_of_a_docstring_begin_paragraphs_of_the_help():
    text = stage.help_text("Do it.\n\nIn: a,\nb.\nOut: c.\nCommand: python x\n         python y\nTime: 1 s.\n\nMore.")
    assert text == ("Do it.\n\nIn: a,\nb.\n\nOut: c.\n\nCommand: python x\n         python y\n\nTime: 1 s.\n\nMore.")
    assert stage.help_text("Lists:\n    one\n    two\nThe rest.") == "Lists:\n    one\n    two\n\nThe rest."


# One process for all stages, because importing torch takes most of the time.
_HELP = """
import contextlib, io, json, runpy, sys
found = {}
for script in sys.argv[1:]:
    sys.argv = [script, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        runpy.run_path(script, run_name="__main__")
    found[script] = printed.getvalue()
print(json.dumps(found))
"""


@pytest.mark.slow
def test_every_stage_has_complete_help(tmp_path):
    """--help works from any folder, shows the docstring and every option with its line."""
    scripts = [str(REPOSITORY / "src" / script) for script in SCRIPTS]
    found = subprocess.run(
        [sys.executable, "-c", _HELP, *scripts], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    for script, printed in json.loads(found.stdout).items():
        assert "--root" in printed, script
        fields = re.findall(r"^(?:- )?(In|Out|Command|Time): ", printed, re.MULTILINE)
        assert fields == ["In", "Out", "Command", "Time"], f"{script}: each field must begin a line of the help"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("script", ["scrape.py", "clean.py", "build_dataset.py", "fuse.py", "report.py"])
def test_the_data_stages_do_not_import_torch(script, tmp_path):
    """Importing a data stage does not import torch, so that it starts within a second."""
    code = (
        f"import sys; sys.argv=['x','--root','{tmp_path}']; sys.path.insert(0,'{REPOSITORY / 'src'}')\n"
        f"import {script[:-3]}\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


_INTERRUPT_AT_IMPORT = """
import os, signal, sys

class Interrupter:
    def find_spec(self, name, path=None, target=None):
        if name == "skincare.stage":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupter())
"""


@pytest.mark.parametrize("script", ["clean.py", "finetune.py", "predict.py"])
def test_an_interrupt_during_imports_prints_one_line(script, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(_INTERRUPT_AT_IMPORT)
    found = subprocess.run(
        [sys.executable, str(REPOSITORY / "src" / script), "--root", str(tmp_path)], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert found.returncode == -signal.SIGINT
    assert found.stderr.splitlines() == ["interrupted before the start; nothing was changed"]


def test_importing_the_package_does_not_replace_the_exception_hook():
    code = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY / 'src')!r}); import skincare; "
        "assert sys.excepthook is sys.__excepthook__"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


def test_counts_text_is_sorted_and_excludes_the_given_reason():
    assert runlog.counts_text({"kept": 5, "corrupt": 1, "blurred": 2}, "kept") == "blurred 2, corrupt 1"
    assert runlog.counts_text({"kept": 5}, "kept", empty="nothing rejected") == "nothing rejected"
