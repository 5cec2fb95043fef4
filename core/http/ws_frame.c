#include "http/ws_frame.h"

#include <string.h>

enum {
    FINAL = 0x80,
    COMPRESSED = 0x40,
    RESERVED = 0x30,
    OPCODE = 0x0f,
    CONTROL = 0x08,
    MASKED = 0x80,
    LENGTH = 0x7f,
    LENGTH_16 = 126,
    LENGTH_64 = 127
};

void
tg_ws_reader_init(struct tg_ws_reader *reader, bool masked, bool deflate, uint64_t message_max)
{
    *reader = (struct tg_ws_reader){.masked = masked, .deflate = deflate, .message_max = message_max};
}

static enum tg_rc
fail(struct tg_ws_reader *reader, enum tg_ws_code code, const char *why)
{
    reader->code = (uint16_t)code;
    reader->why = why;
    return TG_EPROTOCOL;
}

/* ------------------------------------------------------------------ text */

static bool
begin_character(struct tg_ws_utf8 *text, unsigned char c)
{
    text->low = 0x80;
    text->high = 0xbf;
    if (c >= 0xc2 && c <= 0xdf) {
        text->left = 1;
    } else if (c >= 0xe0 && c <= 0xef) {
        text->left = 2;
        text->low = c == 0xe0 ? 0xa0 : 0x80;  /* shorter forms exist below */
        text->high = c == 0xed ? 0x9f : 0xbf; /* surrogates */
    } else if (c >= 0xf0 && c <= 0xf4) {
        text->left = 3;
        text->low = c == 0xf0 ? 0x90 : 0x80;
        text->high = c == 0xf4 ? 0x8f : 0xbf; /* nothing above U+10FFFF */
    } else {
        return false;
    }
    return true;
}

bool
tg_ws_utf8(struct tg_ws_utf8 *text, const char *p, size_t n)
{
    size_t i = 0;
    while (i < n) {
        const unsigned char c = (unsigned char)p[i];
        uint64_t eight = 0;
        if (text->left == 0 && n - i >= sizeof eight) {
            memcpy(&eight, p + i, sizeof eight);
            if ((eight & 0x8080808080808080U) == 0) {
                i += sizeof eight;
                continue;
            }
        }
        i++;
        if (text->left > 0) {
            if (c < text->low || c > text->high) {
                return false;
            }
            text->left--;
            text->low = 0x80;
            text->high = 0xbf;
        } else if (c >= 0x80 && !begin_character(text, c)) {
            return false;
        }
    }
    return true;
}

/* ------------------------------------------------------------------ heads */

static size_t
head_size(uint8_t second)
{
    const unsigned length = second & LENGTH;
    return 2 + (length == LENGTH_16 ? 2U : length == LENGTH_64 ? 8U : 0U) + ((second & MASKED) != 0 ? 4U : 0U);
}

/* What the first two bytes say is judged as soon as they are there. */
static enum tg_rc
judge_begin(struct tg_ws_reader *reader)
{
    const uint8_t first = reader->head[0];
    const uint8_t second = reader->head[1];
    const unsigned opcode = first & OPCODE;
    const bool is_control = (opcode & CONTROL) != 0;
    if ((first & RESERVED) != 0 || ((first & COMPRESSED) != 0 && !reader->deflate)) {
        return fail(reader, TG_WS_PROTOCOL_ERROR, "a reserved bit");
    }
    if (opcode > TG_WS_PONG || (opcode > TG_WS_BINARY && !is_control)) {
        return fail(reader, TG_WS_PROTOCOL_ERROR, "an unknown opcode");
    }
    if (((second & MASKED) != 0) != reader->masked) {
        return fail(reader, TG_WS_PROTOCOL_ERROR,
                    reader->masked ? "a client's frame without a mask" : "a mask of a server");
    }
    if (is_control && ((first & FINAL) == 0 || (second & LENGTH) > TG_WS_CONTROL_MAX)) {
        return fail(reader, TG_WS_PROTOCOL_ERROR, "a control frame in fragments, or longer than 125 bytes");
    }
    if ((first & COMPRESSED) != 0 && (is_control || opcode == TG_WS_CONTINUATION)) {
        return fail(reader, TG_WS_PROTOCOL_ERROR, "a compressed frame that begins no message");
    }
    if (!is_control && (opcode == TG_WS_CONTINUATION) != (reader->message != 0)) {
        return fail(reader, TG_WS_PROTOCOL_ERROR,
                    reader->message != 0 ? "a message within another" : "a fragment of no message");
    }
    return TG_OK;
}

static uint64_t
number_of(const uint8_t *p, unsigned n)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < n; i++) {
        value = value << 8 | p[i];
    }
    return value;
}

static enum tg_rc
begin_payload(struct tg_ws_reader *reader)
{
    const uint8_t *head = reader->head;
    const unsigned length = head[1] & LENGTH;
    reader->opcode = head[0] & OPCODE;
    reader->final = (head[0] & FINAL) != 0;
    reader->left = length == LENGTH_16 ? number_of(head + 2, 2) : length == LENGTH_64 ? number_of(head + 2, 8) : length;
    if ((length == LENGTH_16 && reader->left < LENGTH_16) || (length == LENGTH_64 && reader->left <= UINT16_MAX) ||
        reader->left > INT64_MAX) {
        return fail(reader, TG_WS_PROTOCOL_ERROR, "a length that is not the shortest, or is negative");
    }
    if ((reader->opcode & CONTROL) == 0) {
        if (reader->message == 0) {
            reader->message = reader->opcode;
            reader->compressed = (head[0] & COMPRESSED) != 0;
            reader->got = 0;
            reader->text = (struct tg_ws_utf8){0};
        }
        if (reader->left > reader->message_max - reader->got) {
            return fail(reader, TG_WS_TOO_BIG, "a message that is too large");
        }
        reader->got += reader->left;
    }
    if (reader->masked) {
        memcpy(reader->mask, head + reader->head_len - sizeof reader->mask, sizeof reader->mask);
    }
    reader->mask_at = 0;
    reader->held_len = 0;
    reader->head_len = 0;
    reader->in_payload = true;
    return TG_OK;
}

/* TG_AGAIN: it is not whole. */
static enum tg_rc
read_head(struct tg_ws_reader *reader, const char *p, size_t n, size_t *used)
{
    for (*used = 0; *used < n;) {
        reader->head[reader->head_len++] = (uint8_t)p[(*used)++];
        if (reader->head_len < 2) {
            continue;
        }
        enum tg_rc rc = reader->head_len == 2 ? judge_begin(reader) : TG_OK;
        if (rc == TG_OK && reader->head_len == head_size(reader->head[1])) {
            return begin_payload(reader);
        }
        if (rc != TG_OK) {
            return rc;
        }
    }
    return TG_AGAIN;
}

/* ------------------------------------------------------------------ payloads */

bool
tg_ws_is_code(unsigned code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999);
}

static enum tg_rc
judge_close(struct tg_ws_reader *reader, struct tg_ws_piece *piece)
{
    struct tg_ws_utf8 text = {0};
    reader->closed = true;
    reader->code = TG_WS_NO_CODE;
    if (reader->held_len == 0) {
        return TG_OK;
    }
    const unsigned code = reader->held_len == 1 ? 0 : (unsigned)number_of((const uint8_t *)reader->held, 2);
    if (!tg_ws_is_code(code)) {
        return fail(reader, TG_WS_PROTOCOL_ERROR, "a close frame with half a code, or one that may not be sent");
    }
    piece->data = tg_slice_of(reader->held + 2, reader->held_len - 2U);
    if (!tg_ws_utf8(&text, piece->data.p, piece->data.n) || text.left > 0) {
        return fail(reader, TG_WS_BAD_TEXT, "a reason that is no UTF-8");
    }
    reader->code = (uint16_t)code;
    return TG_OK;
}

static enum tg_rc
read_control(struct tg_ws_reader *reader, const char *p, size_t n, struct tg_ws_piece *piece)
{
    if (n > 0) {
        memcpy(reader->held + reader->held_len, p, n);
        reader->held_len = (uint8_t)(reader->held_len + n);
    }
    if (reader->left > 0) {
        return TG_AGAIN;
    }
    reader->in_payload = false;
    *piece = (struct tg_ws_piece){
        .opcode = reader->opcode, .end = true, .data = tg_slice_of(reader->held, reader->held_len)};
    return reader->opcode == TG_WS_CLOSE ? judge_close(reader, piece) : TG_OK;
}

static enum tg_rc
read_data(struct tg_ws_reader *reader, const char *p, size_t n, struct tg_ws_piece *piece)
{
    *piece =
        (struct tg_ws_piece){.opcode = reader->message, .compressed = reader->compressed, .data = tg_slice_of(p, n)};
    const bool is_text = reader->message == TG_WS_TEXT && !reader->compressed;
    piece->end = reader->left == 0 && reader->final;
    if (is_text && (!tg_ws_utf8(&reader->text, p, n) || (piece->end && reader->text.left > 0))) {
        return fail(reader, TG_WS_BAD_TEXT, "a text that is no UTF-8");
    }
    reader->in_payload = reader->left > 0;
    if (piece->end) {
        reader->message = 0;
    }
    return n > 0 || piece->end ? TG_OK : TG_AGAIN;
}

enum tg_rc
tg_ws_read(struct tg_ws_reader *reader, char *p, size_t n, size_t *used, struct tg_ws_piece *piece)
{
    *used = 0;
    if (reader->closed) {
        return TG_ECLOSED;
    }
    for (;;) {
        enum tg_rc rc = TG_OK;
        if (!reader->in_payload) {
            size_t taken = 0;
            rc = read_head(reader, p + *used, n - *used, &taken);
            *used += taken;
            if (rc != TG_OK) {
                return rc;
            }
        }
        char *data = p + *used;
        const size_t size = reader->left < n - *used ? (size_t)reader->left : n - *used;
        if (reader->masked) {
            tg_ws_mask(data, size, reader->mask, reader->mask_at);
            reader->mask_at = (uint8_t)((reader->mask_at + size) % 4);
        }
        *used += size;
        reader->left -= size;
        rc = (reader->opcode & CONTROL) != 0 ? read_control(reader, data, size, piece)
                                             : read_data(reader, data, size, piece);
        if (rc != TG_AGAIN || reader->in_payload) {
            return rc;
        }
    }
}

/* ------------------------------------------------------------------ tracking */

void
tg_ws_track_init(struct tg_ws_track *track, bool masked)
{
    *track = (struct tg_ws_track){.masked = masked};
}

/* Extensions may have agreed on the reserved bits, and they stay within frames. */
static bool
is_frame(const struct tg_ws_track *track)
{
    const unsigned opcode = track->head[0] & OPCODE;
    if (((track->head[1] & MASKED) != 0) != track->masked || opcode > TG_WS_PONG ||
        (opcode > TG_WS_BINARY && opcode < TG_WS_CLOSE)) {
        return false;
    }
    if ((opcode & CONTROL) != 0) {
        return (track->head[0] & FINAL) != 0 && (track->head[1] & LENGTH) <= TG_WS_CONTROL_MAX;
    }
    return (opcode == TG_WS_CONTINUATION) == track->in_message;
}

/* The head is there up to its length: the mask counts among what is left of the frame. */
static bool
begin_frame(struct tg_ws_track *track)
{
    const unsigned length = track->head[1] & LENGTH;
    const uint64_t size = length < LENGTH_16 ? length : number_of(track->head + 2, track->head_len - 2U);
    if (size > INT64_MAX) {
        return false;
    }
    track->left = size + (track->masked ? 4 : 0);
    if ((track->head[0] & CONTROL) == 0) {
        track->in_message = (track->head[0] & FINAL) == 0;
    }
    return true;
}

/* One byte of a head. */
static void
track_head(struct tg_ws_track *track, char byte)
{
    track->head[track->head_len++] = (uint8_t)byte;
    if (track->head_len < 2) {
        return;
    }
    const size_t size = head_size((uint8_t)(track->head[1] & LENGTH));
    if ((track->head_len == 2 && !is_frame(track)) || (track->head_len == size && !begin_frame(track))) {
        track->broken = true;
        track->left = 0;
    }
}

size_t
tg_ws_track_heads(struct tg_ws_track *track, const char *p, size_t n, enum tg_ws_stop stop)
{
    size_t used = 0;
    while (used < n && !track->broken && !track->closed) {
        if (track->left == 0) {
            track_head(track, p[used++]);
        } else {
            const size_t size = track->left < n - used ? (size_t)track->left : n - used;
            track->left -= size;
            used += size;
        }
        if (track->left > 0 || track->head_len < 2 || track->head_len < head_size((uint8_t)(track->head[1] & LENGTH))) {
            continue;
        }
        track->closed = (track->head[0] & OPCODE) == TG_WS_CLOSE;
        track->head_len = 0;
        if (stop == TG_WS_STOP_FRAME || (stop == TG_WS_STOP_MESSAGE && !track->in_message)) {
            return used;
        }
    }
    return stop != TG_WS_NO_STOP && track->closed ? used : n;
}

/* ------------------------------------------------------------------ writing */

size_t
tg_ws_write_head(char out[TG_WS_HEAD_MAX], enum tg_ws_opcode opcode, bool compressed, uint64_t length,
                 const char mask[4])
{
    const unsigned more = length < LENGTH_16 ? 0 : length <= UINT16_MAX ? 2 : 8;
    size_t n = 2;
    out[0] = (char)(FINAL | (compressed ? COMPRESSED : 0) | (int)opcode);
    out[1] = (char)((mask != NULL ? MASKED : 0) | (more == 0 ? (int)length : more == 2 ? LENGTH_16 : LENGTH_64));
    for (unsigned i = more; i > 0; i--) {
        out[n++] = (char)(length >> (8 * (i - 1)));
    }
    if (mask != NULL) {
        memcpy(out + n, mask, 4);
        n += 4;
    }
    return n;
}

void
tg_ws_mask(char *p, size_t n, const char mask[4], size_t at)
{
    char turned[8];
    uint64_t eight = 0;
    uint64_t word = 0;
    size_t i = 0;
    for (unsigned k = 0; k < sizeof turned; k++) {
        turned[k] = mask[(at + k) % 4];
    }
    memcpy(&word, turned, sizeof word);
    for (; n - i >= sizeof eight; i += sizeof eight) {
        memcpy(&eight, p + i, sizeof eight);
        eight ^= word;
        memcpy(p + i, &eight, sizeof eight);
    }
    for (; i < n; i++) {
        p[i] = (char)(p[i] ^ turned[i % 8]);
    }
}
