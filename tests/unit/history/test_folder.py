"""The run folder: what was written whole is read back, what was torn is dropped, what is wrong is refused by line."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import HistoryError, RunFolderError, StorageFull
from harness.history.folder import LineWriter, RunFolder, read_lines, run_folders, storage_error
from harness.history.records import Event, Note, Phase, Sample

EVENTS = st.one_of(
    st.builds(Phase, st.integers(0, 2**62), st.text(), st.text()),
    st.builds(Note, st.integers(0, 2**62), st.text(), st.booleans()),
    st.builds(Sample, st.integers(0, 2**62), st.integers(1, 99), st.text(), st.integers(0, 2**63 - 1)),
)


@given(st.lists(EVENTS, max_size=20), st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_torn_end_loses_only_the_torn_line(tmp_path: Path, events: list[Event], data: st.DataObject) -> None:
    path = tmp_path / "events.jsonl"
    path.unlink(missing_ok=True)
    writer = LineWriter(path)
    writer.write(*events)
    writer.close()
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
    assert read_lines(path, decoder) == events[: whole[:cut].count(b"\n")]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    folder.events_file.write_bytes(b'{"t":"phase","at":1,"name":"load"}\n{"t":"phase","at":"x","name":"load"}\n')
    with pytest.raises(HistoryError, match="not a record") as caught:
        folder.events()
    assert caught.value.where.endswith("events.jsonl:2")
    assert caught.value.exit_code == 64


def test_a_taken_folder_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(RunFolderError, match="exists already"):
        RunFolder.create(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunFolderError, match="exists already"):
        RunFolder.create(tmp_path / "file")


def test_what_is_no_run_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"no scenario\.json"):
        RunFolder.open(tmp_path)


def test_a_damaged_scenario_is_refused(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    folder.scenario_file.write_text("{")
    with pytest.raises(RunFolderError, match="not valid"):
        folder.scenario()


def test_a_full_disk_is_told_as_such() -> None:
    problem = storage_error(OSError(28, "No space left on device"), Path("events.jsonl"))
    assert isinstance(problem, StorageFull)
    assert problem.exit_code == 3


def test_run_folders_are_listed_newest_first_without_the_link(tmp_path: Path) -> None:
    for name in ("20260101T000000-a-0", "20260102T000000-b-0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "scenario.json").write_text("{}")
    (tmp_path / "latest").symlink_to("20260102T000000-b-0")
    (tmp_path / "other").mkdir()
    assert [f.root.name for f in run_folders(tmp_path)] == ["20260102T000000-b-0", "20260101T000000-a-0"]
    assert list(run_folders(tmp_path / "none")) == []
