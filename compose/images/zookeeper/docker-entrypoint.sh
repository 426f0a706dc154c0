#!/bin/bash
# What a container of this image starts with: writes what is missing of the configuration, gives up root, and becomes
# the command. Its variables are those of the registry's image `zookeeper`.
set -euo pipefail

if [[ ${1:-} == zkServer.sh && $(id -u) == 0 ]]; then
    chown -R zookeeper:zookeeper "$ZOO_CONF_DIR" "$ZOO_DATA_DIR" "$ZOO_DATA_LOG_DIR" "$ZOO_LOG_DIR"
    exec setpriv --reuid=zookeeper --regid=zookeeper --init-groups -- "$0" "$@"
fi

write_config() {
    echo "dataDir=$ZOO_DATA_DIR"
    echo "dataLogDir=$ZOO_DATA_LOG_DIR"
    echo "tickTime=$ZOO_TICK_TIME"
    echo "initLimit=$ZOO_INIT_LIMIT"
    echo "syncLimit=$ZOO_SYNC_LIMIT"
    echo "autopurge.snapRetainCount=$ZOO_AUTOPURGE_SNAPRETAINCOUNT"
    echo "autopurge.purgeInterval=$ZOO_AUTOPURGE_PURGEINTERVAL"
    echo "maxClientCnxns=$ZOO_MAX_CLIENT_CNXNS"
    echo "standaloneEnabled=$ZOO_STANDALONE_ENABLED"
    echo "admin.enableServer=$ZOO_ADMINSERVER_ENABLED"
    if [[ -n ${ZOO_4LW_COMMANDS_WHITELIST:-} ]]; then
        echo "4lw.commands.whitelist=$ZOO_4LW_COMMANDS_WHITELIST"
    fi
    # Both are lists with spaces between, of which no part is a pattern for file names.
    set -f
    printf '%s\n' ${ZOO_SERVERS:-server.1=localhost:2888:3888;2181}
    printf '%s\n' ${ZOO_CFG_EXTRA:-}
    set +f
}

if [[ ${1:-} == zkServer.sh ]]; then
    if [[ ! -e $ZOO_CONF_DIR/zoo.cfg ]]; then
        write_config >"$ZOO_CONF_DIR/zoo.cfg"
    fi
    if [[ ! -e $ZOO_DATA_DIR/myid ]]; then
        echo "${ZOO_MY_ID:-1}" >"$ZOO_DATA_DIR/myid"
    fi
fi

exec "$@"
