#!/bin/busybox sh
# First stage of the demo image, in the initramfs: load drivers, find the root file system, grow it to the disk, enter it.
PATH=/bin:/sbin:/usr/bin:/usr/sbin
export PATH
/bin/busybox mkdir -p /proc /sys /dev /run /etc /root /sbin /usr/bin /usr/sbin
/bin/busybox --install -s
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -p /run/mulligan
ln -sf /proc/mounts /etc/mtab

say() { echo "mulligan: $*"; }

# Every device names the drivers it needs; the second pass serves the devices that the first one brought up.
load_drivers() {
    modprobe -a -q crc32c_generic ext4 isofs vfat nls_cp437 nls_ascii sr_mod sd_mod evdev
    for _ in 1 2; do
        find /sys/devices -name modalias -exec cat {} + | sort -u | xargs modprobe -a -q -b 2>/dev/null
    done
}

# find_root UUID: print the partition that holds the root file system, within ten seconds.
find_root() {
    tries=100
    until findfs "UUID=$1" 2>/dev/null; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        usleep 100000
    done
}

# grow_partition NAME: let the partition end where the disk ends, or the next partition begins (a seed may be there), where
# more than 2 MiB are behind it. It is named last, so that the others have their places.
grow_partition() {
    partition=$(readlink -f "/sys/class/block/$1")
    disk=${partition%/*}
    end=$(($(cat "$partition/start") + $(cat "$partition/size")))
    [ $(($(cat "$disk/size") - end)) -gt 4096 ] || return
    number=$(cat "$partition/partition")
    device=/dev/${disk##*/}
    sfdisk --dump "$device" >/run/dump 2>/dev/null
    grep -v -e '^last-lba:' -e "^[^ ]*$1 :" /run/dump >/run/table
    sed -n "/^[^ ]*$1 :/s/size= *[0-9]*, *//p" /run/dump >>/run/table
    sfdisk --quiet "$device" </run/table >/run/sfdisk.log 2>&1 && say "partition $number of $device grown to the disk" && return
    say "partition $number of $device was not grown: $(tail -n 1 /run/sfdisk.log)"
}

stop() {
    say "$1; this shell is for looking around, 'reboot -f' to try again"
    exec sh
}

load_drivers
uuid=
for word in $(cat /proc/cmdline); do
    case $word in root=UUID=*) uuid=${word#root=UUID=} ;; esac
done
root=$(find_root "$uuid") || stop "no disk holds the root file system $uuid"
grow_partition "${root##*/}"
mkdir -p /newroot
mount -t ext4 -o rw,relatime "$root" /newroot || stop "cannot mount $root"
resize2fs "$root" >/run/resize2fs.log 2>&1 || say "$root was not grown: $(tail -n 1 /run/resize2fs.log)"
for point in proc sys dev run; do
    mount --move "/$point" "/newroot/$point"
done
exec switch_root /newroot /sbin/init
