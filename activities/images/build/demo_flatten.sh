#!/bin/sh
# Flatten YAML or JSON to lines of "path<TAB>value", for example "users/0/name<TAB>ada".
# Reads what NoCloud seeds are made of: block and flow collections, quoted and folded scalars. Not anchors or tags.
exec awk '
function indent(text) { match(text, /^ */); return RLENGTH }
function trim(text) { gsub(/^[ \t\r\n]+|[ \t\r\n]+$/, "", text); return text }
function join_path(path, key) { return path == "" ? key : path "/" key }
function emit(path, value) { gsub(/[\t\n]/, " ", value); print path "\t" value }

# Whether a line is left, after blank lines and comments.
function more() {
    while (at <= count && line[at] ~ /^[ \t\r]*(#.*)?$/) at++
    return at <= count && line[at] !~ /^\.\.\.[ \t\r]*$/
}

# Cut the key off `text`: sets KEY and REST. False where the text is no mapping entry.
function cut_key(text) {
    if (match(text, /^"[^"]*"[ ]*:([ \t]|$)/) || match(text, /^\047[^\047]*\047[ ]*:([ \t]|$)/)) {
        KEY = substr(text, 2, RLENGTH - 2); sub(/["\047][ ]*:?[ \t]*$/, "", KEY)
    } else if (match(text, /^[^]["\047{}#&*!|>%@, -][^:]*:([ \t]|$)/)) {
        KEY = substr(text, 1, RLENGTH); sub(/[ ]*:[ \t]*$/, "", KEY)
    } else return 0
    REST = trim(substr(text, RLENGTH + 1))
    return 1
}

# Read the collection whose entries stand at column `col`.
function block(col, path,    items, is_list, text, key, item, item_col, inner) {
    is_list = substr(line[at], col + 1) ~ /^-([ \t\r]|$)/
    while (more() && indent(line[at]) >= col) {
        text = substr(line[at], col + 1)
        if (indent(line[at]) > col) { at++; continue }
        if ((text ~ /^-([ \t\r]|$)/) != is_list) { if (is_list) return; at++; continue }
        if (is_list) {
            item = join_path(path, items++)
            inner = text; sub(/^-[ \t]*/, "", inner)
            if (trim(inner) == "" || inner ~ /^#/) {
                at++
                if (more() && indent(line[at]) > col) block(indent(line[at]), item)
            } else if (inner ~ /^-([ \t]|$)/ || inner !~ /^[{[]/ && cut_key(inner)) {
                item_col = col + length(text) - length(inner)
                line[at] = sprintf("%" item_col "s", "") inner
                block(item_col, item)
            } else value(trim(inner), col, item)
        } else if (cut_key(text)) {
            key = join_path(path, KEY)
            if (REST == "" || REST ~ /^#/) {
                at++
                if (more() && (indent(line[at]) > col || indent(line[at]) == col && substr(line[at], col + 1) ~ /^-([ \t\r]|$)/))
                    block(indent(line[at]), key)
                else emit(key, "")
            } else value(REST, col, key)
        } else at++
    }
}

# Read a value that begins with `text`; its further lines stand right of column `col`.
function value(text, col, path,    literal) {
    literal = text ~ /^[|>][-+0-9]*[ \t]*(#.*)?$/
    if (literal) text = ""
    for (at++; at <= count; at++) {
        if (line[at] ~ /^[ \t\r]*$/) continue
        if (indent(line[at]) <= col) break
        if (!literal && text !~ /^["\047{[]/ && line[at] ~ /^[ ]*#/) continue
        if (text ~ /^".*\\$/) text = substr(text, 1, length(text) - 1) trim(line[at])
        else text = text (text == "" ? "" : " ") trim(line[at])
    }
    if (literal) { emit(path, text); return }
    flow_text = text; pos = 1
    if (text ~ /^["\047{[]/) { flow(path); return }
    sub(/[ \t]+#.*$/, "", text)
    emit(path, text)
}

function skip_space() { while (substr(flow_text, pos, 1) ~ /^[ \t\r\n]$/) pos++ }

# Read a quoted or plain scalar of the flow text; a plain one ends before a character of `stops`.
function scalar(stops,    quote, out, c) {
    quote = substr(flow_text, pos, 1)
    if (quote != "\"" && quote != "\047") quote = ""
    if (quote != "") pos++
    for (; pos <= length(flow_text); pos++) {
        c = substr(flow_text, pos, 1)
        if (quote == "" && index(stops, c) && (c != ":" || substr(flow_text, pos + 1, 1) ~ /^[ \t]?$/)) break
        if (c == quote) {
            if (c == "\"" || substr(flow_text, pos + 1, 1) != "\047") { pos++; break }
            pos++
        } else if (quote == "\"" && c == "\\") {
            c = substr(flow_text, ++pos, 1)
            if (c == "n") c = "\n"; else if (c == "t") c = "\t"
            else if (c == "u" && substr(flow_text, pos, 3) == "u00") { c = sprintf("%c", hex(substr(flow_text, pos + 3, 2))); pos += 4 }
        }
        out = out c
    }
    return quote == "" ? trim(out) : out
}
function hex(text,    digits) { digits = "0123456789abcdef"; text = tolower(text); return 16 * (index(digits, substr(text, 1, 1)) - 1) + index(digits, substr(text, 2, 1)) - 1 }

function flow(path,    open, close_, items, key) {
    skip_space()
    open = substr(flow_text, pos, 1)
    if (open != "{" && open != "[") { emit(path, scalar(",]}")); return }
    close_ = open == "{" ? "}" : "]"
    pos++
    for (skip_space(); pos <= length(flow_text) && substr(flow_text, pos, 1) != close_; skip_space()) {
        key = items++
        if (open == "{") { key = scalar(":,}"); skip_space(); if (substr(flow_text, pos, 1) == ":") pos++ }
        flow(join_path(path, key))
        skip_space()
        if (substr(flow_text, pos, 1) == ",") pos++
    }
    pos++
}

{ sub(/\r$/, ""); if ($0 !~ /^(---|%)/) line[++count] = $0 }
END {
    at = 1
    if (!more()) exit
    if (line[at] ~ /^[ ]*[{[]/) { value(trim(line[at]), -1, "") }
    else block(indent(line[at]), "")
}' "$@"
