/* What the parts of the load generator share. One thread, one epoll set, no locks. */
#ifndef CLARION_BENCH_LOAD_H
#define CLARION_BENCH_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MAX_BODIES = 8, MARKS = 2, READ_BYTES = 1 << 20, BODY_BYTES = 1 << 23 };

typedef enum { IDLE, CONNECTING, HANDSHAKE, GREETING, OPEN, CLOSED } State;
typedef enum { CLIENT, PUBLISHER, STREAM_PUBLISHER, COMMANDS } Role; /* the latter speaks RESP */

typedef struct {
    char *bytes;
    size_t length, capacity;
} Buffer;

/* Where a client stands on one channel: what it sends when it comes back. */
typedef struct {
    char epoch[48];
    uint64_t offset;
} Place;

typedef struct {
    Role role;
    State state;
    int fd;
    int number;    /* of the client; with `first` it gives the user */
    bool is_slow;  /* never reads once it is open */
    int in_flight; /* publisher: requests without an answer */
    uint32_t received;
    Buffer input, output; /* an incomplete rest; what the kernel did not take */
    Place places[MARKS];
} Connection;

typedef struct {
    bool is_sse;
    int port, publish_port, connections, handshakes_at_once, publishers, sources;
    double slow_share;
    const char *path, *init, *return_init, *ready, *headers;
    const char *publish_path, *batch_path, *publish_socket, *publish_headers, *publish_command;
    const char *marks[MARKS];
    const char *bodies[MAX_BODIES];
    char **tokens;
    int token_count, body_count;
} Options;

/* Counts of the phase that runs; `phase_begins` clears them. */
typedef struct {
    uint64_t delivered, bytes, pings, published, answered, refused;
    int opened, failed, closed, slow_closed;
} Counts;

extern Options options;
extern Counts counts;
extern Connection *clients, *publishers; /* the publisher after the last one appends to the stream */
extern int first_user, open_clients, readers;
extern bool is_returning;    /* clients come back with the places they had */
extern char problem[400];    /* the first thing that went wrong, for the report */

/* load.c */
uint64_t now_us(void);
void pump(int milliseconds);
void phase_begins(void);
void watch(Connection *connection, uint32_t events, int operation);
void note_problem(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* connection.c */
void open_connection(Connection *connection);
void close_connection(Connection *connection, bool is_ours);
void send_bytes(Connection *connection, const char *bytes, size_t length);
void on_events(Connection *connection, uint32_t events);
void buffer_append(Buffer *buffer, const char *bytes, size_t length);

/* protocols.c: each takes what it understands of `bytes` and returns how much that was, or -1 when it is over */
long take_websocket(Connection *connection, char *bytes, size_t length);
long take_event_stream(Connection *connection, char *bytes, size_t length);
long take_http_answers(Connection *connection, char *bytes, size_t length);
long take_redis_answers(Connection *connection, char *bytes, size_t length);
void client_is_open(Connection *connection, const char *greeting, size_t length);
size_t websocket_frame(char *frame, int opcode, const char *payload, size_t length);

/* template.c */
size_t fill(char *into, size_t capacity, const char *template, long user, const Place *places, uint64_t ts, size_t pad);
size_t fill_to_size(char *into, size_t capacity, const char *template, long user, uint64_t ts, size_t size);

/* publish.c */
typedef struct {
    long count, batch, window, in_flight, seed, users;
    bool to_stream;
    double rate, limit_seconds;
    int body;
    size_t size;
    enum { TO_ALL, TO_ONE, TO_NONE } audience;
} Publishing;
void publish(const Publishing *publishing);

/* latency.c: a histogram with steps of under 1 %, constant memory however long the run */
void latency_clear(void);
void latency_add(uint64_t microseconds);
double latency_ms(double share);
double latency_max_ms(void);

#endif
