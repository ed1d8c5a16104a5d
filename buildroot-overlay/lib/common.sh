# Shared by check, build and their parts; sourced, never run. Sets the folders and counts what was checked.
# shellcheck shell=bash disable=SC2034

set -Eeuo pipefail
trap 'printf "buildroot: failed at %s:%s: %s\n" "${BASH_SOURCE[0]##*/}" "$LINENO" "$BASH_COMMAND" >&2' ERR

# A surrounding make must not speak to the makes that run here, nor a kernel build's settings to Kconfig. Buildroot refuses to run where
# the environment has BUILDROOT_DL_DIR, as that of `make image-buildroot BUILDROOT_DL_DIR=...` does, and takes the others for settings.
unset MAKEFLAGS MFLAGS MAKELEVEL KBUILD_OUTPUT KCONFIG_CONFIG ARCH CROSS_COMPILE O BUILDROOT_DL_DIR BUILDROOT_CONFIG BR2_DL_DIR BR2_EXTERNAL
export LC_ALL=C

overlay=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
project=$(dirname "$overlay")
cache=${CISTERN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cistern}
architectures=(x86_64 aarch64)

# Sets what differs between the architectures: Buildroot's name of one, its defconfig; how Linux calls it, in what folder its
# source has it, and what it calls the kernel; how files for UEFI name it.
for_architecture() { # ARCHITECTURE
    architecture=$1 defconfig=cistern_$1_defconfig
    case $1 in
        x86_64) kernel_arch=x86_64 source_arch=x86 kernel_image=bzImage efi=x64 ;;
        aarch64) kernel_arch=arm64 source_arch=arm64 kernel_image=Image efi=aa64 ;;
        *) die "no architecture is called $1; there are: ${architectures[*]}" ;;
    esac
}

# The oldest Buildroot that the tree was seen working with: it has the packages, the kernel series and the Rust that it asks for; and the
# newest that it was tried with: a later one may have dropped or renamed what the tree names.
minimum=2026.08
maximum=2026.08

die() { printf 'buildroot: %s\n' "$*" >&2; exit 1; }

for_architecture x86_64

# each_architecture COMMAND...: the command for every one that was not left out, by --arch.
chosen=("${architectures[@]}")
each_architecture() {
    local name
    for name in "${chosen[@]}"; do for_architecture "$name"; "$@"; done
    for_architecture "${architectures[0]}"
}

passed=0 failed=0
ok() { passed=$((passed + 1)); printf 'ok   %s\n' "$*"; }
fail() { failed=$((failed + 1)); printf 'FAIL %s\n' "$*"; }
# verdict TEXT COMMAND...: one check, true or not.
verdict() {
    local text=$1
    shift
    if "$@"; then ok "$text"; else fail "$text"; fi
}

# The value of a string symbol of our defconfig, quotes dropped and our folder put in.
setting() { # TREE SYMBOL
    sed -n "s/^$2=\"\(.*\)\"\$/\1/p" "$1/configs/$defconfig" | sed "s|\$(BR2_EXTERNAL_CISTERN_PATH)|$1|g"
}

# Symbols that a configuration file asks for, one "SYMBOL VALUE" a line; what it wants off has the value n.
asked() { # PREFIX FILE...
    local prefix=$1
    shift
    sed -nE -e "s/^(${prefix}[A-Za-z0-9_]+)=(.*)\$/\1 \2/p" -e "s/^# (${prefix}[A-Za-z0-9_]+) is not set\$/\1 n/p" "$@"
}

# Of the symbols on standard input, as asked() prints them, those that a configuration has otherwise: "SYMBOL WANT GOT".
differences() { # CONFIG
    awk -v config="$1" '
        BEGIN { while ((getline line < config) > 0) if (line !~ /^#/ && (at = index(line, "="))) is[substr(line, 1, at - 1)] = substr(line, at + 1) }
        { want = substr($0, length($1) + 2); got = ($1 in is) ? is[$1] : "n"; if (got != want) print $1, want, got }'
}

# For which architecture a program is, or nothing.
elf_architecture() { # FILE
    case $(od -An -tx1 -N20 "$1" 2>/dev/null | tr -d ' \n') in
        7f454c4602*3e00) echo x86_64 ;;
        7f454c4602*b700) echo aarch64 ;;
    esac
}

# The version of a Buildroot checkout, or nothing.
buildroot_version() { sed -n 's/^export BR2_VERSION := *//p' "$1/Makefile" 2>/dev/null || true; }

# Says in one line why a folder is no Buildroot that we can use, and is silent when it is.
buildroot_fault() {
    local version
    if [ ! -d "$1" ]; then
        echo "BUILDROOT_DIR=$1 is no folder"
    elif [ ! -e "$1/support/scripts/br2-external" ] || version=$(buildroot_version "$1") && [ -z "${version:-}" ]; then
        echo "BUILDROOT_DIR=$1 is no Buildroot checkout: it lacks support/scripts/br2-external or a Makefile with BR2_VERSION"
    elif [ "$(printf '%s\n%s\n' "$minimum" "${version:0:7}" | sort -V | head -n 1)" != "$minimum" ]; then
        echo "BUILDROOT_DIR=$1 is Buildroot $version; $minimum or newer is needed"
    fi
}

# Says in one line why a Buildroot that we could use may make something else than was tried, and is silent when it may not.
buildroot_doubt() {
    local version changed
    version=$(buildroot_version "$1")
    if [ "$(printf '%s\n%s\n' "${version:0:7}" "$maximum" | sort -V | head -n 1)" != "${version:0:7}" ]; then
        echo "BUILDROOT_DIR=$1 is Buildroot $version, and $maximum is the newest that was tried; look at BUILDROOT_DIR=$1 buildroot-overlay/check, then set CISTERN_BUILDROOT_ANY=yes"
    elif [ -e "$1/.git" ] && changed=$(git -C "$1" status --porcelain 2>/dev/null) && [ -n "$changed" ]; then
        echo "BUILDROOT_DIR=$1 has changes of its own in $(wc -l <<<"$changed") file(s), $(head -n 1 <<<"$changed" | cut -c4-) among them: what is built is not what its version says; commit or stash them, or set CISTERN_BUILDROOT_ANY=yes"
    fi
}

# Says in one line that a folder's filesystem is too small for what is to be in it, and is silent when it is not. What is there already
# needs no space.
space_fault() { # FOLDER GIB WHAT
    local held free folder=$1
    held=$(du -s --block-size=1G "$1" 2>/dev/null | cut -f1) || true
    while [ ! -e "$folder" ]; do folder=$(dirname "$folder"); done
    free=$(df --output=avail --block-size=1G "$folder" | tail -n 1 | tr -dc 0-9)
    [ "$free" -ge $(($2 - ${held:-0})) ] || echo "$1 has $free GiB free and holds ${held:-0}; $3 takes $2"
}
