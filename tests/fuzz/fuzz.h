/*
 * fuzz.h - what every fuzz target has: its entry, and a check that stops it and names itself.
 *
 * Owns: nothing. Used by: the targets beside it. Does not know: what they check.
 */
#ifndef TG_TESTS_FUZZ_H
#define TG_TESTS_FUZZ_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static inline void
fuzz_must(bool holds, const char *claim, const char *file, int line)
{
    if (!holds) {
        (void)fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, claim);
        abort();
    }
}

#define MUST(condition) fuzz_must((condition), #condition, __FILE__, __LINE__)

#endif
