# What build does in which order and tells of it, on the Buildroot that is made up here. Sourced by check.
# shellcheck shell=bash
. "$overlay/lib/results.sh"

check_telling() { # FOLDER
    local work
    work=$(realpath "$1")/telling
    local PATH=$work/bin:$PATH
    pretend_programs "$work/bin"
    pretend_buildroot "$work/buildroot"
    ends "fetches all before it builds" 0 "made $work/out/images/cistern.efi"
    in_order "source vendor cistern-dirclean build legal-info"
    cp "$work/out/images/sbom.cdx.json" "$work/sbom"
    ends "is not led astray by what make gives to what it calls" 0 "made $work/out/images/cistern.efi" BUILDROOT_DL_DIR="$work"
    verdict "build holds the size of the image against its aim" grep -qx 'buildroot: cistern.efi has 0.0 MB, and the aim is 64: reached' "$work/said"
    ends "says what crates could not be had, and builds nothing" 1 "the crates of our own programs could not be had (no route to host)" PRETEND_OFFLINE=crates
    in_order "source"
    verdict "build lists what is in the images by SPDX's names of licences" grep -q '^SPDX {"one"' "$work/sbom"
    ends "lists what is in the images without SPDX's names too" 0 "made $work/out/images/cistern.efi" PRETEND_OFFLINE=names
    verdict "build says so before it builds" grep -q "SPDX's names of them cannot be had (no route to the names)" "$work/said"
    verdict "build makes the list all the same" grep -q '^{}' "$work/out/images/sbom.cdx.json"
    ends "takes licences that cannot be collected for an error" 1 "the images are made, but their licences and sources cannot be collected (" PRETEND_FAULT=legal-info
    # Debian's own cargo could not be kept from it.
    rm "$work/bin/cargo"
    [ -e /usr/bin/cargo ] || ends "needs cargo for what is built by it" 1 "cargo is missing, which fetches the crates of our programs" PATH="$work/bin:/usr/bin:/bin"
    check_words "$work/words"
}

# What is read out of Buildroot's own words, and those of what it calls.
check_words() { # FOLDER
    local folder=$1 bold=$'\e[7m' plain=$'\e[27m' cat_info="@cat info.json"
    mkdir -p "$folder"/{build,target/usr/bin}
    printf 'show-info:\n\t%s\nlvm2-show-info:\n\t@echo %s\n' "$cat_info" "'{\"lvm2\": {\"dl_dir\": \"lvm2\"}}'" >"$folder/Makefile"
    echo '{"lvm2": {"virtual": false}, "udev": {"virtual": true}, "host-tar": {"virtual": false}}' >"$folder/info.json"
    reads "how many packages there are" 2 packages_of "$folder"

    printf '%s>>> lvm2 2.03.31 %s%s\n' "$bold" Extracting "$plain" "$bold" "Installing to staging directory" "$plain" \
        "$bold" "Installing to target" "$plain" >"$folder/progress"
    printf '%s>>> host-tar 1.35 %s%s\n' "$bold" "Installing to host directory" "$plain" >>"$folder/progress"
    reads "each package that is done, once" "buildroot:   1 of 2  lvm2 2.03.31;buildroot:   2 of 2  host-tar 1.35" progress 2 <"$folder/progress"

    printf '%s>>> lvm2 2.03.31 Downloading%s\n' "$bold" "$plain" >"$folder/source.log"
    echo "wget -nd -t 3 -O '$folder/build/.LVM2.2.03.31.tgz.aB12Cd/output' 'https://sources.example/lvm2/LVM2.2.03.31.tgz'" >>"$folder/source.log"
    echo "wget: unable to resolve host address 'sources.example'" >>"$folder/source.log"
    reads "which source could not be had" \
        "LVM2.2.03.31.tgz of lvm2 could not be had (wget: unable to resolve host address 'sources.example'); put it into /dl/lvm2 and start again, nothing was built" \
        download_fault "$folder" /dl
    printf '>>> thin-provisioning-tools 1.3.2 Downloading\nerror: failed to sync\n\nCaused by:\n  no route to host\n' >"$folder/source.log"
    reads "what cargo could not have" \
        "a source of thin-provisioning-tools could not be had (error: failed to sync); put it into /dl/thin-provisioning-tools and start again, nothing was built" \
        download_fault "$folder" /dl
    printf 'Makefile.legacy:24: *** BUILDROOT_DL_DIR is not supported.  Stop.\n' >"$folder/source.log"
    reads "what went wrong before any source" \
        "the sources could not be fetched: at its beginning: Makefile.legacy:24: *** BUILDROOT_DL_DIR is not supported.  Stop.; $folder/source.log tells more" \
        download_fault "$folder" /dl
    printf '>>> host-tar 1.35 Downloading\n>>> host-tar 1.35 Configuring\nconfigure: error: no compiler\n' >"$folder/source.log"
    reads "what could not be built that unpacks sources" \
        "the sources could not be fetched: at host-tar: configure: error: no compiler; $folder/source.log tells more" download_fault "$folder" /dl

    printf '%s\n' ">>> lvm2 2.03.31 Building" "checking for errors... *** none" ">>> cistern custom Building" "   Compiling cistern-model" \
        "error[E0425]: cannot find value" "error: could not compile" "make: *** [cistern] Error 101" >"$folder/build.log"
    reads "where it broke off, and why" "at cistern: error[E0425]: cannot find value; $folder/build.log tells more" build_fault "$folder/build.log"
    printf '>>> lvm2 2.03.31 Building\ndm.c:12:3: error: expected ;\nmake[1]: *** [all] Error 2\n' >"$folder/build.log"
    reads "what the compiler said" "at lvm2: dm.c:12:3: error: expected ;; $folder/build.log tells more" build_fault "$folder/build.log"
    : >"$folder/build.log"
    reads "that nothing was said" "at its beginning: it does not say why; $folder/build.log tells more" build_fault "$folder/build.log"

    printf 'lvm2,./usr/bin/lvm\nudev,./usr/bin/udevadm\nkmod,./usr/bin/udevadm\nlvm2,./usr/bin/gone\n' >"$folder/build/packages-file-list.txt"
    head -c 4096 /dev/zero >"$folder/target/usr/bin/lvm"
    head -c 9216 /dev/zero >"$folder/target/usr/bin/udevadm"
    ln -s lvm "$folder/target/usr/bin/gone"
    reads "that an image is as small as it is to be" "cistern.efi has 64.0 MB, and the aim is 64: reached" size_said 64000000
    reads "that an image is larger" "cistern.efi has 70.5 MB, and the aim is 64: not reached" size_said 70500000
    reads "what takes how much of the root" "       9  kmod;       4  lvm2" package_sizes "$folder"
}

# Whose output is so, its lines joined by semicolons, with nothing else said and no error.
reads() { # WHAT TEXT COMMAND...
    local said
    if said=$("${@:3}" 2>&1 | paste -sd';') && [ "$said" = "$2" ]; then ok "build reads $1"; else fail "build reads $1: it read '$said'"; fi
}

# Ends so, and the last line says so.
ends() { # WHAT STATUS SAYS [NAME=VALUE]...
    local said status=0
    rm -rf "$work/out" "$work/buildroot/dl"
    said=$(pretend_run "$work/buildroot" "${@:4}") || status=$?
    printf '%s\n' "$said" >"$work/said"
    if [ "$status" = "$2" ] && tail -n 1 <<<"$said" | grep -qF -- "$3"; then
        ok "build $1"
    else
        fail "build $1: it ended with $status and said '$said'"
    fi
}

in_order() { # CALLS
    local calls
    calls=$(paste -sd' ' "$work/out/calls")
    verdict "build calls $1${calls:+: it called $calls}" test "$calls" = "$1"
}
