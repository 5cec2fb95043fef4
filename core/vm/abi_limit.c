/*
 * The border: limits. Contracts are in abi.h.
 */
#include <string.h>

#include "vm/host.h"
#include "zone/allowance.h"

/* Those that are decided on together: one worker decides on one request after the other. */
static struct {
    struct tg_allowance allowances[TG_LIMITS];
    struct tg_abi_taken taken[TG_LIMITS];
    char keys[TG_LIMITS][TG_DICT_KEY_MAX];
} work;

static struct tg_dict *
dict_of(uint32_t index)
{
    TG_ASSERT(index < tg_host->dict_count);
    return tg_host->dicts[index].dict;
}

static struct tg_allowance_clock
clock_now(void)
{
    return (struct tg_allowance_clock){tg_loop_now(tg_host->proxy->loop), tg_abi_vm.now};
}

struct tg_abi_taken *
tg_abi_limit_taken(uint32_t place)
{
    return place < TG_LIMITS ? &work.taken[place] : NULL;
}

int
tg_abi_limit_name(uint32_t place, const struct tg_abi_limit *limit, const char *scope, size_t scope_len,
                  const char *key, size_t key_len)
{
    if (place >= TG_LIMITS || scope_len > TG_DICT_KEY_MAX || key_len > TG_DICT_KEY_MAX - scope_len) {
        return TG_EINVAL;
    }
    memcpy(work.keys[place], scope, scope_len);
    memcpy(work.keys[place] + scope_len, key, key_len);
    work.allowances[place] = (struct tg_allowance){limit, work.keys[place], scope_len + key_len};
    return TG_OK;
}

int
tg_abi_limit_take_all(uint32_t dict, uint32_t count, double cost, int charge)
{
    bool allowed = false;
    const enum tg_rc rc =
        tg_allowance_take(dict_of(dict), clock_now(), work.allowances, count, cost, charge != 0, work.taken, &allowed);
    return rc != TG_OK ? (int)rc : allowed ? 1 : 0;
}

int
tg_abi_limit_take(uint32_t dict, const struct tg_abi_limit *limit, const char *scope, size_t scope_len, const char *key,
                  size_t key_len, double cost, int charge)
{
    const int rc = tg_abi_limit_name(0, limit, scope, scope_len, key, key_len);
    return rc != TG_OK ? rc : tg_abi_limit_take_all(dict, 1, cost, charge);
}

int
tg_abi_limit_change(uint32_t dict, const struct tg_abi_limit *limit, const char *scope, size_t scope_len,
                    const char *key, size_t key_len, int change, double amount)
{
    const int rc = tg_abi_limit_name(0, limit, scope, scope_len, key, key_len);
    return rc != TG_OK ? rc
                       : (int)tg_allowance_change(dict_of(dict), clock_now(), &work.allowances[0],
                                                  (enum tg_abi_limit_change)change, amount, &tg_abi_vm.number);
}
