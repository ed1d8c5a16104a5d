# The peer as a node of a cluster: a kubelet does not start on a root that is in memory, so it gets a disk. Sourced.
# shellcheck shell=bash

# What a node's disk holds: the system, the images of its pods, and their logs.
node_size=4G

# node_images ROOT: makes the images of pods that no registry needs to be asked for, all of one layer: busybox.
#   cistern.test/pause:1      what keeps a pod's namespaces (named in containerd's configuration)
#   cistern.test/workload:1   a shell
# One archive in Docker's format, which containerd's import reads.
node_images() {
    local into=$1/usr/share/node stage=$out/work/workload layer_id config name
    rm -rf "$stage"
    mkdir -p "$into" "$stage"/{layer/bin,layer/tmp,layer/etc,archive}
    chmod 1777 "$stage/layer/tmp"
    install -m 0755 "$1/usr/bin/busybox" "$stage/layer/bin/busybox"
    for name in $("$stage/layer/bin/busybox" --list); do
        [ "$name" = busybox ] || ln -s busybox "$stage/layer/bin/$name"
    done
    printf 'root:x:0:0::/:/bin/sh\n' >"$stage/layer/etc/passwd"
    archive() { tar --sort=name --mtime="@$epoch" --owner=0 --group=0 --numeric-owner -C "$1" -cf "$2" .; }
    archive "$stage/layer" "$stage/archive/layer.tar"
    layer_id=$(sha256sum "$stage/archive/layer.tar" | cut -d' ' -f1)
    image() { # NAME ENTRYPOINT
        config=$(printf '{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"],"Entrypoint":%s},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
            "$2" "$layer_id")
        printf '%s' "$config" >"$stage/archive/$1.json"
        printf '{"Config":"%s.json","RepoTags":["cistern.test/%s:1"],"Layers":["layer.tar"]}' "$1" "$1"
    }
    printf '[%s,%s]' "$(image pause '["/bin/sleep","2147483647"]')" "$(image workload '["/bin/sh"]')" >"$stage/archive/manifest.json"
    archive "$stage/archive" "$into/images.tar"
    rm -rf "$stage"
}

# node_disk ROOT FOLDER: makes FOLDER/node.qcow2, an ext4 with the root in it, and FOLDER/node-initrd, which starts from it: Debian's
# kernel has the drivers of neither disk nor filesystem built in. No loop device and no mount are needed.
node_disk() {
    local root=$1 folder=$2 version module stage=$out/work/node-initrd
    version=$(cat "$layer/version")
    rm -rf "$stage"
    mkdir -p "$stage"/{bin,modules,dev,proc,sys,sysroot} "$folder"
    install -m 0755 "$root/usr/bin/busybox" "$stage/bin/busybox"
    install -m 0755 "$here/peer/node-init" "$stage/init"
    "$here/lib/modules" order "$root/usr/lib/modules/$version" crc32c_generic virtio_blk ext4 |
        while read -r module; do
            install -m 0644 "$root/usr/lib/modules/$version/$module" "$stage/modules/${module##*/}"
            printf '/modules/%s\n' "${module##*/}" >>"$stage/modules/order"
        done
    (cd "$stage" && find . -mindepth 1 -print0 | LC_ALL=C sort -z | cpio --null --quiet -o -H newc --reproducible -R 0:0) >"$folder/node-initrd"
    rm -rf "$stage" "$out/work/node.raw"
    # Thrown away with its machine: no journal, no reserve, nothing for the guest to initialise.
    truncate -s "$node_size" "$out/work/node.raw"
    mkfs.ext4 -q -F -L node -O ^has_journal -m 0 -E lazy_itable_init=1,nodiscard -d "$root" "$out/work/node.raw"
    qemu-img convert -O qcow2 "$out/work/node.raw" "$folder/node.qcow2.new"
    mv -f "$folder/node.qcow2.new" "$folder/node.qcow2"
    rm -f "$out/work/node.raw"
}
