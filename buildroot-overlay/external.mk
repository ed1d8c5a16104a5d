################################################################################
#
# Our packages, and what Buildroot's own recipes are built with beside their
# defaults. This file is read after all packages were evaluated: a variable
# that a recipe's commands expand takes effect, a dependency needs a rule of
# its own as well.
#
################################################################################

include $(sort $(wildcard $(BR2_EXTERNAL_CISTERN_PATH)/package/*/*.mk))

# Buildroot keeps NFS state in /run/nfs. The overlay's units and tmpfiles expect
# the usual place; what must outlive a restart (the record of clients) is told
# to nfsdcld by the overlay, on the state partition. The last option wins.
NFS_UTILS_CONF_OPTS += --with-statedir=/var/lib/nfs

# LVM's own checks of thin pools run these, which are not there when it is
# configured. No --enable-udev_sync: cisternd's LVM waits for no udev link
# (udev_sync=0 in lvm.conf), and udev comes from systemd, which needs
# cryptsetup, which needs lvm2: the dependency would be a circle.
LVM2_CONF_OPTS += \
	--with-thin=internal \
	--with-thin-check=/usr/sbin/thin_check \
	--with-thin-dump=/usr/sbin/thin_dump \
	--with-thin-repair=/usr/sbin/thin_repair \
	--with-thin-restore=/usr/sbin/thin_restore

# The root is compressed with zstd; the recipe leaves it out of mkfs.erofs.
HOST_EROFS_UTILS_CONF_OPTS += --with-libzstd
HOST_EROFS_UTILS_DEPENDENCIES += host-zstd
$(HOST_EROFS_UTILS_TARGET_CONFIGURE): | host-zstd
