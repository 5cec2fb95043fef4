/*
 * kafka.h - lines of a log as messages of a topic of Kafka, by librdkafka. A build without that library has none.
 *
 * Owns: the producer, whose threads and sockets are the library's. Used by: base/outlet.c, in one thread at a time.
 * What waits for a broker is bounded, and given up after a minute. Does not know: what the lines say.
 */
#ifndef TG_BASE_KAFKA_H
#define TG_BASE_KAFKA_H

#include <stddef.h>
#include <stdint.h>

#include "base/rc.h"

struct tg_kafka;

/* Where messages go. All texts are borrowed for the call alone. */
struct tg_kafka_target {
    const char *hosts; /* "host:port,host:port" */
    const char *topic;
    const char *settings; /* the library's own: lines of "name=value"; NULL: none */
};

/* Whether a producer could be made of it: TG_EINVAL and `err`. Starts nothing. */
TG_MUST_CHECK enum tg_rc tg_kafka_judge(const struct tg_kafka_target *target, struct tg_err *err);
/* NULL and `err`. No broker is waited for. */
struct tg_kafka *tg_kafka_open(const struct tg_kafka_target *target, struct tg_err *err);
/* Flushes for a second and a half, tells how many lines are lost, and closes. NULL is allowed. */
void tg_kafka_close(struct tg_kafka *kafka);
/*
 * Takes whole lines, each with its newline, which is not sent. Returns how many bytes are done with: all of them,
 * unless the queue is full; then the rest is to be given again later. Lines that could not be delivered meanwhile are
 * added to *lost.
 */
size_t tg_kafka_write(struct tg_kafka *kafka, const char *p, size_t n, uint64_t *lost);
/* What the library has complained of since this was last asked; NULL: nothing. Valid until the next write. */
const char *tg_kafka_error(struct tg_kafka *kafka);

#endif
