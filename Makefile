# SPDX-License-Identifier: GPL-2.0-or-later
#
# dm-vhdclone: the kernel module, the tool, and their tests.  "make help" lists
# the targets.  kernel/Kbuild is kbuild's; this file is never read by it.

MAKEFLAGS	+= --no-print-directory

PREFIX		?= /usr/local
COMPLETIONDIR	?= $(PREFIX)/share/bash-completion/completions
UDEVDIR		?= $(PREFIX)/lib/udev/rules.d
UNITDIR		?= $(PREFIX)/lib/systemd/system
DKMSDIR		?= /usr/src

INSTALL		?= install

# Everything that is built comes to lie here, so that the tree stays clean.
# Not called O: kbuild would take that for its own.
BUILD		?= build
out		:= $(abspath $(BUILD))

# The kernel to build for: the running one, else the newest Debian kernel whose
# headers are installed.  Not :=, because the headers may be installed only by
# the "deps" of the same run.
KVER		?= $(shell uname -r)
KDIR		?= $(firstword $(shell \
	ls -d /lib/modules/$(KVER)/build/ /usr/src/linux-headers-$(KVER)/ \
		2>/dev/null; \
	ls -d /usr/src/linux-headers-*[0-9]-amd64/ 2>/dev/null | sort -rV))
MODULE_DIR	?= $(out)/module

# NODEPS=1 leaves the installed packages alone (DKMS, other distributions).
deps		:= $(if $(NODEPS),:,tests/vm/deps)

all: module tool

help:
	@echo 'make [all]         module and tool, into $(BUILD)/'
	@echo 'make module        $(BUILD)/dm-vhdclone.ko, for KDIR (KVER)'
	@echo 'make tool          $(BUILD)/vhdclone'
	@echo 'make demo          the main job, shown in an embedded guest'
	@echo 'make check         all tests (SUITES="lint cli" for some)'
	@echo 'make bench         what an I/O costs (BENCH="first.* fsync.*" for some cases;'
	@echo '                   DEV=/dev/... on that device, whose content is lost)'
	@echo 'make check-long    what takes hours: long runs, with a table in the end'
	@echo 'make fuzz          the fuzzers (RUNS=10000000: so many executions)'
	@echo 'make check-crash   power cuts: 10,000 crash points, half an hour'
	@echo 'make lint          static checks alone'
	@echo 'make install       tool and man pages (DESTDIR=, PREFIX=)'
	@echo 'make modules_install  the module, for KDIR (DESTDIR=)'
	@echo 'make dkms_install  source of the module for DKMS, to $(DKMSDIR)'
	@echo 'make deps          the packages for building'
	@echo 'make clean         what was built; distclean: logs and the rest too'
	@echo
	@echo 'On Debian, as root, each target installs the packages it needs;'
	@echo 'with NODEPS=1 none does.'

deps:
	@$(deps) build

# kbuild writes beside the sources: give it links to them in a place of its own.
module: deps
	@[ -n "$(KDIR)" ] || { echo 'no kernel headers: set KDIR' >&2; exit 1; }
	@mkdir -p $(MODULE_DIR)/kernel
	@find $(MODULE_DIR) -xtype l -delete
	@ln -sfnr include $(MODULE_DIR)/include
	@ln -sfr kernel/K* kernel/*.[ch] $(MODULE_DIR)/kernel
	$(MAKE) -C $(KDIR) M=$(MODULE_DIR)/kernel $(KFLAGS) modules
	@cp $(MODULE_DIR)/kernel/dm-vhdclone.ko $(out)/

# Whether it is up to date is for the makefile in there to know.
tool: $(BUILD)/vhdclone
$(BUILD)/vhdclone: deps
	$(MAKE) -C userspace O=$(out)

# A kernel that came as a package brings no key to sign with.
modules_install: module
	$(MAKE) -C $(KDIR) M=$(MODULE_DIR)/kernel INSTALL_MOD_PATH=$(DESTDIR) \
		$(if $(DESTDIR),DEPMOD=true) \
		$(if $(wildcard $(KDIR)/certs/signing_key.pem),,CONFIG_MODULE_SIG_ALL=) \
		modules_install

# Completion, udev rules and units are installed as soon as there are any.
install: tool
	$(MAKE) -C userspace O=$(out) install
	@set -e; put() { \
		for f in $$2; do \
			[ ! -f "$$f" ] || $(INSTALL) -v -D -m 644 "$$f" \
				"$(DESTDIR)$$1/$${f##*/}"; \
		done; \
	}; \
	put $(COMPLETIONDIR) 'userspace/completion/vhdclone'; \
	put $(UDEVDIR) 'userspace/udev/*.rules'; \
	put $(UNITDIR) 'userspace/systemd/*.service'

# What DKMS needs to build the module, and no more.
dkms_install: version = $(shell sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' dkms.conf)
dkms_install: dir = $(DESTDIR)$(DKMSDIR)/vhdclone-$(version)
dkms_install:
	$(INSTALL) -d $(dir)/kernel $(dir)/include
	$(INSTALL) -m 644 dkms.conf Makefile $(dir)
	$(INSTALL) -m 644 kernel/K* kernel/*.[ch] $(dir)/kernel
	$(INSTALL) -m 644 include/*.h $(dir)/include

lint:
	@tests/lint/run

check:
	@tests/check $(SUITES)

check-long:
	@tests/check -l $(SUITES)

fuzz:
	@tests/fuzz/run $(RUNS)

check-crash:
	@tests/vm/deps all
	@tests/crash/run --long

demo:
	@tests/demo/run

bench:
	@tests/bench/run $(if $(DEV),--dev $(DEV)) $(if $(TWICE),--twice) $(BENCH)

clean:
	rm -rf $(MODULE_DIR) $(BUILD)/dm-vhdclone.ko $(BUILD)/lint
	@[ ! -f userspace/Makefile ] || $(MAKE) -C userspace O=$(out) clean

distclean:
	rm -rf $(BUILD)

.PHONY: all help deps module tool modules_install install dkms_install \
	lint check check-long check-crash fuzz bench demo clean distclean
