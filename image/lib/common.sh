# Shared by the image's scripts; sourced, never run. Sets the folders and the few functions that all of them use.
# shellcheck shell=bash disable=SC2034

set -Eeuo pipefail
trap 'printf "image: failed at %s:%s: %s\n" "${BASH_SOURCE[0]##*/}" "$LINENO" "$BASH_COMMAND" >&2' ERR

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
project=$(dirname "$here")
overlay=$project/buildroot-overlay/board/cistern/rootfs-overlay
cache=${CISTERN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cistern}/image
out=${CISTERN_IMAGE_OUT:-$project/target/image}
release=trixie

say() { printf 'image: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# The workspace's, which is the image's.
project_version() { sed -n '0,/^version = /s/^version = "\(.*\)"/\1/p' "$project/Cargo.toml"; }

# Of which processor a program for UEFI is, as such files are called: x64 or aa64; nothing if it is none, or of another.
efi_machine() { # FILE
    local header
    [ "$(head -c 2 "$1" 2>/dev/null | tr -d '\0')" = MZ ] || return 0
    header=$(od -An -tu4 -j60 -N4 "$1" | tr -d ' ')
    case $(od -An -tx2 -j"$((header + 4))" -N2 "$1" 2>/dev/null | tr -d ' ') in 8664) echo x64 ;; aa64) echo aa64 ;; esac
}

# Content hash of files and folders: names, modes and contents.
hash_of() {
    local path
    for path in "$@"; do
        (cd "$(dirname "$path")" && find "$(basename "$path")" \( -type f -o -type l \) -printf '%p %m %l\n' | LC_ALL=C sort &&
            find "$(basename "$path")" -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum)
    done | sha256sum | cut -c1-16
}

# wrap_tools NAME...: fills $programs with programs that run those of the tools tree. Each sees that tree's /usr and only
# the folders that the image is made in.
wrap_tools() {
    local name
    programs=$out/work/programs
    mkdir -p "$programs"
    for name in "$@"; do
        {
            printf '#!/bin/sh\nexec bwrap'
            printf ' %q' --unshare-ipc --unshare-pid --die-with-parent --ro-bind "$tools/usr" /usr --symlink usr/bin /bin \
                --symlink usr/lib /lib --symlink usr/lib64 /lib64 --symlink usr/sbin /sbin --ro-bind "$tools/etc" /etc \
                --dev /dev --proc /proc --tmpfs /tmp --bind "$cache" "$cache" --bind "$out" "$out" --chdir / \
                --setenv PATH /usr/bin:/usr/sbin --setenv LC_ALL C "$name"
            printf ' "$@"\n'
        } >"$programs/.$name"
        chmod 0755 "$programs/.$name"
        mv -f "$programs/.$name" "$programs/$name"
    done
}

# Time since the last call, for the report.
mark() {
    local now
    now=$(date +%s%N)
    [ -z "${marked:-}" ] || printf 'image: %-34s %6d ms\n' "$1" $(((now - marked) / 1000000)) >&2
    marked=$now
}
