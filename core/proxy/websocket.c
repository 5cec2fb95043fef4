#include "proxy/websocket.h"

#include <openssl/evp.h>
#include <openssl/rand.h>

#include "base/base64.h"

enum { NONCE = 16, KEY = 24, ACCEPT = 28, DIGEST = 20 };

static enum tg_rc
push(struct tg_message *message, struct tg_slice name, struct tg_slice value)
{
    const struct tg_field field = tg_field_of(name, value);
    return tg_message_push(message, &field);
}

enum tg_rc
tg_websocket_translate(struct tg_exchange *x)
{
    unsigned char nonce[NONCE];
    struct tg_message *request = &x->request;
    if (!tg_slice_is(x->extended, "websocket", 9)) {
        return TG_EINVAL;
    }
    char *key = tg_arena_alloc(&x->arena, KEY);
    if (key == NULL || RAND_bytes(nonce, sizeof nonce) != 1 ||
        tg_message_remove(request, "Sec-WebSocket-Key", 17) != TG_OK) {
        return TG_ENOMEM;
    }
    (void)tg_base64_encode(key, nonce, sizeof nonce, TG_BASE64_PLAIN);
    x->websocket_key = tg_slice_of(key, KEY);
    request->method = TG_SLICE("GET");
    request->framing = TG_FRAMING_NONE;
    request->upgrade = true;
    const enum tg_rc rc = push(request, TG_SLICE("Upgrade"), x->extended);
    return rc != TG_OK ? rc : push(request, TG_SLICE("Sec-WebSocket-Key"), x->websocket_key);
}

bool
tg_websocket_is_accepted(struct tg_exchange *x)
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    char text[KEY + sizeof guid - 1];
    unsigned char hash[EVP_MAX_MD_SIZE];
    char accept[ACCEPT];
    unsigned n = 0;
    unsigned from = 0;
    const struct tg_field *field = tg_message_find(&x->response, "Sec-WebSocket-Accept", 20, &from);
    memcpy(text, x->websocket_key.p, KEY);
    memcpy(text + KEY, guid, sizeof guid - 1);
    if (field == NULL || EVP_Digest(text, sizeof text, hash, &n, EVP_sha1(), NULL) != 1 || n != DIGEST) {
        return false;
    }
    (void)tg_base64_encode(accept, hash, DIGEST, TG_BASE64_PLAIN);
    return field->value_len == ACCEPT && memcmp(field->value, accept, ACCEPT) == 0 &&
           tg_message_remove(&x->response, "Sec-WebSocket-Accept", 20) == TG_OK;
}
