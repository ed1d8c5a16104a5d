# What build tells: how far it is, why it broke off, and what came of it. Sourced by build.
# shellcheck shell=bash

say() { printf 'buildroot: %s\n' "$*"; }

# How many packages a configured build has, those for the machine that builds too.
packages_of() { # OUT
    make -s --no-print-directory -C "$1" show-info 2>/dev/null | python3 -c 'import json, sys; print(sum(not one.get("virtual") for one in json.load(sys.stdin).values()))'
}

# Of Buildroot's own words on standard input, one line for each package that is installed.
progress() { # PACKAGES
    sed -u 's/\x1b\[[0-9;]*m//g; s/\x1b(B//g' | awk -v all="$1" '
        /^>>> / { if (($NF == "directory" || $NF == "target" || $0 ~ /Installing to host/) && !($2 in seen)) {
            seen[$2] = 1; printf "buildroot: %3d of %d  %s %s\n", ++done, all, $2, $3; fflush() } }'
}

# Which source could not be had, and where to put it; or what else went wrong: what unpacks the others is built with them.
download_fault() { # OUT DL_DIR
    local log=$1/source.log package file folder error
    package=$(sed -n 's/.*>>> \([^ ]*\) [^ ]* Downloading.*/\1/p' "$log" | tail -n 1)
    if [ -z "$package" ] || [ -n "$(sed -n 's/.*>>> [^ ]* [^ ]* \(Building\|Configuring\|Installing\).*/\1/p' "$log" | tail -n 1)" ]; then
        echo "the sources could not be fetched: $(build_fault "$log")"
        return
    fi
    file=$(sed -n "s|.*/build/\.\([^']*\)\.[A-Za-z0-9]*/output'.*|\1|p" "$log" | tail -n 1)
    # cargo, which fetches crates, says its in small letters.
    error=$(grep -E 'ERROR|^error|wget:|fatal:' "$log" | tail -n 1) || true
    folder=$(make -s --no-print-directory -C "$1" "${package:-none}-show-info" 2>/dev/null |
        python3 -c 'import json, sys; print(list(json.load(sys.stdin).values())[0]["dl_dir"])' 2>/dev/null) || folder=$package
    echo "${file:-a source} of ${package:-a package} could not be had (${error:-see $log}); put it into $2/$folder and start again, nothing was built"
}

# What the package that was built last said first, of what looks like an error.
build_fault() { # LOG
    sed 's/\x1b\[[0-9;]*m//g; s/\x1b(B//g' "$1" | awk -v log_file="$1" '
        /^>>> / { package = $2; said = "" }
        said == "" && /(^|[^A-Za-z])error(\[E[0-9]+\])?:|Error [0-9]|FAILED|\*\*\*/ { said = $0 }
        END { printf "at %s: %s; %s tells more\n", package == "" ? "its beginning" : package, said == "" ? "it does not say why" : said, log_file }'
}

# SPDX's names of licences, by which the list of what is in it calls those that have one. Buildroot's program fetches them whatever it
# makes a list of: with the sources, then, and not after hours.
licence_names() { # BUILDROOT DL_DIR OUT
    echo '{}' | BR2_DL_DIR="$2" "$1/utils/generate-cyclonedx" >/dev/null 2>"$3/sbom.log"
}

# A folder of downloads in which there are no such names, for that program.
no_licence_names() { # BUILDROOT OUT
    local version
    version=$(sed -n 's/^CYCLONEDX_VERSION = "\(.*\)"$/\1/p' "$1/utils/generate-cyclonedx")
    mkdir -p "$2/no-names/cyclonedx"
    echo '{}' >"$2/no-names/cyclonedx/spdx-$version.schema.json"
    printf '%s\n' "$2/no-names"
}

# Licences, the list of what is in it, and what takes how much of the root.
results() { # BUILDROOT OUT NAMES
    local out=$2
    make -s -C "$out" legal-info >"$out/legal.log" 2>&1 ||
        die "the images are made, but their licences and sources cannot be collected ($(tail -n 1 "$out/legal.log")); $out/legal.log tells more"
    say "licences and sources: $out/legal-info"
    make -s --no-print-directory -C "$out" show-info 2>/dev/null | BR2_DL_DIR="$3" "$1/utils/generate-cyclonedx" >"$out/images/sbom.cdx.json" 2>"$out/sbom.log" ||
        die "the images are made, but the list of what is in them cannot be ($(tail -n 1 "$out/sbom.log")); $out/sbom.log tells more"
    say "what is in it (CycloneDX): $out/images/sbom.cdx.json"
    package_sizes "$out" >"$out/images/package-sizes.txt"
    say "the root by package, unpacked, in KiB; all of it in $out/images/package-sizes.txt"
    head -n 12 "$out/images/package-sizes.txt"
    # Without xorriso there is no ISO.
    (cd "$out/images" && find vmlinuz initrd cistern.efi cistern.iso -printf '%s %f\n' 2>/dev/null || true) | awk '{ printf "%8d  %s\n", $1 / 1024, $2 }'
    say "$(size_said "$(stat -c %s "$out/images/cistern.efi")")"
}

# What the system is to take, in MB, on the EFI partition and in memory: an aim, and no limit.
size_aim=64
size_said() { # BYTES
    awk -v bytes="$1" -v aim="$size_aim" 'BEGIN {
        printf "cistern.efi has %.1f MB, and the aim is %d: %s\n", bytes / 1e6, aim, bytes <= aim * 1e6 ? "reached" : "not reached" }'
}

# KiB and package, the largest first. A file counts for the package that wrote it last; what was taken out again counts for none.
package_sizes() { # OUT
    awk -F, '{ of[$2] = $1 } END { for (file in of) printf "%s\t%s\n", of[file], file }' "$1/build/packages-file-list.txt" |
        while IFS=$'\t' read -r package file; do
            [ -f "$1/target/$file" ] && [ ! -L "$1/target/$file" ] || continue
            printf '%s\t%s\n' "$package" "$(stat -c %s "$1/target/$file")"
        done |
        awk -F'\t' '{ size[$1] += $2 } END { for (package in size) printf "%8d  %s\n", size[package] / 1024, package }' | sort -rn
}
