#!/bin/bash
# The server's own script, as far as a container needs it: zkServer.sh start-foreground|print-cmd|status [zoo.cfg]
#
# JVMFLAGS, SERVER_JVMFLAGS, ZK_SERVER_HEAP (megabytes), JMXDISABLE, JMXPORT, JAVA_HOME, CLASSPATH and a file java.env
# beside zoo.cfg mean what they mean to the script of a release.
set -euo pipefail

config_dir=${ZOOCFGDIR:-${ZOO_CONF_DIR:-/conf}}
config=${2:-zoo.cfg}
[[ $config == */* ]] || config=$config_dir/$config
if [[ -f $config_dir/java.env ]]; then
    . "$config_dir/java.env"
fi

command=("${JAVA_HOME:+$JAVA_HOME/bin/}java")
# The first process of a container cannot be killed from inside it, so that a JVM without memory has to exit by itself.
command+=(-XX:-UsePerfData -XX:+ExitOnOutOfMemoryError "-Dzookeeper.log.dir=${ZOO_LOG_DIR:-/logs}")
command+=("-Xmx${ZK_SERVER_HEAP:-1000}m")
if [[ ${JMXDISABLE:-} != true ]]; then
    command+=(-Dcom.sun.management.jmxremote "-Dcom.sun.management.jmxremote.local.only=${JMXLOCALONLY:-false}")
    if [[ -n ${JMXPORT:-} ]]; then
        command+=("-Dcom.sun.management.jmxremote.port=$JMXPORT")
        command+=("-Dcom.sun.management.jmxremote.authenticate=${JMXAUTH:-false}")
        command+=("-Dcom.sun.management.jmxremote.ssl=${JMXSSL:-false}")
    fi
fi
# The jars come first and in a fixed order, as the archive of class data demands; then the user's configuration of the
# log, then the image's own, which writes to the standard output.
class_path=$(</apache-zookeeper/class-path):$config_dir:/apache-zookeeper/conf${CLASSPATH:+:$CLASSPATH}
set -f # flags are separated by spaces, and no flag is a pattern for file names
command+=(-cp "$class_path" ${SERVER_JVMFLAGS:-} ${JVMFLAGS:-})
set +f
command+=(org.apache.zookeeper.server.quorum.QuorumPeerMain "$config")

case ${1:-} in
start-foreground)
    exec "${command[@]}"
    ;;
print-cmd)
    printf '%q ' "${command[@]}"
    echo
    ;;
status)
    # 2181, unless the configuration says otherwise; `srvr` is answered without being on any list.
    port=$(sed -nE 's/^ *clientPort *= *([0-9]+) *$/\1/p' "$config")
    exec 3<>"/dev/tcp/127.0.0.1/${port:-2181}"
    printf srvr >&3
    answer=$(timeout 5 cat <&3)
    echo "$answer"
    [[ $answer == *Mode:* ]]
    ;;
*)
    echo "usage: zkServer.sh start-foreground|print-cmd|status [zoo.cfg]" >&2
    exit 64
    ;;
esac
