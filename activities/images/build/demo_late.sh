#!/bin/sh
# Last stage of the demo image, beside the login prompt: run the seed's scripts once, then call home.
. /usr/lib/mulligan/common

# run_once NAME: run the script in the seed, unless this instance has run it, or has no interpreter for it.
run_once() {
    script=$SEED/$1
    starts_with "$script" '#!' && [ ! -e "$STATE/ran-$1" ] || return
    interpreter=$(head -n 1 "$script" | sed 's/^#! *//')
    program=${interpreter##*/env }
    if ! command -v "${program%% *}" >/dev/null; then
        say "$1 was not run: the demo image has no $interpreter"
        return
    fi
    : >"$STATE/ran-$1"
    chmod 0700 "$script"
    (cd / && "$script" >"/var/log/$1.log" 2>&1) || fail "$1 ended with exit status $?; its output is in /var/log/$1.log"
}

json_list() { sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/.*/"&"/' | paste -s -d , - ; }

report() {
    addresses=$(ip -o address show scope global | awk '{ sub(/\/.*/, "", $4); print $4 }' | json_list)
    keys=$(dropbearkey -y -f /etc/dropbear/dropbear_ed25519_host_key | grep '^ssh-' | cut -d ' ' -f 1-2 | json_list)
    status='done'
    [ ! -s "$RUN/errors" ] || status=error
    printf '{"hostname":"%s","instance_id":%s,"boot_id":"%s","addresses":[%s],"ssh_host_keys":[%s],"status":"%s","errors":[%s]}' \
        "$(hostname)" "$(json_list <"$STATE/instance-id")" "$(cat /proc/sys/kernel/random/boot_id)" \
        "$addresses" "$keys" "$status" "$(json_list <"$RUN/errors")"
}

# Try for two minutes: the network may be late, and so may the other side.
call_home() {
    url=$(pick "$RUN/meta" mulligan_call_home_url)
    token=$(pick "$RUN/meta" mulligan_call_home_token)
    [ -n "$url" ] || return
    tries=120
    while [ "$tries" -gt 0 ]; do
        # Not wget's own -T: busybox 1.35 crashes on it together with --post-data.
        answer=$(timeout 10 wget -S -O /dev/null --header 'Content-Type: application/json' \
            --header "Authorization: Bearer $token" --post-data "$(report)" "$url" 2>&1) && say "called home" && return
        case $answer in
        *'HTTP/1.'?' 4'*) say "the call home was refused: $(echo "$answer" | grep -o 'HTTP/1.*' | tail -n 1)" && return ;;
        esac
        tries=$((tries - 1))
        sleep 1
    done
    say "the call home had no answer: $(echo "$answer" | tail -n 1)"
}

run_once vendor-data
run_once user-data
call_home
say "up after $(cut -d ' ' -f 1 /proc/uptime) s"
