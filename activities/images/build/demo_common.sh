# What the demo image's boot and late stages share: words on the console, collected errors, the NoCloud seed.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
STATE=/var/lib/mulligan
RUN=/run/mulligan
SEED=$RUN/seed

say() { printf 'mulligan: %s\r\n' "$*" >/dev/console; }

fail() {
    echo "$*" >>"$RUN/errors"
    say "$*"
}

# flatten FILE: its YAML or JSON as lines of path<TAB>value.
flatten() { [ ! -s "$1" ] || /usr/lib/mulligan/flatten "$1"; }

# pick FILE REGEX: the values whose whole path matches, one a line.
pick() { [ ! -s "$1" ] || awk -F '\t' -v "path=^($2)\$" '$1 ~ path { print $2 }' "$1"; }

# starts_with FILE PREFIX
starts_with() { [ "$(head -n 1 "$1" 2>/dev/null | cut -c "1-${#2}")" = "$2" ]; }
