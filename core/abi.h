/*
 * abi.h - everything that Lua may see of the core, read by the C compiler and by ffi.cdef alike.
 *
 * The build embeds this text (without the marked C-only lines and the preprocessor's) and asserts that both compilers
 * agree on every size and offset. Functions take scalars and pointers, never a lua_State, never a callback, and never
 * raise: they return 0 for success and a negative enum tg_rc otherwise. Below all layers; includes its other
 * parts alone: abi_cell.h, what all workers know of peers, upstreams and routes, abi_metric.h, what is counted,
 * abi_limit.h, limits, abi_line.h, lines of access logs, abi_route.h, the way to a route, abi_filter.h, filters of
 * names, abi_steps.h, what the core does in place of phases, abi_crypto.h, keys and passwords, and abi_tls.h, the TLS
 * of clients and of listeners.
 */
#ifndef TG_ABI_H
#define TG_ABI_H

#include "abi_cell.h"
#include "abi_crypto.h"
#include "abi_filter.h"
#include "abi_limit.h"
#include "abi_line.h"
#include "abi_metric.h"
#include "abi_route.h"
#include "abi_steps.h"
#include "abi_tls.h"

/* Borrowed bytes. Valid as long as the object they were read from; never NUL-terminated. */
struct tg_slice {
    const char *p;
    size_t n;
};

/* Why Lua is entered: the value of tg_abi_vm.entry. */
enum tg_abi_entry {
    TG_ENTRY_DONE = 0,            /* set by Lua: what it was entered for is done */
    TG_ENTRY_REQUEST = 1,         /* head parsed: rewrite, route, authenticate, access, then handler or balance */
    TG_ENTRY_BALANCE = 2,         /* the attempt failed before anything was answered: choose another peer or give up */
    TG_ENTRY_RESPONSE = 3,        /* a response head is ready */
    TG_ENTRY_LOG = 4,             /* the exchange is over */
    TG_ENTRY_TASK = 5,            /* tg_abi_vm.task was spawned */
    TG_ENTRY_REQUEST_BODY = 6,    /* the request's body goes on: it is to be written */
    TG_ENTRY_RESPONSE_BODY = 7,   /* the response's */
    TG_ENTRY_REQUEST_MESSAGE = 9, /* a message of a WebSocket, on its way to the upstream */
    TG_ENTRY_RESPONSE_MESSAGE = 10, /* to the client */
    TG_ENTRY_PARKED = 8,            /* set by Lua: what it was entered for is done, and it waits for the next entry */
    TG_ENTRY_SHADOW = 11,  /* of a generation in shadow: what it would do with the request, which is another's */
    TG_ENTRY_COMPARE = 12, /* the same one: the exchange is over, what has become of it is known */
    TG_ENTRY_HEAD = 13     /* the same one: a response head is ready, and no phase has looked at it yet */
};

/* What the request and balance phases decided. */
enum tg_abi_verdict {
    TG_VERDICT_NONE = 0,   /* nothing: answered with 500 */
    TG_VERDICT_PROXY = 1,  /* to tg_abi_exchange.peer */
    TG_VERDICT_RESPOND = 2 /* with the response that tg_abi_respond made */
};

/* Bits of tg_abi_exchange.wants. */
enum tg_abi_want {
    TG_WANT_RESPONSE = 1, /* enter Lua when the response head is ready */
    TG_WANT_LOG = 2       /* enter Lua when the exchange is over */
};

/* Who made the response: tg_abi_exchange.source. */
enum tg_abi_source {
    TG_SOURCE_NONE = 0,
    TG_SOURCE_UPSTREAM = 1,
    TG_SOURCE_LUA = 2,    /* a plugin or a handler */
    TG_SOURCE_GATEWAY = 3 /* the core itself: 4xx of the codec, 502, 504 */
};

/* Which message a field function means. */
enum tg_abi_side {
    TG_SIDE_REQUEST = 0,
    TG_SIDE_RESPONSE = 1,
    TG_SIDE_ORIGINAL = 2, /* the request as the client sent it; read-only */
    TG_SIDE_TRAILERS = 3  /* of the response: those of the upstream are there once its body was read */
};

struct tg_abi_edits;

/*
 * One request and its response, as Lua sees it: the first member of struct tg_exchange. Lives in a slab that is never
 * unmapped; `serial` changes when the exchange ends, so a kept pointer is found to be stale and never dangles.
 * Slices live in the exchange's arena. Times are seconds.
 */
struct tg_abi_exchange {
    uint32_t serial;
    uint32_t slot;
    uint8_t verdict;
    uint8_t wants;
    uint8_t source;
    uint8_t version_minor; /* of the request */
    uint16_t listener;
    uint16_t status;
    uint32_t route;
    uint32_t peer;
    uint32_t attempt; /* attempts at a peer so far */
    int32_t error;    /* enum tg_rc of the last failed attempt, or of the end of the exchange */
    uint16_t client_port;
    uint16_t method_id;       /* index into the list of known methods, from 1 on; 0: another one */
    uint32_t connect_timeout; /* milliseconds */
    uint32_t first_byte_timeout;
    uint32_t idle_timeout;
    uint32_t total_timeout; /* from the start, up to the response head */
    uint64_t body_limit;    /* bytes; of the request's body */
    struct tg_slice method;
    struct tg_slice raw_path;      /* normal form, still encoded; what goes upstream */
    struct tg_slice path;          /* decoded; what is routed by */
    struct tg_slice query;         /* without the question mark */
    struct tg_slice host;          /* lower case, without port and trailing dot */
    struct tg_slice authority;     /* what goes upstream as Host */
    struct tg_slice upstream_host; /* replaces authority towards the upstream when not empty */
    double started;                /* wall clock */
    double duration;               /* set when the exchange is over */
    double connect_time;           /* of the last attempt, that a connection took; 0: it was there */
    double upstream_time;          /* from the first attempt to the response head; -1 when none came */
    uint64_t bytes_in;             /* body of the request */
    uint64_t bytes_out;            /* body of the response */
    uint8_t secure;                /* the client came by https, as far as is known */
    uint8_t query_present;
    uint8_t path_doubts;   /* bits: 1 an encoded slash or backslash, 2 no UTF-8; refused unless the route wants them */
    uint8_t aborted;       /* the client went away, or the response was cut */
    uint8_t parked;        /* Lua's: an `around` has been entered and waits, or waited, for the response */
    uint8_t version_major; /* of the request */
    uint8_t may_retry;     /* the failed attempt can be repeated: 1; and that does no harm: 2 */
    uint8_t answered;      /* the failed attempt has a response, `status`: without another attempt it goes on */
    uint8_t began;         /* in the failed attempt a connection was there */
    uint8_t passed;        /* Lua's: no policy has answered in place of the route's handler or upstream */
    uint16_t shadow;       /* the listener in the configuration of the generation in shadow; 0: there is none */
    uint32_t try_timeout;  /* milliseconds for one attempt, up to the response head; 0: no limit of its own */
    uint32_t keep_body;    /* bytes of a body that are kept for another attempt; 0: none are */
    uint32_t counted;      /* place of the route among those that are counted, or TG_METRIC_UNCOUNTED */
    uint64_t generation;   /* serial */
    struct tg_abi_watch watch[3]; /* by enum tg_abi_watch_of */
    struct tg_slice id;           /* a token; empty until somebody asks for it */
    const struct tg_abi_edits
        *edits;               /* done to each response before its phases; NULL: none. Lives as long as Lua does */
    struct tg_slice consumer; /* set by tg_abi_set_consumer; p is NULL: none is known */
    const char *recorded;     /* a traceparent that names trace and span of one that is recorded; or NULL */
    const char *traceparent;  /* the request's, when it is the core that has read or made it; or NULL */
    uint32_t upstream;        /* that a policy has chosen in place of the route's, as tg_abi_name knows it; 0: none */
    uint8_t asks;             /* Lua is to decide whether it is recorded (tg_abi_open_trace), */
    uint8_t joined;           /* and its trace was made just now: tg_abi_trace_join is to say so once more */
};

/* What a call has used that was measured. */
struct tg_abi_use {
    uint32_t what;   /* as tg_abi_meter_begin was told; 0: nothing was measured */
    uint32_t weight; /* as it was told */
    double seconds;  /* waits included; */
    double cpu;      /* of the processor, by it and by the tasks that have ended meanwhile */
    double bytes;    /* of Lua's memory, made by these: what was freed is not taken off */
};

/* The worker's side of the border: one for the process, valid while Lua runs. Written by the core before each resume.
 */
struct tg_abi_vm {
    struct tg_abi_exchange *exchange; /* of the running coroutine; NULL in a task without one */
    uint32_t entry;
    uint32_t task;
    uint32_t coroutine; /* index of the running one, for tg_abi_wake */
    uint32_t coroutine_serial;
    uint32_t worker;
    uint32_t resumes; /* how often Lua was entered */
    uint32_t grown;   /* 1: since then its memory has grown by more than a call may, perhaps by garbage; 2: by one block
                         alone */
    uint32_t *mark;   /* [0] which use runs, [1] for which route, [2] of which generation: shared with the master, for
                         its watchdog; 0 is none */
    double now;       /* wall clock, once a loop turn */
    double monotonic; /* seconds */
    struct tg_slice out; /* where functions below put a string */
    double number;       /* and a number */
    uint32_t type;       /* and its kind */
    struct tg_abi_use used;
};

extern TG_ABI struct tg_abi_vm tg_abi_vm;

/* What has become of a call: tg_abi_call.state; negative: enum tg_rc of its failure. */
enum tg_abi_call_state { TG_CALL_DONE = 0, TG_CALL_RUNS = 1, TG_CALL_HEAD = 2 /* the body may be read */ };

/* Bits of how a call goes. */
enum tg_abi_call_flag {
    TG_CALL_TO_HEAD = 1,   /* the method is HEAD */
    TG_CALL_STREAMS = 2,   /* the response's body is read in pieces */
    TG_CALL_UPLOADS = 4,   /* the request's body is written in pieces, chunked */
    TG_CALL_FRESH = 8,     /* on a connection of its own, */
    TG_CALL_CONNECTS = 16, /* and over when that is there: nothing is sent */
    TG_CALL_RETRY = 32     /* of one that has failed */
};

/* One call to an upstream made by Lua. Owned by the coroutine that started it; freed with it at the latest. */
struct tg_abi_call {
    int32_t state;
    uint16_t status;
    uint16_t field_count;
    uint8_t began;    /* a connection was there */
    uint8_t answered; /* something has come back, and be it an interim response */
    uint32_t peer;
    struct tg_slice body;
};

/* What a value of a reply of Redis is. */
enum tg_abi_redis_type {
    TG_REDIS_NIL = 0,
    TG_REDIS_NUMBER = 1,
    TG_REDIS_STRING = 2,
    TG_REDIS_STATUS = 3,
    TG_REDIS_ERROR = 4,
    TG_REDIS_LIST = 5
};

/* The values of a reply stand in pre-order: a list is followed by its elements. An integer that a double does not hold
 * exactly is a string. */
struct tg_abi_redis_value {
    uint32_t type; /* enum tg_abi_redis_type */
    uint32_t size; /* elements of a list, bytes of a text */
    double number; /* a number's; of a text: where in tg_abi_redis_command.bytes it begins */
};

/* One command to Redis made by Lua. Owned by the coroutine that sent it; freed with it at the latest. */
struct tg_abi_redis_command {
    int32_t state; /* as tg_abi_call.state: it runs, is done, or has failed */
    uint32_t count;
    const struct tg_abi_redis_value *values; /* of the reply */
    const char *bytes;
};

/* What a client of a Redis has done since it was opened. */
struct tg_abi_redis_counts {
    double commands; /* that were answered in time */
    double seconds;  /* that they took, together */
    double connections;
    uint32_t open; /* servers that are not asked for a while, now */
};

/* Bits of how a command is sent. */
enum tg_abi_redis_flag {
    TG_REDIS_JOINED = 1, /* right behind `after`; when it cannot be, that connection is closed: a half of two is none */
    TG_REDIS_ALONE = 2,  /* on a connection that is made for it and ends with it: it blocks */
    TG_REDIS_REPLICA = 4 /* to the replica that the slot leads to, when one is known and alive */
};

/* How a Redis is spoken to. Times in milliseconds. */
struct tg_abi_redis_settings {
    struct tg_slice name; /* what the servers show this client as */
    struct tg_slice username;
    struct tg_slice password; /* empty: none */
    uint32_t db;
    uint32_t connections; /* to each server */
    uint32_t timeout;     /* one that is over counts as a failure of its server */
    uint32_t connect_timeout;
    uint32_t cluster; /* keys have slots */
    uint32_t tls;     /* a number of tg_abi_tls_client; 0: plain text */
};

/* A field of a message: set replaces all of its name, add appends. `side` is enum tg_abi_side. */
TG_ABI int tg_abi_field_get(struct tg_abi_exchange *x, int side, const char *name, size_t name_len);
TG_ABI int tg_abi_field_nth(struct tg_abi_exchange *x, int side, const char *name, size_t name_len, uint32_t nth);
TG_ABI int tg_abi_field_at(struct tg_abi_exchange *x, int side, uint32_t index, struct tg_slice *name);
TG_ABI int tg_abi_field_set(struct tg_abi_exchange *x, int side, const char *name, size_t name_len, const char *value,
                            size_t value_len);
TG_ABI int tg_abi_field_add(struct tg_abi_exchange *x, int side, const char *name, size_t name_len, const char *value,
                            size_t value_len);
TG_ABI int tg_abi_field_remove(struct tg_abi_exchange *x, int side, const char *name, size_t name_len);

/*
 * Changes of fields that are known beforehand: made once, and kept as long as an exchange may last to which they are
 * applied. `value`: of RENAME the new name, of REMOVE, SET_ID and TELL nothing. -TG_EINVAL as of tg_abi_field_set.
 */
enum tg_abi_edit {
    TG_EDIT_SET = 1,
    TG_EDIT_ADD = 2,
    TG_EDIT_REMOVE = 3,
    TG_EDIT_RENAME = 4,
    TG_EDIT_SET_ID = 5, /* to the id of the exchange */
    TG_EDIT_TELL = 6    /* sets what was told of the exchange (tg_abi_tell); without it that is done behind all edits */
};
/* Room for so many fields, two of each RENAME, and bytes of names and values. */
TG_ABI struct tg_abi_edits *tg_abi_edits_new(uint32_t fields, size_t text);
TG_ABI void tg_abi_edits_free(struct tg_abi_edits *edits);
TG_ABI int tg_abi_edits_add(struct tg_abi_edits *edits, int kind, const char *name, size_t name_len, const char *value,
                            size_t value_len);
TG_ABI int tg_abi_edits_apply(const struct tg_abi_edits *edits, struct tg_abi_exchange *x, int side);

/*
 * A field that is set in whatever response the exchange will have, before its phases; copied. What was told first wins,
 * as responses meet the first use last. -TG_EINVAL as of tg_abi_field_set; -TG_ENOMEM.
 */
TG_ABI int tg_abi_tell(struct tg_abi_exchange *x, const char *name, size_t name_len, const char *value,
                       size_t value_len);

/* What the client sent: method in vm.out, and the target. */
TG_ABI int tg_abi_original(struct tg_abi_exchange *x, struct tg_slice *target);

/* Name of a known method, into vm.out; -TG_ENONE behind the last. */
TG_ABI int tg_abi_method_name(uint32_t method_id);

/* Parts of the request; copied. -TG_EINVAL when the value may not stand there. */
TG_ABI int tg_abi_set_method(struct tg_abi_exchange *x, const char *p, size_t n);
TG_ABI int tg_abi_set_path(struct tg_abi_exchange *x, const char *p, size_t n);
TG_ABI int tg_abi_set_query(struct tg_abi_exchange *x, const char *p, size_t n);
TG_ABI int tg_abi_set_host(struct tg_abi_exchange *x, const char *p, size_t n);
/* What goes to the peer as Host, in place of what the client sent. */
TG_ABI int tg_abi_set_upstream_host(struct tg_abi_exchange *x, const char *p, size_t n);
TG_ABI int tg_abi_set_status(struct tg_abi_exchange *x, int status);
/* The request may become this protocol, if it asks for it: 0, or -TG_ENONE. `timeout`: milliseconds without a byte. */
TG_ABI int tg_abi_allow_upgrade(struct tg_abi_exchange *x, const char *name, size_t n, uint32_t timeout);
TG_ABI int tg_abi_client_ip(struct tg_abi_exchange *x);
/* What one client is likely to have of the addresses: of IPv6 the first 64 bits, "2001:db8:1:2::/64"; an IPv4 address
 * as it is. */
TG_ABI int tg_abi_client_network(struct tg_abi_exchange *x);
/* The user who has connected, where it is by a UNIX socket; -1: not known. */
TG_ABI double tg_abi_client_uid(struct tg_abi_exchange *x);

/* The id of the exchange, made if there is none: 32 hexadecimal digits, or a UUID of this version (4 or 7). */
TG_ABI int tg_abi_id(struct tg_abi_exchange *x, int version);
TG_ABI int tg_abi_set_id(struct tg_abi_exchange *x, const char *p, size_t n);
/* Takes the id from this field of the request if `keep` and it is a token of at most 128 bytes; otherwise makes one,
 * and sets the field. */
TG_ABI int tg_abi_correlate(struct tg_abi_exchange *x, const char *name, size_t name_len, int keep, int version);

/* Begins a response of our own: drops the fields of an earlier one; fields are added afterwards. The body is copied. */
TG_ABI int tg_abi_respond(struct tg_abi_exchange *x, int status, const char *body, size_t body_len);

/*
 * Bodies; `side` is TG_SIDE_REQUEST or TG_SIDE_RESPONSE. 1: the coroutine must wait. whole: the body, at most `max`
 * bytes, into vm.out; it is kept and goes on. set: replaces it, copied. read: a piece into vm.out, valid until the next
 * call, -TG_ENONE: there are no more; it no longer goes on by itself. open: what goes on will be written in the
 * coroutine that is entered for it. write: 1, and the first vm.number bytes were taken.
 */
TG_ABI int tg_abi_body_whole(struct tg_abi_exchange *x, int side, size_t max);
TG_ABI int tg_abi_body_set(struct tg_abi_exchange *x, int side, const char *p, size_t n);
TG_ABI int tg_abi_body_read(struct tg_abi_exchange *x, int side);
TG_ABI int tg_abi_body_open(struct tg_abi_exchange *x, int side);
TG_ABI int tg_abi_body_write(struct tg_abi_exchange *x, int side, const char *p, size_t n);

/*
 * Messages of a WebSocket; `side` is where one goes: TG_SIDE_REQUEST or TG_SIDE_RESPONSE. watch: before the upgrade;
 * each message, of at most `max` bytes, will be entered for; without `deflate` compression is not offered to the
 * upstream. message: what Lua was entered for: vm.out, vm.type is its opcode, with TG_MESSAGE_COMPRESSED, and vm.number
 * the code of a close. replace, drop: -TG_EINVAL for a close, and for what may not stand there. send: another one; 1:
 * wait; -TG_ECLOSED. close: both sides, soon.
 */
enum tg_abi_message_flag { TG_MESSAGE_COMPRESSED = 16 };
TG_ABI int tg_abi_message_watch(struct tg_abi_exchange *x, uint32_t max, int deflate);
TG_ABI int tg_abi_message(struct tg_abi_exchange *x, int side);
TG_ABI int tg_abi_message_replace(struct tg_abi_exchange *x, int side, const char *p, size_t n);
TG_ABI int tg_abi_message_drop(struct tg_abi_exchange *x, int side);
TG_ABI int tg_abi_message_send(struct tg_abi_exchange *x, int side, int opcode, const char *p, size_t n);
TG_ABI int tg_abi_message_close(struct tg_abi_exchange *x, uint32_t code, const char *reason, size_t n);

/* What a task belongs to: the running exchange, nothing but its generation until it ends, or as long as that is the
 * current one. */
enum tg_abi_task_kind { TG_TASK_CHILD = 0, TG_TASK_BACKGROUND = 1, TG_TASK_SERVICE = 2 };

/* Coroutines: `entry` TASK with this id; and the end of a wait. */
TG_ABI int tg_abi_spawn(uint32_t task, int kind);
TG_ABI void tg_abi_wake(uint32_t coroutine, uint32_t serial);
TG_ABI void tg_abi_cancel(uint32_t coroutine, uint32_t serial);
TG_ABI int tg_abi_timer(double seconds);
TG_ABI void tg_abi_timer_stop(void);

/* How to speak TLS to a peer; contents, not names of files. Empty slices stand for what is usual. */
struct tg_abi_tls_client {
    struct tg_slice ca;          /* PEM; empty: what the system trusts */
    struct tg_slice certificate; /* PEM, with key: ours */
    struct tg_slice key;
    struct tg_slice name; /* that the certificate must have; empty: the peer's host */
    struct tg_slice pins; /* SHA-256 of public keys, 32 bytes each */
    uint8_t verify;
    uint8_t tls12;
    uint8_t http2;
    uint8_t kernel; /* encrypts what is written, where it can */
};

/* The number of this way, from 1 on; the same for the same contents. Negative: vm.out says why not. */
TG_ABI int tg_abi_tls_client(const struct tg_abi_tls_client *options);

/*
 * The SRV records of a name, for the running coroutine, which is woken: TG_AGAIN, call it again then. TG_OK: a line
 * each in vm.out, "priority weight port host", and vm.number is for how many seconds. -TG_EDNS: vm.out says why;
 * -TG_EBUSY: too many ask at once.
 */
TG_ABI int tg_abi_services(const char *name, size_t n);

/*
 * Asks the master, as on its control socket: `line` is the command, and `n` bytes of `payload` follow it. For the
 * running coroutine, which is woken: TG_AGAIN, call it again then, with the same. TG_OK: vm.out is what it says;
 * -TG_EDENIED: vm.out says why not. -TG_EBUSY: too many ask at once; -TG_ECLOSED: the master is gone.
 */
TG_ABI int tg_abi_ask(const char *line, size_t line_len, const char *payload, size_t n);
/* Of a generation in shadow: the master hears of an example of the kind of difference `kind`, at most 256 bytes. */
TG_ABI void tg_abi_differs(uint32_t kind, const char *example, size_t n);

/* What is kept of connections to a peer, in this worker. Times in milliseconds. */
struct tg_abi_pool {
    uint32_t idle;
    uint32_t idle_timeout;
    uint32_t requests;    /* on one connection; 0: no limit */
    uint32_t age;         /* of a connection; 0: no limit */
    uint32_t connections; /* at once; more wait for one; 0: no limit */
};

/* Peers: interned per worker, so that pools outlive generations; a generation holds what it has asked for. `tls` is a
 * number of tg_abi_tls_client, or 0 for plain text; `http2`: it speaks HTTP/2, by ALPN or without asking. */
TG_ABI int tg_abi_peer(const char *host, size_t host_len, uint32_t port, uint32_t tls, int http2,
                       const struct tg_abi_pool *pool);
/* Connections to it that are kept, and are in no use. */
TG_ABI uint32_t tg_abi_peer_idle(uint32_t peer);
/* One that a plugin names by a URL: it is never connected to a private address, whatever its name resolves to. */
TG_ABI int tg_abi_guarded_peer(const char *host, size_t host_len, uint32_t port, uint32_t tls);
TG_ABI uint32_t tg_abi_peer_in_flight(uint32_t peer);

/* Calls. `head` is the whole request head up to the empty line, made of checked parts. Times in milliseconds. */
TG_ABI struct tg_abi_call *tg_abi_call_start(uint32_t peer, const char *head, size_t head_len, const char *body,
                                             size_t body_len, uint32_t connect_timeout, uint32_t timeout,
                                             size_t max_body, uint32_t flags);
/* Of the calls of the running coroutine the next `n` - 1 that end with a status below 300 do not wake it. */
TG_ABI void tg_abi_calls_gather(uint32_t n);
/* A call that streams has a handle, which may be let go whenever nobody uses it: the call itself ends with its owner.
 */
TG_ABI void tg_abi_call_let_go(struct tg_abi_call *call);
/* From the coroutine that owns it to the exchange, and from there to the running one: for one call at a time. */
TG_ABI int tg_abi_call_hand_over(struct tg_abi_call *call);
TG_ABI int tg_abi_call_take_over(struct tg_abi_call *call);
/* As tg_abi_body_read and tg_abi_body_write. The owner is woken when it may try again. */
TG_ABI int tg_abi_call_read(struct tg_abi_call *call);
TG_ABI int tg_abi_call_write(struct tg_abi_call *call, const char *p, size_t n);
TG_ABI void tg_abi_call_finish(struct tg_abi_call *call);
TG_ABI int tg_abi_call_field(struct tg_abi_call *call, uint32_t index, struct tg_slice *name);
/* The value of the first field of that name: vm.out. -TG_ENONE. */
TG_ABI int tg_abi_call_find(struct tg_abi_call *call, const char *name, size_t n);
TG_ABI void tg_abi_call_free(struct tg_abi_call *call);

/*
 * Redis. open: the index of the client with this `key`, which is all of its settings as a text, so that a generation
 * that changes none of them goes on with the connections of the one before; it lives as long as a generation that has
 * opened it. node: the index of a server of it, new or known; a host that begins with a slash is a socket's path. Slots
 * lead to servers; without a cluster slot 0 does. settle: servers that no slot leads to are let go, when nothing is
 * under way there.
 */
TG_ABI int tg_abi_redis_open(const char *key, size_t key_len, const struct tg_abi_redis_settings *settings);
TG_ABI int tg_abi_redis_node(uint32_t redis, const char *host, size_t host_len, uint32_t port);
TG_ABI int tg_abi_redis_assign(uint32_t redis, uint32_t first, uint32_t last, uint32_t node);
/* Where they lead for who reads from replicas; -1: to no other server. */
TG_ABI int tg_abi_redis_assign_replica(uint32_t redis, uint32_t first, uint32_t last, int node);
TG_ABI void tg_abi_redis_settle(uint32_t redis);
/* The slot of a key, and where it leads to: a node, or -TG_ENONE. The name of a node, and why it last failed: vm.out.
 */
TG_ABI int tg_abi_redis_slot(const char *key, size_t key_len);
TG_ABI int tg_abi_redis_node_of(uint32_t redis, uint32_t slot);
TG_ABI int tg_abi_redis_node_name(uint32_t redis, uint32_t node);
TG_ABI int tg_abi_redis_why(uint32_t redis, uint32_t node);
TG_ABI const struct tg_abi_redis_counts *tg_abi_redis_counts(uint32_t redis);
/*
 * Sends a command; the words are copied. `node`: where to, or -1: where the slot of the word `key` leads to (0: any).
 * `after`: on the same connection as that command, so behind it. `flags` are bits of enum tg_abi_redis_flag. NULL:
 * vm.number is why: -TG_ENONE no server is known, -TG_EOPEN it has failed too often, -TG_EBUSY too much is under way,
 * -TG_ELIMIT it is too large, -TG_ECONNECT, -TG_ENOMEM, -TG_EINVAL there is no coroutine. vm.type is the node in each
 * case but the first.
 */
TG_ABI struct tg_abi_redis_command *tg_abi_redis_send(uint32_t redis, int node, uint32_t count,
                                                      const char *const *words, const size_t *lengths, uint32_t key,
                                                      uint32_t timeout, struct tg_abi_redis_command *after,
                                                      uint32_t flags);
TG_ABI void tg_abi_redis_free(struct tg_abi_redis_command *command);
/*
 * A connection of its own that subscribes, and what comes on it. next: 0, and the message is the command's values; 1:
 * the coroutine must wait; otherwise the connection is lost.
 */
TG_ABI struct tg_abi_redis_command *tg_abi_redis_subscribe(uint32_t redis, int node, uint32_t count,
                                                           const char *const *words, const size_t *lengths);
TG_ABI int tg_abi_redis_next(struct tg_abi_redis_command *command);

/*
 * Maps from bytes to a number above 0, made in set-up, freed by whoever made them. find_field looks up the value of a
 * field: -TG_ENONE when there is no such field; 0, as find: unknown.
 */
struct tg_map;
TG_ABI struct tg_map *tg_abi_map_new(void);
TG_ABI void tg_abi_map_free(struct tg_map *map);
TG_ABI int tg_abi_map_add(struct tg_map *map, const char *key, size_t key_len, uint32_t value);
TG_ABI int tg_abi_map_find(const struct tg_map *map, const char *key, size_t key_len);
/* As in base/map.h; at: the key is vm.out. */
TG_ABI uint32_t tg_abi_map_place(const struct tg_map *map, const char *key, size_t key_len);
TG_ABI uint32_t tg_abi_map_at(const struct tg_map *map, uint32_t place);
TG_ABI uint32_t tg_abi_map_next(const struct tg_map *map, uint32_t place);
TG_ABI int tg_abi_map_find_field(const struct tg_map *map, struct tg_abi_exchange *x, int side, const char *name,
                                 size_t name_len);

/* Shared dictionaries. `type` of a value: 0 nil, 1 number, 2 string, 3 boolean, 4 table (encoded). ttl 0: for ever. */
TG_ABI int tg_abi_dict_open(const char *name, size_t name_len);
TG_ABI int tg_abi_dict_get(uint32_t dict, const char *key, size_t key_len);
TG_ABI int tg_abi_dict_set(uint32_t dict, const char *key, size_t key_len, uint32_t type, const char *value,
                           size_t value_len, double number, double ttl, int only_new);
/* Each value: type, bytes, number. -TG_EBUSY: what is there is not `old`. */
TG_ABI int tg_abi_dict_compare_set(uint32_t dict, const char *key, size_t key_len, uint32_t old_type, const char *old,
                                   size_t old_len, double old_number, uint32_t type, const char *value,
                                   size_t value_len, double number, double ttl);
TG_ABI int tg_abi_dict_incr(uint32_t dict, const char *key, size_t key_len, double by, double ttl);
/* The same for the key `scope` + `key`, which Lua need not join. */
TG_ABI int tg_abi_dict_incr_in(uint32_t dict, const char *scope, size_t scope_len, const char *key, size_t key_len,
                               double by, double ttl);
TG_ABI int tg_abi_dict_delete(uint32_t dict, const char *key, size_t key_len);
TG_ABI int tg_abi_dict_ttl(uint32_t dict, const char *key, size_t key_len);

/*
 * Lists of numbers in a dictionary, changed without a lock: read up to TG_RECORDS of them, each into its place,
 * compute, and swap what was read for what is new; all at once, or nothing.
 */
enum { TG_RECORDS = 8 };

struct tg_abi_record {
    uint32_t count;      /* numbers that were read; 0: there are none */
    uint32_t next_count; /* of what is to be in its place; 0: nothing */
    double ttl;          /* of that, seconds; 0 for ever */
    double *was;         /* of the first two, those that there are not are 0 */
    double *next;        /* room for as many as were asked for */
};

TG_ABI struct tg_abi_record *tg_abi_record(uint32_t place);
/* The list of the key `scope` + `key`. `room`: how many numbers may be there, or will be. -TG_EINVAL, -TG_ENOMEM. */
TG_ABI int tg_abi_record_read(uint32_t dict, uint32_t place, const char *scope, size_t scope_len, const char *key,
                              size_t key_len, uint32_t room);
/* Of the first `count` places. -TG_EBUSY: another was faster, and all is to be read again. -TG_ELIMIT. */
TG_ABI int tg_abi_record_swap(uint32_t dict, uint32_t count);

/* Logs: level 0 debug to 3 error. A sink is a target of base/outlet.h (a file, a socket), written by a thread of its
 * own, opened once per target and worker. */
TG_ABI void tg_abi_log(int level, const char *p, size_t n);
TG_ABI int tg_abi_log_level(void);
TG_ABI int tg_abi_sink_open(const char *path, size_t n);
/* Whether it could be opened with these settings: TG_OK; -TG_EINVAL: why not is in vm.out. Opens nothing. */
TG_ABI int tg_abi_sink_judge(const char *path, size_t n, const char *settings, size_t settings_n);
/* Lines of "name=value" for what is behind it: -TG_EINVAL, -TG_ENOMEM. */
TG_ABI int tg_abi_sink_configure(uint32_t sink, const char *settings, size_t n);
TG_ABI int tg_abi_sink_write(uint32_t sink, const char *p, size_t n);
TG_ABI double tg_abi_sink_dropped(uint32_t sink);
/* From `size` bytes on the file is moved to `path.1`, that to `path.2`, up to `keep`. 0: never. */
TG_ABI void tg_abi_sink_rotate(uint32_t sink, double size, uint32_t keep);

/* Set-up of a generation. */
TG_ABI int tg_abi_strip_field(const char *name, size_t name_len);
TG_ABI int tg_abi_valid_name(const char *p, size_t n);
/* A network or an address: "10.0.0.0/8", "::1". -TG_EINVAL, and vm.out says what is wrong with it. */
TG_ABI int tg_abi_valid_cidr(const char *p, size_t n);
TG_ABI int tg_abi_valid_value(const char *p, size_t n);

/*
 * Sets of networks, made in set-up, freed by whoever made them. add: in any order, at most a million; -TG_EINVAL and
 * -TG_ELIMIT: vm.out says what is wrong. settle: once, when all are added. holds: 1 when the text is an address in one
 * of them, 0 also when it is none.
 */
struct tg_cidr_list;
TG_ABI struct tg_cidr_list *tg_abi_cidr_new(void);
TG_ABI void tg_abi_cidr_free(struct tg_cidr_list *list);
TG_ABI int tg_abi_cidr_add(struct tg_cidr_list *list, const char *p, size_t n);
TG_ABI void tg_abi_cidr_settle(struct tg_cidr_list *list);
TG_ABI int tg_abi_cidr_holds(const struct tg_cidr_list *list, const char *p, size_t n);

/* Which requests are to be told of: the number of the question, whose JSON is in vm.out; 0: none. */
TG_ABI double tg_abi_trace_asked(void);

/* Seconds: of a clock that never goes back, read now; of the processor that this thread has used. */
TG_ABI double tg_abi_clock(void);
TG_ABI double tg_abi_cpu(void);
/*
 * What the call uses that comes next in this coroutine, until it is over; then vm.used has it, and `what` is returned.
 * An error that ends the coroutine ends it, too, before anybody judges the error. Nothing happens where none runs.
 */
TG_ABI void tg_abi_meter_begin(uint32_t what, uint32_t weight);
TG_ABI uint32_t tg_abi_meter_end(void);
/* 1: what builds a generation has had its time of this turn; the memory of the running coroutine's VM is nearly used
 * up. */
TG_ABI int tg_abi_build_is_over(void);
TG_ABI int tg_abi_heap_is_full(void);
/* By how many bytes the memory of the VM that is being built may grow in one go, later. By how many that of the running
 * coroutine's has grown above that since Lua was entered; 0: by none, and vm.grown is 0 again. */
TG_ABI void tg_abi_heap_growth(double bytes);
TG_ABI double tg_abi_heap_excess(void);
/* What runs next in it begins anew: all that it has is not of its making. */
TG_ABI void tg_abi_heap_forgive(void);

/*
 * JSON (RFC 8259). Whether a text is well-formed: -TG_EPROTOCOL malformed, -TG_EBUSY a member stands twice in its
 * object, -TG_ELIMIT too deep, too many members or too large a number; vm.out says what is wrong with what stands at
 * the offset vm.number.
 */
TG_ABI int tg_abi_json_check(const char *p, size_t n);
/* In a text that was checked: the member of that name, or the item of that number, from 0: vm.out, which points into
 * the text, and its offset vm.number. -TG_ENONE. */
TG_ABI int tg_abi_json_find(const char *p, size_t n, const char *name, size_t name_len);
/* The first member or item behind the offset `at`, 0 for the very first: vm.out and, as it is spelled, *name; vm.number
 * is the offset for the next one. -TG_ENONE: no other one; -TG_EINVAL: neither object nor array. */
TG_ABI int tg_abi_json_next(const char *p, size_t n, size_t at, struct tg_slice *name);
/* Tokens of a text that was checked: one of enum tg_json_token of base/json_read.h, with vm.out or vm.number, or an
 * error. One text is read at a time, and must stay where it is. */
TG_ABI void tg_abi_json_read_from(const char *p, size_t n);
TG_ABI int tg_abi_json_read(void);
/* The one text that is being written: begin, puts in order, end, which sets vm.out until the next begin. -TG_ELIMIT:
 * more than 256 MiB; -TG_EINVAL: a number that JSON does not have. */
TG_ABI void tg_abi_json_begin(void);
TG_ABI int tg_abi_json_put(const char *p, size_t n);
TG_ABI int tg_abi_json_put_string(const char *p, size_t n);
TG_ABI int tg_abi_json_put_number(double number);
TG_ABI void tg_abi_json_end(void);
/* One quoted string into vm.out, cut after 4 KiB; bytes that are no UTF-8 become U+FFFD. */
TG_ABI int tg_abi_json_string(const char *p, size_t n);
/* YAML as JSON text into vm.out, valid until the next call; -TG_EINVAL: vm.out is "line:column: what is wrong". */
TG_ABI int tg_abi_yaml_to_json(const char *p, size_t n);
/* An XML document as a JSON array of what stands in it (base/xml.h) into vm.out, valid until the next call; else vm.out
 * is "line:column: what is wrong". -TG_EPROTOCOL, -TG_ELIMIT: more than 16 MiB, or too deep; -TG_ENOMEM. */
TG_ABI int tg_abi_xml_to_json(const char *p, size_t n);

/*
 * Signed tokens in compact form (RFC 7515, section 7.1). Parts are borrowed from the token, but for the bytes of the
 * signature, which stay until the next token is opened; signature.p is NULL when they are no base64url.
 */
struct tg_abi_jws {
    struct tg_slice header; /* as it is spelled; so is the payload */
    struct tg_slice payload;
    struct tg_slice is_signed; /* header, dot, payload */
    struct tg_slice signature;
};
/* -TG_EINVAL: it is none; -TG_ELIMIT: more than `max` bytes. Of a field: in Authorization, what is behind `Bearer`;
 * -TG_ENONE: there is no such field, or it has another scheme. What is malformed behind `Bearer` is no token, not none.
 */
TG_ABI int tg_abi_jws_open(const char *p, size_t n, size_t max, struct tg_abi_jws *jws);
TG_ABI int tg_abi_jws_open_field(struct tg_abi_exchange *x, int side, const char *name, size_t name_len, size_t max,
                                 struct tg_abi_jws *jws);
/* The payload of one whose signature is right: its JSON in vm.out, and its members for the function below, until the
 * next one is read, by whatever generation; its number among all that were in vm.number. -TG_EINVAL: it is no object of
 * JSON in base64url with each member once; -TG_ENOMEM. */
TG_ABI int tg_abi_jws_read(const struct tg_abi_jws *jws);
/* A member of the payload of this number, as tg_abi_json_read tells a token; 0: there is none. Of an object or a list:
 * that it is one. -TG_ESTALE: another one was read since. */
TG_ABI int tg_abi_jws_claim(double number, const char *name, size_t name_len);
/* vm.out: what stands behind this scheme in a value of Authorization; empty: nothing, or a second line of the field.
 * -TG_ENONE: the value has another scheme. */
TG_ABI int tg_abi_authorization(const char *p, size_t n, const char *scheme, size_t scheme_len);

/*
 * Content codings, one object a body, freed by whoever made it. `level` of an encoder is 1 to 9, 0: what suits bodies
 * made on the fly; `output_max` of a decoder is in bytes, 0: 10 MiB. NULL: an unknown name, or memory is short.
 */
struct tg_abi_coding;
TG_ABI struct tg_abi_coding *tg_abi_coding_new(const char *name, size_t name_len, int decode, int level,
                                               double output_max);
TG_ABI void tg_abi_coding_free(struct tg_abi_coding *coding);
/*
 * What comes of the next piece of a body, into vm.out, which may be empty. 0: there is more of it, to be asked for with
 * the same piece; 1: the piece is done, and so is the body if it was the `last`. -TG_EPROTOCOL: malformed or cut short,
 * -TG_ELIMIT: more came out than may, -TG_ENOMEM; after those it is of no more use.
 */
TG_ABI int tg_abi_coding_run(struct tg_abi_coding *coding, const char *p, size_t n, int last);
/* Bytes that all codings of this process hold. Lua's collector does not see them. */
TG_ABI double tg_abi_coding_memory(void);

/*
 * The items of the array at `path` of a text that comes in pieces; NULL: memory is short, or the path too long. take:
 * vm.out is what belongs to the current item, vm.number how many bytes were used. 0: the item ends; TG_AGAIN: another
 * piece; -TG_ENONE: the array ends, and an item with it if vm.type is 1; -TG_EPROTOCOL.
 */
struct tg_abi_items;
TG_ABI struct tg_abi_items *tg_abi_items_new(const char *path, size_t n);
TG_ABI void tg_abi_items_free(struct tg_abi_items *items);
TG_ABI int tg_abi_items_take(struct tg_abi_items *items, const char *p, size_t n);

/*
 * Regular expressions. `flags` are letters of i m s x u a. NULL: vm.out says what is wrong with the pattern; otherwise
 * vm.number is how many groups it has, vm.type 1 if it may match nothing at all.
 */
struct tg_abi_regex;
TG_ABI struct tg_abi_regex *tg_abi_regex_new(const char *pattern, size_t n, const char *flags, size_t flags_n);
TG_ABI void tg_abi_regex_free(struct tg_abi_regex *regex);
/* The name of a group: vm.out. -TG_ENONE. */
TG_ABI int tg_abi_regex_name(const struct tg_abi_regex *regex, uint32_t group);
TG_ABI uint32_t tg_abi_regex_lookbehind(const struct tg_abi_regex *regex);
/* As tg_regex_match of base/regex.h; offsets are begin and end of the match and of each group, until the next one. */
TG_ABI int tg_abi_regex_match(struct tg_abi_regex *regex, const char *p, size_t n, size_t start, uint32_t options);
TG_ABI const size_t *tg_abi_regex_offsets(void);

#endif
