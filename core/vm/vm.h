/*
 * vm.h - one generation: a Lua state with the configuration and all the code of it.
 *
 * Owns: the Lua state. Counted: the worker holds the current one, each exchange the one that it began on; when the last
 * lets go the state is collected in small steps and closed. Used by: process/. Does not know: how bundles get here.
 */
#ifndef TG_VM_VM_H
#define TG_VM_VM_H

#include "vm/bundle.h"
#include "vm/coroutine.h"

/*
 * Builds the generation `serial` from a bundle; `id` is its hash as text. One reference is the caller's. NULL and
 * `err`: file, line, found and expected.
 */
struct tg_vm *tg_vm_new(struct tg_host *host, struct tg_slice bundle, uint64_t serial, const char *id,
                        struct tg_err *err);
/* The same in steps: tg_vm_build until it is not TG_AGAIN any more, until about that time of tg_loop_clock (0: to
 * the end). TG_OK: it is finished. Anything else, with `err`: it will not be. One that is not finished may only be let
 * go of. `shadow`: it will never answer, and changes nothing that others see. */
struct tg_vm *tg_vm_begin(struct tg_host *host, struct tg_slice bundle, uint64_t serial, const char *id, bool shadow,
                          struct tg_err *err);
TG_MUST_CHECK enum tg_rc tg_vm_build(struct tg_vm *vm, uint64_t until, struct tg_err *err);
void tg_vm_ref(struct tg_vm *vm);
void tg_vm_unref(struct tg_vm *vm);
/* A generation on trial has become the current one: it is started already. */
void tg_vm_promote(struct tg_vm *vm);
/* It is no longer the current one: its services end now, `stop` hooks run when nothing happens on it any more. */
void tg_vm_retire(struct tg_vm *vm, bool shutdown);
/* The generation is current from now on: its `start` hooks run. */
void tg_vm_start(struct tg_vm *vm);
/* From now on, for so many milliseconds, all that take new requests tell of those that are asked for; 0: no longer. */
void tg_vm_trace(struct tg_host *host, uint64_t serial, const char *question, uint32_t milliseconds);
/* Bytes of its Lua state; to be asked for now and then. */
size_t tg_vm_bytes(struct tg_vm *vm);
/* Collects all garbage at once, for as long as that takes; returns what is left. */
size_t tg_vm_collect(struct tg_vm *vm);

#endif
