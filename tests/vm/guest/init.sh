#!/bin/busybox sh
# The first process of a test machine. It loads the modules that the kernel's command line names
# (modules=a,b), runs the guest program, and writes how that ended to the second serial port.
export PATH=/usr/bin:/bin HOME=/root DENO_DIR=/tmp/deno DENO_NO_UPDATE_CHECK=1 NO_COLOR=1
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs dev /dev
mkdir -p /dev/shm
busybox mount -t tmpfs tmpfs /dev/shm
busybox mount -t tmpfs tmpfs /tmp
busybox mount -t tmpfs tmpfs /run
echo /usr/bin/modprobe >/proc/sys/kernel/modprobe
# Without this a line feed of the report would become two characters.
stty -F /dev/ttyS1 raw -echo
ip link set lo up
modules=$(sed -n 's/.*modules=\([^ ]*\).*/\1/p' /proc/cmdline)
for module in $(echo "$modules" | tr , ' '); do
  modprobe "$module" || echo "init: cannot load $module"
done
cd /root
echo "init: $(uname -r), $(cut -d' ' -f1 /proc/uptime) s after the start"
deno run --quiet --no-config --no-lock --no-remote --no-npm --no-prompt -A /guest/program.js
code=$?
echo "init: the program ended with $code, $(cut -d' ' -f1 /proc/uptime) s after the start"
echo "{\"end\":$code}" >/dev/ttyS1
sync
poweroff -f
