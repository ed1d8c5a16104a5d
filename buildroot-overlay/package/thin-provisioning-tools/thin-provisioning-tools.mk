################################################################################
#
# thin-provisioning-tools
#
################################################################################

# Versions before 1.3 have an optional dependency from a git repository, which
# cannot be vendored offline.
THIN_PROVISIONING_TOOLS_VERSION = 1.3.2
THIN_PROVISIONING_TOOLS_SITE = $(call github,device-mapper-utils,thin-provisioning-tools,v$(THIN_PROVISIONING_TOOLS_VERSION))
THIN_PROVISIONING_TOOLS_LICENSE = GPL-3.0
THIN_PROVISIONING_TOOLS_LICENSE_FILES = COPYING
THIN_PROVISIONING_TOOLS_DEPENDENCIES = host-pkgconf lvm2 udev

# Buildroot packs the source and its vendored crates always alike, so that this
# archive has a sum; but nobody has made it yet who could have written that down.
# Whoever builds it first may put it into the .hash file (sha256sum prints it; the
# name ends in -cargo6.tar.gz) and take this line out. Until then the crates alone
# are compared with something, which is Cargo.lock.
BR_NO_CHECK_HASH_FOR += $(THIN_PROVISIONING_TOOLS_SOURCE)

THIN_PROVISIONING_TOOLS_LIBCLANG_DIR = $(call qstrip,$(BR2_PACKAGE_THIN_PROVISIONING_TOOLS_LIBCLANG_DIR))
ifeq ($(THIN_PROVISIONING_TOOLS_LIBCLANG_DIR),)
THIN_PROVISIONING_TOOLS_DEPENDENCIES += host-clang
THIN_PROVISIONING_TOOLS_LIBCLANG_DIR = $(HOST_DIR)/lib
endif

# bindgen asks libclang, which knows neither the target's headers nor, when it
# was moved, its own; they are found when the command runs.
THIN_PROVISIONING_TOOLS_CARGO_ENV = \
	LIBCLANG_PATH=$(THIN_PROVISIONING_TOOLS_LIBCLANG_DIR) \
	BINDGEN_EXTRA_CLANG_ARGS="--sysroot=$(STAGING_DIR) \
		$$(for dir in $(THIN_PROVISIONING_TOOLS_LIBCLANG_DIR)/clang/*/include; do \
			[ ! -d $$dir ] || echo -isystem $$dir; done)" \
	PKG_CONFIG_ALLOW_CROSS=1
THIN_PROVISIONING_TOOLS_CARGO_BUILD_OPTS = --bin pdata_tools

THIN_PROVISIONING_TOOLS_PROGRAMS = \
	cache_check cache_dump cache_metadata_size cache_repair cache_restore \
	cache_writeback era_check era_dump era_invalidate era_restore \
	thin_check thin_delta thin_dump thin_ls thin_metadata_pack \
	thin_metadata_size thin_metadata_unpack thin_migrate thin_repair \
	thin_restore thin_rmap thin_trim

# One program, called by the name of the tool.
define THIN_PROVISIONING_TOOLS_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 \
		$(@D)/target/$(RUSTC_TARGET_NAME)/$(if $(BR2_ENABLE_DEBUG),debug,release)/pdata_tools \
		$(TARGET_DIR)/usr/sbin/pdata_tools
	$(foreach program,$(THIN_PROVISIONING_TOOLS_PROGRAMS),
		ln -sf pdata_tools $(TARGET_DIR)/usr/sbin/$(program)
	)
endef

$(eval $(cargo-package))
