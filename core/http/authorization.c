#include "http/authorization.h"

static bool
is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* Whether the word at `p` is the scheme: what follows it cannot be part of a scheme's name. */
static bool
begins(const char *p, const char *end, struct tg_slice scheme)
{
    if ((size_t)(end - p) < scheme.n || !tg_slice_same_text(p, scheme.p, scheme.n)) {
        return false;
    }
    p += scheme.n;
    return p == end || is_blank(*p) || *p == ',';
}

bool
tg_authorization_is(struct tg_slice value, struct tg_slice scheme, struct tg_slice *credentials)
{
    const char *p = value.p;
    const char *end = value.p + value.n;
    if (begins(p, end, scheme)) {
        p += scheme.n;
        while (p < end && is_blank(*p)) {
            p++;
        }
        while (end > p && is_blank(end[-1])) {
            end--;
        }
        *credentials = tg_slice_of(p, (size_t)(end - p));
        return true;
    }
    /* Lines of a field are joined by commas. */
    while ((p = memchr(p, ',', (size_t)(end - p))) != NULL) {
        p++;
        while (p < end && is_blank(*p)) {
            p++;
        }
        if (begins(p, end, scheme)) {
            *credentials = tg_slice_of(end, 0);
            return true;
        }
    }
    return false;
}
