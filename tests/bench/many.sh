# What brings all volumes back, by the bare commands; run by bash on the appliance while cisternd is stopped.
#
# Prints `brought-up MICROSECONDS`.
set -eu
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
config='activation{udev_sync=0 udev_rules=0 verify_udev_operations=0 monitoring=0} devices{use_devicesfile=0 hints="none"} backup{backup=0 archive=0} global{system_id_source="file" system_id_file="/run/cistern/lvm-system-id" event_activation=0}'
systemctl stop cisternd nfs-server
for at in /volumes/vol-*; do umount "$at" 2>/dev/null || true; done
vgchange --config "$config" -an >/dev/null
from=${EPOCHREALTIME/./}
vgchange --config "$config" -ay >/dev/null
for at in /volumes/vol-*; do
    lv=${at##*/}
    hex=${lv#vol-}
    mount -t xfs -o noatime,nodev,nosuid,noexec,nouuid,nodiscard /dev/pool-*/"$lv" "$at"
    exportfs -o "rw,sync,no_subtree_check,no_root_squash,mp,fsid=${hex:0:8}-${hex:8:4}-${hex:12:4}-${hex:16:4}-${hex:20}" "10.0.0.0/8:$at"
done
to=${EPOCHREALTIME/./}
echo "brought-up $((to - from))"
