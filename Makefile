# Tidegate. `make help` lists the targets.

BUILD := build
GEN := $(BUILD)/gen
PREFIX ?= /usr/local
DESTDIR ?=
LUAJIT ?= luajit
PYTHON ?= /usr/bin/python3
FUZZ_SECONDS ?= 60
FUZZ_LIMIT = -max_total_time=$(FUZZ_SECONDS)
SOAK_SECONDS ?= 3600
CHANGES_SECONDS ?= 600
CHANGES_RELOADS ?= 10000

BUILD_PACKAGES := gcc make pkg-config luajit2 libluajit2-5.1-dev libevent-dev libssl-dev libpcre2-dev libhiredis-dev \
	libc-ares-dev libyaml-dev libcrypt-dev libargon2-dev zlib1g-dev libbrotli-dev libzstd-dev libexpat1-dev libnghttp2-dev
TEST_PACKAGES := $(BUILD_PACKAGES) librdkafka-dev libcmocka-dev openssl iproute2 nghttp2-client nghttp2-server testssl.sh python3-h2 python3-grpcio python3-protobuf protobuf-compiler libprotobuf-dev lua-check curl python3-pytest wrk python3-websockets python3-h11 python3-jwt python3-cryptography python3-brotli python3-zstandard nodejs chromium prometheus clang redis-server redis-sentinel redis-tools zsh groff-base etcd-server git patch
LINT_PACKAGES := $(BUILD_PACKAGES) libcmocka-dev lua-check clang-format clang-tidy
FUZZ_PACKAGES := $(BUILD_PACKAGES) clang
BENCH_PACKAGES := $(BUILD_PACKAGES) nginx haproxy wrk

PKGS := luajit libevent_core libssl libcrypto libcrypt libargon2 libpcre2-8 hiredis libcares yaml-0.1 zlib libbrotlidec libbrotlienc libzstd expat libnghttp2
# Kafka as a sink of logs, where its library is; `make KAFKA=` does without.
KAFKA ?= $(shell pkg-config --exists rdkafka 2>/dev/null && echo rdkafka)
PKGS += $(KAFKA)
SOURCES := $(filter-out core/build/%,$(wildcard core/*/*.c))
LUA_FILES := $(shell find lua -name '*.lua' -o -path 'lua/admin/assets/*' -type f | sort)
PLUGINS := $(filter-out %.spec.lua,$(wildcard plugins/*.lua))
SPECS := $(wildcard tests/unit/lua/*.spec.lua plugins/*.spec.lua)
CHECKS := $(filter-out tests/check/test_%,$(wildcard tests/check/*.py))
C_FILES := $(wildcard core/*.h core/*/*.[ch] tests/unit/*.[ch] tests/fuzz/*.[ch] tests/load/*.[ch] tests/conformance/*/*.[ch] tests/fault/*.[ch])

WARNINGS := -Wall -Wextra -Werror -Wshadow -Wmissing-prototypes
COMMON = -std=c11 -D_GNU_SOURCE $(WARNINGS) -fvisibility=hidden -fPIE -pthread -g -MMD -MP -Icore -I/usr/include/lua5.1 \
	-DTG_PREFIX='"$(PREFIX)"' $(if $(KAFKA),-DTG_KAFKA) $(shell pkg-config --cflags $(PKGS))
release_CFLAGS = $(COMMON) -O2 -D_FORTIFY_SOURCE=2 -fstack-protector-strong -flto=auto
debug_CFLAGS = $(COMMON) -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
# clang has no __SANITIZE_ADDRESS__, and without it the arenas would not be poisoned.
fuzz_CFLAGS = $(COMMON) -O1 -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined \
	-fno-sanitize-recover=undefined -D__SANITIZE_ADDRESS__=1
release_CC = $(CC)
debug_CC = $(CC)
fuzz_CC = clang
LDFLAGS := -pie -pthread -Wl,-z,relro,-z,now -Wl,--as-needed -Wl,--export-dynamic-symbol='tg_abi_*'
release_LDFLAGS := -O2 -flto=auto
debug_LDFLAGS := -fsanitize=address,undefined
LIBS = $(shell pkg-config --libs $(PKGS)) -lm

GENERATED := $(GEN)/abi_text.c $(GEN)/abi_check.c $(GEN)/lua_embed.c
OBJECTS := $(SOURCES:%.c=%.o) gen/abi_text.o gen/abi_check.o gen/lua_embed.o
LIBRARY_OBJECTS := $(filter-out core/process/main.o,$(OBJECTS))
# Not when the caller has chosen: make then shares the caller's jobs, and would warn.
JOBS = $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(shell nproc))
PYTEST = $(PYTHON) -m pytest -q -o cache_dir=$(BUILD)/pytest $(wildcard tests/check/test_*.py) tests/conformance tests/e2e tests/fault
UNIT_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/debug/unit/%,$(wildcard tests/unit/test_*.c))
FUZZ_TARGETS := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))

.PHONY: all debug deps run test unit check e2e soak changes bench lint fuzz clean help install FORCE
.DELETE_ON_ERROR:
.SECONDARY:

all: $(BUILD)/release/tidegate ## build the release binary (default)
debug: $(BUILD)/debug/tidegate ## build with AddressSanitizer and UndefinedBehaviorSanitizer

# $(1): release or debug. `flags` changes only when a flag does, so that another PREFIX reaches the program.
define variant
$(BUILD)/$(1)/tidegate: $(addprefix $(BUILD)/$(1)/,$(OBJECTS))
	@echo "  LD  $$@"
	@$$($(1)_CC) $$(LDFLAGS) $$($(1)_LDFLAGS) -o $$@ $$^ $$(LIBS)

$(BUILD)/$(1)/libtidegate.a: $(addprefix $(BUILD)/$(1)/,$(LIBRARY_OBJECTS))
	@echo "  AR  $$@"
	@rm -f $$@
	@$$(AR) rcs $$@ $$^

$(BUILD)/$(1)/flags: FORCE
	@mkdir -p $$(@D)
	@echo '$$(subst ','\'',$$($(1)_CC) $$($(1)_CFLAGS))' | cmp -s - $$@ || echo '$$(subst ','\'',$$($(1)_CC) $$($(1)_CFLAGS))' > $$@

$(BUILD)/$(1)/core/%.o: core/%.c $(BUILD)/$(1)/flags
	@mkdir -p $$(@D)
	@echo "  CC  $$<"
	@$$($(1)_CC) $$($(1)_CFLAGS) -c -o $$@ $$<

$(BUILD)/$(1)/gen/%.o: $(GEN)/%.c $(BUILD)/$(1)/flags
	@mkdir -p $$(@D)
	@echo "  CC  $$<"
	@$$($(1)_CC) $$($(1)_CFLAGS) -c -o $$@ $$<

-include $(addprefix $(BUILD)/$(1)/,$(OBJECTS:.o=.d))
endef
$(eval $(call variant,release))
$(eval $(call variant,debug))
$(eval $(call variant,fuzz))

ABI := $(wildcard core/abi*.h)
$(GEN)/abi_text.c: $(ABI) core/build/generate.lua
	@mkdir -p $(@D)
	@$(LUAJIT) core/build/generate.lua text core/abi.h $@

$(GEN)/abi_check.c: $(ABI) core/build/generate.lua
	@mkdir -p $(@D)
	@$(LUAJIT) core/build/generate.lua check core/abi.h $@

$(GEN)/lua_embed.c: $(LUA_FILES) core/build/generate.lua
	@mkdir -p $(@D)
	@$(LUAJIT) core/build/generate.lua embed $@ $(LUA_FILES)

# The whole archive: nothing but ffi.C asks for the tg_abi_ functions, and it asks too late for the linker.
$(BUILD)/debug/unit/%: tests/unit/%.c $(BUILD)/debug/libtidegate.a
	@mkdir -p $(@D)
	@echo "  CC  $<"
	@$(CC) $(debug_CFLAGS) -MF $@.d -MT $@ $(LDFLAGS) $(debug_LDFLAGS) -o $@ $< \
		-Wl,--whole-archive $(BUILD)/debug/libtidegate.a -Wl,--no-whole-archive $(LIBS) $(shell pkg-config --libs cmocka)

-include $(UNIT_TESTS:=.d)

# $(1): packages. Asks apt only for what is missing.
define install_packages
	@missing=""; for p in $(1); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
		as_root=""; [ "$$(id -u)" = 0 ] || as_root=sudo; \
		$$as_root apt-get update -q && DEBIAN_FRONTEND=noninteractive $$as_root apt-get install -q -y --no-install-recommends $$missing; \
	fi
endef

deps: ## install what the build needs (apt)
	$(call install_packages,$(BUILD_PACKAGES))

run: deps ## set up, build, and run the quickstart on port 8080
	@$(MAKE) --no-print-directory all
	@echo "The quickstart answers on port 8080. Try:"
	@echo "  curl -i localhost:8080/orders/7 -H 'X-Api-Key: demo-key'"
	@echo "  curl -i localhost:8080/home -H 'X-Api-Key: demo-key'"
	@echo "  curl -i localhost:8080/users/1"
	@exec $(BUILD)/release/tidegate run --watch --config examples/quickstart/gateway.lua

# Other people's clients that Debian does not package. A nodejs that brings its own npm conflicts with Debian's.
tests/npm/node_modules/.package-lock.json: tests/npm/package-lock.json
	$(if $(shell command -v npm),,$(call install_packages,npm))
	@cd tests/npm && npm ci --silent --ignore-scripts --no-audit --no-fund && touch node_modules/.package-lock.json

test: ## set up, build, and run all checks and tests
	$(call install_packages,$(TEST_PACKAGES))
	@$(MAKE) --no-print-directory tests/npm/node_modules/.package-lock.json
	@$(MAKE) --no-print-directory $(BUILD)/kernel/done
	@$(MAKE) --no-print-directory $(JOBS) all debug
	@$(MAKE) --no-print-directory check
	@$(MAKE) --no-print-directory $(JOBS) unit
	@$(MAKE) --no-print-directory fuzz FUZZ_LIMIT="-seed=1 -runs=4000"
	@$(MAKE) --no-print-directory e2e
	@$(MAKE) --no-print-directory soak SOAK_SECONDS=20
	@$(MAKE) --no-print-directory changes CHANGES_SECONDS=20 CHANGES_RELOADS=100

check: ## the project's own rules: layers, sizes, banned functions, documents
	@for c in $(CHECKS); do $(PYTHON) $$c || exit 1; done
	luacheck -q lua plugins examples core/build tests/unit/lua

unit: $(UNIT_TESTS) ## unit tests of the core, under the sanitizers
	@for t in $(UNIT_TESTS); do $$t || exit 1; done

# Another kernel than the one below, for tests that start a machine of their own. It is unpacked, not installed.
$(BUILD)/kernel/done:
	$(call install_packages,qemu-system-x86 busybox-static)
	@apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1 || { [ "$$(id -u)" = 0 ] || as_root=sudo; $$as_root apt-get update -q; }
	@rm -rf $(@D) && mkdir -p $(@D) && cd $(@D) && \
		apt-get download -q $$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: //p' | head -n 1) && \
		dpkg -x *.deb . && rm *.deb && touch done

# Many tests have a time in them, which a machine that stands still for a moment breaks: what fails has to fail twice, the second time alone.
e2e: all debug $(BUILD)/kernel/done ## specs of the plugins and tests with other people's clients, against real gateways
	$(if $(SPECS),$(BUILD)/debug/tidegate test $(SPECS))
	@$(PYTEST) || { [ $$? = 1 ] && $(PYTEST) --last-failed; }

soak: all ## half load with one percent of faults of each kind for SOAK_SECONDS
	$(PYTHON) tests/load/soak.py --seconds $(SOAK_SECONDS)

changes: all ## reloads of all kinds under load while workers are killed, for CHANGES_SECONDS, then CHANGES_RELOADS more
	$(PYTHON) tests/load/changes.py --seconds $(CHANGES_SECONDS) --reloads $(CHANGES_RELOADS)

bench: ## CPU per request beside nginx and HAProxy, as ratios
	$(call install_packages,$(BENCH_PACKAGES))
	@$(MAKE) --no-print-directory all
	$(PYTHON) tests/load/bench.py $(BENCH_ARGS)

lint: ## clang-format, clang-tidy and luacheck
	$(call install_packages,$(LINT_PACKAGES))
	@$(MAKE) --no-print-directory $(GENERATED)
	clang-format --dry-run -Werror $(C_FILES)
	clang-tidy --quiet $(SOURCES) -- -std=c11 -D_GNU_SOURCE $(if $(KAFKA),-DTG_KAFKA) -Icore -I/usr/include/lua5.1 $(shell pkg-config --cflags $(PKGS))
	luacheck -q lua plugins examples core/build tests/unit/lua

$(BUILD)/fuzz/fuzz_%: tests/fuzz/fuzz_%.c $(BUILD)/fuzz/libtidegate.a
	@mkdir -p $(@D)
	@echo "  CC  $<"
	@$(fuzz_CC) $(fuzz_CFLAGS) -MF $@.d -MT $@ $(LDFLAGS) -fsanitize=fuzzer,address,undefined -o $@ $< \
		-Wl,--whole-archive $(BUILD)/fuzz/libtidegate.a -Wl,--no-whole-archive $(LIBS)

-include $(FUZZ_TARGETS:=.d)

# What the fuzzer finds stays in build/; what is worth keeping is copied into the corpus by hand, under a name.
# Without a limit of resident memory there is no thread that watches it, whose own allocations fuzz_h2 could take for a leak.
fuzz: ## rerun the corpus of each fuzz target, then fuzz it for FUZZ_SECONDS
	$(call install_packages,$(FUZZ_PACKAGES))
	@$(MAKE) --no-print-directory -s $(JOBS) $(FUZZ_TARGETS)
	@for t in $(FUZZ_TARGETS); do \
		n=$${t##*/fuzz_}; new=$(BUILD)/fuzz/corpus/$$n; kept=tests/fuzz/corpus/$$n; log=$(BUILD)/fuzz/$$n.log; mkdir -p $$new; \
		options="-timeout=10 -rss_limit_mb=0 -malloc_limit_mb=2048 -verbosity=0 -artifact_prefix=$(BUILD)/fuzz/$$n-"; \
		[ ! -f tests/fuzz/dict/$$n.dict ] || options="$$options -dict=tests/fuzz/dict/$$n.dict"; \
		echo "  FUZZ $$n"; \
		{ $$t $$options $$kept/* && $$t $$options $(FUZZ_LIMIT) $$new $$kept; } > $$log 2>&1 || { cat $$log; exit 1; }; \
	done

# Only the table is generated: the text around it is ours. Forced: git does not keep the times that make compares.
plugins/README.md: FORCE $(BUILD)/release/tidegate
	@mkdir -p $(GEN)
	@$(BUILD)/release/tidegate doc --table > $(GEN)/plugins.md
	@awk -v table=$(GEN)/plugins.md '/^\| plugin /{while ((getline row < table) > 0) print row; skip = 1} \
		skip && /^\|/{next} {skip = 0; print}' $@ > $(GEN)/README.md
	@cp $(GEN)/README.md $@

install: all ## install into DESTDIR and PREFIX
	install -D -m 755 $(BUILD)/release/tidegate $(DESTDIR)$(PREFIX)/bin/tidegate
	install -d $(DESTDIR)$(PREFIX)/share/tidegate/plugins $(DESTDIR)$(PREFIX)/share/doc/tidegate
	install -d $(addprefix $(DESTDIR)$(PREFIX)/share/,man/man1 bash-completion/completions zsh/site-functions)
	install -m 644 $(PLUGINS) $(DESTDIR)$(PREFIX)/share/tidegate/plugins/
	$(BUILD)/release/tidegate doc --man > $(DESTDIR)$(PREFIX)/share/man/man1/tidegate.1
	$(BUILD)/release/tidegate completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/tidegate
	$(BUILD)/release/tidegate completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_tidegate
	cp -r examples $(DESTDIR)$(PREFIX)/share/tidegate/
	install -m 644 README.md LICENSE $(DESTDIR)$(PREFIX)/share/doc/tidegate/

clean: ## remove all that was built
	rm -rf $(BUILD)

help: ## list the targets
	@sed -n 's/^\([a-z0-9]*\):.*## \(.*\)/\1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
		while IFS='|' read -r name text; do printf '  %-8s %s\n' "$$name" "$$text"; done
