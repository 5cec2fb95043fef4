#include "process/tracing.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

enum {
    PATIENCE = 5000 /* milliseconds until who does not come has gone */,
    SECONDS_MAX = 3600,
    TOLD_MAX = 4 * 1024 * 1024 /* bytes that wait to be fetched; more is left out */
};

static struct tg_channel_message
message_of(const struct tg_tracing *tracing, uint64_t now)
{
    struct tg_channel_message message = {.type = TG_CHANNEL_TRACE, .serial = tracing->serial};
    if (tracing->on && tracing->until > now) {
        message.number = (uint32_t)(tracing->until - now);
        (void)snprintf(message.text, sizeof message.text, "%s", tracing->question);
    }
    return message;
}

static void
end(struct tg_tracing *tracing, struct tg_fleet *fleet)
{
    tracing->on = false;
    tg_mem_free(tracing->told);
    tracing->told = NULL;
    tracing->length = 0;
    const struct tg_channel_message message = message_of(tracing, tg_loop_now(fleet->loop));
    (void)tg_fleet_send(fleet, &message, -1);
}

static void
begin(struct tg_tracing *tracing, struct tg_fleet *fleet, struct tg_control_client *client, unsigned seconds)
{
    const struct tg_slice question = tg_control_payload(client);
    const uint64_t now = tg_loop_now(fleet->loop);
    char number[32];
    if (tracing->on) {
        tg_control_answer(client, false, "other requests are being traced; try again\n");
        return;
    }
    if (seconds < 1 || seconds > SECONDS_MAX || question.n == 0 || question.n >= sizeof tracing->question) {
        tg_control_answer(client, false,
                          "not a trace: expected 1 to 3600 seconds, and filters of 1000 bytes at most\n");
        return;
    }
    tracing->serial++;
    tracing->on = true;
    tracing->until = now + seconds * 1000ULL;
    tracing->idle_until = now + PATIENCE;
    memcpy(tracing->question, question.p, question.n);
    tracing->question[question.n] = '\0';
    const struct tg_channel_message message = message_of(tracing, now);
    (void)tg_fleet_send(fleet, &message, -1);
    (void)snprintf(number, sizeof number, "%" PRIu64 "\n", tracing->serial);
    tg_control_answer(client, true, number);
}

static void
tell(struct tg_tracing *tracing, struct tg_slice text)
{
    if (text.n == 0 || text.n > TOLD_MAX - tracing->length) {
        return;
    }
    char *told = tg_mem_resize(tracing->told, tracing->length + text.n + 1);
    if (told != NULL) {
        memcpy(told + tracing->length, text.p, text.n);
        tracing->told = told;
        tracing->length += text.n;
        told[tracing->length] = '\0';
    }
}

void
tg_tracing_command(struct tg_tracing *tracing, struct tg_fleet *fleet, struct tg_control_client *client,
                   const char *words)
{
    char verb[8] = "";
    uint64_t number = 0;
    char more;
    if (sscanf(words, "%7s %" SCNu64 "%c", verb, &number, &more) != 2) {
        tg_control_answer(client, false, "expected trace begin|next|end NUMBER\n");
    } else if (strcmp(verb, "begin") == 0) {
        begin(tracing, fleet, client, number > SECONDS_MAX ? 0 : (unsigned)number);
    } else if (!tracing->on || number != tracing->serial) {
        tg_control_answer(client, false, "that trace is over\n");
    } else if (strcmp(verb, "next") == 0) {
        tracing->idle_until = tg_loop_now(fleet->loop) + PATIENCE;
        tg_control_answer(client, true, tracing->told == NULL ? "" : tracing->told);
        tg_mem_free(tracing->told);
        tracing->told = NULL;
        tracing->length = 0;
    } else if (strcmp(verb, "tell") == 0) {
        tell(tracing, tg_control_payload(client));
        tg_control_answer(client, true, "");
    } else if (strcmp(verb, "end") == 0) {
        end(tracing, fleet);
        tg_control_answer(client, true, "");
    } else {
        tg_control_answer(client, false, "expected trace begin|next|end NUMBER\n");
    }
}

void
tg_tracing_born(struct tg_tracing *tracing, struct tg_fleet *fleet, struct tg_slot *slot)
{
    if (tracing->on) {
        const struct tg_channel_message message = message_of(tracing, tg_loop_now(fleet->loop));
        (void)!tg_channel_send(slot->channel, &message, -1);
    }
}

/* A moment more than the workers have, so that what they tell at the end is fetched. */
void
tg_tracing_check(struct tg_tracing *tracing, struct tg_fleet *fleet)
{
    const uint64_t now = tg_loop_now(fleet->loop);
    if (tracing->on && (now >= tracing->idle_until || now >= tracing->until + PATIENCE)) {
        end(tracing, fleet);
    }
}
