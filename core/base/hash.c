#include "base/hash.h"

/* https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md, the algorithm XXH32. */
static const uint32_t primes[5] = {0x9E3779B1U, 0x85EBCA77U, 0xC2B2AE3DU, 0x27D4EB2FU, 0x165667B1U};

static uint32_t
rotate(uint32_t value, unsigned by)
{
    return value << by | value >> (32 - by);
}

static uint32_t
read_lane(const unsigned char *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

uint32_t
tg_hash32(const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    const unsigned char *end = p + n;
    uint32_t hash = primes[4];
    if (n >= 16) {
        uint32_t lanes[4] = {primes[0] + primes[1], primes[1], 0, 0U - primes[0]};
        for (; end - p >= 16; p += 16) {
            for (unsigned i = 0; i < 4; i++) {
                lanes[i] = rotate(lanes[i] + read_lane(p + (size_t)i * 4) * primes[1], 13) * primes[0];
            }
        }
        hash = rotate(lanes[0], 1) + rotate(lanes[1], 7) + rotate(lanes[2], 12) + rotate(lanes[3], 18);
    }
    hash += (uint32_t)n;
    for (; end - p >= 4; p += 4) {
        hash = rotate(hash + read_lane(p) * primes[2], 17) * primes[3];
    }
    for (; p < end; p++) {
        hash = rotate(hash + *p * primes[4], 11) * primes[0];
    }
    hash = (hash ^ hash >> 15) * primes[1];
    hash = (hash ^ hash >> 13) * primes[2];
    return hash ^ hash >> 16;
}
