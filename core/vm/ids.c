#include "vm/ids.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/hex.h"
#include "base/rc.h"

enum {
    UUID = 16,   /* bytes */
    POOL = 2048, /* bytes; a system call for each identifier would show */
    UUID_COUNTER = 1 << 26
};

void
tg_ids_random(void *out, size_t n)
{
    for (size_t done = 0; done < n;) {
        const ssize_t got = getrandom((char *)out + done, n - done, 0);
        TG_ASSERT(got > 0 || errno == EINTR); /* a signal may come in between */
        done += got > 0 ? (size_t)got : 0;
    }
}

/* Given out once, and forgotten then. Inline, since `n` is known where it is called. */
static inline void
draw(unsigned char *out, size_t n)
{
    static unsigned char pool[POOL];
    static size_t used = POOL;
    if (n > POOL - used) {
        tg_ids_random(pool, POOL);
        used = 0;
    }
    memcpy(out, pool + used, n);
    memset(pool + used, 0, n);
    used += n;
}

static size_t
write_uuid(char *out, const unsigned char bytes[static UUID])
{
    char digits[UUID * 2];
    (void)tg_hex_encode(digits, bytes, UUID);
    memcpy(out, digits, 8);
    out[8] = '-';
    memcpy(out + 9, digits + 8, 4);
    out[13] = '-';
    memcpy(out + 14, digits + 12, 4);
    out[18] = '-';
    memcpy(out + 19, digits + 16, 4);
    out[23] = '-';
    memcpy(out + 24, digits + 20, 12);
    return 36;
}

static uint64_t
wall_milliseconds(void)
{
    struct timespec wall;
    TG_ASSERT(clock_gettime(CLOCK_REALTIME, &wall) == 0);
    return (uint64_t)wall.tv_sec * 1000 + (uint64_t)wall.tv_nsec / 1000000;
}

/*
 * RFC 9562, section 5.7, with the counter of section 6.2, method 1: 26 bits behind the milliseconds, which begin
 * anywhere in the lower half of their range. A clock that goes back is waited for.
 */
static void
stamp(unsigned char bytes[static UUID], uint64_t now)
{
    static uint64_t last;
    static uint32_t counter;
    uint32_t start;
    memcpy(&start, bytes, sizeof start);
    counter++;
    if (now > last || counter == UUID_COUNTER) {
        last = now > last ? now : last + 1;
        counter = start % (UUID_COUNTER / 2);
    }
    for (unsigned i = 0; i < 6; i++) {
        bytes[i] = (unsigned char)(last >> (40 - 8 * i));
    }
    bytes[6] = (unsigned char)(0x70 | counter >> 22);
    bytes[7] = (unsigned char)(counter >> 14);
    bytes[8] = (unsigned char)(0x80 | (counter >> 8 & 0x3f));
    bytes[9] = (unsigned char)counter;
}

size_t
tg_ids_write(char out[static TG_ID_MAX], int version, uint64_t milliseconds)
{
    unsigned char bytes[UUID];
    draw(bytes, sizeof bytes);
    if (version == 7) {
        stamp(bytes, milliseconds != 0 ? milliseconds : wall_milliseconds());
        return write_uuid(out, bytes);
    }
    if (version == 4) { /* RFC 9562, section 5.4 */
        bytes[6] = (unsigned char)((bytes[6] & 0x0f) | 0x40);
        bytes[8] = (unsigned char)((bytes[8] & 0x3f) | 0x80);
        return write_uuid(out, bytes);
    }
    bytes[UUID - 1] |= 1; /* it may serve as a trace id (W3C Trace Context, section 3.2.2.3) */
    return (size_t)(tg_hex_encode(out, bytes, UUID) - out);
}

double
tg_ids_traceparent(char out[static TG_TRACEPARENT_LEN])
{
    unsigned char bytes[24];
    draw(bytes, sizeof bytes);
    tg_traceparent_write(out, bytes);
    return tg_traceparent_share_of(bytes);
}
