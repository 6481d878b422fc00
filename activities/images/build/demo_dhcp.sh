#!/bin/sh
# Called by udhcpc when the lease of $interface changes: $1 is deconfig, bound, renew or nak.
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
        ip route replace default via "$gateway" dev "$interface"
        break
    done
    for server in $dns; do
        echo "nameserver $server"
    done >/etc/resolv.conf
    ;;
esac
