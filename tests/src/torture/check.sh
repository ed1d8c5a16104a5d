#!/bin/bash
# What an appliance makes of disks that were just put in.
#
#   check.sh look STATE DISKS
#                         waits for so many disks, starts cisternd, waits a while for the pool to be in that state (or, with
#                         `ready-or-none`, not to be there), and tells the pools, the volumes and the sums of their files
#   check.sh deep [compare]
#                         tells what nothing explains, reads snapshots too, has all filesystems checked and, if told to, the
#                         images of all RAID volumes compared; cisternd is stopped for it
#   check.sh where        tells which blocks of the pool volumes, snapshots and files are in
#   check.sh evidence     tells what there is to find the cause by, when something is wrong
#   check.sh leave        lets go of the disks, so that they can be taken out
#
# Lines `took WHAT MILLISECONDS` tell where the time went.
began=${EPOCHREALTIME/./}
took() {
    local now=${EPOCHREALTIME/./}
    echo "took $1 $(((now - began) / 1000))"
    began=$now
}
# Asks the supervisor. It has said that it is ready: that it does not answer for once is told too, though it is asked again.
exec 3>&1
ask() {
    local answer
    answer=$(cistern "$@" -o json 2>/run/refused) || echo "refused $*: $(tr '\n' ' ' </run/refused)" >&3
    tr -d '\n' <<<"$answer"
}
# Tells the sums of the files in a folder, which is that of this volume or snapshot; `-` of one that cannot be read.
sums() {
    local file sum
    for file in "$1"/f*; do
        [ -f "$file" ] || continue
        sum=$(sha256sum <"$file" 2>/dev/null | cut -d' ' -f1)
        echo "sum $2 ${file##*/} ${sum:--}"
    done
}
case $1 in
look)
    # What a machine finds when it starts is there before its supervisor: one of two disks that came a second late would be
    # a disk that was away, and its copy would have to be brought up to date first.
    for try in {1..100}; do
        disks=(/sys/block/[sv]d*/dev)
        [ "${#disks[@]}" -eq "$3" ] && [ -e "${disks[0]}" ] && break
        sleep 0.1
    done
    udevadm settle
    took disks
    systemctl start cisternd || { journalctl -u cisternd --no-pager -n 30; exit 1; }
    took start
    for try in {1..100}; do
        pools=$(ask pools list)
        case $2 in
        ready-or-none) [[ $pools == *'"state": "ready"'* || ${pools// /} == '[]' ]] && break ;;
        *) [[ $pools == *"\"state\": \"$2\""* ]] && break ;;
        esac
        sleep 0.3
    done
    echo "pools $pools"
    took pool
    if [ "${pools// /}" = '[]' ]; then
        echo "disks $(ask disks list)"
        echo "orphans $(ask orphans list)"
    fi
    # A pool is served from the moment at which its volumes begin to be brought up, and what was under way when the power
    # went is finished then. Without one of its disks such a thing may wait for it: only what failed may still change.
    # Snapshots come after the volumes, and their state is that of what they hold: that one is not served yet is its reason.
    changing=ready
    [ "$2" = degraded ] && changing='[^f]*'
    for try in {1..60}; do
        volumes=$(ask volumes list)
        snapshots=$(ask snapshots list)
        grep -o '"state": "[^"]*"' <<<"$volumes $snapshots" | grep -qv ": \"$changing\"" ||
            grep -q '"reason": "' <<<"$snapshots" || break
        sleep 0.3
    done
    echo "volumes $volumes"
    took volumes
    echo "snapshots $snapshots"
    while read -r path client; do
        echo "export $path ${client%%(*} $(grep -o '\<r[ow]\>' <<<"${client#*(}" | head -n1)"
    done </var/lib/nfs/etab
    for volume in /volumes/vol-*; do
        [ -d "$volume" ] && sums "$volume" "${volume##*/}"
    done
    took sums
    ;;
deep)
    echo "orphans $(ask orphans list)"
    systemctl stop cisternd
    exportfs -au
    exportfs -f
    mkdir -p /run/look
    while read -r group name; do
        mount=/volumes/$name
        case $name in
        vol-*)
            mountpoint -q "$mount" || continue
            umount "$mount" || exit 1
            # Unmounted, its log is empty, and all that is in it is where it belongs.
            if ! found=$(xfs_repair -n "/dev/$group/$name" 2>&1); then
                echo "damaged $name $(grep -v '^Phase\|^ *- ' <<<"$found" | tr '\n' ' ')"
            fi
            ;;
        snap-*)
            # One that is served.
            ! mountpoint -q "$mount" || umount "$mount" || exit 1
            # Also in a pool that lacks a disk: what it lacks was counted when it was activated.
            lvchange --quiet -ay -K --activationmode partial "$group/$name" || continue
            # Its log is replayed: one that LVM had noted and the kernel not made was made just now, of a filesystem that was
            # not at rest.
            mount -o ro,nouuid "/dev/$group/$name" /run/look && sums /run/look "$name"
            umount /run/look 2>/dev/null
            lvchange --quiet -an "$group/$name"
            ;;
        esac
    done < <(lvs --noheadings -o vg_name,lv_name)
    for raid in $([ "$2" != compare ] || dmsetup ls --target raid | cut -f1); do
        until read -r _ _ _ _ _ health _ action mismatches _ < <(dmsetup status "$raid") && [ "$action" = idle ]; do sleep 0.1; done
        # Of a volume that lacks an image there is nothing to compare.
        [[ $health == *[!A]* ]] && continue
        # Asked in the moment in which making even ends, the kernel takes the word and forgets it, and nothing differs then either. That
        # it has compared it says in its log.
        dmesg --clear
        for try in {1..5}; do
            dmsetup message "$raid" 0 check
            until read -r _ _ _ _ _ _ _ action mismatches _ < <(dmsetup status "$raid") && [ "$action" = idle ]; do sleep 0.1; done
            dmesg | grep -q 'md: .*check done' && break
            sleep 0.2
        done
        dmesg | grep -q 'md: .*check done' || { echo "the kernel does not say that it has compared $raid"; dmesg | tail; exit 1; }
        echo "uneven $raid $mismatches"
    done
    echo deep
    took deep
    ;;
where)
    pool=$(dmsetup ls | grep -o '^[^[:space:]]*-tpool')
    # One that is there already is that of a supervisor that was counting sizes when the power went.
    dmsetup message "$pool" 0 reserve_metadata_snap || {
        dmsetup message "$pool" 0 release_metadata_snap
        dmsetup message "$pool" 0 reserve_metadata_snap || exit 1
    }
    thin_dump -m "/dev/mapper/${pool%-tpool}_tmeta" | tr -d '"' | sed -n \
        -e 's/.*data_block_size=\([0-9]*\).*/block \1/p' -e 's/.*<device dev_id=\([0-9]*\) .*/device \1/p' \
        -e 's/.*<single_mapping origin_block=\([0-9]*\) data_block=\([0-9]*\) .*/map \1 \2 1/p' \
        -e 's/.*<range_mapping origin_begin=\([0-9]*\) data_begin=\([0-9]*\) length=\([0-9]*\) .*/map \1 \2 \3/p' |
        while read -r what rest; do
            case $what in
            device) device=$rest ;;
            map) echo "map $device $rest" ;;
            *) echo "$what $rest" ;;
            esac
        done
    dmsetup message "$pool" 0 release_metadata_snap
    lvs --noheadings -o thin_id,lv_name -S 'lv_name=~"^(vol|snap)-"' | while read -r number id; do
        echo "thin $number $id"
    done
    for file in /volumes/vol-*/f*; do
        [ -f "$file" ] || continue
        volume=${file%/*}
        xfs_io -r -c fiemap "$file" | sed -n "s/.*: \\([0-9]*\\)\\.\\.\\([0-9]*\\)\$/extent ${volume##*/} ${file##*/} \\1 \\2/p"
    done
    ;;
evidence)
    exec 2>&1
    set -x
    cistern volumes list
    cistern snapshots list
    cistern disks list
    cistern events
    journalctl -b --no-pager -o short-monotonic _SYSTEMD_INVOCATION_ID="$(systemctl show -P InvocationID cisternd)"
    journalctl -k -b --no-pager -o short-monotonic -n 150
    lvs -a -o name,attr,size,tags,data_percent,health_status,seg_pe_ranges
    dmsetup status
    cat /proc/mounts
    ls -la /volumes /volumes/*/
    ;;
leave)
    systemctl stop cisternd
    took stop
    # Which pools there were, and what they were served without, is of this cut's disks.
    rm -f /var/lib/cistern/engine/{left-out,pools}.json
    # The server itself may stay: starting it takes as long as all the rest, and nobody has anything mounted.
    rm -f /run/cistern/exports.d/cistern.exports
    exportfs -au
    exportfs -f
    for mount in /volumes/vol-* /volumes/snap-*; do umount "$mount" 2>/dev/null; done
    # What udev is still looking at is open.
    udevadm settle
    told=$(vgchange --quiet -an 2>&1)
    # Layers, the upper one first.
    for layer in integrity luks2; do
        for name in $(dmsetup ls | grep -o "^cistern-$layer-[^[:space:]]*"); do dmsetup remove --retry "$name"; done
    done
    [ "$(ls /dev/mapper)" = control ] || { echo "$told"; cat /proc/mounts; dmsetup ls; dmsetup info -c; exit 1; }
    took leave
    ;;
esac
exit 0
