#include "base/jws.h"

#include "base/base64.h"
#include "base/json.h"
#include "base/json_read.h"

enum tg_rc
tg_jws_split(struct tg_slice token, char *room, size_t room_n, struct tg_abi_jws *jws)
{
    const char *end = token.p + token.n;
    const char *first = token.n == 0 ? NULL : memchr(token.p, '.', token.n);
    const char *second = first == NULL ? NULL : memchr(first + 1, '.', (size_t)(end - first - 1));
    if (second == NULL || first == token.p || second == first + 1 || second == end - 1 ||
        memchr(token.p, '=', token.n) != NULL) {
        return TG_EINVAL;
    }
    const struct tg_slice spelled = tg_slice_of(second + 1, (size_t)(end - second - 1));
    size_t n = 0;
    const bool ok = TG_BASE64_BYTES(spelled.n) <= room_n &&
                    tg_base64_decode(room, &n, spelled.p, spelled.n, TG_BASE64_URL) == TG_OK;
    jws->header = tg_slice_of(token.p, (size_t)(first - token.p));
    jws->payload = tg_slice_of(first + 1, (size_t)(second - first - 1));
    jws->is_signed = tg_slice_of(token.p, (size_t)(second - token.p));
    jws->signature = tg_slice_of(ok ? room : NULL, n);
    return TG_OK;
}

enum tg_rc
tg_jws_read(struct tg_slice spelled, char *room, struct tg_jws_claims *claims)
{
    struct tg_json_report report;
    struct tg_json_step step;
    size_t n = 0;
    claims->count = 0;
    if (tg_base64_decode(room, &n, spelled.p, spelled.n, TG_BASE64_URL) != TG_OK || n == 0 || room[0] != '{') {
        return TG_EINVAL;
    }
    claims->text = tg_slice_of(room, n);
    const enum tg_rc rc = tg_json_check(room, n, &report);
    if (rc != TG_OK) {
        return rc == TG_ENOMEM ? rc : TG_EINVAL;
    }
    unsigned count = 0;
    bool few = tg_json_open(&step, claims->text) == TG_OK;
    while (few && tg_json_next(&step) == TG_OK) {
        few = count < TG_JWS_FEW && (step.name.n == 0 || memchr(step.name.p, '\\', step.name.n) == NULL);
        if (few) {
            claims->names[count] = step.name;
            claims->values[count++] = step.value;
        }
    }
    claims->count = few ? count : 0;
    return TG_OK;
}

enum tg_rc
tg_jws_claim(const struct tg_jws_claims *claims, struct tg_slice name, struct tg_slice *value)
{
    for (unsigned i = 0; i < claims->count; i++) {
        const struct tg_slice *other = &claims->names[i];
        /* Most names of claims have three letters: the first one spares a call. */
        if (other->n == name.n &&
            (name.n == 0 || (other->p[0] == name.p[0] && memcmp(other->p, name.p, name.n) == 0))) {
            *value = claims->values[i];
            return TG_OK;
        }
    }
    return claims->count > 0 ? TG_ENONE : tg_json_find(claims->text, name.p, name.n, value);
}
