#!/bin/sh
# Called by udhcpc when the lease of $interface changes: $1 is deconfig, bound, renew, nak or leasefail.
# Every link gets a default route of its own; of two, the link that was found first is preferred.
# shellcheck disable=SC2154 # udhcpc sets what is not set here
PATH=/usr/sbin:/usr/bin:/sbin:/bin

# route DESTINATION GATEWAY: a gateway may stand outside of the link's networks, as with an address that is alone (/32);
# 0.0.0.0 says that what is there stands on the link itself.
route() {
    metric=$((100 + $(cat "/sys/class/net/$interface/ifindex")))
    if [ "$2" = 0.0.0.0 ]; then
        ip route replace "$1" dev "$interface" metric "$metric"
    else
        ip route replace "$1" via "$2" dev "$interface" onlink metric "$metric"
    fi
}

case $1 in
deconfig)
    ip address flush dev "$interface" scope global
    ip link set "$interface" up
    ;;
bound | renew)
    [ -z "$mtu" ] || ip link set "$interface" mtu "$mtu"
    ip address replace "$ip/$mask" dev "$interface"
    # shellcheck disable=SC2086 # words are what is wanted: of routes a destination and its gateway, in turn
    set -- ${staticroutes:-${msstaticroutes:-${router:+default $router}}} # where there are routes, they alone count
    while [ $# -ge 2 ]; do
        route "$1" "$2"
        [ "$1" != default ] || break
        shift 2
    done
    mkdir -p /run/resolvers
    for server in $dns; do
        echo "nameserver $server"
    done >"/run/resolvers/$interface"
    cat /run/resolvers/* >/etc/resolv.conf
    ;;
esac
