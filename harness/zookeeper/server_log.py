"""The server's log: one file, `server.log`, whatever logging back end a version of ZooKeeper comes with.

A line reads ``2026-01-31T12:00:00.123 INFO  [main] org.apache.zookeeper.server.quorum.QuorumPeer - text``, in local
time: it is for people, and nothing is judged by it.
"""

from __future__ import annotations

from pathlib import Path

from harness.zookeeper.distribution import LoggingBackend

#: What a server's log is called.
LOG_NAME = "server.log"
#: What the JVM itself says; beside it.
JVM_LOG = "jvm.log"

# The log's path is a system property, so that no path needs to be escaped for XML or for a properties file.
# No scanning, no status listener, no packaging data: each of them costs time at the start of a JVM.
_LOGBACK = """\
<configuration>
  <statusListener class="ch.qos.logback.core.status.NopStatusListener"/>
  <appender name="FILE" class="ch.qos.logback.core.FileAppender">
    <file>${zkchaos.log}</file>
    <encoder><pattern>%d{yyyy-MM-dd'T'HH:mm:ss.SSS} %-5level [%thread] %logger - %msg%n%ex</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="FILE"/></root>
</configuration>
"""

_LOG4J = """\
log4j.rootLogger=INFO, FILE
log4j.appender.FILE=org.apache.log4j.FileAppender
log4j.appender.FILE.File=${zkchaos.log}
log4j.appender.FILE.layout=org.apache.log4j.PatternLayout
log4j.appender.FILE.layout.ConversionPattern=%d{yyyy-MM-dd'T'HH:mm:ss.SSS} %-5p [%t] %c - %m%n
"""

#: slf4j-simple has no file of its own: all is said by system properties.
_SIMPLE = "-Dorg.slf4j.simpleLogger"
_SIMPLE_SETTINGS = ("showDateTime=true", "dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS", "defaultLogLevel=info")


def write_log_config(backend: LoggingBackend, folder: Path, log: Path, *, seen: Path | None = None) -> tuple[str, ...]:
    """Write the back end's configuration file into `folder`.

    Args:
        backend: of the server's distribution.
        folder: an existing folder.
        log: the file that the server shall append to, with level INFO, from its first line on, as the JVM sees it.
        seen: the folder as the JVM sees it; None where that is the same.

    Returns:
        The JVM's arguments that make it so; none for `LoggingBackend.NONE`, whose log is lost.
    """
    place = f"-Dzkchaos.log={log.absolute()}"
    seen = seen or folder.absolute()
    match backend:
        case LoggingBackend.SIMPLE:
            return (f"{_SIMPLE}.logFile={log.absolute()}", *(f"{_SIMPLE}.{setting}" for setting in _SIMPLE_SETTINGS))
        case LoggingBackend.LOGBACK:
            (folder / "logback.xml").write_text(_LOGBACK, encoding="utf-8")
            return (place, f"-Dlogback.configurationFile={seen / 'logback.xml'}")
        case LoggingBackend.LOG4J:
            (folder / "log4j.properties").write_text(_LOG4J, encoding="utf-8")
            return (place, f"-Dlog4j.configuration={(seen / 'log4j.properties').as_uri()}")
        case LoggingBackend.NONE:
            return ()
