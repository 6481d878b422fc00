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

# The disk that / is on, by what it is told from others: the same words as the deploy agent has for it.
disk() {
    block=$(readlink -f "/sys/dev/block/$(awk '$5 == "/" { found = $3 } END { print found }' /proc/self/mountinfo)")
    [ ! -e "$block/partition" ] || block=${block%/*}
    [ -e "$block/size" ] || return
    serial=$(cat "$block/device/serial" "$block/serial" 2>/dev/null || tail -c +5 "$block/device/vpd_pg80" 2>/dev/null)
    wwn=$(cat "$block/wwid" "$block/device/wwid" 2>/dev/null)
    model=$(cat "$block/device/vendor" "$block/device/model" 2>/dev/null | grep -v '^0x' | paste -s -d ' ' -)
    printf '{"mount":"/","path":%s,"serial":%s,"wwn":%s,"model":%s,"size_bytes":%d}' "$(json_word "/dev/${block##*/}")" \
        "$(json_word "$serial")" "$(json_word "$wwn")" "$(json_word "$model")" $(($(cat "$block/size") * 512))
}

# json_word TEXT: its first line without what cannot be printed, and without blanks around and in a row.
json_word() { printf '%s\n' "$1" | head -n 1 | tr -cd ' -~\n' | sed -e 's/  */ /g' -e 's/^ //' -e 's/ $//' | json_list; }

report() {
    addresses=$(ip -o address show scope global | awk '{ sub(/\/.*/, "", $4); print $4 }' | json_list)
    keys=$(dropbearkey -y -f /etc/dropbear/dropbear_ed25519_host_key | grep '^ssh-' | cut -d ' ' -f 1-2 | json_list)
    status='done'
    [ ! -s "$RUN/errors" ] || status=error
    printf '{"hostname":"%s","instance_id":%s,"boot_id":"%s","addresses":[%s],"ssh_host_keys":[%s],"status":"%s","errors":[%s],"disks":[%s]}' \
        "$(hostname)" "$(json_list <"$STATE/instance-id")" "$(cat /proc/sys/kernel/random/boot_id)" \
        "$addresses" "$keys" "$status" "$(json_list <"$RUN/errors")" "$(disk)"
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
