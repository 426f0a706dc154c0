"""The configuration of the logging back ends. That servers write logs with it is an integration test."""

from pathlib import Path
from xml.etree import ElementTree

from harness.zookeeper.distribution import LoggingBackend
from harness.zookeeper.server_log import write_log_config


def test_logback(tmp_path: Path) -> None:
    flags = write_log_config(LoggingBackend.LOGBACK, tmp_path, tmp_path / "a & b" / "server.log")
    config = tmp_path / "logback.xml"
    assert flags == (f"-Dzkchaos.log={tmp_path}/a & b/server.log", f"-Dlogback.configurationFile={config}")
    root = ElementTree.parse(config).getroot()
    assert root.get("scan") is None
    assert root.findtext("appender/file") == "${zkchaos.log}"
    assert root.find("root[@level='INFO']/appender-ref[@ref='FILE']") is not None


def test_simple(tmp_path: Path) -> None:
    flags = write_log_config(LoggingBackend.SIMPLE, tmp_path, tmp_path / "server.log")
    assert flags[0] == f"-Dorg.slf4j.simpleLogger.logFile={tmp_path}/server.log"
    assert all(flag.startswith("-Dorg.slf4j.simpleLogger.") for flag in flags)
    assert list(tmp_path.iterdir()) == []


def test_log4j(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    folder.mkdir()
    flags = write_log_config(LoggingBackend.LOG4J, folder, tmp_path / "server.log")
    assert flags[1] == f"-Dlog4j.configuration=file://{tmp_path}/with%20space/log4j.properties"
    assert "log4j.appender.FILE.File=${zkchaos.log}" in (folder / "log4j.properties").read_text().splitlines()


def test_without_a_back_end_nothing_is_written(tmp_path: Path) -> None:
    assert write_log_config(LoggingBackend.NONE, tmp_path, tmp_path / "server.log") == ()
    assert list(tmp_path.iterdir()) == []
