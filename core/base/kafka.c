#include "base/kafka.h"

#include <stdio.h>
#include <string.h>

#ifdef TG_KAFKA

#include <librdkafka/rdkafka.h>

#include "base/log.h"
#include "base/mem.h"

enum {
    FLUSH = 1500,    /* milliseconds */
    TOPIC_MAX = 249, /* bytes, as brokers have it */
    ERROR_MAX = 256
};

struct tg_kafka {
    rd_kafka_t *producer;
    char *topic;
    uint64_t lost;
    bool failing;
    char error[ERROR_MAX];
};

/* What waits is bounded. Of deliveries only those that failed are told. */
static const char *const defaults[][2] = {
    {"client.id", "tidegate"},
    {"queue.buffering.max.kbytes", "16384"},
    {"queue.buffering.max.messages", "100000"},
    {"linger.ms", "100"},
    {"message.timeout.ms", "60000"},
    {"reconnect.backoff.max.ms", "2000"},
    {"delivery.report.only.error", "true"},
};

/* These say where lines go, which the target says, or run what is no part of this program. */
static const char *const denied[] = {"bootstrap.servers", "metadata.broker.list", "plugin.library.paths",
                                     "ssl.engine.location", "sasl.kerberos.kinit.cmd"};

/* ------------------------------------------------------------------ settings */

static enum tg_rc
set(rd_kafka_conf_t *conf, const char *name, const char *value, struct tg_err *err)
{
    char why[ERROR_MAX];
    if (rd_kafka_conf_set(conf, name, value, why, sizeof why) != RD_KAFKA_CONF_OK) {
        return tg_err_set(err, TG_EINVAL, "kafka: %s", why);
    }
    return TG_OK;
}

/* One line of the settings, cut in place. */
static enum tg_rc
set_line(rd_kafka_conf_t *conf, char *line, struct tg_err *err)
{
    char *equals = strchr(line, '=');
    if (equals == NULL) {
        return tg_err_set(err, TG_EINVAL, "kafka: a setting without a value");
    }
    *equals = '\0';
    for (size_t i = 0; i < sizeof denied / sizeof denied[0]; i++) {
        if (strcmp(line, denied[i]) == 0) {
            return tg_err_set(err, TG_EINVAL, "kafka: %s is not to be set here", line);
        }
    }
    return set(conf, line, equals + 1, err);
}

static enum tg_rc
set_all(rd_kafka_conf_t *conf, const struct tg_kafka_target *target, struct tg_err *err)
{
    char *rest = NULL;
    enum tg_rc rc = set(conf, "bootstrap.servers", target->hosts, err);
    for (size_t i = 0; i < sizeof defaults / sizeof defaults[0] && rc == TG_OK; i++) {
        rc = set(conf, defaults[i][0], defaults[i][1], err);
    }
    if (target->settings == NULL || rc != TG_OK) {
        return rc;
    }
    char *copy = tg_mem_text(target->settings, strlen(target->settings));
    if (copy == NULL) {
        return tg_err_set(err, TG_ENOMEM, "kafka: memory is short");
    }
    for (char *line = strtok_r(copy, "\n", &rest); line != NULL && rc == TG_OK; line = strtok_r(NULL, "\n", &rest)) {
        rc = set_line(conf, line, err);
    }
    explicit_bzero(copy, strlen(target->settings));
    tg_mem_free(copy);
    return rc;
}

static bool
is_topic(const char *topic)
{
    static const char *const bytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    const size_t n = strlen(topic);
    return n > 0 && n <= TOPIC_MAX && strspn(topic, bytes) == n && strcmp(topic, ".") != 0 && strcmp(topic, "..") != 0;
}

/* NULL and `err`. */
static rd_kafka_conf_t *
conf_of(const struct tg_kafka_target *target, struct tg_err *err)
{
    if (!is_topic(target->topic)) {
        (void)tg_err_set(err, TG_EINVAL, "kafka: not a topic: %s", target->topic);
        return NULL;
    }
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    if (set_all(conf, target, err) != TG_OK) {
        rd_kafka_conf_destroy(conf);
        return NULL;
    }
    return conf;
}

enum tg_rc
tg_kafka_judge(const struct tg_kafka_target *target, struct tg_err *err)
{
    rd_kafka_conf_t *conf = conf_of(target, err);
    if (conf == NULL) {
        return TG_EINVAL;
    }
    rd_kafka_conf_destroy(conf);
    return TG_OK;
}

/* ------------------------------------------------------------------ messages */

static void
on_failed(rd_kafka_t *producer, const rd_kafka_message_t *message, void *arg)
{
    struct tg_kafka *kafka = arg;
    (void)producer;
    if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        kafka->lost++;
    }
}

static void
on_error(rd_kafka_t *producer, int code, const char *reason, void *arg)
{
    struct tg_kafka *kafka = arg;
    (void)producer;
    (void)code;
    kafka->failing = true;
    (void)snprintf(kafka->error, sizeof kafka->error, "%s", reason);
}

/* The library tells the same again and again, each time on standard error. */
static void
on_log(const rd_kafka_t *producer, int level, const char *facility, const char *text)
{
    (void)producer;
    (void)level;
    (void)facility;
    (void)text;
}

struct tg_kafka *
tg_kafka_open(const struct tg_kafka_target *target, struct tg_err *err)
{
    char why[ERROR_MAX];
    rd_kafka_conf_t *conf = conf_of(target, err);
    struct tg_kafka *kafka = conf == NULL ? NULL : tg_mem_new(struct tg_kafka);
    if (kafka == NULL) {
        if (conf != NULL) {
            (void)tg_err_set(err, TG_ENOMEM, "kafka: memory is short");
            rd_kafka_conf_destroy(conf);
        }
        return NULL;
    }
    *kafka = (struct tg_kafka){.topic = tg_mem_text(target->topic, strlen(target->topic))};
    rd_kafka_conf_set_opaque(conf, kafka);
    rd_kafka_conf_set_dr_msg_cb(conf, on_failed);
    rd_kafka_conf_set_error_cb(conf, on_error);
    rd_kafka_conf_set_log_cb(conf, on_log);
    kafka->producer = kafka->topic == NULL ? NULL : rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    if (kafka->producer == NULL) {
        (void)tg_err_set(err, TG_ESYSTEM, "kafka: %s", kafka->topic == NULL ? "memory is short" : why);
        rd_kafka_conf_destroy(conf); /* the producer would have taken it */
        tg_mem_free(kafka->topic);
        tg_mem_free(kafka);
        return NULL;
    }
    return kafka;
}

void
tg_kafka_close(struct tg_kafka *kafka)
{
    if (kafka == NULL) {
        return;
    }
    (void)rd_kafka_flush(kafka->producer, FLUSH);
    (void)rd_kafka_purge(kafka->producer, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
    (void)rd_kafka_poll(kafka->producer, 0);
    if (kafka->lost > 0) {
        tg_log(TG_LOG_ERROR, "kafka: lines that the topic %s has not got: %llu", kafka->topic,
               (unsigned long long)kafka->lost);
    }
    rd_kafka_destroy(kafka->producer);
    tg_mem_free(kafka->topic);
    tg_mem_free(kafka);
}

size_t
tg_kafka_write(struct tg_kafka *kafka, const char *p, size_t n, uint64_t *lost)
{
    size_t done = 0;
    while (done < n) {
        const char *line = p + done;
        const size_t len = (size_t)((const char *)memchr(line, '\n', n - done) - line);
        const rd_kafka_resp_err_t code =
            rd_kafka_producev(kafka->producer, RD_KAFKA_V_TOPIC(kafka->topic), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
                              RD_KAFKA_V_VALUE((void *)(uintptr_t)line, len), RD_KAFKA_V_END);
        if (code == RD_KAFKA_RESP_ERR__QUEUE_FULL) {
            break;
        }
        kafka->lost += code == RD_KAFKA_RESP_ERR_NO_ERROR ? 0 : 1;
        done += len + 1;
    }
    (void)rd_kafka_poll(kafka->producer, 0);
    *lost += kafka->lost;
    kafka->lost = 0;
    return done;
}

const char *
tg_kafka_error(struct tg_kafka *kafka)
{
    const bool failing = kafka->failing;
    kafka->failing = false;
    return failing ? kafka->error : NULL;
}

#else

static enum tg_rc
refuse(struct tg_err *err)
{
    return tg_err_set(err, TG_EINVAL, "kafka: this program was built without it (librdkafka-dev, and `make` again)");
}

enum tg_rc
tg_kafka_judge(const struct tg_kafka_target *target, struct tg_err *err)
{
    (void)target;
    return refuse(err);
}

struct tg_kafka *
tg_kafka_open(const struct tg_kafka_target *target, struct tg_err *err)
{
    (void)target;
    (void)refuse(err);
    return NULL;
}

void
tg_kafka_close(struct tg_kafka *kafka)
{
    (void)kafka;
}

size_t
tg_kafka_write(struct tg_kafka *kafka, const char *p, size_t n, uint64_t *lost)
{
    (void)kafka;
    (void)p;
    (void)lost;
    return n;
}

const char *
tg_kafka_error(struct tg_kafka *kafka)
{
    (void)kafka;
    return NULL;
}

#endif
