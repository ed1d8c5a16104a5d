# The bare commands beside which `make bench` puts the API: run by bash on the appliance, by hand, so to say. The options
# are cisternd's own (appliance/host/src/linux/lvm/args.rs and filesystems.rs); a test compares the configuration.
#
#   bare.sh make VG COUNT CLIENT    makes volumes 1 to COUNT, mounted and exported
#   bare.sh remove VG COUNT CLIENT  takes them away
#   bare.sh copy VG COUNT CLIENT    of each: a snapshot, a writable copy that is mounted and exported; then it is enlarged
#   bare.sh uncopy VG COUNT CLIENT  takes the snapshots and the copies away
#   bare.sh snap VG NAME CLIENT     one snapshot of the volume of this name, gone again afterwards
#
# Prints `NAME MICROSECONDS` for each step of each volume, and for the whole as `create` and `delete`.
set -eu
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
config='config{checks=0} devices{use_devicesfile=0 hints="none" scan_lvs=0 obtain_device_list_from_udev=0 external_device_info_source="none" issue_discards=0 global_filter=["r|^/dev/loop|","r|^/dev/ram|","r|^/dev/zram|","r|^/dev/sr|","r|^/dev/fd|","r|^/dev/nbd|"]} backup{backup=0 archive=0} activation{udev_sync=0 udev_rules=0 verify_udev_operations=0 monitoring=0 reserved_memory=16384} global{system_id_source="file" system_id_file="/run/cistern/lvm-system-id" event_activation=0 use_lvmpolld=0 notify_dbus=0 io_memory_size=32768}'
size=$((300 << 20))
what=$1 vg=$2 count=$3 client=$4
top=/run/bench/volumes

# Runs a command and says how long it took.
step() {
    local name=$1 from=${EPOCHREALTIME/./} to
    shift
    "$@" >/dev/null
    to=${EPOCHREALTIME/./}
    echo "$name $((to - from))"
}

make() {
    local lv=bare-$1 at=$top/$1 from=${EPOCHREALTIME/./} to
    local uuid
    step lvcreate lvcreate --config "$config" --type thin --activate y --setactivationskip n --wipesignatures n \
        --virtualsize ${size}b --name "$lv" --thinpool "$vg/data"
    step mkfs.xfs mkfs.xfs -q -K -b size=4096 -s size=4096 \
        -m crc=1,finobt=1,rmapbt=1,reflink=1,bigtime=1,inobtcount=1 -d size=$size,agcount=2,noalign \
        -i size=512,sparse=1,nrext64=1,exchange=0 -n version=2,ftype=1,parent=0 \
        -l internal=1,version=2,lazy-count=1 "/dev/$vg/$lv"
    mkdir -p "$at"
    step mount mount -t xfs -o noatime,nodev,nosuid,noexec,nodiscard "/dev/$vg/$lv" "$at"
    uuid=$(</proc/sys/kernel/random/uuid)
    step exportfs exportfs -o "rw,sync,no_subtree_check,no_root_squash,mp,fsid=$uuid" "$client:$at"
    to=${EPOCHREALTIME/./}
    echo "create $((to - from))"
    # What cisternd does beside that, because it answers for the pool: it asks how full it is, and notes the end.
    step usage dmsetup status --noflush --target thin-pool
    step tag lvchange --config "$config" --addtag bench.state=ready "$vg/$lv"
}

copy() {
    local lv=bare-$1 at=$top/copy-$1 from to uuid
    step snapshot lvcreate --config "$config" --snapshot --setactivationskip y --name "$lv-s" "$vg/$lv"
    mkdir -p "$at"
    from=${EPOCHREALTIME/./}
    lvcreate --config "$config" --snapshot --activate y --setactivationskip n --name "$lv-c" "$vg/$lv" >/dev/null
    mount -t xfs -o noatime,nodev,nosuid,noexec,nouuid,nodiscard "/dev/$vg/$lv-c" "$at"
    uuid=$(</proc/sys/kernel/random/uuid)
    exportfs -o "rw,sync,no_subtree_check,no_root_squash,mp,fsid=$uuid" "$client:$at"
    to=${EPOCHREALTIME/./}
    echo "clone $((to - from))"
    from=${EPOCHREALTIME/./}
    lvextend --config "$config" --size $((size + (100 << 20)))b "$vg/$lv" >/dev/null
    xfs_growfs -D $(((size + (100 << 20)) / 4096)) "$top/$1" >/dev/null
    to=${EPOCHREALTIME/./}
    echo "expand $((to - from))"
}

uncopy() {
    release "$top/copy-$1"
    lvremove --config "$config" --yes "$vg/bare-$1-c" "$vg/bare-$1-s" >/dev/null
}

# For a moment that somebody else watches: nothing but the snapshot.
snap() {
    step snapshot lvcreate --config "$config" --snapshot --setactivationskip y --name bare-watched "$vg/$1"
    lvremove --config "$config" --yes "$vg/bare-watched" >/dev/null
}

remove() {
    local lv=bare-$1 at=$top/$1 from=${EPOCHREALTIME/./} to
    release "$at"
    step lvremove lvremove --config "$config" --yes "$vg/$lv"
    to=${EPOCHREALTIME/./}
    echo "delete $((to - from))"
}

release() {
    local at=$1 tries=0
    # Two flushes of the kernel's cache in one second, and the mount is held for up to half a minute.
    while [ "$(</proc/net/rpc/nfsd.export/flush)" -ge "$EPOCHSECONDS" ]; do sleep 0.01; done
    step exportfs-u exportfs -u "$client:$at"
    # What nfsd was told to let go of closes a moment later.
    until umount "$at" 2>/dev/null; do
        tries=$((tries + 1))
        if [ $tries -ge 50 ]; then
            umount "$at" || true
            grep . /proc/net/rpc/nfsd.export/content /proc/net/rpc/nfsd.fh/content /proc/fs/nfsd/filecache \
                /proc/fs/nfsd/clients/*/info || true
            exit 1
        fi
        sleep 0.04
    done
    rmdir "$at"
}

case $what in
snap) snap "$count" ;;
*) for ((n = 1; n <= count; n++)); do "$what" "$n"; done ;;
esac
