#!/bin/sh
# Second stage of the demo image, before any login: read the NoCloud seed, name the machine, bring up network and SSH.
. /usr/lib/mulligan/common

# The disk or partition whose volume is labelled cidata. For ISO 9660 the label is read here: findfs trips over padded Joliet ones.
seed_device() {
    for block in /sys/class/block/*; do
        device=/dev/${block##*/}
        case $(dd if="$device" bs=4 skip=8202 count=2 2>/dev/null) in
        'cidata  ' | 'CIDATA  ') echo "$device" && return ;;
        esac
    done
    findfs LABEL=cidata 2>/dev/null || findfs LABEL=CIDATA 2>/dev/null
}

find_seed() {
    tries=30
    until device=$(seed_device); do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        usleep 100000
    done
    mkdir -p "$RUN/media"
    mount -o ro "$device" "$RUN/media" || return 1
    cp "$RUN/media/meta-data" "$RUN/media/user-data" "$RUN/media/vendor-data" "$RUN/media/network-config" "$SEED/" 2>/dev/null
    umount "$RUN/media"
}

read_seed() {
    mkdir -p "$SEED"
    chmod 0700 "$SEED"
    find_seed || say "no NoCloud seed found; starting without one"
    flatten "$SEED/meta-data" >"$RUN/meta"
    flatten "$SEED/network-config" >"$RUN/network"
    : >"$RUN/config"
    for name in vendor-data user-data; do
        if starts_with "$SEED/$name" '#cloud-config'; then
            flatten "$SEED/$name" | awk -F '\t' -v "from=$name" '{ print from "/" $0 }' >>"$RUN/config"
        elif [ -s "$SEED/$name" ] && ! starts_with "$SEED/$name" '#!'; then
            fail "$name is neither #cloud-config nor a script; it was not used"
        fi
    done
    unknown=$(sed -e 's|^user-data/||' -e '/^vendor-data/d' -e 's|[/\t].*||' "$RUN/config" | sort -u |
        grep -v -x -e hostname -e fqdn -e ssh_authorized_keys -e ssh_pwauth -e users | tr '\n' ' ')
    [ -z "$unknown" ] || fail "the demo image does not know these words of user-data: $unknown"
}

# A new instance id means that this disk is a new machine: it gets keys of its own, and its scripts run again.
start_instance() {
    instance=$(pick "$RUN/meta" instance-id)
    [ -e "$STATE/instance-id" ] && [ "$(cat "$STATE/instance-id")" = "$instance" ] && return
    mkdir -p "$STATE"
    rm -f "$STATE"/ran-* /etc/dropbear/*_host_key
    echo "$instance" >"$STATE/instance-id"
}

set_hostname() {
    name=$(pick "$RUN/config" 'user-data/hostname' | head -n 1)
    [ -n "$name" ] || name=$(pick "$RUN/config" 'user-data/fqdn' | head -n 1)
    [ -n "$name" ] || name=$(pick "$RUN/meta" 'local-hostname|hostname' | head -n 1)
    name=${name%%.*}
    case ${name:-demo} in
    *[!A-Za-z0-9-]* | -*) fail "'$name' is not a host name; using demo" && name=demo ;;
    esac
    echo "${name:-demo}" >/etc/hostname
    hostname -F /etc/hostname
    printf '127.0.0.1\tlocalhost\n127.0.1.1\t%s\n::1\tlocalhost\n' "$(hostname)" >/etc/hosts
}

# add_user NAME: a user with a locked password and a home directory, unless there is one.
add_user() {
    case $1 in
    '' | -* | *[!a-z0-9_-]*) fail "'$1' is not a user name; it was not added" && return 1 ;;
    esac
    grep -q "^$1:" /etc/passwd && return
    id=$(awk -F : '$3 >= 1000 && $3 < 60000 && $3 >= next_id { next_id = $3 + 1 } END { print next_id ? next_id : 1000 }' /etc/passwd)
    echo "$1:x:$id:$id::/home/$1:/bin/sh" >>/etc/passwd
    echo "$1:x:$id:" >>/etc/group
    echo "$1:*:19000:0:99999:7:::" >>/etc/shadow
    mkdir -p "/home/$1"
    chown "$id:$id" "/home/$1"
}

# authorize NAME: the keys on standard input may log in as this user.
authorize() {
    home=$(awk -F : -v "name=$1" '$1 == name { print $6 }' /etc/passwd)
    mkdir -p "$home/.ssh"
    cat "$home/.ssh/authorized_keys" - 2>/dev/null | awk 'NF && !seen[$0]++' >"$home/.ssh/keys.new"
    mv "$home/.ssh/keys.new" "$home/.ssh/authorized_keys"
    chmod 0700 "$home/.ssh"
    chmod 0600 "$home/.ssh/authorized_keys"
    chown -R "$1:$1" "$home/.ssh"
}

set_up_users() {
    for user in root demo; do
        add_user "$user"
        pick "$RUN/config" '[a-z]+-data/ssh_authorized_keys/[0-9]+' | authorize "$user"
        pick "$RUN/meta" 'public-keys/[0-9]+(/openssh-key)?' | authorize "$user"
    done
    awk -F '\t' '$1 ~ /-data\/users\/[0-9]+\/name$/ { sub(/\/name$/, "", $1); print $1, $2 }' "$RUN/config" |
        while read -r entry user; do
            add_user "$user" && pick "$RUN/config" "$entry/(ssh_authorized_keys|ssh-authorized-keys)/[0-9]+" | authorize "$user"
        done
}

# first_nic: the first virtio network interface, or the first one of any make.
first_nic() {
    for pattern in virtio_net '*'; do
        for nic in /sys/class/net/*; do
            [ -e "$nic/device/driver" ] || continue
            # shellcheck disable=SC2254
            case $(basename "$(readlink "$nic/device/driver")") in $pattern) basename "$nic" && return ;; esac
        done
    done
    return 1
}

set_up_network() {
    ip link set lo up
    nic=$(first_nic) || { fail "no network interface found"; return; }
    ip link set "$nic" up
    ethernet=$(awk -F '\t' '{ sub(/^network\//, "") } $1 ~ /^ethernets\// { split($1, part, "/"); print part[2]; exit }' "$RUN/network")
    prefix="(network/)?ethernets/$ethernet"
    addresses=$(pick "$RUN/network" "$prefix/addresses/[0-9]+")
    if [ -z "$addresses" ]; then
        udhcpc -i "$nic" -x "hostname:$(hostname)" -s /usr/lib/mulligan/dhcp -t 20 -T 1 -b -S >/dev/null 2>&1
        return
    fi
    for address in $addresses; do
        ip address add "$address" dev "$nic"
    done
    gateway=$(pick "$RUN/network" "$prefix/(gateway4|routes/0/via)" | head -n 1)
    [ -z "$gateway" ] || ip route add default via "$gateway" dev "$nic"
    pick "$RUN/network" "$prefix/nameservers/addresses/[0-9]+" | sed 's/^/nameserver /' >/etc/resolv.conf
}

start_ssh() {
    key=/etc/dropbear/dropbear_ed25519_host_key
    mkdir -p /etc/dropbear
    [ -s "$key" ] || dropbearkey -t ed25519 -f "$key" >/dev/null 2>&1
    say "host key $(dropbearkey -y -f "$key" | awk '/^Fingerprint:/ { print $2 }')"
    dropbear -s -r "$key" -P "$RUN/dropbear.pid" || fail "the SSH server did not start"
}

mkdir -p /dev/pts "$RUN"
chmod 0700 "$RUN"
mount -t devpts -o mode=0620,gid=5 devpts /dev/pts
: >"$RUN/errors"
[ -e /bin/ls ] || busybox --install -s
read_seed
start_instance
set_hostname
set_up_users
set_up_network
ip -o address show scope global | while read -r _ nic _ address _; do
    say "address $address on $nic"
done
start_ssh
acpid 2>/dev/null
