# The slow part, cached: package trees made by mkosi, and the layers pruned from them. Sourced.
# shellcheck shell=bash

# package_tree NAME: sets $tree to the folder with NAME's packages installed, building it when its inputs changed.
package_tree() {
    local name=$1 key
    key=$(hash_of "$here/$name/mkosi.conf" "$here/lib/apt-sources" "$sources")
    tree=$cache/trees/$name-$key
    [ ! -e "$tree/.done" ] || return 0
    say "installing Debian packages: $name"
    mkdir -p "$cache/trees" "$cache/packages-$name" "$cache/workspace"
    rm -rf "$tree"
    # Each tree has its own package cache, so that several can be made at once.
    mkosi --directory "$here/$name" --package-manager-tree "$sources" --package-cache-dir "$cache/packages-$name" \
        --workspace-dir "$cache/workspace" --output-dir "$tree" --output tree --force build \
        >"$cache/$name.log" 2>&1 </dev/null || { tail -n 30 "$cache/$name.log" >&2; die "mkosi could not make $name; see $cache/$name.log"; }
    touch "$tree/.done"
    forget "$cache/trees/$name-" "$tree"
}

# layer NAME [OF [LIST]]: sets $layer to the tree of OF (if it is not said: of NAME) without what its prune.list and LIST name, with
# its modules chosen and decompressed.
layer() {
    local name=$1 of=${2:-$1} lists version kernel key
    lists=("$here/$of/prune.list" "${@:3}")
    package_tree root
    kernel=$tree
    package_tree "$of"
    key=$(hash_of "${lists[@]}" "$here/$of/modules.keep" "$here/lib/modules" "$here/lib/trees.sh")
    layer=$cache/layers/$name-$(printf '%s' "$key${tree##*-}${kernel##*-}" | sha256sum | cut -c1-16)
    [ ! -e "$layer/.done" ] || return 0
    say "pruning: $name"
    rm -rf "$layer"
    mkdir -p "$layer/tree"
    tar -C "$tree/tree" -c --anchored --wildcards --exclude-from <(cat "${lists[@]}" | grep -v '^#') . | tar -C "$layer/tree" -xp
    version=$(basename "$kernel"/tree/usr/lib/modules/*)
    "$here/lib/modules" copy "$kernel/tree/usr/lib/modules/$version" "$here/$of/modules.keep" \
        "$layer/tree/usr/lib/modules/$version"
    mkdir -p "$layer/tree"/{dev,proc,sys,run,tmp,var,volumes,root,usr/local}
    prune_libraries "$layer/tree"
    # Nobody but root runs programs here that would need it.
    find "$layer/tree" -xdev -type f -perm /6000 -exec chmod ug-s {} +
    find "$layer/tree" -xtype l -lname '/usr/*' -delete 2>/dev/null || true
    cp "$kernel/tree/boot/vmlinuz-$version" "$layer/vmlinuz"
    cp "$kernel/tree/boot/config-$version" "$layer/config"
    printf '%s\n' "$version" >"$layer/version"
    "$here/lib/modules" order "$layer/tree/usr/lib/modules/$version" crc32c_generic loop erofs >"$layer/order"
    grep -q 'erofs[.]ko' "$layer/order" || die "no erofs module among the kernel's"
    touch "$layer/.done"
    forget "$cache/layers/$name-" "$layer"
}

# layer_on KERNEL: puts a kernel that is not Debian's into a copy of $layer, and sets $layer to it. All of its modules go along: who
# made it chose them. One that has loop and erofs built in needs none to mount the root.
layer_on() {
    local from=$1 under=$layer version name
    version=$(cat "$from/version")
    layer=$out/work/layer
    rm -rf "$layer"
    mkdir -p "$layer"
    cp -al "$under/tree" "$layer/tree" 2>/dev/null || { rm -rf "$layer/tree"; cp -a "$under/tree" "$layer/tree"; }
    rm -rf "$layer/tree/usr/lib/modules"
    mkdir -p "$layer/tree/usr/lib/modules"
    cp -a "$from/tree/usr/lib/modules/$version" "$layer/tree/usr/lib/modules/"
    cp "$from/vmlinuz" "$from/config" "$from/version" "$layer/"
    for name in crc32c_generic loop erofs; do
        grep -q "/$name[.]ko\$" "$from/tree/usr/lib/modules/$version/modules.builtin" ||
            "$here/lib/modules" order "$layer/tree/usr/lib/modules/$version" "$name" >>"$layer/order.all"
    done
    [ ! -e "$layer/order.all" ] || awk '!seen[$0]++' "$layer/order.all" >"$layer/order"
    touch "$layer/order"
}

# Libraries that no program or other library left in the tree asks for. Those opened by name at run time are kept.
prune_libraries() {
    local root=$1 lib soname before=-1 now=0
    while [ "$before" != "$now" ]; do
        before=$now
        find "$root/usr" -type f \( -perm -0100 -o -name '*.so*' \) -print0 |
            { xargs -0 -r readelf -d 2>/dev/null || true; } | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | LC_ALL=C sort -u >"$root/.needed"
        while read -r lib; do
            soname=${lib##*/}
            case $soname in
                libnss_* | libcryptsetup* | libkmod* | libnvme* | libdevmapper-event* | libseccomp* | libcap* | libblkid* | \
                    libmount* | libfdisk* | ld-linux* | libgcc_s* | libssl* | libcrypto* | liblz4* | libzstd* | liblzma* | \
                    libacl* | libaudit* | libselinux* | libapparmor* | libpam* | libcrypt.* | libcom_err* | libtss2-esys* | \
                    libtss2-mu* | libtss2-rc* | libtss2-tcti-device* | libnsl*) continue ;;
            esac
            grep -qxF "$soname" "$root/.needed" && continue
            # A link whose target is asked for by another name of the same file stays with it.
            rm -f "$lib"
            now=$((now + 1))
        done < <(find "$root/usr/lib/x86_64-linux-gnu" -maxdepth 1 -name 'lib*.so*' -type l)
        # A library file to which no link is left, and which is not asked for by its own name.
        while read -r lib; do
            soname=${lib##*/}
            grep -qxF "$soname" "$root/.needed" && continue
            find "$root/usr/lib/x86_64-linux-gnu" -maxdepth 1 -type l -lname "$soname" | grep -q . && continue
            case $soname in ld-linux* | libc.so* | libnss_* | libgcc_s* | libcap* | libpam* | libseccomp* | libcryptsetup*) continue ;; esac
            rm -f "$lib"
            now=$((now + 1))
        done < <(find "$root/usr/lib/x86_64-linux-gnu" -maxdepth 1 -name 'lib*.so*' -type f)
    done
    rm -f "$root/.needed"
}

# forget PREFIX KEEP: removes cached folders of that prefix except KEEP and those younger than a week.
forget() {
    local old
    for old in "$1"*; do
        [ "$old" = "$2" ] || [ -z "$(find "$old" -maxdepth 0 -mtime +7)" ] || rm -rf "$old"
    done
}
