# The kernel fragments on a real kernel tree: an unmet dependency makes a symbol vanish without a word, so each is
# compared with the configuration that Kconfig makes of it. The tree is Debian's linux-source package; only its Kconfig
# part is kept. Sourced by check.
# shellcheck shell=bash

kernel_series=6.12
# What Kconfig needs of the source.
kernel_parts=('*/Kconfig*' '*/Makefile' '*/scripts/*' '*/arch/x86/configs/*' '*/arch/x86/Makefile*' '*/arch/arm64/configs/*'
    '*/kernel/configs/*' '*/include/linux/compiler*' --exclude='*/tools/testing/*' --exclude='*/Documentation/*.rst')
# A tree that another list made lacks something, or is another checkout's: it stays apart, and is not taken.
kernel_cache=$cache/linux-source/kconfig-$(printf '%s\n' "${kernel_parts[@]}" "${architectures[@]}" | sha256sum | cut -c1-8)

# Sets $kernel to the newest cached tree, bringing one when there is none or when $1 is "fresh".
kernel_tree() {
    local work version name old
    mkdir -p "$kernel_cache"
    exec 8>"$kernel_cache/lock"
    flock 8
    kernel=$(newest_tree)
    if [ -z "$kernel" ] || [ "${1:-}" = fresh ]; then
        work=$(mktemp -d "$kernel_cache/new.XXXXXX")
        fetch_kernel "$work"
        version=$(dpkg-deb -f "$work"/*.deb Version)
        kernel=$kernel_cache/${version//[^A-Za-z0-9.+~-]/_}
        if [ ! -e "$kernel/.done" ]; then
            unpack_kernel "$work"/*.deb "$work/tree"
            # Made once; with the first, the one program of the tree that is compiled.
            for name in "${architectures[@]}"; do
                (for_architecture "$name" && kconfig "$work/tree" "$work/config" defconfig >/dev/null)
                cp "$work/config" "$work/tree/.defconfig-$name"
            done
            touch "$work/tree/.done"
            rm -rf "$kernel"
            mv "$work/tree" "$kernel"
        fi
        rm -rf "$work"
        for old in "$cache/linux-source"/*; do
            [ "$old" = "$kernel_cache" ] || [ -z "$(find "$old" -maxdepth 0 -mtime +7)" ] || rm -rf "$old"
        done
    fi
    flock -u 8
}

# Kconfig asks the compiler what it can do. That of this machine will do for another architecture, if there is none for that: what it
# cannot do is off then, and our fragments ask for nothing of the kind.
kconfig() { # KERNEL CONFIG GOAL
    local cross=''
    if [ "$(uname -m)" != "$architecture" ] && command -v "$architecture-linux-gnu-gcc" >/dev/null; then cross=$architecture-linux-gnu-; fi
    make -s -C "$1" ARCH="$kernel_arch" ${cross:+CROSS_COMPILE="$cross"} KCONFIG_CONFIG="$2" "$3"
}

newest_tree() {
    local tree
    for tree in "$kernel_cache/$kernel_series."*; do [ ! -e "$tree/.done" ] || printf '%s\n' "$tree"; done | sort -V | tail -n 1
}

# Downloads the package into a folder: from this machine's own sources, or else from Debian 13's, which are derived from them.
fetch_kernel() {
    local package=linux-source-$kernel_series root=$1/apt
    local options=()
    # As root apt would hand the download to a user of its own, who cannot write here.
    [ "$(id -u)" != 0 ] || options+=(-o APT::Sandbox::User=root)
    if ! apt-cache show "$package" >/dev/null 2>&1; then
        "$project/image/lib/apt-sources" "$root"
        mkdir -p "$root"/{state/lists/partial,cache/archives/partial}
        options+=(-o "Dir::Etc=$root/etc/apt" -o "Dir::State=$root/state" -o "Dir::Cache=$root/cache"
            -o Dir::State::status=/var/lib/dpkg/status)
        apt-get -qq "${options[@]}" update >&2
    fi
    (cd "$1" && apt-get -qq "${options[@]}" download "$package" >&2) || die "cannot download Debian's $package package"
}

# unpack_kernel PACKAGE FOLDER [all]: what Kconfig needs of the source, or all of it.
unpack_kernel() {
    local only=(--wildcards "${kernel_parts[@]}")
    [ "${3:-}" != all ] || only=()
    mkdir -p "$2"
    dpkg-deb --fsys-tarfile "$1" | tar -xO "./usr/src/linux-source-$kernel_series.tar.xz" | xz -dc -T0 |
        tar -x -C "$2" --strip-components=1 ${only[@]+"${only[@]}"}
}

# Makes $work/.config as Buildroot does: the default configuration, which is $work/base, the fragments in their order, olddefconfig.
merge_fragments() { # KERNEL WORK FRAGMENT...
    local kernel=$1 work=$2
    shift 2
    {
        "$kernel/scripts/kconfig/merge_config.sh" -m -O "$work" "$work/base" "$@" &&
            kconfig "$kernel" "$work/.config" olddefconfig
    } >"$work/merge.log" 2>&1
}

check_kernel() { # TREE [fresh]
    kernel_tree "${2:-}"
    each_architecture check_options "$1"
}

check_options() { # TREE
    local tree=$1 file work symbol want got bad version
    local files=()
    read -r -a files < <(setting "$tree" BR2_LINUX_KERNEL_CONFIG_FRAGMENT_FILES)
    version="${kernel##*/} for $architecture"
    work=$(mktemp -d)
    cp "$kernel/.defconfig-$architecture" "$work/base"
    merge_fragments "$kernel" "$work" "${files[@]}" ||
        { tail -n 5 "$work/merge.log"; fail "the fragments cannot be merged on Linux $version"; return 0; }
    grep -rhoE --include='Kconfig*' '^[[:space:]]*(menu)?config[[:space:]]+[A-Za-z0-9_]+' "$kernel" |
        sed 's/.*[[:space:]]/CONFIG_/' | sort -u >"$work/symbols"
    for file in "${files[@]}"; do
        bad=0
        while read -r symbol want got; do
            fail "${file##*/} on $architecture: $symbol=$want became $got: $(why "$kernel" "$work/.config" "${symbol#CONFIG_}" "$want" "$got")"
            bad=1
        done < <(asked CONFIG_ "$file" | differences "$work/.config")
        # Off and unknown look the same in a configuration.
        while read -r symbol; do
            fail "${file##*/}: $symbol is not set, and this kernel has no such symbol"
            bad=1
        done < <(asked CONFIG_ "$file" | sed -n 's/ n$//p' | sort -u | comm -23 - "$work/symbols")
        [ "$bad" = 1 ] || ok "${file#"$tree"/}: $(asked CONFIG_ "$file" | wc -l) symbols as asked on Linux $version"
    done
    made_modules "$kernel" "$work/.config" >"$work/modules"
    verdict "the kernel has the options and modules that image/root.manifest asks for on $architecture" as_listed "$tree" "$work/.config" "$work/modules"
    rm -rf "$work"
}

# Its output is shown when it fails, without the sum, which is not ours.
as_listed() { # TREE CONFIG MODULES
    local said
    said=$("$project/image/check" --kernel-only --config "$2" --modules "$3" --known "$1/board/cistern/known-differences") ||
        { grep '^FAIL' <<<"$said" || echo "image/check could not look"; return 1; }
}

# The names of the modules that a configuration makes, loadable or built in: which option makes which is said by Makefiles.
made_modules() { # KERNEL CONFIG
    find "$1" -name Makefile -not -path "$1/tools/*" -not -path "$1/samples/*" -print0 |
        xargs -0 awk -v config="$2" '
            BEGIN { while ((getline line < config) > 0) if (line ~ /^CONFIG_[^=]*=[ym]$/) on[substr(line, 1, index(line, "=") - 1)] = 1 }
            { while (sub(/\\$/, " ")) { if ((getline more) <= 0) break; $0 = $0 more } }
            /^[ \t]*obj-(y|\$\(CONFIG_[A-Za-z0-9_]+\))[ \t]*[:+]?=/ {
                option = $0
                sub(/^[ \t]*obj-/, "", option); sub(/[ \t]*[:+]?=.*/, "", option); gsub(/[$()]/, "", option)
                if (option != "y" && !(option in on)) next
                sub(/^[^=]*=/, ""); sub(/#.*/, "")
                for (at = 1; at <= NF; at++) if (sub(/[.]o$/, "", $at)) print $at
            }'
}

# Why a symbol is not what was asked: the conditions around its definition, with the values that they have now.
why() { # KERNEL CONFIG SYMBOL WANT GOT
    local kernel=$1 config=$2 symbol=$3 want=$4 got=$5 file rule name value
    file=$(cd "$kernel" && grep -rlE --include='Kconfig*' "^[[:space:]]*(menu)?config[[:space:]]+$symbol\$" . |
        awk -v own="./arch/$source_arch/" '!/^[.][/]arch[/]/ || index($0, own) == 1 { if (!found++) print }' || true)
    [ -n "$file" ] || { echo "this kernel has no such symbol"; return; }
    file=$kernel/${file#./}
    case $want$got in
        mn | yn | ym) ;;
        *) echo "something selects it, or it cannot be a module (${file#"$kernel"/})"; return ;;
    esac
    # Conditions that apply: enclosing ifs and menus of that file, and its own.
    rule=$(awk -v symbol="$symbol" '
        function strip(text) { sub(/^[ \t]*[a-z]+([ \t]+on)?[ \t]+/, "", text); sub(/[ \t]*#.*/, "", text); return text }
        function show(text) { if (text != "") printf "%s && ", text }
        { while (sub(/\\$/, "")) { getline more; $0 = $0 more } }
        /^[ \t]*if[ \t]/ { stack[++depth] = "(" strip($0) ")"; inside = 0; next }
        /^[ \t]*menu[ \t]/ { stack[++depth] = ""; menu = 1; inside = 0; next }
        /^[ \t]*(endif|endmenu|endchoice)/ { if ($1 != "endchoice") depth--; inside = 0; next }
        /^[ \t]*(menu)?config[ \t]/ { inside = ($2 == symbol); menu = 0; if (inside) for (i = 1; i <= depth; i++) show(stack[i]); if (inside) prompt = 0; next }
        /^[ \t]*depends on/ { if (inside) show("(" strip($0) ")"); else if (menu && depth) stack[depth] = stack[depth] (stack[depth] == "" ? "" : " && ") "(" strip($0) ")" }
        inside && /^[ \t]*(bool|tristate|int|string|hex|prompt)[ \t]+"/ { prompt = 1 }
        inside && /^[ \t]*help/ { inside = 0; if (!prompt) printf "NOPROMPT " }' "$file")
    case $rule in *NOPROMPT*) echo "it cannot be chosen, only selected by another symbol (${file#"$kernel"/})"; return ;; esac
    rule=${rule% && }
    [ -n "$rule" ] || { echo "see ${file#"$kernel"/}; what sources that file may have a condition"; return; }
    printf 'needs %s;' "$rule"
    for name in $(grep -oE '[A-Z0-9_]{2,}' <<<"$rule" | sort -u); do
        value=$(sed -n "s/^CONFIG_$name=//p" "$config")
        printf ' %s=%s' "$name" "${value:-n}"
    done
    echo
}
