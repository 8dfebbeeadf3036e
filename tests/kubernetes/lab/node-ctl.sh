#!/usr/bin/env bash
# node-ctl.sh start|pid|crash|boot N.  start: inside the lab.  crash/boot: from outside, power-cut and boot of a node.
. "$(dirname "$0")/env.sh"
n=$2
start(){ nsenter --net=$S/netns/$n setsid unshare --mount --propagation private --uts --pid --fork --kill-child --mount-proc bash $LAB/node.sh $n >> $S/logs/node$n.log 2>&1 < /dev/null & }
findpid(){ for i in $(seq 50); do for p in /proc/[0-9]*; do
    [ "$({ tr "\0" " " < $p/cmdline; } 2>/dev/null)" = "bash $LAB/node.sh $n " ] && [ "$(awk '/^NSpid/{print $NF}' $p/status)" = 1 ] && { echo ${p#/proc/} > $S/node$n.hostpid; return 0; }; done; sleep 0.1; done; return 1; }
case $1 in
start) start;;
pid) findpid;;
crash) p=$(cat $S/node$n.hostpid); kill -9 $p; while kill -0 $p 2>/dev/null; do sleep 0.05; done;;
boot) nsenter --target "$(cat $S/init.pid)" --mount --net --pid --wd=. -- bash $LAB/node-ctl.sh start $n; findpid;;
esac
