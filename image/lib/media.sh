# What carries the unified kernel image: disk images and the ISO. Sourced. Made without mounting anything.
# shellcheck shell=bash

sector=512
mib=$((1024 * 1024))

# esp FILE SIZE_MIB LABEL: a FAT filesystem with systemd-boot and the unified kernel image.
esp() {
    local file=$1 size=$2 label=$3
    rm -f "$file"
    truncate -s "${size}M" "$file"
    "$programs/mkfs.vfat" -F 32 -S $sector -n "$label" -i C157E2A0 "$file" >/dev/null
    printf 'timeout 0\neditor no\nauto-firmware no\nconsole-mode keep\n' >"$out/work/loader.conf"
    "$programs/mmd" -i "$file" ::/EFI ::/EFI/BOOT ::/EFI/systemd ::/EFI/Linux ::/loader
    "$programs/mcopy" -i "$file" "$tools"/usr/lib/systemd/boot/efi/systemd-bootx64.efi ::/EFI/BOOT/BOOTX64.EFI
    "$programs/mcopy" -i "$file" "$tools"/usr/lib/systemd/boot/efi/systemd-bootx64.efi ::/EFI/systemd/systemd-bootx64.efi
    "$programs/mcopy" -i "$file" "$out/work/loader.conf" ::/loader/loader.conf
    "$programs/mcopy" -i "$file" "$out/cistern.efi" "::/EFI/Linux/cistern_$version.efi"
}

# A disk with the EFI partition only; the rest is made on it on its first boot.
make_disk() {
    local size_mib=$1 esp_mib=512
    esp "$out/work/esp.img" $esp_mib CISTERN
    local raw=$out/work/cistern.raw
    rm -f "$raw"
    truncate -s "${size_mib}M" "$raw"
    "$programs/sgdisk" --clear --set-alignment=2048 --new=1:2048:+${esp_mib}M --typecode=1:ef00 --change-name=1:CISTERN-ESP \
        "$raw" >/dev/null
    dd if="$out/work/esp.img" of="$raw" bs=1M seek=1 conv=notrunc,sparse status=none
    rm -f "$out/work/esp.img"
    qemu-img convert -f raw -O qcow2 "$raw" "$out/work/cistern.qcow2"
    publish cistern.raw
    publish cistern.qcow2
}

# A disc whose El Torito image is the EFI partition, which a GPT shows too: the same file starts from a CD drive and
# from a USB stick.
make_iso() {
    local need
    need=$(($(stat -c %s "$out/cistern.efi") / mib + 12))
    [ $need -gt 40 ] || need=40
    esp "$out/work/esp.img" $need CISTERN_EFI
    rm -rf "$out/work/iso" "$out/work/cistern.iso"
    mkdir -p "$out/work/iso"
    printf 'Cistern %s. Starts on UEFI machines only; on a BIOS, switch it to UEFI.\n' "$version" >"$out/work/iso/README.txt"
    "$programs/xorriso" -as mkisofs -quiet -V CISTERN_LIVE -o "$out/work/cistern.iso" \
        -append_partition 2 0xef "$out/work/esp.img" -appended_part_as_gpt -partition_cyl_align off -partition_offset 16 \
        -e --interval:appended_partition_2:all:: -no-emul-boot "$out/work/iso" 2>"$out/work/xorriso.log" ||
        { cat "$out/work/xorriso.log" >&2; die "xorriso could not make the ISO"; }
    rm -f "$out/work/esp.img"
    publish cistern.iso
}
