# Watches the checks fail: each on a copy of the tree with one thing broken, or with an input that is not there.
# Sourced by check.
# shellcheck shell=bash

# what is broken | the part that must notice, and its options | what it must say | how it is broken, in the copy; `same`: by the line above
broken="
a source that does not resolve|tree|package/nowhere/Config.in: no such file|echo 'source \"\$BR2_EXTERNAL_CISTERN_PATH/package/nowhere/Config.in\"' >>Config.in
an external.desc without a name|tree|FAIL external.desc has the name|sed -i /^name/d external.desc
a post-build script that cannot be run|tree|FAIL board/cistern/post-build can be run|chmod -x board/cistern/post-build
an overlay that is not there|tree|BR2_ROOTFS_OVERLAY: board/cistern/rootfs-elsewhere is there|sed -i s/rootfs-overlay/rootfs-elsewhere/ configs/$defconfig
a user that Buildroot's table lacks|tree|FAIL user cistern-gate of the overlay|sed -i s/^cistern-gate/gate/ board/cistern/users
a unit that systemd gives up|tree|FAIL cisternd.service is started as often as it takes|sed -i /^StartLimitIntervalSec/d board/cistern/rootfs-overlay/usr/lib/systemd/system/cisternd.service
a state partition whose damage is told to nobody|tree|FAIL cistern/state leaves a mark where fsck ends with status 4|sed -i 's/-lt 4/-lt 5/' board/cistern/rootfs-overlay/usr/lib/cistern/state
a package of the defconfig that we do not have|tree|FAIL $defconfig: BR2_PACKAGE_CISTERN_FROM_AIR exists|echo BR2_PACKAGE_CISTERN_FROM_AIR=y >>configs/$defconfig
a licence without its sum|tree|FAIL package/cistern: LICENSE has its sum|sed -i /LICENSE/d package/cistern/cistern.hash
a kernel symbol that stands twice|tree|FAIL kernel fragments: no symbol stands twice|echo CONFIG_XFS_FS=y >>board/cistern/kernel/base.fragment
a defconfig that differs from that of the other architecture|tree|FAIL cistern_aarch64_defconfig is like cistern_x86_64_defconfig, but: < BR2_PACKAGE_LESS=y|sed -i /^BR2_PACKAGE_LESS=y/d configs/cistern_aarch64_defconfig
a folder of a recipe that is left in the root|tree|does not want, but not /etc/ssh|sed -i '/target.etc.ssh/d' board/cistern/post-build
a unit that is masked no more|tree|FAIL systemd-networkd-varlink.socket is masked|rm board/cistern/rootfs-overlay/etc/systemd/system/systemd-networkd-varlink.socket
programs whose sums may overflow|tree|on while testing, but for CARGO_PROFILE_DEV_OVERFLOW_CHECKS=true|sed -i /_OVERFLOW_CHECKS=/d package/cistern/cistern.mk
a systemd without seccomp|tree|FAIL $defconfig: systemd can do what|sed -i /^BR2_PACKAGE_LIBSECCOMP=y/d configs/*_defconfig
a fragment that nobody uses|tree|FAIL board/cistern/kernel/mips.fragment is used by a defconfig|echo CONFIG_MIPS=y >board/cistern/kernel/mips.fragment
a kernel symbol of PCs that is asked for on all machines|kernel --arch aarch64|storage.fragment on aarch64: CONFIG_VMD=m became n: needs|echo CONFIG_VMD=m >>board/cistern/kernel/storage.fragment; sed -i /^CONFIG_ARM_SBSA_WATCHDOG/d board/cistern/kernel/aarch64.fragment; echo '# CONFIG_ARM_SBSA_WATCHDOG is not set' >>board/cistern/kernel/aarch64.fragment
an option of the list that is one architecture's|kernel --arch aarch64|FAIL kernel option ARM_SBSA_WATCHDOG: not set, wanted m|same
a kernel symbol that does not exist|kernel --arch x86_64|CONFIG_CISTERN_NOWHERE=y became n: this kernel has no such symbol|echo CONFIG_CISTERN_NOWHERE=y >>board/cistern/kernel/base.fragment; echo '# CONFIG_CISTERN_NOBODY is not set' >>board/cistern/kernel/base.fragment; sed -i 's/^CONFIG_BLK_DEV_DM=y/# CONFIG_BLK_DEV_DM is not set/' board/cistern/kernel/storage.fragment
a kernel symbol that is off and does not exist|kernel --arch x86_64|CONFIG_CISTERN_NOBODY is not set, and this kernel has no such symbol|same
a kernel symbol with an unmet dependency|kernel --arch x86_64|CONFIG_DM_THIN_PROVISIONING=m became n: needs|same
a post-image that packs with another option|image --arch x86_64|FAIL post-image for x86_64: pack, media and check take its options|sed -i s/--stub/--stubb/ board/cistern/post-image
a kernel without an option of the list|kernel --arch x86_64|FAIL kernel option XFS_QUOTA: not set, wanted y|sed -i s/^CONFIG_XFS_QUOTA=y/CONFIG_XFS_QUOTA=n/ board/cistern/kernel/storage.fragment
a symbol that Buildroot does not have|defconfig --arch x86_64|BR2_PACKAGE_NOWHERE: Buildroot|echo BR2_PACKAGE_NOWHERE=y >>configs/$defconfig; sed -i /^BR2_PACKAGE_NFS_UTILS=y/d configs/$defconfig
a symbol that Buildroot drops|defconfig --arch x86_64|BR2_PACKAGE_NFS_UTILS_NFSV4 became n|same
"

check_negative() {
    local what part says how copy log status=0
    copy=$(mktemp -d)
    # What post-image runs lies beside the tree.
    ln -s "$project/image" "$project/Cargo.toml" "$copy/"
    while IFS='|' read -r what part says how; do
        [ -n "$what" ] || continue
        [ "${part%% *}" != defconfig ] || [ -n "${BUILDROOT_DIR:-}" ] || continue
        log=$copy/log
        if [ "$how" != same ]; then
            rm -rf "${copy:?}/tree"
            cp -a "$overlay" "$copy/tree"
            (cd "$copy/tree" && eval "$how")
            status=0
            # shellcheck disable=SC2086
            "$overlay/check" --tree "$copy/tree" --only $part >"$log" 2>&1 || status=$?
        fi
        if [ "$status" = 0 ]; then
            fail "noticed: $what: the check passed"
        elif grep -qF "$says" "$log"; then
            ok "noticed: $what"
        else
            grep '^FAIL' "$log" || tail -n 5 "$log"
            fail "noticed: $what: it did not say '$says'"
        fi
    done <<<"$broken"

    check_refusals "$copy"
    check_telling "$copy"
    rm -rf "$copy"
}
