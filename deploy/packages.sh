#!/bin/sh
# Installs the Debian packages that this machine lacks, after saying which; does nothing when all are there.
#
#   packages.sh PYTHON ROLE...     PYTHON is the interpreter that the virtual environment will be made of
#
#   python    what makes a virtual environment
#   virtual   libvirt, QEMU, and what builds libvirt's Python binding
#   images    what builds the demo image, a full Debian, and the deploy agent's medium
#   test      what the tests need besides: PostgreSQL (its programs; no cluster is made or started), shellcheck, and
#             genisoimage's reader of ISO images, openipmi's simulated BMC, gdisk, which the deploy agent calls, and
#             ipxe, which firmware loads from the network
#   bench     what the benchmarks compare with: virt-install, curl, zstd
set -eu

python=$1
shift

role_packages() {
    case $1 in
    python)
        "$python" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
        ;;
    virtual)
        echo libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils ovmf dnsmasq-base ipxe-qemu
        echo libvirt-dev pkg-config gcc libc6-dev openssh-client
        "$python" -c 'import pathlib, sys, sysconfig
sys.exit(not (pathlib.Path(sysconfig.get_path("include")) / "Python.h").exists())' || echo python3-dev
        ;;
    images)
        echo apt dpkg debian-archive-keyring e2fsprogs fdisk grub-common mmdebstrap mtools qemu-utils util-linux
        echo xorriso
        ;;
    test)
        echo postgresql shellcheck genisoimage openipmi gdisk ipxe
        ;;
    bench)
        echo virtinst curl zstd genisoimage qemu-utils libvirt-clients
        ;;
    *)
        echo "packages.sh: there is no role '$1'" >&2
        exit 2
        ;;
    esac
}

installed() {
    [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

wanted=
for role in "$@"; do
    wanted="$wanted $(role_packages "$role")"
done

if ! command -v dpkg-query >/dev/null; then
    echo "This is not Debian. Install what these Debian packages hold, if it is not there:$wanted" >&2
    exit 0
fi

missing=
for package in $wanted; do
    case " $missing " in
    *" $package "*) ;; # two roles want it
    *) installed "$package" || missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "These Debian packages are missing:$missing" >&2
    echo "Only root may install them. Run this, then the same command again:" >&2
    echo "  sudo apt-get install --no-install-recommends$missing" >&2
    exit 1
fi

echo "Installing these Debian packages:$missing"
export DEBIAN_FRONTEND=noninteractive
progress=$(dirname "$0")/progress.sh
"$progress" "Reading Debian's package lists" apt-get update

install() {
    "$progress" "Installing Debian packages" apt-get install --yes --no-install-recommends "$@"
}

case " $missing " in
*" postgresql "*)
    # The tests run servers of their own; the cluster that Debian would make and start is not wanted.
    install postgresql-common
    if ! grep -q '^create_main_cluster' /etc/postgresql-common/createcluster.conf; then
        echo 'create_main_cluster = false' >>/etc/postgresql-common/createcluster.conf
    fi
    ;;
esac
# shellcheck disable=SC2086 # a list of words
install $missing
