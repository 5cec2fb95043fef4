/*
 * The border: limits, and what clients are told of them. Contracts are in abi.h.
 */
#include <math.h>
#include <string.h>

#include "http/edits.h"
#include "vm/coroutine.h"
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

/* ------------------------------------------------------------------ what clients are told */

static const size_t DIGITS = 20; /* of a number at most */

static void
push(struct tg_exchange *x, struct tg_told *told)
{
    told->next = x->told;
    x->told = told;
}

int
tg_abi_tell(struct tg_abi_exchange *abi, const char *name, size_t name_len, const char *value, size_t value_len)
{
    struct tg_exchange *x = tg_exchange_of(abi);
    if (name_len > UINT16_MAX || value_len > UINT32_MAX || !tg_is_token(name, name_len) ||
        !tg_is_value(value, value_len)) {
        return TG_EINVAL;
    }
    const struct tg_field field = tg_field_of(tg_slice_of(name, name_len), tg_slice_of(value, value_len));
    if ((field.flags & (TG_FIELD_FRAMING | TG_FIELD_HOP)) != 0) {
        return TG_EINVAL;
    }
    struct tg_told *told = tg_arena_alloc(&x->arena, sizeof *told + name_len + value_len);
    if (told == NULL) {
        return TG_ENOMEM;
    }
    told->field = field;
    tg_field_keep(&told->field, (char *)(told + 1));
    push(x, told);
    return TG_OK;
}

/* At most DIGITS of them. */
static char *
put_number(char *p, double value)
{
    char digits[20];
    size_t n = sizeof digits;
    uint64_t left = value < 1 ? 0 : value < 1e18 ? (uint64_t)value : (uint64_t)1e18;
    do {
        digits[--n] = (char)('0' + left % 10);
        left /= 10;
    } while (left != 0);
    memcpy(p, digits + n, sizeof digits - n);
    return p + sizeof digits - n;
}

static double
rounded_up(double value)
{
    return value >= 1e18 ? value : ceil(value);
}

static char *
put_text(char *p, const char *text, size_t n)
{
    memcpy(p, text, n);
    return p + n;
}

enum names { POLICY, LIMIT, X_LIMIT, X_REMAINING, X_RESET, NAMES };

/* Their hashes are those of the names, which are the same in each exchange. */
static const struct tg_field *
field_named(enum names name)
{
    static const struct tg_slice names[NAMES] = {
        [POLICY] = TG_SLICE("RateLimit-Policy"),   [LIMIT] = TG_SLICE("RateLimit"),
        [X_LIMIT] = TG_SLICE("X-RateLimit-Limit"), [X_REMAINING] = TG_SLICE("X-RateLimit-Remaining"),
        [X_RESET] = TG_SLICE("X-RateLimit-Reset"),
    };
    static struct tg_field fields[NAMES];
    if (fields[name].name == NULL) {
        fields[name] = tg_field_of(names[name], TG_SLICE(""));
        fields[name].flags = TG_FIELD_SET;
    }
    return &fields[name];
}

static void
tell(struct tg_exchange *x, struct tg_told *told, enum names name, const char *value, const char *end)
{
    told->field = *field_named(name);
    told->field.value = value;
    told->field.value_len = (uint32_t)(end - value);
    push(x, told);
}

static int
tell_draft(struct tg_exchange *x, const struct tg_abi_taken *taken, const char *policy, size_t policy_len,
           const char *title, size_t title_len)
{
    struct tg_told *told = tg_arena_alloc(&x->arena, 2 * sizeof *told + title_len + 6 + 2 * DIGITS);
    if (told == NULL) {
        return TG_ENOMEM;
    }
    char *value = (char *)(told + 2);
    char *p = put_number(put_text(put_text(value, title, title_len), ";r=", 3), taken->left);
    p = put_number(put_text(p, ";t=", 3), rounded_up(taken->reset));
    tell(x, told, LIMIT, value, p);
    tell(x, told + 1, POLICY, policy, policy + policy_len);
    return TG_OK;
}

static int
tell_x(struct tg_exchange *x, const struct tg_abi_taken *taken, double rate)
{
    const double values[] = {rate, taken->left, rounded_up(taken->reset)};
    struct tg_told *told = tg_arena_alloc(&x->arena, 3 * (sizeof *told + DIGITS));
    if (told == NULL) {
        return TG_ENOMEM;
    }
    char *value = (char *)(told + 3);
    for (unsigned i = 0; i < 3; i++) {
        char *end = put_number(value, values[i]);
        tell(x, &told[i], (enum names)(X_LIMIT + i), value, end);
        value = end;
    }
    return TG_OK;
}

int
tg_abi_limit_tell(struct tg_abi_exchange *abi, uint32_t forms, const struct tg_abi_limit *limit, const char *policy,
                  size_t policy_len, const char *title, size_t title_len)
{
    struct tg_exchange *x = tg_exchange_of(abi);
    int rc = TG_OK;
    if ((forms & TG_LIMIT_DRAFT) != 0) {
        rc = tell_draft(x, &work.taken[0], policy, policy_len, title, title_len);
    }
    if (rc == TG_OK && (forms & TG_LIMIT_X_RATELIMIT) != 0) {
        rc = tell_x(x, &work.taken[0], limit->rate);
    }
    return rc;
}
