# What build does in which order and tells of it, on the Buildroot that is made up here. Sourced by check.
# shellcheck shell=bash

check_telling() { # FOLDER
    local work
    work=$(realpath "$1")/telling
    local PATH=$work/bin:$PATH
    pretend_programs "$work/bin"
    pretend_buildroot "$work/buildroot"
    ends "fetches all before it builds" 0 "made $work/out/images/cistern.efi"
    in_order "source vendor cistern-dirclean build legal-info"
    ends "says what crates could not be had, and builds nothing" 1 "the crates of our own programs could not be had (no route to host)" PRETEND_OFFLINE=yes
    in_order "source"
}

# Ends so, and the last line says so.
ends() { # WHAT STATUS SAYS [NAME=VALUE]...
    local said status=0
    rm -rf "$work/out"
    said=$(pretend_run "$work/buildroot" "${@:4}") || status=$?
    if [ "$status" = "$2" ] && tail -n 1 <<<"$said" | grep -qF -- "$3"; then
        ok "build $1"
    else
        fail "build $1: it ended with $status and said '$said'"
    fi
}

in_order() { # CALLS
    local calls
    calls=$(paste -sd' ' "$work/out/calls")
    verdict "build calls $1${calls:+: it called $calls}" test "$calls" = "$1"
}
