/* One connection: connect, handshake, bytes in and out. Clients speak WebSocket or SSE, publishers HTTP or RESP. */
#define _GNU_SOURCE
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char incoming[READ_BYTES];

void buffer_append(Buffer *buffer, const char *bytes, size_t length) {
    if (buffer->length + length > buffer->capacity) {
        buffer->capacity = (buffer->length + length) * 2;
        buffer->bytes = realloc(buffer->bytes, buffer->capacity);
        if (!buffer->bytes) abort();
    }
    memcpy(buffer->bytes + buffer->length, bytes, length);
    buffer->length += length;
}

static void buffer_free(Buffer *buffer) {
    free(buffer->bytes);
    *buffer = (Buffer){0};
}

void close_connection(Connection *connection, bool is_ours) {
    if (connection->fd < 0) return;
    if (connection->role == CLIENT) {
        bool was_open = connection->state == OPEN;
        if (was_open) {
            open_clients--;
            if (!connection->is_slow) readers--;
        }
        if (!is_ours) {
            if (!was_open) counts.failed++;
            else if (connection->is_slow) counts.slow_closed++;
            else counts.closed++;
        }
    }
    connection->state = CLOSED;
    close(connection->fd);
    connection->fd = -1;
    buffer_free(&connection->input);
    buffer_free(&connection->output);
}

/* More than one source address: a port range holds 28,000 connections to one server. */
static void choose_source(Connection *connection) {
    int on = 1;
    struct sockaddr_in source = {.sin_family = AF_INET};
    source.sin_addr.s_addr = htonl(0x7f000002u + (uint32_t)(connection->number % options.sources));
    setsockopt(connection->fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(connection->fd, (struct sockaddr *)&source, sizeof source)) note_problem("bind: %s", strerror(errno));
}

void open_connection(Connection *connection) {
    bool is_client = connection->role == CLIENT, is_unix = connection->role == STREAM_PUBLISHER;
    int on = 1, result;
    connection->fd = socket(is_unix ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connection->fd < 0) {
        note_problem("socket: %s", strerror(errno));
        counts.failed++;
        connection->state = CLOSED;
        return;
    }
    connection->state = CONNECTING;
    connection->received = 0;
    connection->in_flight = 0;
    if (is_client && connection->is_slow) {
        int small = 4096;
        setsockopt(connection->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    }
    watch(connection, EPOLLOUT, EPOLL_CTL_ADD);
    if (is_unix) {
        struct sockaddr_un server = {.sun_family = AF_UNIX};
        strncpy(server.sun_path, options.publish_socket, sizeof server.sun_path - 1);
        result = connect(connection->fd, (struct sockaddr *)&server, sizeof server);
    } else {
        struct sockaddr_in server = {.sin_family = AF_INET};
        server.sin_port = htons((uint16_t)(is_client ? options.port : options.publish_port));
        server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (is_client && options.sources > 1) choose_source(connection);
        result = connect(connection->fd, (struct sockaddr *)&server, sizeof server);
    }
    if (result && errno != EINPROGRESS) {
        note_problem("connect: %s", strerror(errno));
        close_connection(connection, false);
    }
}

void send_bytes(Connection *connection, const char *bytes, size_t length) {
    if (!connection->output.length) {
        ssize_t sent = send(connection->fd, bytes, length, MSG_NOSIGNAL);
        if (sent == (ssize_t)length) return;
        if (sent < 0 && errno != EAGAIN) {
            note_problem("send: %s", strerror(errno));
            close_connection(connection, false);
            return;
        }
        if (sent > 0) {
            bytes += sent;
            length -= (size_t)sent;
        }
    }
    buffer_append(&connection->output, bytes, length);
    watch(connection, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
}

static void flush_output(Connection *connection) {
    Buffer *output = &connection->output;
    if (!output->length) return;
    ssize_t sent = send(connection->fd, output->bytes, output->length, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN) close_connection(connection, false);
        return;
    }
    output->length -= (size_t)sent;
    memmove(output->bytes, output->bytes + sent, output->length);
    if (!output->length) {
        buffer_free(output);
        watch(connection, EPOLLIN, EPOLL_CTL_MOD);
    }
}

static void greet(Connection *connection) {
    static const char WEBSOCKET[] = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                                    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    char path[4096], request[8192];
    fill(path, sizeof path, options.path, first_user + connection->number, NULL, 0, 0);
    int length = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%s%s\r\n", path, options.port,
                          options.is_sse ? "Accept: text/event-stream\r\n" : WEBSOCKET, options.headers);
    connection->state = HANDSHAKE;
    watch(connection, EPOLLIN, EPOLL_CTL_MOD);
    send_bytes(connection, request, (size_t)length);
}

static void connected(Connection *connection) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        note_problem("connect: %s", strerror(error));
        close_connection(connection, false);
    } else if (connection->role != CLIENT) {
        connection->state = OPEN;
        watch(connection, EPOLLIN, EPOLL_CTL_MOD);
    } else greet(connection);
}

/* The head of the server's answer; returns its length, 0 when more must come, -1 when it is a refusal. */
static long take_head(Connection *connection, const char *bytes, size_t length) {
    const char *blank = memmem(bytes, length, "\r\n\r\n", 4);
    if (!blank) return 0;
    if (atoi(bytes + 9) != (options.is_sse ? 200 : 101)) {
        note_problem("handshake refused: %.*s", length < 300 ? (int)length : 300, bytes);
        close_connection(connection, false);
        return -1;
    }
    connection->state = GREETING;
    if (!options.ready) client_is_open(connection, bytes, 0);
    return blank + 4 - bytes;
}

static void send_init(Connection *connection) {
    const char *init = is_returning ? options.return_init : options.init;
    char text[8192], frame[8300];
    if (!init) return;
    size_t length = fill(text, sizeof text, init, first_user + connection->number, connection->places, 0, 0);
    send_bytes(connection, frame, websocket_frame(frame, 1, text, length));
}

static long take(Connection *connection, char *bytes, size_t length) {
    if (connection->role == PUBLISHER) return take_http_answers(connection, bytes, length);
    if (connection->role == STREAM_PUBLISHER) return take_redis_answers(connection, bytes, length);
    long head = 0;
    if (connection->state == HANDSHAKE) {
        head = take_head(connection, bytes, length);
        if (head <= 0) return head;
        send_init(connection);
        if (connection->state == CLOSED) return -1;
    }
    long taken = options.is_sse ? take_event_stream(connection, bytes + head, length - (size_t)head)
                                : take_websocket(connection, bytes + head, length - (size_t)head);
    return taken < 0 ? -1 : head + taken;
}

static void on_readable(Connection *connection) {
    Buffer *input = &connection->input;
    size_t kept = input->length;
    if (kept >= sizeof incoming) {
        note_problem("a message is longer than %zu bytes", sizeof incoming);
        close_connection(connection, false);
        return;
    }
    if (kept) memcpy(incoming, input->bytes, kept);
    ssize_t received = recv(connection->fd, incoming + kept, sizeof incoming - kept, 0);
    if (received <= 0) {
        if (received < 0 && errno == EAGAIN) return;
        note_problem("the server ended a connection: %s", received ? strerror(errno) : "end of stream");
        close_connection(connection, false);
        return;
    }
    counts.bytes += (uint64_t)received;
    size_t length = kept + (size_t)received;
    long taken = take(connection, incoming, length);
    if (taken < 0) return;
    input->length = 0;
    if ((size_t)taken < length) buffer_append(input, incoming + taken, length - (size_t)taken);
    else if (input->bytes) buffer_free(input);
    if (connection->is_slow && connection->state == OPEN) watch(connection, 0, EPOLL_CTL_MOD);
}

void on_events(Connection *connection, uint32_t events) {
    if (connection->state == CONNECTING) {
        connected(connection);
        return;
    }
    if (events & EPOLLOUT) flush_output(connection);
    if (connection->state == CLOSED || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR))) return;
    /* Who does not read learns of the end from the kernel alone. */
    if (connection->is_slow && connection->state == OPEN) close_connection(connection, false);
    else on_readable(connection);
}
