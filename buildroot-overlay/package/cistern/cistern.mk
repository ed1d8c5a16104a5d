################################################################################
#
# cistern
#
################################################################################

CISTERN_VERSION = 0.1.0
CISTERN_LICENSE = Apache-2.0
CISTERN_LICENSE_FILES = LICENSE
CISTERN_DEPENDENCIES = host-pkgconf udev
CISTERN_DAEMONS = cisternd cistern-gate
CISTERN_LIBRARY = libcistern_writethrough.so

# The first process goes beside the images: it belongs into the initramfs, not
# into the root.
CISTERN_INSTALL_IMAGES = YES

# $(1): folder of the programs, $(2): file of cistern-init. Says what is missing
# before anything is installed.
define CISTERN_INSTALL_PROGRAMS
	for program in $(CISTERN_DAEMONS) cistern $(CISTERN_LIBRARY); do \
		test -x $(1)/$$program || { \
			echo "cistern: $(1)/$$program is missing" >&2; exit 1; }; \
	done
	$(foreach program,$(CISTERN_DAEMONS),
		$(INSTALL) -D -m 0755 $(1)/$(program) \
			$(TARGET_DIR)/usr/sbin/$(program)
	)
	$(INSTALL) -D -m 0755 $(1)/cistern $(TARGET_DIR)/usr/bin/cistern
	$(INSTALL) -D -m 0755 $(1)/$(CISTERN_LIBRARY) \
		$(TARGET_DIR)/usr/lib/cistern/$(CISTERN_LIBRARY)
endef

define CISTERN_INSTALL_FIRST_PROCESS
	test -x $(1) || { echo "cistern: $(1) is missing" >&2; exit 1; }
	if $(TARGET_READELF) -l $(1) | grep -q INTERP; then \
		echo "cistern: $(1) is not linked statically" >&2; exit 1; \
	fi
	$(INSTALL) -D -m 0755 $(1) $(BINARIES_DIR)/cistern-init
endef

ifeq ($(BR2_PACKAGE_CISTERN_PREBUILT),y)

# Nothing is fetched: the site is a folder that may hold far more than is needed.
CISTERN_SOURCE =
CISTERN_REDISTRIBUTE = NO
CISTERN_BINARIES_DIR = $(call qstrip,$(BR2_PACKAGE_CISTERN_BINARIES_DIR))
CISTERN_INIT = $(call qstrip,$(BR2_PACKAGE_CISTERN_INIT))

define CISTERN_EXTRACT_CMDS
	cp $(BR2_EXTERNAL_CISTERN_PATH)/../LICENSE $(@D)/
endef

define CISTERN_INSTALL_TARGET_CMDS
	$(call CISTERN_INSTALL_PROGRAMS,$(CISTERN_BINARIES_DIR))
endef

define CISTERN_INSTALL_IMAGES_CMDS
	$(call CISTERN_INSTALL_FIRST_PROCESS,$(CISTERN_INIT))
endef

$(eval $(generic-package))

else

CISTERN_SITE = $(call qstrip,$(BR2_PACKAGE_CISTERN_SOURCE_DIR))
CISTERN_SITE_METHOD = local
# Built things weigh gigabytes.
CISTERN_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = --exclude=/target --exclude=/VENDOR

# With the sources of all else Buildroot would pack the whole folder, what is
# built in it too.
CISTERN_REDISTRIBUTE = NO

define CISTERN_PACK_SOURCES
	mkdir -p $(CISTERN_REDIST_SOURCES_DIR)
	tar -C $(CISTERN_SITE) --exclude=./target --exclude=./VENDOR --exclude=./.git \
		--transform='s,^\.,cistern-$(CISTERN_VERSION),' -czf \
		$(CISTERN_REDIST_SOURCES_DIR)/cistern-$(CISTERN_VERSION).tar.gz .
endef
CISTERN_POST_LEGAL_INFO_HOOKS += CISTERN_PACK_SOURCES

CISTERN_VENDOR_DIR = $(call qstrip,$(BR2_PACKAGE_CISTERN_VENDOR_DIR))
CISTERN_PROFILE_DIR = $(if $(BR2_ENABLE_DEBUG),debug,release)
CISTERN_BUILT = $(@D)/target/$(RUSTC_TARGET_NAME)/$(CISTERN_PROFILE_DIR)
CISTERN_INIT_BUILT = $(@D)/target/init/$(RUSTC_TARGET_NAME)/$(CISTERN_PROFILE_DIR)

# A sum that overflows and what is asserted while testing end a request here too,
# instead of going on with a wrong number: the profile that all tests run has
# these checks, and Buildroot has them off in both of its own. The last of two settings of
# one name counts, and this comes after Buildroot's.
CISTERN_CARGO_ENV = PKG_CONFIG_ALLOW_CROSS=1 \
	$(foreach profile,DEV RELEASE, \
		CARGO_PROFILE_$(profile)_OVERFLOW_CHECKS=true \
		CARGO_PROFILE_$(profile)_DEBUG_ASSERTIONS=true)
CISTERN_CARGO_BUILD_OPTS = \
	--package cistern-daemon --package cistern-gate --package cistern-console \
	--package cistern-writethrough

# A local site skips the step that vendors crates, and the build is offline.
# Rust is there by now: it comes before this package is configured.
define CISTERN_VENDOR
	rm -rf $(@D)/VENDOR $(@D)/.cargo
	mkdir -p $(@D)/.cargo
	if [ -n "$(CISTERN_VENDOR_DIR)" ]; then \
		cp -a "$(CISTERN_VENDOR_DIR)" $(@D)/VENDOR; \
	else \
		cd $(@D) && $(TARGET_MAKE_ENV) $(PKG_COMMON_CARGO_ENV) \
			cargo vendor --locked --quiet VENDOR >/dev/null; \
	fi
	printf '[source.crates-io]\nreplace-with = "vendored"\n\n[source.vendored]\ndirectory = "VENDOR"\n' \
		>$(@D)/.cargo/config.toml
endef
CISTERN_PRE_CONFIGURE_HOOKS += CISTERN_VENDOR

# The first process runs before any library is there. Its own target folder:
# other flags, other dependencies.
define CISTERN_BUILD_INIT
	cd $(@D) && $(TARGET_MAKE_ENV) $(TARGET_CONFIGURE_OPTS) \
		$(PKG_CARGO_ENV) $(CISTERN_CARGO_ENV) \
		cargo rustc --offline --locked \
			$(if $(BR2_ENABLE_DEBUG),,--release) \
			--target-dir target/init --package cistern-init -- \
			-C target-feature=+crt-static -C relocation-model=static \
			-C panic=abort -C strip=symbols -C opt-level=s
endef
CISTERN_POST_BUILD_HOOKS += CISTERN_BUILD_INIT

# cargo install cannot install from a workspace without a package of its own.
define CISTERN_INSTALL_TARGET_CMDS
	$(call CISTERN_INSTALL_PROGRAMS,$(CISTERN_BUILT))
endef

define CISTERN_INSTALL_IMAGES_CMDS
	$(call CISTERN_INSTALL_FIRST_PROCESS,$(CISTERN_INIT_BUILT)/cistern-init)
endef

$(eval $(cargo-package))

endif
