# The quick part: a layer, our files and our programs become a root, and that an erofs. Sourced.
# shellcheck shell=bash

# compose NAME OVERLAY...: sets $root to NAME's layer with the overlays laid on it, units enabled and users made.
# The layer's files are linked, not copied: whatever is laid over them replaces the link.
compose() {
    local name=$1 over
    shift
    root=$out/work/$name
    rm -rf "$root"
    mkdir -p "$out/work"
    cp -al "$layer/tree" "$root" 2>/dev/null || { rm -rf "$root"; cp -a "$layer/tree" "$root"; }
    for over in "$@"; do
        cp -a --no-preserve=ownership --remove-destination "$over/." "$root/"
    done
    chown -h -R 0:0 "$root/etc/systemd" "$root/usr/lib/systemd/system"
}

# Installs a program, stripped.
install_program() { # FILE FOLDER
    mkdir -p "$root$2"
    rm -f "$root$2/${1##*/}"
    install -m 0755 -s --strip-program=strip "$1" "$root$2/${1##*/}" 2>/dev/null || install -m 0755 "$1" "$root$2/${1##*/}"
}

# Sets $packages to a folder with the unpacked packages of firmware, kept until the sources or the list change.
firmware_tree() {
    packages=$cache/firmware-$(hash_of "$here/firmware.packages" "$here/lib/firmware" "$sources")
    [ ! -e "$packages/.done" ] || return 0
    say "fetching firmware"
    "$here/lib/firmware" fetch "$sources" "$here/firmware.packages" "$packages" || exit 1
    touch "$packages/.done"
    forget "$cache/firmware-" "$packages"
}

finish_root() {
    local file
    # Both write by making a new file, yet let nothing reach the cached layer through a link.
    for file in passwd group shadow gshadow; do
        [ ! -e "$root/etc/$file" ] || { cp -a "$root/etc/$file" "$root/etc/$file.own"; mv "$root/etc/$file.own" "$root/etc/$file"; }
    done
    chroot "$root" /usr/bin/systemd-sysusers >/dev/null
    rm -f "$root"/etc/{passwd,group,shadow,gshadow}-
    # Nobody logs in: root's shell is reached through the console alone.
    sed -i 's/^root:[^:]*:/root:*:/' "$root/etc/shadow"
    chroot "$root" /usr/bin/systemctl preset-all --preset-mode=full >/dev/null 2>&1 || die "cannot apply the unit presets"
    ln -sfn /usr/lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
    find "$root/etc/systemd" -name '*.wants' -type d -empty -delete
    rm -rf "$root"/{run,tmp,var,dev}/* "$root/etc/ld.so.cache~"
}

make_erofs() { # ROOT FILE
    rm -f "$2"
    # The same input gives the same file: times are the commit's, order is sorted by mkfs.
    "$programs/mkfs.erofs" --quiet -T "$epoch" --all-time -U 00000000-0000-0000-0000-000000000001 \
        -z "$erofs_compression" -C "$erofs_cluster" -E "$erofs_features" --workers="$(nproc)" "$2" "$1"
}
erofs_compression=${CISTERN_EROFS_COMPRESSION:-zstd,level=3}
erofs_cluster=${CISTERN_EROFS_CLUSTER:-131072}
erofs_features=${CISTERN_EROFS_FEATURES:-ztailpacking}

# pack_root NAME FOLDER [OPTION...]: makes NAME's erofs into what starts a machine, in FOLDER.
pack_root() {
    local name=$1 folder=$2 module version options=()
    shift 2
    version=$(cat "$layer/version")
    while read -r module; do options+=(--module "$layer/tree/usr/lib/modules/$version/$module"); done <"$layer/order"
    SOURCE_DATE_EPOCH=$epoch "$here/pack" --root "$out/work/$name.erofs" --kernel "$layer/vmlinuz" --init "$init" \
        "${options[@]}" --uname "$version" --ukify "$programs/ukify" \
        --stub "$tools/usr/lib/systemd/boot/efi/linuxx64.efi.stub" --os-release "$root/etc/os-release" "$@" --out "$folder"
}

# A report beside the results: sizes, versions and what was packed.
report() {
    local file packages=0
    [ ! -e "$tree/tree/var/lib/dpkg/status" ] || packages=$(grep -c '^Package:' "$tree/tree/var/lib/dpkg/status")
    {
        printf '{\n  "version": "%s",\n  "commit": "%s",\n' "$version" "$(git -C "$project" rev-parse --short HEAD 2>/dev/null || echo unknown)"
        printf '  "kernel": "%s",\n  "packages": %d,\n  "command_line": "%s",\n' "$(cat "$layer/version")" "$packages" "$(cat "$out/cmdline")"
        printf '  "root_bytes": %d,\n  "root_compressed_bytes": %d,\n' "$(du -sb "$root" | cut -f1)" "$(stat -c %s "$out/work/root.erofs")"
        printf '  "files": {'
        separator=''
        for file in cistern.efi vmlinuz initrd cistern.raw cistern.qcow2 cistern.iso; do
            [ -e "$out/$file" ] || continue
            printf '%s\n    "%s": {"bytes": %d, "on_disk_bytes": %d}' "$separator" "$file" "$(stat -c %s "$out/$file")" \
                "$(($(stat -c %b "$out/$file") * 512))"
            separator=,
        done
        printf '\n  }\n}\n'
    } >"$out/manifest.json"
}
