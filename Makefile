# Cistern's commands. Each works on a fresh Debian 12 or 13 with Rust, and installs by itself what else it needs.

IMAGE := target/image
BINARIES := target/debug/cisternd target/debug/cistern-gate target/debug/cistern

.DEFAULT_GOAL := help
.PHONY: help demo test test-kubernetes test-nodes test-image check run image csi-image kernel image-buildroot bench torture tools build

help: ## Lists these commands.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' Makefile | column -t -s '|'

demo: image ## Boots an appliance and a client, and does the main job before your eyes.
	target/debug/demo

test: ## Runs what each change has to hold; the last line is `N passed, N failed`, with `, N skipped` on a slow machine.
	@tests/run-parts all

test-kubernetes: ## Runs the part of the tests that needs Kubernetes' own programs; Go builds them.
	@tests/run-parts tools build image peers plugin readers kubernetes

test-nodes: ## Runs what takes too long for every run of a cluster's nodes: pods on machines with a kubelet.
	@tests/run-parts tools build image peers plugin nodes

test-image: image ## Runs the scenarios, and cuts of the power, on another image: IMAGE=the folder with all its forms.
	@[ -n "$(IMAGE)" ] || { echo "make test-image: which image? IMAGE=target/buildroot/images, say" >&2; exit 2; }
	@status=0; export CISTERN_IMAGE="$(IMAGE)"; \
	for part in base storage; do target/debug/scenarios --part $$part || status=1; done; \
	target/debug/torture --cuts $(or $(CUTS),20) || status=1; exit $$status

check: ## Runs the tests that need no virtual machine.
	@tests/run-parts check

run: image ## Starts an appliance with four blank disks and puts you at its console.
	tests/run-appliance

image: build ## Makes the images in target/image.
	image/build

csi-image: tools ## Makes the container image of the Kubernetes plugin: target/image/cistern-csi-VERSION.tar.
	image/csi

kernel: tools ## Makes the kernel of buildroot-overlay's options, which `make test` then starts the image on too; half an hour.
	buildroot-overlay/kernel

image-buildroot: tools ## Makes the images from source: BUILDROOT_DIR=... [BUILDROOT_DL_DIR=...].
	@tests/install-tools file unzip wget
	@buildroot-overlay/build "$(BUILDROOT_DIR)" "$(BUILDROOT_DL_DIR)"

bench: image ## Measures, each figure beside its floor.
	target/debug/bench

torture: image ## Power cuts by the thousand, lost disks, and all that takes too long for every run; CUTS=... for more.
	CISTERN_HISTORIES=100000 CISTERN_HISTORIES_SEED=$$(date +%s%N) cargo test --locked -p cistern-engine --test engine histories
	target/debug/scenarios --part long
	for layout in mirror stripe-mirror parity double-parity; do \
		target/debug/torture --lose-a-disk --layout $$layout --cuts $(or $(LOST_CUTS),50) || exit 1; \
	done
	for layout in stripe-mirror parity double-parity; do \
		target/debug/torture --layout $$layout --cuts $(or $(LAYOUT_CUTS),48) || exit 1; \
	done
	for layers in --checksums --encryption "--checksums --encryption"; do \
		target/debug/torture $$layers --cuts $(or $(LAYER_CUTS),40) --boots 4 || exit 1; \
	done
	target/debug/torture --cuts $(or $(CUTS),1000) --boots 10

tools: # What this machine lacks, by apt.
	@tests/install-tools

build: tools # One profile for tests and image.
	tests/cargo-cached cargo build --workspace --all-targets --locked
