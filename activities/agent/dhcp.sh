#!/bin/sh
# Called by udhcpc when the lease of $interface changes: $1 is deconfig, bound, renew, nak or leasefail.
# Every link gets a default route of its own; of two, the link that was found first is preferred.
# shellcheck disable=SC2154 # udhcpc sets what is not set here
PATH=/usr/sbin:/usr/bin:/sbin:/bin
case $1 in
deconfig)
    ip address flush dev "$interface" scope global
    ip link set "$interface" up
    ;;
bound | renew)
    [ -z "$mtu" ] || ip link set "$interface" mtu "$mtu"
    ip address replace "$ip/$mask" dev "$interface"
    for gateway in $router; do
        metric=$((100 + $(cat "/sys/class/net/$interface/ifindex")))
        ip route replace default via "$gateway" dev "$interface" metric "$metric"
        break
    done
    mkdir -p /run/resolvers
    for server in $dns; do
        echo "nameserver $server"
    done >"/run/resolvers/$interface"
    cat /run/resolvers/* >/etc/resolv.conf
    ;;
esac
