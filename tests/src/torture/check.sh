#!/bin/bash
# What an appliance makes of disks that were just put in.
#
#   check.sh look STATE DISKS
#                         waits for so many disks, starts cisternd, waits a while for the pool to be in that state, and tells
#                         the pools, the volumes and the sums of their files
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
case $1 in
look)
    # What a machine finds when it starts is there before its supervisor: one of two disks that came a second late would be
    # a disk that was away, and its copy would have to be brought up to date first.
    for try in {1..100}; do
        disks=(/sys/block/sd*/dev)
        [ "${#disks[@]}" -eq "$3" ] && [ -e "${disks[0]}" ] && break
        sleep 0.1
    done
    udevadm settle
    took disks
    systemctl start cisternd || { journalctl -u cisternd --no-pager -n 30; exit 1; }
    took start
    for try in {1..20}; do
        pools=$(cistern pools list -o json | tr -d '\n')
        [[ $pools == *"\"state\": \"$2\""* ]] && break
        sleep 1
    done
    echo "pools $pools"
    took pool
    # A pool is served from the moment at which its volumes begin to be brought up, and what was under way when the power
    # went is finished then. Without one of its disks such a thing may wait for it: only what failed may still change.
    changing=ready
    [ "$2" = ready ] || changing='[^f]*'
    for try in {1..20}; do
        volumes=$(cistern volumes list -o json | tr -d '\n')
        snapshots=$(cistern snapshots list -o json | tr -d '\n')
        grep -o '"state": "[^"]*"' <<<"$volumes $snapshots" | grep -qv ": \"$changing\"" || break
        sleep 1
    done
    echo "volumes $volumes"
    took volumes
    echo "snapshots $snapshots"
    for volume in /volumes/vol-*; do
        [ -d "$volume" ] || continue
        for file in "$volume"/f*; do
            [ -f "$file" ] && echo "sum ${volume##*/} ${file##*/} $(sha256sum <"$file" | cut -d' ' -f1)"
        done
    done
    took sums
    ;;
evidence)
    exec 2>&1
    set -x
    cistern volumes list
    cistern snapshots list
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
    # The server itself may stay: starting it takes as long as all the rest, and nobody has anything mounted.
    rm -f /run/cistern/exports.d/cistern.exports
    exportfs -au
    exportfs -f
    for volume in /volumes/vol-*; do umount "$volume" 2>/dev/null; done
    vgchange --quiet -an 2>/dev/null
    [ "$(ls /dev/mapper)" = control ] || { dmsetup ls; dmsetup info -c; exit 1; }
    took leave
    ;;
esac
exit 0
