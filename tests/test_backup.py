"""A backup can be restored whole or says what is damaged; a kill at any point costs only time."""

import hashlib
import json
import os
from datetime import timedelta
from uuid import uuid4

import pytest

import runs
from skincare.errors import MissingInputError, StageError
from skincare.paths import Layout
from skincare.runs import backup
from skincare.runs.backup_store import BackupStore, shown

NO_GRACE = timedelta(0)


@pytest.fixture
def layout(tmp_path):
    found = Layout(tmp_path / "root")
    for name, text in {
        "csv_data/a.csv": "a", "clean_dataset/images/x.jpg": "image", "clean_dataset/images/same.jpg": "image",
        "models/finetuned/run/model.safetensors": "weights", "log/clean.json": "{}", "plots/lr.png": "plot",
        "labels.toml": "", ".cache/big": "never", "src/secret.py": "not ours",
    }.items():  # fmt: skip
        path = found.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return found


@pytest.fixture(params=["folder", "s3"])
def location(request, tmp_path, monkeypatch):
    """A folder, and a bucket of a server that speaks S3."""
    if request.param == "folder":
        return str(tmp_path / "backup")
    return request.getfixturevalue("bucket")


@pytest.fixture
def bucket(monkeypatch):
    server_module = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    server = server_module.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    # The server's buckets outlive it, in this process.
    name = f"bucket-{uuid4().hex}"
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}/prefix"
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


def object_of(place, text):
    (found,) = (one for one in (place / "objects").rglob("*") if one.is_file() and one.read_text() == text)
    return found


def files(root):
    return {
        path.relative_to(root).as_posix(): path.read_text()
        for path in root.rglob("*")
        if path.is_file() and ".cache" not in path.parts
    }


def test_a_restored_root_equals_the_original(layout, location, tmp_path):
    store = BackupStore(location)
    done = backup.backup(layout, store)
    assert (done.n_files, done.n_moved) == (7, 6)  # equal content is stored once
    target = Layout(tmp_path / "restored")
    target.root.mkdir()
    restored = backup.restore(target, BackupStore(location))
    assert (restored.n_moved, restored.failures) == (7, {})
    expected = files(layout.root)
    del expected["src/secret.py"]
    assert files(target.root) == expected


def test_a_second_backup_stores_only_what_is_new(layout, location):
    first = backup.backup(layout, BackupStore(location))
    assert backup.backup(layout, BackupStore(location)).n_moved == 0
    (layout.root / "csv_data/b.csv").write_text("b")
    assert backup.backup(layout, BackupStore(location)).n_moved == 1
    store = BackupStore(location)
    assert len(store.snapshots()) >= 2
    assert len(store.read_snapshot()[1]) == 8
    assert len(store.read_snapshot(first.snapshot)[1]) == 7


def test_a_kill_leaves_no_snapshot_and_the_next_backup_goes_on(layout, location, monkeypatch):
    store, n_put = BackupStore(location), 0
    put = BackupStore.put

    def killed(self, source, sha256):
        nonlocal n_put
        n_put += 1
        if n_put == 4:
            raise KeyboardInterrupt
        put(self, source, sha256)

    monkeypatch.setattr(backup, "_N_TRANSFERS", 1)
    monkeypatch.setattr(BackupStore, "put", killed)
    with pytest.raises(KeyboardInterrupt):
        backup.backup(layout, store)
    assert store.snapshots() == []
    monkeypatch.setattr(BackupStore, "put", put)
    done = backup.backup(layout, BackupStore(location))
    assert done.n_moved <= 3
    assert backup.damaged_objects(BackupStore(location))[2] == []


def test_a_torn_object_is_stored_again(layout, tmp_path):
    store = BackupStore(str(tmp_path / "backup"))
    backup.backup(layout, store)
    (path,) = (
        one for one in (tmp_path / "backup/objects").rglob("*") if one.is_file() and one.read_text() == "weights"
    )
    path.write_text("weig")
    assert backup.damaged_objects(store)[2] == ["models/finetuned/run/model.safetensors"]
    assert backup.backup(layout, store).n_moved == 1
    assert backup.damaged_objects(store)[2] == []


def test_damaged_bytes_are_not_restored(layout, tmp_path):
    store = BackupStore(str(tmp_path / "backup"))
    backup.backup(layout, store)
    (path,) = (
        one for one in (tmp_path / "backup/objects").rglob("*") if one.is_file() and one.read_text() == "weights"
    )
    path.write_text("Weights")
    target = Layout(tmp_path / "restored")
    target.root.mkdir()
    done = backup.restore(target, store)
    assert list(done.failures) == ["models/finetuned/run/model.safetensors"]
    assert "damaged" in done.failures["models/finetuned/run/model.safetensors"]
    assert not (target.root / "models/finetuned/run/model.safetensors").exists()
    assert not list(target.root.rglob("*.part"))
    path.write_text("weights")
    assert backup.restore(target, store).n_moved == 1


def test_a_storage_that_takes_nothing_ends_the_backup_early(layout, tmp_path, monkeypatch):
    for i in range(100):
        (layout.root / f"csv_data/{i}.csv").write_text(str(i))

    def refuse(self, source, sha256):
        raise StageError("no such bucket")

    monkeypatch.setattr(BackupStore, "put", refuse)
    with pytest.raises(StageError, match="nothing can be stored: no such bucket"):
        backup.backup(layout, BackupStore(str(tmp_path / "backup")))


def test_a_file_that_changes_while_it_is_copied_makes_no_snapshot(layout, tmp_path, monkeypatch):
    put = BackupStore.put

    def changing(self, source, sha256):
        if source.name == "a.csv":
            source.write_text("changed")
        put(self, source, sha256)

    store = BackupStore(str(tmp_path / "backup"))
    monkeypatch.setattr(BackupStore, "put", changing)
    done = backup.backup(layout, store)
    assert list(done.failures) == ["csv_data/a.csv"]
    assert store.snapshots() == []
    monkeypatch.setattr(BackupStore, "put", put)
    assert backup.damaged_objects(store, backup.backup(layout, store).snapshot)[2] == []


def test_restore_never_replaces_other_content_unless_told(layout, tmp_path):
    store = BackupStore(str(tmp_path / "backup"))
    backup.backup(layout, store)
    (layout.root / "csv_data/a.csv").write_text("newer work")
    (layout.root / "plots/lr.png").unlink()
    with pytest.raises(StageError, match=r"1 files have other content .*csv_data/a.csv"):
        backup.restore(layout, store)
    assert not (layout.root / "plots/lr.png").exists()
    assert backup.restore(layout, store, overwrite=True).n_moved == 2
    assert (layout.root / "csv_data/a.csv").read_text() == "a"


@pytest.mark.parametrize("path", ["../outside", "/etc/x", "a/../../b", "c:\\x"])
def test_a_malicious_snapshot_is_refused(layout, tmp_path, path):
    store = BackupStore(str(tmp_path / "backup"))
    backup.backup(layout, store)
    value = {"files": [{"path": path, "sha256": "0" * 64, "n_bytes": 1}]}
    text = json.dumps(value).encode()
    name = f"99991231T000000000-{hashlib.sha256(text).hexdigest()[:12]}.json"
    (tmp_path / "backup/snapshots" / name).write_bytes(text)
    with pytest.raises(StageError, match="is refused"):
        backup.restore(layout, store)


def test_a_torn_snapshot_is_recognised(layout, tmp_path):
    store = BackupStore(str(tmp_path / "backup"))
    done = backup.backup(layout, store)
    path = tmp_path / "backup/snapshots" / f"{done.snapshot}.json"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(StageError, match="damaged"):
        store.read_snapshot()


def test_a_link_out_of_the_root_is_not_followed(layout, tmp_path):
    store = BackupStore(str(tmp_path / "backup"))
    backup.backup(layout, store)
    target = Layout(tmp_path / "restored")
    target.root.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (target.root / "csv_data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StageError, match="symbolic link"):
        backup.restore(target, store)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_prune_removes_old_snapshots_and_only_their_objects(layout, location):
    store = BackupStore(location)
    first = backup.backup(layout, store).snapshot
    (layout.root / "csv_data/a.csv").write_text("second content")
    second = backup.backup(layout, store).snapshot
    assert backup.prune(store, 1, NO_GRACE, is_dry=True) == ([first], 1)
    assert store.snapshots() == [first, second]
    assert backup.prune(store, 1, NO_GRACE, is_dry=False) == ([first], 1)
    assert store.snapshots() == [second]
    assert len(store.sizes()) == 6
    assert backup.damaged_objects(store)[2] == []


def test_prune_spares_what_a_running_backup_has_stored(layout, tmp_path):
    store = BackupStore(str(tmp_path / "backup"))
    backup.backup(layout, store)
    stored = layout.root / "csv_data/a.csv"
    stored.write_text("of a backup without a snapshot yet")
    store.put(stored, hashlib.sha256(stored.read_bytes()).hexdigest())
    assert backup.prune(store, 1, timedelta(hours=1), is_dry=True) == ([], 0)
    assert backup.prune(store, 1, NO_GRACE, is_dry=True) == ([], 1)


def test_parts_choose_what_is_stored(layout, tmp_path):
    store = BackupStore(str(tmp_path / "backup"))
    backup.backup(layout, store, ["models"])
    assert [one.path for one in store.read_snapshot()[1]] == ["models/finetuned/run/model.safetensors"]


def test_a_location_without_snapshots_says_so(tmp_path, layout):
    with pytest.raises(MissingInputError, match=r"runs\.py list"):
        backup.restore(layout, BackupStore(str(tmp_path / "empty")))


def test_unreachable_storage_is_an_error_of_one_line_without_secrets(layout):
    with pytest.raises(StageError) as caught:
        BackupStore("ftp://user:hunter2@127.0.0.1:1/x")
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert shown("s3://bucket/x") == "s3://bucket/x"


def test_the_stage_backs_up_restores_and_verifies(layout, tmp_path):
    place = str(tmp_path / "backup")
    run = lambda action, **options: runs.run(  # noqa: E731
        runs.Config(root=layout.root, action=action, names=(place,), **options), layout
    )
    assert "7 files, 6 of them stored" in run("backup").headline
    assert run("verify").exit_code == 0
    (layout.root / "plots/lr.png").unlink()
    assert "1 restored" in run("restore").headline
    assert run("list").headline == "1 snapshots"
    os.truncate(
        next(one for one in (tmp_path / "backup/objects").rglob("*") if one.is_file() and one.stat().st_size), 0
    )
    assert run("verify").exit_code == 1
