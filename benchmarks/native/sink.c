/* The other side of senders, as cheap as it can be: takes mails over SMTP or messages over HTTP, keeps none, counts all.
   Usage: sink smtp|http PORT. Asked with "COUNT" as the first word of a line or request it answers
   "250 <messages> <bytes> <connections> <most at once>" and, over HTTP, the same numbers in a body. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST = 1 << 16, BYTES = 1 << 20 };

static struct peer {
    char *waiting; /* what came and is not worked off: the beginning of a line, of a mail or of a request */
    size_t length, room;
    int in_message;
} peers[MOST];
static int is_smtp, poller, open_now;
static unsigned long messages, bytes, connections, most_at_once;

static void say(int fd, const char *text) { send(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT); }

static void say_counts(int fd) {
    char line[128], head[256];
    sprintf(line, "250 %lu %lu %lu %lu\r\n", messages, bytes, connections, most_at_once);
    if (!is_smtp) {
        sprintf(head, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(line), line);
        say(fd, head);
    } else say(fd, line);
}

static void forget(int fd) {
    free(peers[fd].waiting);
    memset(&peers[fd], 0, sizeof peers[fd]);
    open_now--;
    close(fd);
}

/* Works off one line or one mail; returns its length, 0 when more of it must come. */
static size_t take_smtp(int fd, const char *text, size_t length) {
    struct peer *peer = &peers[fd];
    if (peer->in_message) {
        const char *end = memmem(text, length, "\r\n.\r\n", 5);
        if (!end) return 0;
        size_t whole = (size_t)(end - text) + 5;
        peer->in_message = 0;
        messages++;
        bytes += whole;
        say(fd, "250 2.0.0 taken\r\n");
        return whole;
    }
    const char *end = memmem(text, length, "\r\n", 2);
    if (!end) return 0;
    if (!strncasecmp(text, "EHLO", 4)) say(fd, "250-sink\r\n250-SIZE 10485760\r\n250-PIPELINING\r\n250 8BITMIME\r\n");
    else if (!strncasecmp(text, "DATA", 4)) {
        peer->in_message = 1;
        say(fd, "354 go on\r\n");
    } else if (!strncasecmp(text, "COUNT", 5)) say_counts(fd);
    else if (!strncasecmp(text, "QUIT", 4)) say(fd, "221 2.0.0 bye\r\n");
    else say(fd, "250 2.0.0 fine\r\n");
    return (size_t)(end - text) + 2;
}

static size_t take_http(int fd, const char *text, size_t length) {
    const char *blank = memmem(text, length, "\r\n\r\n", 4);
    if (!blank) return 0;
    size_t head = (size_t)(blank - text) + 4;
    if (strncmp(text, "POST", 4)) {
        say_counts(fd);
        return head;
    }
    const char *size = strcasestr(text, "content-length:");
    size_t body = size && size < blank ? strtoul(size + 15, NULL, 10) : 0;
    if (head + body > length) return 0;
    messages++;
    bytes += head + body;
    say(fd, "HTTP/1.1 201 Created\r\nLocation: /message/1\r\nContent-Length: 0\r\n\r\n");
    return head + body;
}

static void read_from(int fd) {
    static char fresh[BYTES];
    struct peer *peer = &peers[fd];
    ssize_t received = recv(fd, fresh, sizeof fresh, 0);
    if (received <= 0) {
        if (received == 0 || errno != EAGAIN) forget(fd);
        return;
    }
    if (peer->length + (size_t)received + 1 > peer->room) {
        peer->room = (peer->length + (size_t)received) * 2 + 1;
        peer->waiting = realloc(peer->waiting, peer->room);
    }
    memcpy(peer->waiting + peer->length, fresh, (size_t)received);
    peer->length += (size_t)received;
    peer->waiting[peer->length] = 0; /* for strcasestr */
    size_t at = 0, taken;
    while (at < peer->length) {
        taken = (is_smtp ? take_smtp : take_http)(fd, peer->waiting + at, peer->length - at);
        if (!taken) break;
        at += taken;
    }
    memmove(peer->waiting, peer->waiting + at, peer->length - at);
    peer->length -= at;
}

static void accept_all(int listener) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= MOST) {
            close(fd);
            continue;
        }
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
        connections++;
        if ((unsigned long)++open_now > most_at_once) most_at_once = (unsigned long)open_now;
        if (is_smtp) say(fd, "220 sink ESMTP\r\n");
    }
}

int main(int count, char **given) {
    if (count != 3) return fprintf(stderr, "usage: sink smtp|http PORT\n"), 2;
    is_smtp = !strcmp(given[1], "smtp");
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(given[2]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024)) return perror("sink"), 1;
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[256];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(poller, events, 256, -1);
        for (int index = 0; index < ready; index++) {
            if (events[index].data.fd == listener) accept_all(listener);
            else read_from(events[index].data.fd);
        }
    }
}
