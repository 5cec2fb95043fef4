#include "process/channel.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

union control {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
};

enum tg_rc
tg_channel_send(int channel, const struct tg_channel_message *message, int fd)
{
    union control control = {0};
    struct iovec v = {(void *)(uintptr_t)message,
                      offsetof(struct tg_channel_message, text) + strnlen(message->text, sizeof message->text - 1) + 1};
    struct msghdr head = {.msg_iov = &v, .msg_iovlen = 1};
    if (fd >= 0) {
        head.msg_control = control.bytes;
        head.msg_controllen = sizeof control.bytes;
        struct cmsghdr *item = CMSG_FIRSTHDR(&head);
        item->cmsg_level = SOL_SOCKET;
        item->cmsg_type = SCM_RIGHTS;
        item->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(item), &fd, sizeof fd);
    }
    ssize_t n;
    do {
        n = sendmsg(channel, &head, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    return n >= 0 ? TG_OK : errno == EAGAIN ? TG_AGAIN : TG_ESYSTEM;
}

enum tg_rc
tg_channel_receive(int channel, struct tg_channel_message *message, int *fd)
{
    union control control = {0};
    struct iovec v = {message, sizeof *message};
    struct msghdr head = {
        .msg_iov = &v, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t n;
    memset(message, 0, sizeof *message);
    do {
        n = recvmsg(channel, &head, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        /* Short of memory the kernel keeps the message: it is asked for again in the next turn. */
        return errno == EAGAIN || errno == ENOMEM || errno == ENOBUFS ? TG_AGAIN : TG_ESYSTEM;
    }
    if (n == 0) {
        return TG_ECLOSED;
    }
    *fd = -1;
    const struct cmsghdr *item = CMSG_FIRSTHDR(&head);
    if (item != NULL && item->cmsg_type == SCM_RIGHTS) {
        memcpy(fd, CMSG_DATA(item), sizeof *fd);
    }
    message->text[sizeof message->text - 1] = '\0';
    return TG_OK;
}
