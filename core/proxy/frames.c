#include "proxy/frames.h"

#include <openssl/rand.h>

#include "base/mem.h"

enum { PIECES = 16 /* of frames in a write */ };

struct tg_frame {
    struct tg_frame *next;
    char *heap; /* its payload; NULL: that stands behind the frame */
    const char *data;
    size_t n;
    size_t written; /* of head and payload */
    uint8_t head_len;
    char head[TG_WS_HEAD_MAX];
};

static void
frame_free(struct tg_frame *frame)
{
    tg_mem_free(frame->heap);
    tg_mem_free(frame);
}

void
tg_frames_init(struct tg_frames *frames)
{
    *frames = (struct tg_frames){.last = &frames->first};
}

void
tg_frames_drop(struct tg_frames *frames)
{
    while (frames->first != NULL) {
        struct tg_frame *next = frames->first->next;
        frame_free(frames->first);
        frames->first = next;
    }
    tg_frames_init(frames);
}

enum tg_rc
tg_frames_push(struct tg_frames *frames, const struct tg_ws_piece *piece, char *heap, bool masks)
{
    char mask[4];
    const size_t n = piece->data.n;
    struct tg_frame *frame = tg_mem_alloc(sizeof *frame + (heap == NULL ? n : 0));
    if (frame == NULL || (masks && RAND_bytes((unsigned char *)mask, sizeof mask) != 1)) {
        tg_mem_free(frame);
        tg_mem_free(heap);
        return TG_ENOMEM;
    }
    char *data = heap != NULL ? heap : (char *)(frame + 1);
    *frame = (struct tg_frame){.heap = heap, .data = data, .n = n};
    if (heap == NULL && n > 0) {
        memcpy(data, piece->data.p, n);
    }
    if (masks) {
        tg_ws_mask(data, n, mask, 0);
    }
    frame->head_len = (uint8_t)tg_ws_write_head(frame->head, (enum tg_ws_opcode)piece->opcode, piece->compressed, n,
                                                masks ? mask : NULL);
    *frames->last = frame;
    frames->last = &frame->next;
    frames->waiting += frame->head_len + n;
    return TG_OK;
}

static int
gather(const struct tg_frames *frames, struct iovec *v)
{
    int count = 0;
    for (struct tg_frame *frame = frames->first; frame != NULL && count + 2 <= PIECES; frame = frame->next) {
        const size_t head = frame->written < frame->head_len ? frame->head_len - frame->written : 0;
        const size_t gone = head > 0 ? 0 : frame->written - frame->head_len;
        if (head > 0) {
            v[count++] = (struct iovec){frame->head + frame->written, head};
        }
        if (frame->n > gone) {
            v[count++] = (struct iovec){(void *)(uintptr_t)(frame->data + gone), frame->n - gone};
        }
    }
    return count;
}

static void
count_written(struct tg_frames *frames, size_t sent)
{
    frames->waiting -= sent;
    while (sent > 0) {
        struct tg_frame *frame = frames->first;
        const size_t left = frame->head_len + frame->n - frame->written;
        if (sent < left) {
            frame->written += sent;
            return;
        }
        sent -= left;
        frames->first = frame->next;
        frame_free(frame);
    }
    if (frames->first == NULL) {
        frames->last = &frames->first;
    }
}

enum tg_rc
tg_frames_flush(struct tg_frames *frames, struct tg_transport *to, bool *moved)
{
    while (frames->first != NULL) {
        struct iovec v[PIECES];
        size_t sent = 0;
        const int count = gather(frames, v);
        const enum tg_rc rc = !tg_transport_is_open(to) ? TG_ERESET : tg_transport_write(to, v, count, &sent);
        if (rc != TG_OK) {
            return rc == TG_AGAIN ? TG_AGAIN : TG_ERESET;
        }
        count_written(frames, sent);
        *moved = true;
    }
    return TG_OK;
}
