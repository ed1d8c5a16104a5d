# post-image as Buildroot calls it, on Debian's kernel and a root made up here: its calls of image/pack, image/media and
# image/check are real, and what they make is looked at. Sourced by check. Buildroot itself is not needed.
# shellcheck shell=bash

check_image() { # TREE
    local tree=$1 work images status=0
    image_tools || { fail "post-image: the tools and the kernel that image/build keeps are not there; run image/build first"; return 0; }
    work=$(mktemp -d)
    images=$work/images
    pretend_build "$tree" "$work"
    post_image "$tree" "$work" >"$work/log" 2>&1 || status=$?
    verdict "post-image: pack, media and check take its options" ended "$status" "$work/log"
    [ "$status" = 0 ] || { rm -rf "$work"; return 0; }
    for file in cistern.efi vmlinuz initrd cmdline cistern.raw cistern.iso; do
        verdict "post-image: makes $file" test -s "$images/$file"
    done
    verdict "post-image: packs the kernel as it is" cmp -s "$images/bzImage" "$images/vmlinuz"
    mkdir -p "$work/unpacked"
    (cd "$work/unpacked" && cpio -id --quiet <"$images/initrd") || true
    verdict "post-image: packs the root as it is" cmp -s "$images/rootfs.erofs" "$work/unpacked/root.erofs"
    verdict "post-image: packs the first process" cmp -s "$images/cistern-init" "$work/unpacked/init"
    verdict "post-image: the command line is in the unified kernel image" grep -qaF "$(cat "$images/cmdline" 2>/dev/null || echo none)" "$images/cistern.efi"
    verdict "post-image: the image is on the disk's EFI partition" on_disk "$images"
    verdict "post-image: compares the root with the list" grep -q '^image check: ' "$work/log"

    mv "$images/cistern.efi" "$work/before"
    status=0
    CISTERN_CHECK='' post_image "$tree" "$work" >"$work/log" 2>&1 || status=$?
    verdict "post-image: the same again makes the same" cmp -s "$work/before" "$images/cistern.efi"
    verdict "post-image: a root that is not as listed is an error, said after all is made" differs "$status" "$work/log"
    echo "no root" >"$images/rootfs.erofs"
    status=0
    post_image "$tree" "$work" >"$work/log" 2>&1 || status=$?
    verdict "post-image: a root that is no erofs is refused in one line" said "$status" "$work/log" "is no erofs"
    rm -rf "$work"
}

ended() { [ "$1" = 0 ] || { tail -n 12 "$2"; return 1; }; }
differs() { [ "$1" != 0 ] && tail -n 1 "$2" | grep -q "the images are made, but differ"; }
said() { [ "$1" != 0 ] && [ "$(wc -l <"$2")" = 1 ] && grep -qF "$3" "$2"; }
on_disk() { mcopy -n -i "$1/cistern.raw@@1M" "::/EFI/Linux/cistern_$(sed -n '0,/^version = /s/^version = "\(.*\)"/\1/p' "$project/Cargo.toml").efi" - 2>/dev/null | cmp -s - "$1/cistern.efi"; }

# Sets $tools to the tools tree that image/build keeps, whose programs take the place of Buildroot's host programs, and
# $debian_kernel to its kernel.
image_tools() {
    local folder
    tools='' debian_kernel=''
    for folder in "$cache"/image/layers/root-*; do [ ! -e "$folder/.done" ] || debian_kernel=$folder/vmlinuz; done
    for folder in "$cache"/image/trees/tools-*; do [ ! -e "$folder/.done" ] || tools=$folder/tree; done
    [ -n "$tools" ] && [ -s "$debian_kernel" ]
}

# What Buildroot leaves before post-image: a host folder, a target, a root, a kernel and its configuration.
pretend_build() { # TREE WORK
    local tree=$1 work=$2 name
    mkdir -p "$work"/{images/boot,target/etc,target/usr/bin,build/linux-6.12/arch/x86/boot,host/bin}
    for name in mkfs.erofs fsck.erofs ukify mkfs.vfat mmd mcopy sgdisk xorriso; do
        cat >"$work/host/bin/$name" <<TOOL
#!/bin/sh
exec bwrap --die-with-parent --ro-bind "$tools/usr" /usr --symlink usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 /lib64 \\
    --ro-bind "$tools/etc" /etc --dev /dev --proc /proc --bind "$work" "$work" --setenv PATH /usr/bin:/usr/sbin -- $name "\$@"
TOOL
        chmod 0755 "$work/host/bin/$name"
    done
    cp "$debian_kernel" "$work/images/bzImage"
    cp "$work/images/bzImage" "$work/build/linux-6.12/arch/x86/boot/bzImage"
    printf '#!/bin/false\n' >"$work/images/cistern-init"
    cp "$tools"/usr/lib/systemd/boot/efi/{linuxx64.efi.stub,systemd-bootx64.efi} "$work/images/boot/"
    cp "$tree/board/cistern/rootfs-overlay/etc/os-release" "$work/target/etc/os-release"
    printf 'root:x:0:0::/root:/bin/sh\n' >"$work/target/etc/passwd"
    printf 'CONFIG_X86_64=y\nCONFIG_XFS_FS=m\n' >"$work/build/linux-6.12/.config"
    "$work/host/bin/mkfs.erofs" --quiet -z zstd "$work/images/rootfs.erofs" "$work/target"
}

post_image() { # TREE WORK
    env -i PATH="$2/host/bin:$PATH" HOME="$HOME" HOST_DIR="$2/host" TARGET_DIR="$2/target" BUILD_DIR="$2/build" \
        BINARIES_DIR="$2/images" TMPDIR="$2" SOURCE_DATE_EPOCH=1700000000 CISTERN_CHECK="${CISTERN_CHECK-report}" \
        "$(setting "$1" BR2_ROOTFS_POST_IMAGE_SCRIPT)" "$2/images"
}
