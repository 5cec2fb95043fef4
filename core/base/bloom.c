#include "base/bloom.h"

#include <sys/random.h>

#include "base/map.h"
#include "base/mem.h"

enum { BITS_EACH = 16, PROBES = 8, WORD = 64 };

struct tg_bloom {
    uint64_t seed;  /* nobody can choose names that collide */
    uint32_t count; /* of bits */
    uint64_t bits[];
};

struct tg_bloom *
tg_bloom_new(size_t names)
{
    names = names < TG_BLOOM_MIN ? TG_BLOOM_MIN : names > TG_BLOOM_MAX ? TG_BLOOM_MAX : names;
    const size_t words = (names * BITS_EACH + WORD - 1) / WORD;
    struct tg_bloom *bloom = tg_mem_zero(sizeof *bloom + words * sizeof(uint64_t));
    if (bloom == NULL) {
        return NULL;
    }
    bloom->count = (uint32_t)(words * WORD);
    if (getrandom(&bloom->seed, sizeof bloom->seed, 0) != (ssize_t)sizeof bloom->seed) {
        tg_bloom_free(bloom);
        return NULL;
    }
    return bloom;
}

void
tg_bloom_free(struct tg_bloom *bloom)
{
    tg_mem_free(bloom);
}

size_t
tg_bloom_size(const struct tg_bloom *bloom)
{
    return bloom->count / 8;
}

/* Two hashes in one make all others: of x and step, the bit of probe i is where x + i * step lies in 2^64. */
struct probe {
    uint64_t x;
    uint64_t step;
};

static struct probe
probe_of(const struct tg_bloom *bloom, struct tg_slice kind, struct tg_slice name)
{
    const uint64_t hash = tg_hash(tg_hash(bloom->seed, kind.p, kind.n), name.p, name.n);
    return (struct probe){.x = hash, .step = (hash << 32 | hash >> 32) * 0x9e3779b97f4a7c15ULL | 1};
}

static uint32_t
next_bit(const struct tg_bloom *bloom, struct probe *probe)
{
    const uint32_t bit = (uint32_t)((probe->x >> 32) * bloom->count >> 32);
    probe->x += probe->step;
    return bit;
}

void
tg_bloom_add(struct tg_bloom *bloom, struct tg_slice kind, struct tg_slice name)
{
    struct probe probe = probe_of(bloom, kind, name);
    for (unsigned i = 0; i < PROBES; i++) {
        const uint32_t bit = next_bit(bloom, &probe);
        bloom->bits[bit / WORD] |= (uint64_t)1 << bit % WORD;
    }
}

bool
tg_bloom_has(const struct tg_bloom *bloom, struct tg_slice kind, struct tg_slice name)
{
    struct probe probe = probe_of(bloom, kind, name);
    for (unsigned i = 0; i < PROBES; i++) {
        const uint32_t bit = next_bit(bloom, &probe);
        if ((bloom->bits[bit / WORD] >> bit % WORD & 1) == 0) {
            return false;
        }
    }
    return true;
}
