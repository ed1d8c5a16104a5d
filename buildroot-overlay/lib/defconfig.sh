# Our defconfigs as Buildroot understands them: what its Kconfig drops, it drops without a word. Sourced by check.
# shellcheck shell=bash

check_defconfig() { # TREE BUILDROOT
    local fault
    fault=$(buildroot_fault "$2")
    [ -z "$fault" ] || { fail "$fault"; return 0; }
    each_architecture check_settings "$@"
}

check_settings() { # TREE BUILDROOT
    local tree=$1 buildroot=$2 out symbol want got bad=0 version
    version=$(buildroot_version "$buildroot")
    out=$(mktemp -d)
    if ! make -s -C "$buildroot" O="$out" BR2_EXTERNAL="$tree" "$defconfig" >"$out/log" 2>&1; then
        tail -n 5 "$out/log"
        fail "$defconfig cannot be made with Buildroot $version"
        rm -rf "$out"
        return 0
    fi
    # Off and unknown look the same in a configuration.
    while read -r symbol want; do
        [ "$want" != n ] || offered "$buildroot" "$tree" "$symbol" || { fail "$defconfig: $symbol: Buildroot $version has no such symbol"; bad=1; }
    done < <(asked BR2_ "$tree/configs/$defconfig")
    # A value may hold spaces: it is kept apart from the name by the first one.
    while read -r symbol want; do
        bad=1
        if offered "$buildroot" "$tree" "$symbol"; then
            got=$(sed -n "s/^$symbol=//p" "$out/.config")
            fail "$defconfig: $symbol became ${got:-n}: a dependency is not met, or something else decides it"
        else
            fail "$defconfig: $symbol: Buildroot $version has no such symbol"
        fi
    done < <(asked BR2_ "$tree/configs/$defconfig" | differences "$out/.config")
    [ "$bad" = 1 ] || ok "$defconfig: $(asked BR2_ "$tree/configs/$defconfig" | wc -l) symbols kept by Buildroot $version"
    check_effects "$out"
    rm -rf "$out"
}

offered() { # BUILDROOT TREE SYMBOL
    grep -rqE --include='Config.in*' --include='Config.*.in' "^[[:space:]]*(menu)?config $3\$" \
        "$1"/Config.in* "$1"/{arch,boot,fs,linux,package,system,toolchain,utils,support} "$2"/package
}

# What external.mk adds to recipes that were read before it.
check_effects() { # OUT
    local vars
    vars=$(make -s -C "$1" printvars VARS='NFS_UTILS_CONF_OPTS LVM2_CONF_OPTS HOST_EROFS_UTILS_CONF_OPTS HOST_EROFS_UTILS_FINAL_DEPENDENCIES CISTERN_SITE_METHOD THIN_PROVISIONING_TOOLS_FINAL_DEPENDENCIES' 2>"$1/vars.log") ||
        { tail -n 5 "$1/vars.log"; fail "Buildroot cannot read the packages"; return 0; }
    says() { grep -qE "$1" <<<"$vars"; }
    verdict "external.mk: NFS state is kept in /var/lib/nfs" says '^NFS_UTILS_CONF_OPTS=.*--with-statedir=/var/lib/nfs$'
    verdict "external.mk: LVM looks for thin_check where it is" says '^LVM2_CONF_OPTS=.*--with-thin-check=/usr/sbin/thin_check'
    verdict "external.mk: mkfs.erofs has zstd" says '^HOST_EROFS_UTILS_CONF_OPTS=.*--with-libzstd$'
    verdict "external.mk: mkfs.erofs waits for zstd" says '^HOST_EROFS_UTILS_FINAL_DEPENDENCIES=.*host-zstd'
    verdict "package/cistern: built from a local folder" says '^CISTERN_SITE_METHOD=local$'
    verdict "package/thin-provisioning-tools: after lvm2 and udev" says '^THIN_PROVISIONING_TOOLS_FINAL_DEPENDENCIES=.*lvm2.*udev'
}
