# What build refuses before anything is fetched, each in one line: watched on a Buildroot that is made up here, and the settings
# that it drops on a real one too, if BUILDROOT_DIR names one. Sourced by check.
# shellcheck shell=bash

check_refusals() { # FOLDER
    local work here=$PWD checkout
    work=$(realpath "$1")
    local PATH=$work/bin:$PATH
    pretend_programs "$work/bin"
    mkdir -p "$work"/{empty,old/support/scripts,new/support/scripts,other}
    touch "$work"/{old,new}/support/scripts/br2-external
    echo 'export BR2_VERSION := 2024.02.3' >"$work/old/Makefile"
    echo 'export BR2_VERSION := 2031.02' >"$work/new/Makefile"
    pretend_buildroot "$work/good"
    cp -a "$work/good" "$work/dirty"
    cp -a "$work/good" "$work/added"
    for checkout in dirty added; do
        (cd "$work/$checkout" && git init -q && git add . && git -c user.name=check -c user.email=check@localhost commit -qm as-it-was)
    done
    echo >>"$work/dirty/Makefile"
    touch "$work/added/package.mk"

    refuses "an architecture that there is not" "there are: ${architectures[*]}" "$work/good" CISTERN_ARCH=riscv64
    refuses "no BUILDROOT_DIR" "needs BUILDROOT_DIR" ""
    refuses "a BUILDROOT_DIR that is not there" "is no folder" "$work/nowhere"
    refuses "a BUILDROOT_DIR that is no Buildroot" "is no Buildroot checkout" "$work/empty"
    refuses "a Buildroot that is too old" "is Buildroot 2024.02.3; $minimum or newer" "$work/old"
    refuses "a Buildroot that is newer than any that was tried" "is the newest that was tried" "$work/new"
    refuses "a Buildroot with changes of its own" "has changes of its own in 1 file(s), Makefile" "$work/dirty"
    refuses "a Buildroot with a file of its own" "has changes of its own in 1 file(s), package.mk" "$work/added"
    refuses "a disk that is too small" "GiB free" "$work/good" CISTERN_BUILDROOT_GIB=1000000
    verdict "build takes what a build before has left for space" test -z "$(spaces "$work" 5 20)"
    verdict "build refuses too little space beside it" test "$(spaces "$work" 4 20)" = "$work has 4 GiB free and holds 20; a build takes 25"
    verdict "build asks where a folder is to be that is not there" test "$(spaces "$work/no/where" 4 '')" = "$work/no/where has 4 GiB free and holds 0; a build takes 25"
    mkdir "$work/tiny"
    printf '#!/bin/sh\nfor folder; do :; done\ncase $folder in */good) echo 3G ;; *) echo 300G ;; esac\n' >"$work/tiny/df"
    chmod +x "$work/tiny/df"
    refuses "downloads on a disk that is too small" "$work/good/dl has 3 GiB free and holds 0; what is downloaded for it takes 4" "$work/good" \
        CISTERN_BUILDROOT_GIB=25 PATH="$work/tiny:$PATH"
    refuses "settings that are not there" "is no file with settings" "$work/good" CISTERN_FRAGMENT="$work/nowhere"
    refuses "binaries that are not there" "is missing" "$work/good" CISTERN_BINARIES="$work/empty"
    printf '\177ELF\2\1\1\0\0\0\0\0\0\0\0\0\2\0\3\0' >"$work/other/cisternd"
    chmod +x "$work/other/cisternd"
    refuses "binaries of another architecture" "is no program for aarch64" "$work/good" CISTERN_BINARIES="$work/other" CISTERN_ARCH=aarch64

    takes "a Buildroot as it is to be" "$work/good"
    # It is asked by the user that runs the check, who may be root or not.
    verdict "build lets root, and nobody else, configure what refuses root" test "$(cat "$work/out/as-root")" = "$([ "$(id -u)" != 0 ] || echo 1)"
    refuses "a folder that another architecture is built in" "another architecture than aarch64" "$work/good" CISTERN_ARCH=aarch64
    echo BR2_PACKAGE_NOWHERE=y >"$work/nowhere.fragment"
    refuses "settings that Buildroot drops" "BR2_PACKAGE_NOWHERE y n" "$work/good" CISTERN_FRAGMENT="$work/nowhere.fragment"
    mkdir "$work/llvm"
    refuses "a libclang that is not there" "CISTERN_LIBCLANG=$work/llvm has no libclang" "$work/good" CISTERN_LIBCLANG="$work/llvm"
    touch "$work/llvm/libclang.so.1"
    cd "$work"
    takes "folders that are named from here" good CISTERN_LIBCLANG=llvm CISTERN_BUILDROOT_OUT=./near
    cd "$here"
    verdict "build keeps such a name whole" grep -qx "BR2_PACKAGE_THIN_PROVISIONING_TOOLS_LIBCLANG_DIR=\"$work/llvm\"" "$work/near/.config"
    if [ -n "${BUILDROOT_DIR:-}" ]; then
        refuses "settings that a real Buildroot drops" "BR2_PACKAGE_NOWHERE y n" "$BUILDROOT_DIR" CISTERN_FRAGMENT="$work/nowhere.fragment" \
            CISTERN_BUILDROOT_ANY=yes CISTERN_BUILDROOT_OUT="$work/real"
    fi
}

# What is said of a folder on a filesystem with so many GiB free, when it holds so many.
spaces() ( # FOLDER FREE HELD
    free_here=$2 held_here=$3
    df() { printf 'Avail\n%5sG\n' "$free_here"; }
    du() { [ -z "$held_here" ] || printf '%s\t%s\n' "$held_here" "$3"; }
    space_fault "$1" 25 "a build"
)

refuses() { # WHAT SAYS BUILDROOT [NAME=VALUE]
    local said
    if said=$(pretend_run "$3" --dry-run "${@:4}"); then
        fail "build refuses $1: it did not"
    elif grep -qF -- "$2" <<<"$said" && [ "$(wc -l <<<"$said")" = 1 ]; then
        ok "build refuses $1: $said"
    else
        fail "build refuses $1 in one line: it said '$said'"
    fi
}

takes() { # WHAT BUILDROOT [NAME=VALUE]
    local said
    if said=$(pretend_run "$2" --dry-run "${@:3}"); then ok "build takes $1"; else fail "build takes $1: it said '$said'"; fi
}
