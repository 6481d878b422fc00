#!/bin/sh
# Run by mmdebstrap when all packages are set up: $1 is the new root, $2 its file system's UUID, $3 the EFI partition's.
set -eu
root=$1

cat >"$root/etc/fstab" <<TABLE
UUID=$2 / ext4 errors=remount-ro 0 1
UUID=$3 /boot/efi vfat umask=0077,nofail 0 2
TABLE
mkdir -p "$root/boot/efi"
echo debian >"$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 debian\n::1 localhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"
echo LANG=C.UTF-8 >"$root/etc/default/locale"

# Only a seed on a local disk is looked for, so that no boot waits for a metadata service.
cat >"$root/etc/cloud/cloud.cfg.d/99_mulligan.cfg" <<CONFIG
datasource_list: [NoCloud, None]
manage_etc_hosts: true
CONFIG

# The first boot uses the short configuration below; update-grub writes a full one when a kernel is upgraded.
mkdir -p "$root/etc/default/grub.d"
cat >"$root/etc/default/grub.d/10_mulligan.cfg" <<CONFIG
GRUB_TIMEOUT=0
GRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200"
CONFIG
for platform in i386-pc x86_64-efi; do
    mkdir -p "$root/boot/grub/$platform"
    cp "$root/usr/lib/grub/$platform"/*.mod "$root/usr/lib/grub/$platform"/*.lst "$root/boot/grub/$platform/"
done
cat >"$root/boot/grub/grub.cfg" <<CONFIG
linux /vmlinuz root=UUID=$2 ro console=tty0 console=ttyS0,115200
initrd /initrd.img
boot
CONFIG
: >"$root/etc/grub.d/enable_cloud" # from now on, upgrades of GRUB install it for both firmwares

chroot "$root" systemctl enable --quiet systemd-networkd systemd-resolved ssh qemu-guest-agent
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
rm -f "$root"/etc/ssh/ssh_host_*
chroot "$root" apt-get autoclean -qq
