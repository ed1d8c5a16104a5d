#!/bin/bash
# What an appliance makes of disks that were just put in.
#
#   check.sh look STATE   starts cisternd, waits a while for the pool to be in that state, and tells the pools, the
#                         volumes and the sums of their files
#   check.sh leave        lets go of the disks, so that they can be taken out
case $1 in
look)
    systemctl start cisternd || { journalctl -u cisternd --no-pager -n 30; exit 1; }
    for try in {1..20}; do
        pools=$(cistern pools list -o json | tr -d '\n')
        [[ $pools == *"\"state\": \"$2\""* ]] && break
        sleep 1
    done
    echo "pools $pools"
    # A pool is degraded from the moment at which its volumes begin to be brought up.
    for try in {1..20}; do
        volumes=$(cistern volumes list -o json | tr -d '\n')
        [[ $volumes == *'"state": "failed"'* ]] || break
        sleep 1
    done
    echo "volumes $volumes"
    echo "snapshots $(cistern snapshots list -o json | tr -d '\n')"
    for volume in /volumes/vol-*; do
        [ -d "$volume" ] || continue
        for file in "$volume"/f*; do
            [ -f "$file" ] && echo "sum ${volume##*/} ${file##*/} $(sha256sum <"$file" | cut -d' ' -f1)"
        done
    done
    ;;
leave)
    systemctl stop cisternd
    # The server itself may stay: starting it takes as long as all the rest, and nobody has anything mounted.
    rm -f /run/cistern/exports.d/cistern.exports
    exportfs -au
    exportfs -f
    for volume in /volumes/vol-*; do umount "$volume" 2>/dev/null; done
    vgchange --quiet -an 2>/dev/null
    [ "$(ls /dev/mapper)" = control ] || { dmsetup ls; dmsetup info -c; exit 1; }
    ;;
esac
exit 0
