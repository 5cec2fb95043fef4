/*
 * A cluster of Kafka of one broker, as librdkafka brings it for tests, and a consumer. Prints "bootstrap host:port",
 * then each message of the topic "access" on a line. Commands on standard input: "down", "up".
 */
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void
set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
    char why[256];
    if (rd_kafka_conf_set(conf, name, value, why, sizeof why) != RD_KAFKA_CONF_OK) {
        (void)fprintf(stderr, "%s\n", why);
        _exit(1);
    }
}

static rd_kafka_t *
new_client(rd_kafka_type_t type, const char *hosts)
{
    char why[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "log_level", "0");
    if (hosts != NULL) {
        set(conf, "bootstrap.servers", hosts);
        set(conf, "group.id", "test");
        set(conf, "auto.offset.reset", "earliest");
        set(conf, "reconnect.backoff.max.ms", "200");
    }
    rd_kafka_t *client = rd_kafka_new(type, conf, why, sizeof why);
    if (client == NULL) {
        (void)fprintf(stderr, "%s\n", why);
        _exit(1);
    }
    return client;
}

/* False: nobody commands any more. */
static bool
obey(rd_kafka_mock_cluster_t *cluster)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    char line[64];
    if (poll(&input, 1, 0) <= 0) {
        return true;
    }
    const ssize_t n = read(STDIN_FILENO, line, sizeof line - 1);
    if (n <= 0) {
        return false;
    }
    if (strncmp(line, "down", 4) == 0) {
        (void)rd_kafka_mock_broker_set_down(cluster, 1);
    } else {
        (void)rd_kafka_mock_broker_set_up(cluster, 1);
    }
    return true;
}

int
main(void)
{
    rd_kafka_mock_cluster_t *cluster = rd_kafka_mock_cluster_new(new_client(RD_KAFKA_PRODUCER, NULL), 1);
    const char *hosts = rd_kafka_mock_cluster_bootstraps(cluster);
    (void)rd_kafka_mock_topic_create(cluster, "access", 1, 1);
    rd_kafka_t *consumer = new_client(RD_KAFKA_CONSUMER, hosts);
    (void)rd_kafka_poll_set_consumer(consumer);
    rd_kafka_topic_partition_list_t *topics = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(topics, "access", 0)->offset = RD_KAFKA_OFFSET_BEGINNING;
    (void)rd_kafka_assign(consumer, topics);
    (void)printf("bootstrap %s\n", hosts);
    (void)fflush(stdout);
    while (obey(cluster)) {
        rd_kafka_message_t *message = rd_kafka_consumer_poll(consumer, 50);
        if (message != NULL && message->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
            (void)printf("%.*s\n", (int)message->len, (const char *)message->payload);
            (void)fflush(stdout);
        }
        if (message != NULL) {
            rd_kafka_message_destroy(message);
        }
    }
    return 0;
}
