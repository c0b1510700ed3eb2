/* The floor: what a fan-out costs when nothing but send(2) is done. One epoll loop, one handshake, one ready-made frame
   or event, one system call per connection. No queue, no history, no check of anybody. Usage: floor PORT */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST = 1 << 17, BYTES = 1 << 16 };

static int places[MOST], websockets[MOST], streams[MOST], websocket_count, stream_count;
static enum { OTHER, WEBSOCKET, STREAM } kinds[MOST];
static char *waiting[MOST]; /* the beginning of a request that did not come whole */
static int poller;

static void add(int *list, int *count, int fd) {
    places[fd] = *count;
    list[(*count)++] = fd;
}

static void take_out(int *list, int *count, int fd) {
    int last = list[--*count];
    list[places[fd]] = last;
    places[last] = places[fd];
}

static void forget(int fd) {
    if (kinds[fd] == WEBSOCKET) take_out(websockets, &websocket_count, fd);
    if (kinds[fd] == STREAM) take_out(streams, &stream_count, fd);
    kinds[fd] = OTHER;
    free(waiting[fd]);
    waiting[fd] = NULL;
    close(fd);
}

static void send_to(const int *list, int count, const char *bytes, size_t length) {
    for (int index = 0; index < count; index++) send(list[index], bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void broadcast(const char *body, size_t length) {
    static char out[BYTES + 32];
    size_t at = 0;
    if (websocket_count) { /* RFC 6455 section 5.2: a final text frame, not masked */
        out[at++] = (char)0x81;
        if (length < 126) out[at++] = (char)length;
        else {
            out[at++] = 126;
            out[at++] = (char)(length >> 8);
            out[at++] = (char)length;
        }
        memcpy(out + at, body, length);
        send_to(websockets, websocket_count, out, at + length);
    }
    if (stream_count) send_to(streams, stream_count, out, (size_t)sprintf(out, "data: %.*s\n\n", (int)length, body));
}

static void answer(int fd, const char *text) { send(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT); }

/* The load generator always sends RFC 6455's sample key, so its answer is a constant; this server is for no one else. */
static void accept_client(int fd, const char *request) {
    if (strcasestr(request, "upgrade: websocket")) {
        answer(fd, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                   "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
        kinds[fd] = WEBSOCKET;
        add(websockets, &websocket_count, fd);
    } else if (strcasestr(request, "text/event-stream")) {
        answer(fd, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\r\n");
        kinds[fd] = STREAM;
        add(streams, &stream_count, fd);
    } else answer(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
}

/* Answers one request and returns its length; 0 when more of it must come. */
static size_t take_request(int fd, const char *request, size_t length) {
    const char *blank = memmem(request, length, "\r\n\r\n", 4);
    if (!blank) return 0;
    size_t head = (size_t)(blank - request) + 4;
    if (strncmp(request, "POST", 4)) {
        accept_client(fd, request);
        return head;
    }
    const char *size = strcasestr(request, "content-length:");
    size_t body = size && size < blank ? strtoul(size + 15, NULL, 10) : 0;
    if (head + body > length) return 0;
    broadcast(request + head, body);
    answer(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    return head + body;
}

static void read_from(int fd) {
    static char bytes[BYTES + 1];
    size_t kept = waiting[fd] ? strlen(waiting[fd]) : 0, at = 0, taken;
    if (kept) memcpy(bytes, waiting[fd], kept);
    ssize_t received = recv(fd, bytes + kept, BYTES - kept, 0);
    if (received <= 0) {
        if (received == 0 || errno != EAGAIN) forget(fd);
        return;
    }
    size_t length = kept + (size_t)received;
    bytes[length] = 0;
    while (kinds[fd] == OTHER && at < length && (taken = take_request(fd, bytes + at, length - at))) at += taken;
    free(waiting[fd]);
    waiting[fd] = kinds[fd] == OTHER && at < length ? strdup(bytes + at) : NULL;
}

static void accept_all(int listener) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    }
}

int main(int count, char **values) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(count > 1 ? atoi(values[1]) : 0))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) {
        perror("floor");
        return 1;
    }
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[1024];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(poller, events, 1024, -1);
        for (int index = 0; index < ready; index++) {
            if (events[index].data.fd == listener) accept_all(listener);
            else read_from(events[index].data.fd);
        }
    }
}
