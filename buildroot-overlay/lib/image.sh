# post-image as Buildroot calls it, on Debian's kernel and a root made up here: its calls of image/pack, image/media and
# image/check are real, and what they make is looked at. Sourced by check. Buildroot itself is not needed.
# shellcheck shell=bash

check_image() { # TREE
    image_tools || { fail "post-image: the tools and the kernel that image/build keeps are not there; run image/build first"; return 0; }
    each_architecture check_images "$1"
}

check_images() { # TREE
    local tree=$1 work images status=0
    work=$(mktemp -d)
    images=$work/images
    pretend_build "$tree" "$work"
    post_image "$tree" "$work" >"$work/log" 2>&1 || status=$?
    verdict "post-image for $architecture: pack, media and check take its options" ended "$status" "$work/log"
    [ "$status" = 0 ] || { rm -rf "$work"; return 0; }
    for file in cistern.efi vmlinuz initrd cmdline cistern.raw cistern.iso; do
        verdict "post-image: makes $file" test -s "$images/$file"
    done
    verdict "post-image: packs the kernel as it is" cmp -s "$images/$kernel_image" "$images/vmlinuz"
    mkdir -p "$work/unpacked"
    (cd "$work/unpacked" && cpio -id --quiet <"$images/initrd") || true
    verdict "post-image: packs the root as it is" cmp -s "$images/rootfs.erofs" "$work/unpacked/root.erofs"
    verdict "post-image: packs the first process" cmp -s "$images/cistern-init" "$work/unpacked/init"
    verdict "post-image: packs the list of modules that the first process reads" test -f "$work/unpacked/modules/order"
    verdict "post-image: the command line is in the unified kernel image" grep -qaF "$(cat "$images/cmdline" 2>/dev/null || echo none)" "$images/cistern.efi"
    verdict "post-image: the image is on the disk's EFI partition" on_disk "$images"
    verdict "post-image: the boot loader is where firmware of $architecture looks for it" boots_by "$images"
    verdict "post-image: compares the root with the list" grep -q '^image check: ' "$work/log"
    verdict "post-image: compares the kernel with what the fragments ask for" grep -qxF 'FAIL kernel fragment: CONFIG_BLK_DEV_DM became n, wanted y' "$work/log"
    verdict "post-image: takes what is as the fragments ask for" not_said "$work/log" CONFIG_XFS_FS
    verdict "post-image: a systemd without seccomp is noticed" grep -qxF 'FAIL systemd: not built with +SECCOMP' "$work/log"

    mv "$images/cistern.efi" "$work/before"
    status=0
    CISTERN_CHECK='' post_image "$tree" "$work" >"$work/log" 2>&1 || status=$?
    verdict "post-image: the same again makes the same" cmp -s "$work/before" "$images/cistern.efi"
    verdict "post-image: a root that is not as listed is an error, said after all is made" differs "$status" "$work/log"
    mv "$images/boot/linux$efi.efi.stub" "$work/stub"
    pretend_machine "$work/stub" "$images/boot/linux$efi.efi.stub" '\x4c\x01'
    status=0
    post_image "$tree" "$work" >"$work/log" 2>&1 || status=$?
    verdict "post-image: a stub for another processor is refused in one line" said "$status" "$work/log" "is not for the kernel's processor"
    mv "$work/stub" "$images/boot/linux$efi.efi.stub"
    mv "$images/$kernel_image" "$work/kernel"
    gzip -c "$work/kernel" >"$images/$kernel_image"
    status=0
    post_image "$tree" "$work" >"$work/log" 2>&1 || status=$?
    verdict "post-image: a kernel that UEFI does not start is refused in one line" said "$status" "$work/log" "is neither a bzImage"
    mv "$work/kernel" "$images/$kernel_image"
    echo "no root" >"$images/rootfs.erofs"
    status=0
    post_image "$tree" "$work" >"$work/log" 2>&1 || status=$?
    verdict "post-image: a root that is no erofs is refused in one line" said "$status" "$work/log" "is no erofs"
    rm -rf "$work"
}

ended() { [ "$1" = 0 ] || { tail -n 12 "$2"; return 1; }; }
differs() { [ "$1" != 0 ] && tail -n 1 "$2" | grep -q "the images are made, but differ"; }
said() { [ "$1" != 0 ] && [ "$(wc -l <"$2")" = 1 ] && grep -qF "$3" "$2"; }
not_said() { ! grep -qF "kernel fragment: $2 " "$1"; }
boots_by() { mcopy -n -i "$1/cistern.raw@@1M" "::/EFI/BOOT/BOOT${efi^^}.EFI" - 2>/dev/null | cmp -s - "$1/boot/systemd-boot$efi.efi"; }
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

# A copy of a program for UEFI that says of itself it was for another processor.
pretend_machine() { # FROM TO BYTES
    cp "$1" "$2"
    printf "$3" | dd of="$2" bs=1 seek=$(($(od -An -tu4 -j60 -N4 "$1") + 4)) conv=notrunc status=none
}

# What Buildroot leaves before post-image: a host folder, a target, a root, a kernel and its configuration. What there is of the
# kernel and of UEFI's programs is of PCs: for another architecture they only look the part, which nobody starts here.
pretend_build() { # TREE WORK
    local tree=$1 work=$2 name built=$2/build/linux-6.12 efi_folder=$tools/usr/lib/systemd/boot/efi
    mkdir -p "$work"/{images/boot,target/etc,target/usr/bin,host/bin} "$built/arch/$source_arch/boot"
    for name in mkfs.erofs fsck.erofs ukify mkfs.vfat mmd mcopy sgdisk xorriso; do
        cat >"$work/host/bin/$name" <<TOOL
#!/bin/sh
exec bwrap --die-with-parent --ro-bind "$tools/usr" /usr --symlink usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 /lib64 \\
    --ro-bind "$tools/etc" /etc --dev /dev --proc /proc --bind "$work" "$work" --setenv PATH /usr/bin:/usr/sbin -- $name "\$@"
TOOL
        chmod 0755 "$work/host/bin/$name"
    done
    case $architecture in
        x86_64)
            cp "$debian_kernel" "$work/images/bzImage"
            cp "$efi_folder"/{linuxx64.efi.stub,systemd-bootx64.efi} "$work/images/boot/"
            ;;
        aarch64)
            pretend_machine "$debian_kernel" "$work/images/Image" '\x64\xaa'
            printf 'ARM\x64' | dd of="$work/images/Image" bs=1 seek=56 conv=notrunc status=none
            pretend_machine "$efi_folder/linuxx64.efi.stub" "$work/images/boot/linuxaa64.efi.stub" '\x64\xaa'
            pretend_machine "$efi_folder/systemd-bootx64.efi" "$work/images/boot/systemd-bootaa64.efi" '\x64\xaa'
            ;;
    esac
    cp "$work/images/$kernel_image" "$built/arch/$source_arch/boot/"
    { echo "BR2_$architecture=y" && grep '^BR2_LINUX_KERNEL_CONFIG_FRAGMENT_FILES=' "$tree/configs/$defconfig"; } >"$work/br2.config"
    printf '#!/bin/false\n' >"$work/images/cistern-init"
    cp "$tree/board/cistern/rootfs-overlay/etc/os-release" "$work/target/etc/os-release"
    printf 'root:x:0:0::/root:/bin/sh\n' >"$work/target/etc/passwd"
    printf 'CONFIG_%s=y\nCONFIG_XFS_FS=m\n' "${kernel_arch^^}" >"$built/.config"
    "$work/host/bin/mkfs.erofs" --quiet -z zstd "$work/images/rootfs.erofs" "$work/target"
}

post_image() { # TREE WORK
    env -i PATH="$2/host/bin:$PATH" HOME="$HOME" HOST_DIR="$2/host" TARGET_DIR="$2/target" BUILD_DIR="$2/build" \
        BINARIES_DIR="$2/images" BR2_CONFIG="$2/br2.config" TMPDIR="$2" SOURCE_DATE_EPOCH=1700000000 CISTERN_CHECK="${CISTERN_CHECK-report}" \
        "$(setting "$1" BR2_ROOTFS_POST_IMAGE_SCRIPT)" "$2/images"
}
