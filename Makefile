# SPDX-License-Identifier: Apache-2.0
# Everything a contributor types. Each target installs what it needs on Debian 12: packages with apt, Python tools
# in .venv; a second call finds them there. On other systems install the equivalent packages, then call `make APT=: ...`.

# Debian's own interpreter, because the package python3-dev has its headers.
PYTHON ?= /usr/bin/python3
APT ?= tools/apt.sh
VENV := .venv
BIN := $(VENV)/bin
export DEBIAN_FRONTEND := noninteractive

BUILD_PACKAGES := clang llvm gcc libc6-dev libbpf-dev libelf-dev zlib1g-dev pkg-config python3-dev python3-venv
NETNS_PACKAGES := iproute2 iputils-ping util-linux ethtool procps nftables
VM_PACKAGES := qemu-system-x86 qemu-system-common busybox-static kmod
LINT_PACKAGES := clang-format
WHEEL_PACKAGES := mmdebstrap util-linux
GIT_PACKAGES := git
FULL_PACKAGES := tshark

SOURCES := $(shell find csrc -name '*.[ch]') csrc/binding/build_ext.py setup.py
C_FILES := $(filter csrc/%.c csrc/%.h,$(SOURCES)) $(shell find tests -name '*.c')
# The files csrc/binding/*.cdef.h are in cffi's dialect, which clang-format can read as C.
C_WARNINGS := -Wall -Wextra -Werror -fsyntax-only -Icsrc/include
PYTEST := $(BIN)/python -m pytest

.PHONY: demo test test-unit test-bpf test-netns test-crash test-mutants test-sanitized test-vm test-full
.PHONY: crash fuzz mutants bench bench-vm wheel clean
.PHONY: lint lint-format lint-types lint-imports lint-c lint-commits format
.PHONY: root build-packages netns-packages vm-packages lint-packages wheel-packages git-packages full-packages

demo: root $(VENV)/built netns-packages
	$(BIN)/python examples/two_hosts.py

# The first two wait for the kernel most of their time, so the others run beside them; the last takes two processors.
TIERS := test-netns-1 test-netns-2 test-unit test-bpf wheel test-crash fuzz test-mutants test-sanitized test-vm

# Every tier runs, also after a failed one; a tier's output comes in one piece. What they need is made before, and not
# looked at again: while make prepares a tier it would begin later ones that need less, the last beside the first two.
test: root $(VENV)/built $(VENV)/wheel-tools netns-packages vm-packages git-packages wheel-packages
	@$(MAKE) --no-print-directory --keep-going --jobs=3 --output-sync=target $(^:%=--old-file=%) $(TIERS)

test-unit: $(VENV)/built git-packages
	$(PYTEST) tests/unit

test-bpf: root $(VENV)/built netns-packages
	$(PYTEST) tests/bpf

# One of the examples starts a VM.
test-netns: root $(VENV)/built netns-packages vm-packages
	$(PYTEST) tests/netns

# One half of it.
test-netns-%: root $(VENV)/built netns-packages vm-packages
	MIZARNET_TEST_PART=$*/2 $(PYTEST) tests/netns

# A fault at every system call of every verb: all of them, or a different tenth every day.
crash: root $(VENV)/built netns-packages
	$(BIN)/python -m tests.crash

test-crash: root $(VENV)/built netns-packages
	$(BIN)/python -m tests.crash --share 10

test-vm: root $(VENV)/built netns-packages vm-packages
	$(BIN)/python tests/vm/suite.py

# Each tier at its full depth. A tier that passed at this commit is not run again.
test-full: root $(VENV)/built $(VENV)/wheel-tools netns-packages vm-packages git-packages wheel-packages full-packages
	$(BIN)/python tools/full.py

# Tests the binding under the compiler's sanitizers, in a copy of the package below build/.
test-sanitized: root $(VENV)/built netns-packages
	$(BIN)/python tools/sanitized.py

# Compares the programs with the model in plain Python: N cases of each, the same ones for the same SEED.
N ?= 1000000
SEED ?= 1
fuzz: root $(VENV)/built
	$(BIN)/python -m tests.fuzz --cases $(N) --seed $(SEED)

# Seeded bugs in the programs, which fixtures and fuzz must notice: all of them, or a different tenth every day.
mutants: root $(VENV)/built
	$(BIN)/python -m tests.mutants

test-mutants: root $(VENV)/built
	$(BIN)/python -m tests.mutants --share 10

bench: root $(VENV)/built netns-packages
	$(BIN)/python tests/bench/import_time.py
	$(BIN)/python -m tests.bench.cold_start
	$(BIN)/python -m tests.bench.counts
	$(BIN)/python tests/bench/netlink_cost.py
	$(BIN)/python tests/bench/links.py
	chrt -f 10 $(BIN)/python -m tests.bench.endpoints
	chrt -f 10 $(BIN)/python -m tests.bench.plan
	chrt -f 10 $(BIN)/python -m tests.bench.loop_lag
	$(BIN)/python -m tests.bench.crowd
	$(BIN)/python -m tests.bench.tables
	$(BIN)/python -m tests.bench.storm
	$(BIN)/python -m tests.bench.events
	$(BIN)/python -m tests.bench.explain
	$(BIN)/python -m tests.bench.bounces
	$(BIN)/python -m tests.bench.suite --report

# By instructions, beside peers that this machine's kernel may lack.
bench-vm: root $(VENV)/built netns-packages vm-packages
	$(BIN)/python -m tests.bench.suite_vm

lint:
	@$(MAKE) --no-print-directory --keep-going lint-format lint-types lint-imports lint-c lint-commits

lint-format: $(VENV)/lint-tools
	@mkdir -p build
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/python tools/gen_abi.py --check
	$(BIN)/python tools/verdict_pages.py --check
	$(BIN)/towncrier build --draft >build/changelog.md

# The last line checks that every public name is annotated.
lint-types: $(VENV)/built $(VENV)/lint-tools
	$(BIN)/mypy
	$(BIN)/pyright
	PYTHONPATH=$(CURDIR) $(BIN)/pyright --verifytypes mizarnet --ignoreexternal
	$(BIN)/python tools/snippets.py

lint-imports: $(VENV)/built $(VENV)/lint-tools
	$(BIN)/lint-imports

# The BPF objects are compiled with warnings as errors whenever they are built; here each of their files by itself.
lint-c: $(VENV)/tools lint-packages
	clang-format --dry-run --Werror $(C_FILES)
	$(BIN)/python setup.py --quiet check_bpf
	gcc $(C_WARNINGS) -x c csrc/include/mizarnet/abi.h
	gcc $(C_WARNINGS) -D_GNU_SOURCE $$(pkg-config --cflags libbpf) csrc/binding/shim.c

lint-commits: git-packages
	$(PYTHON) tools/check_subjects.py

format: $(VENV)/lint-tools lint-packages
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
	clang-format -i $(C_FILES)

# What is handed out, in dist. Without --smoke it takes no root.
wheel: root $(VENV)/wheel-tools git-packages wheel-packages
	$(BIN)/python tools/wheel.py --smoke

clean:
	rm -rf build dist $(VENV) mizarnet.egg-info mizarnet/_objects mizarnet/_kernel/bpf/_ext.abi3.so

# -- prerequisites of the targets above

root:
	@[ "$$(id -u)" = 0 ] || { echo "Only root may make network namespaces and load BPF: try sudo make" >&2; exit 1; }

build-packages:
	@$(APT) $(BUILD_PACKAGES)

netns-packages:
	@$(APT) $(NETNS_PACKAGES)

vm-packages:
	@$(APT) $(VM_PACKAGES)

lint-packages:
	@$(APT) $(LINT_PACKAGES)

wheel-packages:
	@$(APT) $(WHEEL_PACKAGES)

git-packages:
	@$(APT) $(GIT_PACKAGES)

full-packages:
	@$(APT) $(FULL_PACKAGES)

# pip knows dependency groups since 25.1; Debian 12 brings 23.0.
$(VENV)/tools: pyproject.toml | build-packages
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --group build --group test
	@touch $@

$(VENV)/lint-tools: $(VENV)/tools
	$(BIN)/pip install --quiet --group lint
	@touch $@

$(VENV)/wheel-tools: $(VENV)/tools
	$(BIN)/pip install --quiet --group wheel
	@touch $@

# Without build isolation, so that extension and BPF objects are rebuilt in place with the tools above. The last file
# has the version, which the metadata repeat. setuptools warns of every editable installation, whatever is in it.
$(VENV)/built: $(VENV)/tools $(SOURCES) mizarnet/__init__.py
	PYTHONWARNINGS='ignore:Editable installation' $(BIN)/pip install --quiet --no-build-isolation --editable .
	@touch $@
