# The external tree by itself: everything that one of its files names is there, and what is said twice is said alike.
# Sourced by check. Knows nothing of Buildroot's own files.
# shellcheck shell=bash

check_tree() { # TREE
    local tree=$1
    check_description "$tree"
    check_sources "$tree"
    check_packages "$tree"
    check_profile "$tree"
    each_architecture check_asked "$tree"
    check_alike "$tree"
    each_architecture check_board "$tree"
    each_architecture check_sandbox "$tree"
    check_files "$tree"
    check_installed
    check_users "$tree"
    check_units "$tree"
    check_masks "$tree"
    check_state_script "$tree"
    check_post_build "$tree"
    each_architecture check_fragments "$tree"
    check_unused "$tree"
}

check_description() {
    local tree=$1
    verdict "external.desc has the name CISTERN" grep -qx 'name: CISTERN' "$tree/external.desc"
    verdict "external.desc has a description" grep -q '^desc: .' "$tree/external.desc"
    verdict "external.mk takes in the packages" grep -qF "\$(BR2_EXTERNAL_CISTERN_PATH)/package/*/*.mk" "$tree/external.mk"
}

# Every Kconfig file that is sourced, from Config.in down.
check_sources() {
    local tree=$1 file name found
    local queue=("$tree/Config.in") seen=' '
    while [ ${#queue[@]} -gt 0 ]; do
        file=${queue[0]}
        queue=("${queue[@]:1}")
        while read -r name; do
            found=${name//\$BR2_EXTERNAL_CISTERN_PATH/$tree}
            if [ -f "$found" ]; then
                ok "${file#"$tree"/}: source $name"
                case $seen in *" $found "*) ;; *) queue+=("$found"); seen="$seen$found " ;; esac
            else
                fail "${file#"$tree"/}: source $name: no such file"
            fi
        done < <(sed -n 's/^[[:space:]]*source[[:space:]]*"\(.*\)".*/\1/p' "$file")
    done
    for file in "$tree"/package/*/Config.in; do
        case $seen in *" $file "*) ;; *) fail "${file#"$tree"/} is sourced by nothing" ;; esac
    done
}

check_packages() {
    local tree=$1 folder name upper symbol licence
    for folder in "$tree"/package/*/; do
        folder=${folder%/} name=$(basename "$folder")
        upper=$(printf %s "$name" | tr 'a-z-' 'A-Z_')
        [ -f "$folder/$name.mk" ] || { fail "package/$name has no $name.mk"; continue; }
        [ -f "$folder/Config.in" ] || { fail "package/$name has no Config.in"; continue; }
        verdict "package/$name: Config.in offers BR2_PACKAGE_$upper" grep -qx "config BR2_PACKAGE_$upper" "$folder/Config.in"
        verdict "package/$name: $name.mk calls an infrastructure" grep -qE '^\$\(eval \$\([a-z-]+-package\)\)$' "$folder/$name.mk"
        verdict "package/$name: licence and its files are named" \
            test "$(grep -cE "^${upper}_LICENSE(_FILES)? = ." "$folder/$name.mk")" -eq 2
        for licence in $(sed -n "s/^${upper}_LICENSE_FILES = //p" "$folder/$name.mk"); do
            verdict "package/$name: $licence has its sum in $name.hash" grep -qsE "^sha256  [0-9a-f]{64}  $licence\$" "$folder/$name.hash"
        done
        while read -r symbol; do
            grep -rqx --include=Config.in "config $symbol" "$tree/package" || fail "package/$name/$name.mk uses $symbol, which no Config.in of ours has"
        done < <(grep -oE "BR2_PACKAGE_${upper}(_[A-Z0-9_]+)?" "$folder/$name.mk" | sort -u)
    done
    if [ -f "$project/LICENSE" ]; then
        verdict "package/cistern: the sum of our licence is right" \
            grep -q "^sha256  $(sha256sum "$project/LICENSE" | cut -d' ' -f1)  LICENSE\$" "$tree/package/cistern/cistern.hash"
    fi
    verdict "package/cistern: its version is the workspace's" \
        grep -qx "CISTERN_VERSION = $(sed -n 's/^version = "\(.*\)"/\1/p' "$project/Cargo.toml" | head -n 1)" "$tree/package/cistern/cistern.mk"
}

# Buildroot's profiles have the checks off that the profile which is tested has on. The variable is what make makes of that part of the file.
check_profile() {
    local tree=$1 made setting lacks=''
    made=$({ sed -n '/^CISTERN_CARGO_ENV = /,/[^\\]$/p' "$tree/package/cistern/cistern.mk"; printf 'show:\n\t@echo $(CISTERN_CARGO_ENV)\n'; } | make -s -f - 2>&1) || true
    for setting in CARGO_PROFILE_{DEV,RELEASE}_{OVERFLOW_CHECKS,DEBUG_ASSERTIONS}=true; do
        case " $made " in *" $setting "*) ;; *) lacks+=" $setting" ;; esac
    done
    verdict "package/cistern: our programs have the checks that are on while testing${lacks:+, but for$lacks}" test -z "$lacks"
}

# Those packages of ours that the defconfig asks for.
check_asked() {
    local tree=$1 folder upper symbol value
    for folder in "$tree"/package/*/; do
        upper=$(basename "$folder" | tr 'a-z-' 'A-Z_')
        while read -r symbol value; do
            case $symbol in
                "BR2_PACKAGE_$upper" | "BR2_PACKAGE_${upper}_"*)
                    verdict "$defconfig: $symbol exists" grep -qx "config $symbol" "$folder/Config.in" ;;
            esac
        done < <(asked BR2_ "$tree/configs/$defconfig")
        verdict "$defconfig: has BR2_PACKAGE_$upper" grep -qx "BR2_PACKAGE_$upper=y" "$tree/configs/$defconfig"
    done
}

# What only one architecture's defconfig says: processor, the kernel's format, and what the build machine needs for that.
own_settings='BR2_(x86_64|x86_nehalem|aarch64|cortex_a53|LINUX_KERNEL_(BZIMAGE|ZSTD|NEEDS_HOST_LIBELF|IMAGE))'

# Everything else is the same in all of them, and in the same order, but for the architecture's name.
check_alike() {
    local tree=$1 first=${architectures[0]} other differs
    for other in "${architectures[@]:1}"; do
        differs=$(diff <(alike "$tree" "$first") <(alike "$tree" "$other") | sed -n '/^[<>]/{p;q}' || true)
        verdict "cistern_${other}_defconfig is like cistern_${first}_defconfig${differs:+, but: $differs}" test -z "$differs"
    done
}

alike() { grep -vE "^$own_settings=" "$1/configs/cistern_$2_defconfig" | sed "s/$2/ARCHITECTURE/"; }

# Files that the defconfig names.
check_board() {
    local tree=$1 symbol path
    for symbol in BR2_LINUX_KERNEL_CONFIG_FRAGMENT_FILES BR2_GLOBAL_PATCH_DIR BR2_ROOTFS_OVERLAY BR2_ROOTFS_USERS_TABLES \
        BR2_ROOTFS_POST_BUILD_SCRIPT BR2_ROOTFS_POST_FAKEROOT_SCRIPT BR2_ROOTFS_POST_IMAGE_SCRIPT; do
        [ -n "$(setting "$tree" "$symbol")" ] || fail "$defconfig: $symbol is not set"
        for path in $(setting "$tree" "$symbol"); do
            verdict "$defconfig: $symbol: ${path#"$tree"/} is there" test -e "$path"
        done
    done
}

# Built without libseccomp, systemd says nothing where a unit asks for one of these, and does nothing.
check_sandbox() {
    local tree=$1 asking
    asking=$(grep -rlE '^(SystemCall|Restrict(AddressFamilies|Namespaces|Realtime|SUIDSGID)|MemoryDenyWriteExecute|LockPersonality)' \
        "$tree/board/cistern/rootfs-overlay" | head -n 1)
    [ -z "$asking" ] || verdict "$defconfig: systemd can do what ${asking##*/} asks of it" grep -qx BR2_PACKAGE_LIBSECCOMP=y "$tree/configs/$defconfig"
}

# What build asks of this machine is what is installed for it; build-essential brings compilers, make, patch and perl.
check_installed() {
    local program installed lacks=''
    installed=" g++ gcc make patch perl $(sed -n '/^packages=(/,/)$/p' "$project/tests/install-tools" | tr -s '()\n' ' ') $(sed -n 's|^\t@tests/install-tools ||p' "$project/Makefile" | tr '\n' ' ') "
    for program in $(needed_programs); do
        case $installed in *" $program "*) ;; *) lacks+=" $program" ;; esac
    done
    verdict "make image-buildroot installs what build asks for${lacks:+, but not$lacks}" test -z "$lacks"
}

# What is outside of Kconfig: programs, sums, the overlay.
check_files() {
    local tree=$1 path script version
    for script in "$tree"/check "$tree"/build $(setting "$tree" BR2_ROOTFS_POST_BUILD_SCRIPT) \
        $(setting "$tree" BR2_ROOTFS_POST_FAKEROOT_SCRIPT) $(setting "$tree" BR2_ROOTFS_POST_IMAGE_SCRIPT); do
        verdict "${script#"$tree"/} can be run and is valid bash" runnable "$script"
    done
    version=$(setting "$tree" BR2_LINUX_KERNEL_CUSTOM_VERSION_VALUE)
    verdict "the sum of linux-$version is known" grep -qsE "^sha256  [0-9a-f]{64}  linux-$version.tar.xz\$" "$tree/board/cistern/patches/linux/linux.hash"
    verdict "kernel and headers have the same sums" cmp -s "$tree"/board/cistern/patches/linux/linux.hash "$tree"/board/cistern/patches/linux-headers/linux-headers.hash
    # The target's / is one tree: with merged /usr and /usr/bin these are links, and an overlay would replace them.
    for path in bin sbin lib lib64 usr/sbin usr/lib64; do
        [ ! -e "$tree/board/cistern/rootfs-overlay/$path" ] || fail "rootfs-overlay/$path would replace a link of the merged /usr"
    done
}

runnable() { [ -x "$1" ] && bash -n "$1"; }

# Users of the overlay's sysusers.d stand in Buildroot's table too: its root is made without systemd-sysusers.
check_users() {
    local tree=$1 user table
    table=$(setting "$tree" BR2_ROOTFS_USERS_TABLES)
    while read -r user; do
        verdict "user $user of the overlay is in ${table#"$tree"/}" grep -q "^$user " "$table"
    done < <(sed -n 's/^u!\{0,1\} \([^ ]*\) .*/\1/p' "$tree"/board/cistern/rootfs-overlay/usr/lib/sysusers.d/*.conf)
    while read -r user; do
        verdict "user $user that a unit runs as is in ${table#"$tree"/}" grep -q "^$user " "$table"
    done < <(sed -n 's/^User=//p' "$tree"/board/cistern/rootfs-overlay/usr/lib/systemd/system/*.service | sort -u)
    verdict "${table#"$tree"/}: each line has nine fields" awk '!/^#/ && NF && NF < 9 { bad = 1 } END { exit bad }' "$table"
}

# What is started again and again is never given up: systemd's own limit would make a fault of seconds one for good.
check_units() {
    local tree=$1 units file
    units=$tree/board/cistern/rootfs-overlay/usr/lib/systemd/system
    # What a path starts is started as often as that changes.
    for file in $(grep -l '^Restart=' "$units"/*.service) "$units"/*.path $(printf '%s\n' "$units"/*.path | sed 's/path$/service/'); do
        verdict "${file##*/} is started as often as it takes" grep -qx StartLimitIntervalSec=0 "$file"
    done
}

# What systemd brings under that name is there in each of its versions, or in the next one.
check_masks() {
    local tree=$1 unit
    while read -r unit; do
        verdict "$unit is masked, as image/root.manifest wants it" \
            test "$(readlink "$tree/board/cistern/rootfs-overlay/etc/systemd/system/$unit")" = /dev/null
    done < <(sed -n 's/^\(systemd-[^ ]*\) masked$/\1/p' "$project/image/root.manifest")
}

# Damage of the state partition that fsck left is told to cisternd, and what it has repaired is not; each mark that cisternd
# looks for is one that is left.
check_state_script() {
    local tree=$1 script marks ended said want mark
    script=$tree/board/cistern/rootfs-overlay/usr/lib/cistern/state
    marks=$(mktemp -d)
    for ended in 0 1 2 4 8 12; do
        rm -f "$marks/state-damaged"
        (
            say() { :; }
            fsck.ext4() { return "$ended"; }
            eval "$(sed -n "/^check_state() /,/^}/{s|/run/cistern|$marks|;p}" "$script")"
            check_state /dev/vda3
        ) || true
        said=no want=''
        [ "$ended" -lt 4 ] || said=a want="fsck.ext4 -f -p /dev/vda3 ended with status $ended"
        verdict "cistern/state leaves $said mark where fsck ends with status $ended" \
            test "$(cat "$marks/state-damaged" 2>/dev/null || true)" = "$want"
    done
    rm -r "$marks"
    for mark in $(grep -o '/run/cistern/state-[a-z]*' "$project/appliance/daemon/src/main.rs"); do
        verdict "cistern/state leaves the mark $mark" grep -q ">$mark\$" "$script"
    done
}

# Of what recipes install, post-build leaves nothing that the list of the root does not allow, and it misses what units run.
check_post_build() {
    local tree=$1 target program path left=''
    # What is so called by the list and is brought by a recipe of the defconfig: rpcbind and nfs-utils, util-linux, BusyBox, systemd.
    local brought=(/usr/sbin/rpcbind /usr/sbin/rpc.statd /usr/sbin/dmeventd /usr/sbin/agetty /usr/sbin/getty /usr/bin/login /usr/bin/su
        /usr/bin/passwd /usr/bin/wget /etc/ssh)
    target=$(mktemp -d)
    cp -a "$tree/board/cistern/rootfs-overlay/." "$target/"
    mkdir -p "$target"/{bin,etc/ssh/ssh_config.d,usr/bin,usr/sbin,usr/lib/systemd/system-preset}
    touch "$target/etc/ssh/ssh_config.d/20-systemd-ssh-proxy.conf"
    for path in "${brought[@]}"; do
        verdict "image/root.manifest wants no $path" grep -qxF "$path" "$project/image/root.manifest"
        [ -d "$target$path" ] || touch "$target$path"
    done
    verdict "post-build says what programs of units are missing" post_build_says "$target" "a unit runs /usr/sbin/cisternd, which the root lacks"
    while read -r program; do
        mkdir -p "$(dirname "$target$program")"
        printf '#!/bin/false\n' >"$target$program"
        chmod +x "$target$program"
    done < <({ BINARIES_DIR="$target" "$tree/board/cistern/post-build" "$target" 2>&1 || true; } | sed -n 's/.*a unit runs \([^,]*\), .*/\1/p')
    verdict "post-build takes a root with all that units run" post_build_says "$target" ""
    for path in "${brought[@]}"; do [ ! -e "$target$path" ] || left+=" $path"; done
    verdict "post-build takes out what recipes bring and the list does not want${left:+, but not$left}" test -z "$left"
    rm -rf "$target"
}

# With nothing to say it ends well.
post_build_says() { # TARGET TEXT
    local said status=0
    said=$(BINARIES_DIR="$1" "$tree/board/cistern/post-build" "$1" 2>&1) || status=$?
    if [ -z "$2" ]; then [ "$status:$said" = 0: ]; else [ "$status" != 0 ] && grep -qF "$2" <<<"$said"; fi
}

check_fragments() {
    local tree=$1 bad
    local files=()
    read -r -a files < <(setting "$tree" BR2_LINUX_KERNEL_CONFIG_FRAGMENT_FILES)
    bad=$(grep -nvE '^(CONFIG_[A-Za-z0-9_]+=.+|# CONFIG_[A-Za-z0-9_]+ is not set|#.*|)$' "${files[@]}" || true)
    [ -z "$bad" ] || fail "kernel fragments: lines that Kconfig ignores: $bad"
    bad=$(asked CONFIG_ "${files[@]}" | cut -d' ' -f1 | sort | uniq -d | tr '\n' ' ')
    verdict "kernel fragments: no symbol stands twice for $architecture${bad:+ ($bad)}" test -z "$bad"
}

check_unused() {
    local tree=$1 file
    for file in "$tree"/board/cistern/kernel/*.fragment; do
        verdict "${file#"$tree"/} is used by a defconfig" grep -qE "^BR2_LINUX_KERNEL_CONFIG_FRAGMENT_FILES=.*/${file##*/}[ \"]" "$tree"/configs/*_defconfig
    done
}
