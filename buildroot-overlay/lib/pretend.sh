# A folder that passes for a Buildroot checkout, and what build calls beside it: so that build itself is run in seconds. Sourced by check.
# shellcheck shell=bash

# What build asks of this machine is not what is looked at, and nothing is fetched.
pretend_programs() { # FOLDER
    local program
    mkdir -p "$1"
    for program in $(needed_programs); do
        command -v "$program" >/dev/null || ln -s /bin/true "$1/$program"
    done
    cat >"$1/cargo" <<'CARGO'
#!/bin/sh
# cargo vendor --locked --manifest-path FILE FOLDER
[ "$PRETEND_OFFLINE" != crates ] || { printf 'error: failed to sync\n\nCaused by:\n  no route to host\n' >&2; exit 101; }
mkdir -p "$5" && echo vendor >>"$5/../calls"
CARGO
    chmod +x "$1/cargo"
}

needed_programs() { sed -n 's/^for program in \(.*\); do$/\1/p' "$overlay/build"; }

# It takes a defconfig and further settings as they are, but for one symbol, and notes in what order it is called.
pretend_buildroot() { # FOLDER
    mkdir -p "$1"/support/{scripts,kconfig} "$1/utils"
    touch "$1/support/scripts/br2-external"
    cat >"$1/Makefile" <<MAKEFILE
export BR2_VERSION := $minimum
%_defconfig:
	@cp \$(BR2_EXTERNAL)/configs/\$@ \$(O)/.config
	@echo "\$\$FORCE_UNSAFE_CONFIGURE" >\$(O)/as-root
	@cp $1/utils/out.mk \$(O)/Makefile
MAKEFILE
    cat >"$1/utils/out.mk" <<'OUT'
ifdef BUILDROOT_DL_DIR
$(error it is not called BUILDROOT_DL_DIR)
endif
all:
	@echo build >>calls
	@mkdir -p images build target/usr/bin
	@echo uki >images/cistern.efi
	@head -c 4096 /dev/zero >target/usr/bin/one
	@printf 'one,./usr/bin/one\ntwo,./usr/bin/gone\n' >build/packages-file-list.txt
olddefconfig:
source legal-info cistern-dirclean:
	@echo $@ >>calls
	@[ "$$PRETEND_FAULT" != $@ ] || { echo "$@ is broken"; exit 1; }
show-info:
	@echo '{"one": {"virtual": false}, "none": {"virtual": true}, "two": {"virtual": false}}'
OUT
    cat >"$1/support/kconfig/merge_config.sh" <<'MERGE'
#!/bin/sh
# merge_config.sh -m -O OUT CONFIG FRAGMENT
for symbol in $(sed -nE 's/^(# )?(BR2_[A-Za-z0-9_]+)[= ].*/\2/p' "$5"); do sed -i "/^\(# \)\?$symbol[= ]/d" "$4"; done
grep -v '^BR2_PACKAGE_NOWHERE=' "$5" >>"$4" || true
MERGE
    cat >"$1/utils/generate-cyclonedx" <<'SBOM'
#!/usr/bin/env python3
import os, sys
CYCLONEDX_VERSION = "1.6"
names = os.path.join(os.environ["BR2_DL_DIR"], "cyclonedx", f"spdx-{CYCLONEDX_VERSION}.schema.json")
if not os.path.exists(names):
    if os.environ.get("PRETEND_OFFLINE") == "names":
        sys.exit("no route to the names")
    os.makedirs(os.path.dirname(names))
    open(names, "w").write("SPDX")
sys.stdout.write(open(names).read() + " " + sys.stdin.read())
SBOM
    chmod +x "$1/support/kconfig/merge_config.sh" "$1/utils/generate-cyclonedx"
}

# Runs build on it, with nothing of what the environment says.
pretend_run() { # BUILDROOT [OPTION] [NAME=VALUE]...
    local option=''
    case ${2:-} in --*) option=$2; set -- "$1" "${@:3}" ;; esac
    env CISTERN_ARCH=x86_64 CISTERN_BINARIES= CISTERN_LIBCLANG= CISTERN_FRAGMENT= CISTERN_BUILDROOT_ANY= CISTERN_BUILDROOT_GIB=0 \
        CISTERN_BUILDROOT_OUT="$work/out" "${@:2}" "$overlay/build" ${option:+"$option"} "$1" 2>&1
}
