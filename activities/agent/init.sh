#!/bin/sh
# The deploy agent's first process: load drivers, start the agent's program, and say on every console how it ended.
# There is no login and no shell: nobody but the run that booted it has business here.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH

# say WORDS...: on every console (the kernel's log at level 2 goes to all of them), and on the second serial port, where
# many BMCs listen and the kernel cannot have a console besides the first one's.
say() {
    echo "<2>mulligan: $*" >/dev/kmsg
    [ -z "$second" ] || echo "mulligan: $*" >"$second"
}

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs -o mode=0755 tmpfs /run
mount -t tmpfs tmpfs /tmp
ip link set lo up
# Each card speaks for its own addresses only, also where two of them are on one network.
echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore
echo 2 >/proc/sys/net/ipv4/conf/all/arp_announce
second=
if [ "$(cat /sys/class/tty/ttyS1/type 2>/dev/null || echo 0)" != 0 ]; then
    second=/dev/ttyS1
    stty -F "$second" 115200 clocal -crtscts onlcr
fi

# The run's arguments, without the one-time token that ends the URL.
arguments() {
    # shellcheck disable=SC2013 # words are what is wanted
    for word in $(cat /proc/cmdline); do
        case $word in
        mulligan.url=*) echo "${word%/*}/..." ;;
        mulligan.*) echo "$word" ;;
        esac
    done
}

# load_drivers: every device names the drivers that it needs, most of which are not here. Fails when nothing is new.
load_drivers() {
    find /sys/devices -name modalias -exec cat {} + 2>/dev/null | sort -u >/run/devices.now
    cmp -s /run/devices.now /run/devices && return 1
    mv /run/devices.now /run/devices
    xargs modprobe -a -q -b </run/devices >/dev/null 2>&1
}

# settle: load drivers until nothing new has come up for a second and a half; half a minute at most.
settle() {
    quiet=0
    for _ in $(seq 60); do
        if load_drivers; then quiet=0; else quiet=$((quiet + 1)); fi
        [ "$quiet" -lt 3 ] || return
        sleep 0.5
    done
}

# What comes up later still is served too: disks behind a controller, a virtual CD on USB.
keep_loading_drivers() {
    while sleep 1; do
        load_drivers
    done
}

# run_agent: start the program, put what it prints on the consoles, and return its exit status.
run_agent() {
    {
        cd / && python3 -E -s -u -m agent.main 2>&1
        echo "$?" >/run/agent.status
    } | while IFS= read -r line; do
        say "$line"
    done
    return "$(cat /run/agent.status)"
}

# stop WORDS...: say why, leave a minute to read it, power off.
stop() {
    say "$*; powering off in a minute"
    sleep 60
    poweroff -f
}

# firmware: what started this kernel, as far as the kernel knows.
firmware() {
    [ -d /sys/firmware/efi ] || { echo BIOS && return; }
    variable=/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c
    # The value follows four bytes of attributes; these files can be read, but not seeked in.
    # shellcheck disable=SC2002
    case $(cat "$variable" 2>/dev/null | od -An -tu1 -j4) in
    *1) echo UEFI with Secure Boot ;;
    *) echo UEFI ;;
    esac
}

modprobe -a -q crc32c_generic nls_cp437 nls_ascii
if [ -d /sys/firmware/efi ]; then
    modprobe -q efivarfs
    mount -t efivarfs efivarfs /sys/firmware/efi/efivars || say "the firmware's variables cannot be reached"
else
    modprobe -q edd # what the BIOS said of its disks
fi
say "deploy agent, Linux $(uname -r), started by $(firmware); arguments: $(arguments | tr '\n' ' ')"
settle
keep_loading_drivers &
[ -e /agent/main.py ] || stop "this image holds no agent program; build it again with 'mulligan agent build'"
run_agent
case $? in # as agent/main.py ends
10) say "powering off" && sync && poweroff -f ;;
11) say "rebooting" && sync && reboot -f ;;
*) stop "the agent's program ended with exit status $(cat /run/agent.status)" ;;
esac
