/* What comes from servers: WebSocket frames, event streams, answers to publishers. A delivery is one `"ts":` with
   digits; the moment it names gives the latency. */
#define _GNU_SOURCE
#include "load.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char KEY[] = "\"ts\":";
enum { KEY_LENGTH = sizeof KEY - 1 };

static const char *find(const char *bytes, size_t length, const char *text) { return memmem(bytes, length, text, strlen(text)); }

/* The digits after a key; NULL when the text ends before they do (more may come). */
static const char *delivery(Connection *connection, const char *digits, const char *end) {
    uint64_t sent = 0;
    while (digits < end && (*digits == ' ' || *digits == '"')) digits++;
    while (digits < end && *digits >= '0' && *digits <= '9') sent = sent * 10 + (uint64_t)(*digits++ - '0');
    if (digits == end) return NULL;
    uint64_t now = now_us();
    counts.delivered++;
    connection->received++;
    if (sent) latency_add(now > sent ? now - sent : 0);
    return digits;
}

/* Where the client stands on a channel, from the text after the channel's name in the connect reply. */
static void read_place(Place *place, const char *text, const char *end) {
    const char *brace = memchr(text, '}', (size_t)(end - text));
    if (!brace) return;
    size_t length = (size_t)(brace - text);
    const char *epoch = find(text, length, "\"epoch\":\""), *offset = find(text, length, "\"offset\":");
    place->offset = offset ? strtoull(offset + 9, NULL, 10) : 0;
    if (!epoch) return;
    epoch += 9;
    const char *quote = memchr(epoch, '"', (size_t)(brace - epoch));
    size_t size = quote ? (size_t)(quote - epoch) : 0;
    if (size >= sizeof place->epoch) size = sizeof place->epoch - 1;
    memcpy(place->epoch, epoch, size);
    place->epoch[size] = 0;
}

void client_is_open(Connection *connection, const char *bytes, size_t length) {
    for (int mark = 0; mark < MARKS && options.marks[mark]; mark++) {
        const char *found = find(bytes, length, options.marks[mark]);
        if (found) read_place(&connection->places[mark], found, bytes + length);
    }
    connection->state = OPEN;
    counts.opened++;
    open_clients++;
    if (!connection->is_slow) readers++;
}

static void text_frame(Connection *connection, const char *bytes, size_t length) {
    if (connection->state == GREETING && (!options.ready || find(bytes, length, options.ready)))
        client_is_open(connection, bytes, length);
    const char *at = bytes, *end = bytes + length, *found;
    bool is_delivery = false;
    while ((found = memmem(at, (size_t)(end - at), KEY, KEY_LENGTH))) {
        is_delivery = true;
        at = delivery(connection, found + KEY_LENGTH, end);
        if (!at) break;
    }
    if (!is_delivery && length == 2 && !memcmp(bytes, "{}", 2)) {
        char pong[16];
        counts.pings++;
        send_bytes(connection, pong, websocket_frame(pong, 1, "{}", 2));
    }
}

/* A masked frame; the mask is zero, so that the payload stays as it is. Longer ones than 64 KiB are never sent. */
size_t websocket_frame(char *frame, int opcode, const char *payload, size_t length) {
    size_t at = 0;
    frame[at++] = (char)(0x80 | opcode);
    if (length < 126) frame[at++] = (char)(0x80 | length);
    else {
        frame[at++] = (char)(0x80 | 126);
        frame[at++] = (char)(length >> 8);
        frame[at++] = (char)length;
    }
    memset(frame + at, 0, 4);
    memcpy(frame + at + 4, payload, length);
    return at + 4 + length;
}

long take_websocket(Connection *connection, char *bytes, size_t length) {
    size_t at = 0;
    while (length - at >= 2) {
        const unsigned char *head = (unsigned char *)bytes + at;
        size_t size = head[1] & 127, start = 2;
        if (size == 126) {
            if (length - at < 4) break;
            size = (size_t)head[2] << 8 | head[3];
            start = 4;
        } else if (size == 127) {
            if (length - at < 10) break;
            size = 0;
            for (int index = 2; index < 10; index++) size = size << 8 | head[index];
            start = 10;
        }
        if (length - at < start + size) break;
        char *payload = bytes + at + start;
        int opcode = head[0] & 15;
        if (opcode == 8) {
            int code = size >= 2 ? (unsigned char)payload[0] << 8 | (unsigned char)payload[1] : 0;
            note_problem("closed with %d %.*s", code, size > 2 ? (int)size - 2 : 0, payload + 2);
            close_connection(connection, false);
            return -1;
        }
        if (opcode == 9) {
            char pong[140];
            counts.pings++;
            send_bytes(connection, pong, websocket_frame(pong, 10, payload, size > 125 ? 125 : size));
        } else if (opcode <= 2) text_frame(connection, payload, size);
        if (connection->state == CLOSED) return -1;
        at += start + size;
        if (connection->is_slow && connection->state == OPEN) return (long)at;
    }
    return (long)at;
}

long take_event_stream(Connection *connection, char *bytes, size_t length) {
    if (connection->state == GREETING) {
        if (options.ready && !find(bytes, length, options.ready)) return 0;
        client_is_open(connection, bytes, length);
    }
    const char *at = bytes, *end = bytes + length, *found;
    while ((found = memmem(at, (size_t)(end - at), KEY, KEY_LENGTH))) {
        const char *after = delivery(connection, found + KEY_LENGTH, end);
        if (!after) return found - bytes;
        at = after;
    }
    size_t rest = (size_t)(end - at), kept = rest < KEY_LENGTH ? rest : KEY_LENGTH - 1;
    return (long)(length - kept);
}

static void answered(Connection *publisher, bool is_good, const char *bytes, size_t length) {
    counts.answered++;
    publisher->in_flight--;
    if (is_good) return;
    counts.refused++;
    note_problem("publishing was refused: %.*s", (int)(length < 300 ? length : 300), bytes);
}

static const char *header(const char *head, size_t length, const char *name) {
    const char *at = head, *end = head + length;
    while ((at = memchr(at, '\n', (size_t)(end - at)))) {
        if (!strncasecmp(++at, name, strlen(name))) return at + strlen(name);
    }
    return NULL;
}

long take_http_answers(Connection *publisher, char *bytes, size_t length) {
    size_t at = 0;
    for (;;) {
        const char *answer = bytes + at, *blank = find(answer, length - at, "\r\n\r\n");
        if (!blank) return (long)at;
        size_t head = (size_t)(blank - answer) + 4;
        const char *size = header(answer, head, "content-length:");
        size_t whole = head + (size ? strtoul(size, NULL, 10) : 0);
        if (at + whole > length) return (long)at;
        int status = atoi(answer + 9);
        answered(publisher, status >= 200 && status < 300, answer, whole);
        at += whole;
    }
}

/* XADD answers `$<n>\r\n<id>\r\n`, or `-<error>\r\n`. */
long take_redis_answers(Connection *publisher, char *bytes, size_t length) {
    size_t at = 0;
    for (;;) {
        const char *answer = bytes + at, *line = find(answer, length - at, "\r\n");
        if (!line) return (long)at;
        size_t whole = (size_t)(line - answer) + 2;
        if (*answer == '$') whole += strtoul(answer + 1, NULL, 10) + 2;
        if (at + whole > length) return (long)at;
        answered(publisher, *answer == '$', answer, whole);
        at += whole;
    }
}
